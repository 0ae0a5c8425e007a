"""What `make mwaa` builds for Amazon MWAA; the command tries it in a fresh environment too."""

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deploy import mwaa, package
from include.usecases import OWN


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"apache-airflow": "3.3.1", "pandas": "3.0.5", "circuit_breaker": "2.1.3"}
    monkeypatch.setattr(package, "resolve", lambda wanted, constraints: versions)


@pytest.fixture
def built(resolved: None, tmp_path: Path) -> Path:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("# of MWAA\npandas==3.0.5\n")
    mwaa.build(tmp_path / "mwaa", constraints)
    return tmp_path / "mwaa"


def test_mwaa_gets_the_dags_with_the_library_inside_and_nothing_else_of_the_repo(
    built: Path,
) -> None:
    assert sorted(path.name for path in built.iterdir()) == [
        "dags", "plugins.zip", "requirements.txt", "startup.sh",
    ]  # fmt: skip
    dags = {path.relative_to(built / "dags").as_posix() for path in (built / "dags").rglob("*.*")}
    models = {f"include/usecases/{path.parent.name}/models.py" for path in OWN.glob("*/models.py")}
    assert {"model_monitoring.py", ".airflowignore", *models} <= dags
    assert "include/templates/monitoring_report.html" in dags
    assert not [path for path in dags if "__pycache__" in path]
    assert {path.split("/")[0] for path in dags if "/" in path} == {"include"}


def test_plugins_find_the_library_in_dags(built: Path) -> None:
    home = built.parent / "airflow"
    package.copy(built / "dags", home / "dags")
    zipfile.ZipFile(built / "plugins.zip").extractall(home / "plugins")
    program = "import airflow.settings as s; s.initialize(); import include.errors as e, include;"
    program += "print(e.__file__, *include.__path__)"
    said = package.run_isolated([sys.executable, "-I", "-c", program], home, built)
    folder = str(home / "dags" / "include")
    assert said.split()[-2:] == [f"{folder}/errors.py", folder]


@pytest.mark.parametrize(
    ("dags", "home"),
    [
        ([], "plugins/include/as_built"),
        (["include/errors.py"], "plugins/include/as_built"),
        (["dag.py"], "dags/include"),
        (["dag.py", "include/errors.py"], "dags/include"),
    ],
    ids=["nothing", "no DAG file yet", "no library yet", "both"],
)
def test_the_copy_in_plugins_is_only_for_processes_without_dag_files(
    dags: list[str], home: str, built: Path
) -> None:
    """Else a task could run with a library that is older than its DAG file."""
    zipfile.ZipFile(built / "plugins.zip").extractall(built / "plugins")
    shutil.rmtree(built / "dags")
    for name in dags:
        (built / "dags" / name).parent.mkdir(parents=True, exist_ok=True)
        (built / "dags" / name).touch()
    program = "import include; print(*include.__path__)"
    path = str(built / "plugins")
    said = package.run_isolated([sys.executable, "-c", program], built, built, PYTHONPATH=path)
    assert said.split()[-1] == str(built / home)
    copied = sorted(path.name for path in (built / "plugins/include/as_built").iterdir())
    assert {"COMMIT", "lake", "templates", "usecases"} <= set(copied)


def test_the_same_plugins_make_the_same_bytes(built: Path, tmp_path: Path) -> None:
    mwaa.write_plugins(tmp_path / "again.zip", built / "dags" / "include")
    assert (tmp_path / "again.zip").read_bytes() == (built / "plugins.zip").read_bytes()


def test_what_no_constraint_holds_is_pinned_and_no_comment_is_left(built: Path) -> None:
    lines = (built / "requirements.txt").read_text().splitlines()
    assert "circuit_breaker==2.1.3" in lines
    assert "pandas>=3.0,<4" in lines, "the constraints choose"
    assert "pandas==3.0.5" not in lines
    assert not [line for line in lines[1:] if "#" in line]
    assert not [line for line in lines if "-c " in line], "MWAA would leave its constraints out"


def test_a_missing_constraints_file_is_reported_with_where_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["mwaa", "--constraints", "no/file"])
    assert mwaa.main() == 1
    assert f"no file no/file. Get it from {mwaa.CONSTRAINTS_URL}" in capsys.readouterr().err


def test_the_startup_script_is_a_script_and_the_library_is_parsed_by_no_one() -> None:
    startup = package.TEMPLATES / "mwaa" / "startup.sh"
    assert subprocess.run(["sh", "-n", startup], check=False).returncode == 0
    assert ast.parse((package.TEMPLATES / "mwaa" / "include_in_plugins.py").read_text())
