"""What both platforms need: the project's code in a folder, and an Airflow like theirs for it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from include.registry.registry import git_commit
from include.settings import BUILT_FROM

REPO = Path(__file__).resolve().parent.parent
TEMPLATES = REPO / "deploy"
INTEGRITY = TEMPLATES / "astro" / "tests" / "dags" / "test_dag_integrity.py"
PYTHON = "3.12"
"""Which both platforms have."""

UV = Path(sys.executable).with_name("uv")


class DeployError(Exception):
    """What stands in the way of a deployment, told to a person."""


def fresh_folder(ready: Path) -> Path:
    """Where to build; what was built before goes, so that nobody deploys it by mistake."""
    building = ready.with_name(f"{ready.name}.unchecked")
    for folder in (ready, building):
        shutil.rmtree(folder, ignore_errors=True)
    return building


def copy_code(name: str, folder: Path) -> None:
    """Copy a folder of the project; the library gets a note of the commit that it is of."""
    copy(REPO / name, folder)
    if name == "include":
        (folder / BUILT_FROM.name).write_text(f"{git_commit()}\n")


def copy(source: Path, folder: Path) -> None:
    """Copy a folder without what Python has left in it."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))


def resolve(wanted: list[str], constraints: Path | None) -> dict[str, str]:
    """Versions of all packages that a platform would install, by name.

    Args:
        wanted: lines of requirements.
        constraints: the platform's own.

    Raises:
        DeployError: they contradict each other.
    """
    command = ["pip", "compile", "--no-header", "--no-annotate", "--python-version", PYTHON]
    command += ["--python-platform", "x86_64-manylinux_2_28", "-"]
    if constraints:
        command += ["--constraints", str(constraints)]
    found = _uv(*command, said="\n".join(wanted))
    if found.returncode:
        under = f" under {constraints}" if constraints else ""
        raise DeployError(
            f"requirements.txt cannot be installed{under}. The platform would install none of it, "
            f"and only a line in a log would say so. Why:\n\n{found.stderr.strip()}\n\n"
            "Change the range that is named, in requirements.txt. Nothing was built."
        )
    lines = (line.partition(" ")[0] for line in found.stdout.splitlines() if "==" in line)
    return dict(line.split("==") for line in lines)


def install(wanted: list[str], versions: dict[str, str], folder: Path) -> str:
    """Install requirements into a fresh environment.

    Python 3.12 is used if it is here or can be fetched, else the one that runs this. A package
    whose version is not made for that one is taken in the newest before it.

    Args:
        wanted: lines of requirements.
        versions: of all packages, as `resolve` found them.
        folder: of the environment.

    Returns:
        What it was that differs from the platform, for a person.

    Raises:
        DeployError: it did not work.
    """
    if _uv("venv", "--python", PYTHON, str(folder)).returncode:
        _must("venv", "--python", sys.executable, str(folder))
    python = str(folder / "bin" / "python")
    limits, names = folder / "limits.txt", folder / "wanted.txt"
    limits.write_text("".join(f"{name}<={version}\n" for name, version in versions.items()))
    names.write_text("\n".join(wanted))
    _must("pip", "install", "--python", python, "-c", str(limits), "-r", str(names))
    installed = dict(
        line.split("==") for line in _must("pip", "freeze", "--python", python).splitlines()
    )
    other = [
        f"{name} {installed[name]}" for name in versions if _differs(name, versions, installed)
    ]
    has = subprocess.run([python, "-V"], check=True, capture_output=True, text=True).stdout.strip()
    if has.startswith(f"Python {PYTHON}."):
        return has
    older = f", and so with {', '.join(other)}" if other else ""
    return f"{has} as {PYTHON} is not here{older}"


def run_isolated(command: list[str], home: Path, built: Path, **variables: str) -> str:
    """Run a command with nothing of this shell's Airflow, Python or settings.

    Args:
        command: program and arguments.
        home: of Airflow.
        built: the folder that is tried, to be named if it fails.
        variables: of the environment, beside the shell's others.

    Raises:
        DeployError: it failed.
    """
    dropped = ("AIRFLOW", "ML_", "MLFLOW_", "PYTHON", "PYTEST", "VIRTUAL_ENV")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    variables = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",  # no file of bytecode is there yet
        **variables,
    }
    done = subprocess.run(
        command, cwd=home, env=inherited | variables, capture_output=True, text=True
    )
    if done.returncode:
        raise DeployError(
            f"What was built does not run where it is to be deployed: it is in {built} for you to "
            f"look at, and not ready to go.\n\n{(done.stdout + done.stderr).strip()}"
        )
    return done.stdout


def canonical(name: str) -> str:
    """A package's name as packages are compared by."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _differs(name: str, versions: dict[str, str], installed: dict[str, str]) -> bool:
    return name in installed and installed[name] != versions[name]


def _uv(*arguments: str, said: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(UV), *arguments, "--quiet"]
    return subprocess.run(command, cwd=REPO, input=said, capture_output=True, text=True)


def _must(*arguments: str) -> str:
    done = _uv(*arguments)
    if done.returncode:
        raise DeployError(
            f"A fresh Airflow could not be installed, so nothing was checked and nothing is ready "
            f"to be deployed:\n\n{done.stderr.strip()}"
        )
    return done.stdout
