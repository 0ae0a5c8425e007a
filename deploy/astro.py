"""Builds a complete Astro project in `dist/astro`, and runs its tests in an Airflow like Astro's.

python -m deploy.astro
"""

import sys
import tempfile
from pathlib import Path

from deploy import package
from deploy.package import REPO, TEMPLATES, DeployError

AIRFLOW = "3.3.2"
"""Version in the runtime that `deploy/astro/Dockerfile` names."""

ADDED = "apache-airflow-providers-amazon"
"""Provides the connections for a lake on S3. MWAA has it; the runtime does not."""

DIST = REPO / "dist" / "astro"


def build(folder: Path) -> None:
    """Write the project to a new folder."""
    package.copy(TEMPLATES / "astro", folder)
    for name in ("dags", "include", "plugins"):
        package.copy_code(name, folder / name)
    own = (REPO / "requirements.txt").read_text()
    (folder / "requirements.txt").write_text(f"{own}{ADDED}  # connections of a lake on s3://\n")


def check(folder: Path) -> str:
    """Run the project's tests as Astro would. Returns the environment, for people.

    Raises:
        DeployError: its requirements contradict each other, or a test failed.
    """
    wanted = [f"apache-airflow=={AIRFLOW}", "pytest", f"-r {folder / 'requirements.txt'}"]
    versions = package.resolve(wanted, None)
    with tempfile.TemporaryDirectory() as scratch:
        environment, home = Path(scratch) / "venv", Path(scratch) / "airflow"
        with_what = package.install(wanted, versions, environment)
        package.copy(folder, home)
        command = [str(environment / "bin" / "python"), "-m", "pytest", "-q", "tests/dags"]
        package.run_isolated(command, home, folder, PYTHONPATH=str(home))
    return f"Airflow {AIRFLOW} and {with_what}"


def main() -> int:
    """Build, check, and print the result."""
    try:
        built = package.fresh_folder(DIST)
        build(built)
        with_what = check(built)
        built.rename(DIST)
    except DeployError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"dist/astro is ready. Its tests pass with {with_what}. Now: cd dist/astro && astro deploy"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
