"""Build what Amazon MWAA takes from S3, into `dist/mwaa`, and try it in an Airflow like MWAA's.

python -m deploy.mwaa --constraints file

- `dags/`: the DAG files, the library in `include/`, and an `.airflowignore` that keeps Airflow from
  looking for DAGs in it.
- `plugins.zip`: the plugins, a signpost to the library, and a copy of it for who has no `dags/`
  (see `deploy/mwaa/include_in_plugins.py`).
- `requirements.txt`: those of the project. What MWAA's constraints leave open is pinned to what was
  tried here, so that a worker that starts next year gets the same.
- `startup.sh`: the settings.
"""

import argparse
import re
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from deploy import package
from deploy.package import REPO, TEMPLATES, DeployError

AIRFLOW = "3.3.1"
"""The newest on MWAA."""

BROUGHT = [f"apache-airflow=={AIRFLOW}", "apache-airflow-providers-amazon"]
"""What MWAA has installed already."""

DIST = REPO / "dist" / "mwaa"
CONSTRAINTS_URL = (
    f"https://raw.githubusercontent.com/apache/airflow/constraints-{AIRFLOW}/"
    f"constraints-{package.PYTHON}.txt"
)


def build(folder: Path, constraints: Path | None) -> dict[str, str]:
    """Write into a new folder all that goes to S3.

    Returns:
        The versions of all packages that MWAA will have.

    Raises:
        DeployError: a requirement contradicts another one, or MWAA's constraints.
    """
    versions = package.resolve([*BROUGHT, "-r requirements.txt"], constraints)
    folder.mkdir(parents=True)
    package.copy_code("dags", folder / "dags")
    package.copy_code("include", folder / "dags" / "include")
    (folder / "dags" / ".airflowignore").write_text("include/\n")
    pins = pins_beside(constraints, versions) if constraints else []
    (folder / "requirements.txt").write_text(requirements(pins))
    (folder / "startup.sh").write_bytes((TEMPLATES / "mwaa" / "startup.sh").read_bytes())
    write_plugins(folder / "plugins.zip", folder / "dags" / "include")
    return versions


def pins_beside(constraints: Path, versions: dict[str, str]) -> list[str]:
    """Lines that pin those packages of which the constraints say nothing."""
    lines = constraints.read_text().splitlines()
    known = {package.canonical(re.split("[=<>!~;\\s]", line)[0]) for line in lines}
    return [
        f"{name}=={version}"
        for name, version in versions.items()
        if package.canonical(name) not in known and not name.startswith("apache-airflow")
    ]


def requirements(pins: list[str]) -> str:
    """The project's requirements with more lines, and without comments.

    A comment in which MWAA saw `-c ` would make it leave its constraints out.
    """
    lines = (REPO / "requirements.txt").read_text().splitlines()
    own = [line.partition("#")[0].strip() for line in lines]
    head = "# Made by make mwaa: the requirements, then pins for what no constraint holds."
    return "\n".join([head, *filter(None, own), *pins]) + "\n"


def write_plugins(archive: Path, library: Path) -> None:
    """Zip plugins and library; the same make the same bytes, so that a change can be seen."""
    files = {file.name: file.read_bytes() for file in (REPO / "plugins").glob("*.py")}
    files["include/__init__.py"] = (TEMPLATES / "mwaa" / "include_in_plugins.py").read_bytes()
    for file in filter(Path.is_file, library.rglob("*")):
        files[f"include/as_built/{file.relative_to(library).as_posix()}"] = file.read_bytes()
    files[".airflowignore"] = b"include/\n"  # it is no plugin
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o644 << 16
            zipped.writestr(entry, content)


def check(folder: Path, versions: dict[str, str]) -> list[str]:
    """Import all DAGs and plugins as MWAA would.

    Returns:
        What was checked, and with what, for a person.

    Raises:
        DeployError: something cannot be imported.
    """
    with tempfile.TemporaryDirectory() as scratch:
        environment, home = Path(scratch) / "venv", Path(scratch) / "airflow"
        with_what = package.install(
            [*BROUGHT, f"-r {REPO / 'requirements.txt'}"], versions, environment
        )
        package.copy(folder / "dags", home / "dags")
        zipfile.ZipFile(folder / "plugins.zip").extractall(home / "plugins")
        command = [str(environment / "bin" / "python"), "-I", str(package.INTEGRITY)]
        checked = package.run_isolated(command, home, folder).splitlines()
        shutil.rmtree(home / "dags")  # which the web server may lack
        _, plugins, imported = package.run_isolated(command, home, folder).splitlines()
    return [
        *checked,
        f"without dags/ {plugins} and {imported}",
        f"with Airflow {AIRFLOW} and {with_what}",
    ]


def main() -> int:
    """Build, check, and say what is ready."""
    parser = argparse.ArgumentParser(prog="python -m deploy.mwaa", description=main.__doc__)
    parser.add_argument("--constraints", type=Path, help="the file of MWAA's own versions")
    constraints: Path | None = parser.parse_args().constraints
    try:
        if constraints and not constraints.is_file():
            raise DeployError(f"There is no file {constraints}. Get it from {CONSTRAINTS_URL}")
        built = package.fresh_folder(DIST)
        versions = build(built, constraints)
        checked = check(built, versions)
        built.rename(DIST)
    except DeployError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"dist/mwaa is ready. Imported as MWAA does: {', '.join(checked)}.")
    if constraints:
        print(f"requirements.txt resolves for Python {package.PYTHON} under {constraints}.")
    else:
        print(
            "NOT CHECKED: whether requirements.txt fits the versions that MWAA forces. If it does "
            "not, MWAA installs none of it and only writes a line into a log. Get the file from\n"
            f"    {CONSTRAINTS_URL}\nand say make mwaa CONSTRAINTS=file. It also pins what no "
            "constraint holds, which is open now.",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
