"""What MWAA and Astro are built from: resolved requirements, the commit, tests of the build."""

import sys
from pathlib import Path

import pytest

from deploy import package
from deploy.package import DeployError
from include.registry import registry
from include.registry.registry import git_commit


def test_a_constraint_that_contradicts_a_requirement_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("pandas==2.1.4\n")
    with pytest.raises(DeployError) as error:
        package.resolve(["pandas>=3.0"], constraints)
    assert "pandas==2.1.4" in str(error.value)
    assert "pandas>=3.0" in str(error.value)
    assert str(constraints) in str(error.value)


def test_a_build_that_fails_leaves_nothing_to_deploy(tmp_path: Path) -> None:
    ready = tmp_path / "mwaa"
    ready.mkdir()
    building = package.fresh_folder(ready)
    assert not ready.exists()
    assert not building.exists()


def test_a_build_notes_its_commit_where_there_will_be_no_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = git_commit()
    package.copy_code("include", tmp_path / "include")
    monkeypatch.setattr(registry, "BUILT_FROM", tmp_path / "include" / "COMMIT")
    monkeypatch.setattr(registry, "PROJECT", tmp_path)
    assert git_commit() == commit != "unknown"


PROJECT = {
    "dags/dag.py": "from airflow.sdk import DAG\nwith DAG('one'):\n    pass\n",
    "plugins/plugin.py": "from airflow.plugins_manager import AirflowPlugin\n"
    "class Plugin(AirflowPlugin):\n    name = 'one'\n",
    "include/__init__.py": "",
}


BROKEN = {
    "dags/dag.py": "from airflow.sdk import DAG\nimport not_for_dags\n",
    "plugins/plugin.py": "import not_for_plugins\n",
    "include/lazy.py": "def task():\n    import not_for_tasks\n",
}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ["3 passed"]),
        ({"dags/no_dag.py": "from airflow.sdk import DAG\n"}, ["no_dag.py", "2 passed"]),
        (BROKEN, ["not_for_dags", "not_for_plugins", "not_for_tasks", "3 failed"]),
    ],
    ids=["fine", "no DAG", "broken"],
)
def test_a_project_finds_what_would_not_run_where_it_was_deployed_to(
    changed: dict[str, str], said: list[str], tmp_path: Path
) -> None:
    for name, text in {**PROJECT, **changed}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(package.INTEGRITY)]
    try:
        found = package.run_isolated(command, tmp_path, tmp_path, PYTHONPATH=str(tmp_path))
    except DeployError as error:
        found = str(error)
    assert [word for word in said if word not in found] == [], found
