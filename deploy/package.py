"""Shared by both platforms: the project's code in a folder, and an Airflow to test it."""

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
"""Python version of both platforms."""

UV = Path(sys.executable).with_name("uv")


class DeployError(Exception):
    """The reason why a deployment is impossible, for people."""


def fresh_folder(ready: Path) -> Path:
    """A folder to build in; an earlier build is deleted, so that it is not deployed by mistake."""
    building = ready.with_name(f"{ready.name}.unchecked")
    for folder in (ready, building):
        shutil.rmtree(folder, ignore_errors=True)
    return building


def copy_code(name: str, folder: Path) -> None:
    """Copy a folder of the project; the library gets a file with its commit."""
    copy(REPO / name, folder)
    if name == "include":
        (folder / BUILT_FROM.name).write_text(f"{git_commit()}\n")


def copy(source: Path, folder: Path) -> None:
    """Copy a folder without Python's bytecode."""
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
            f"requirements.txt cannot be installed{under}. The platform would install nothing, "
            f"and only write a line to a log. Why:\n\n{found.stderr.strip()}\n\n"
            "Change this range in requirements.txt. Nothing was built."
        )
    lines = (line.partition(" ")[0] for line in found.stdout.splitlines() if "==" in line)
    return dict(line.split("==") for line in lines)


def install(wanted: list[str], versions: dict[str, str], folder: Path) -> str:
    """Install requirements into a fresh environment.

    Python 3.12 is used if it is installed or can be downloaded, else the Python that runs this. If
    a package's version does not support that Python, the newest one before it is installed.

    Args:
        wanted: lines of requirements.
        versions: versions of all packages, from `resolve`.
        folder: folder of the environment.

    Returns:
        Differences from the platform, for people.

    Raises:
        DeployError: the installation failed.
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
    """Run a command without this shell's variables for Airflow, Python and settings.

    Args:
        command: program and arguments.
        home: Airflow's home.
        built: the tested folder, named if the command fails.
        variables: additional environment variables.

    Raises:
        DeployError: the command failed.
    """
    dropped = ("AIRFLOW", "ML_", "MLFLOW_", "PYTHON", "PYTEST", "VIRTUAL_ENV")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    variables = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",  # there are no bytecode files yet
        **variables,
    }
    done = subprocess.run(
        command, cwd=home, env=inherited | variables, capture_output=True, text=True
    )
    if done.returncode:
        raise DeployError(
            f"The build does not run in the platform's environment. It is in {built} for you to "
            f"look at, and not ready to deploy.\n\n{(done.stdout + done.stderr).strip()}"
        )
    return done.stdout


def canonical(name: str) -> str:
    """A package's normalized name."""
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
            f"to deploy:\n\n{done.stderr.strip()}"
        )
    return done.stdout
