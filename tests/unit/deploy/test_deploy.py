"""What goes to MWAA and Astro. `make mwaa` and `make astro` try it in fresh environments too."""

import ast
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ConnectionClosedError

from deploy import astro, mwaa, package, upload
from deploy.package import DeployError
from deploy.upload import LIVE, STAGED, Bucket
from include.registry import registry
from include.registry.registry import git_commit

OLD = {
    ".airflowignore": "include/\n",
    "same.py": "dag",
    "changed.py": "old",
    "gone.py": "old",
    "include/__init__.py": "",
    "include/changed.py": "old",
    "include/gone.py": "old",
}
NEW = {
    ".airflowignore": "include/\n",
    "same.py": "dag",
    "changed.py": "new",
    "added.py": "new",
    "include/__init__.py": "",
    "include/changed.py": "new",
    "include/added.py": "new",
}


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
    assert {
        "model_monitoring.py",
        "include/usecases/flight_delays/models.py",
        ".airflowignore",
    } <= dags
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
def test_the_copy_in_plugins_is_only_for_who_has_no_dag_files(
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


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        (
            mwaa,
            ["--constraints", "no/file"],
            f"no file no/file. Get it from {mwaa.CONSTRAINTS_URL}",
        ),
        (upload, ["bucket"], "no dist/mwaa that has passed its checks: make mwaa first"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(
    command: Any,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    s3: Any,
) -> None:
    monkeypatch.setattr(upload, "DIST", Path("no/such/folder"))
    monkeypatch.setattr(sys, "argv", [command.__name__, *arguments])
    assert command.main() == 1
    assert said in capsys.readouterr().err


def test_an_astro_project_is_complete_and_leaves_airflow_to_the_runtime(tmp_path: Path) -> None:
    folder = tmp_path / "astro"
    astro.build(folder)
    assert {path.name for path in folder.iterdir()} == {
        ".astro", ".dockerignore", "Dockerfile", "dags", "include", "packages.txt", "plugins",
        "requirements.txt", "tests",
    }  # fmt: skip
    wanted = (folder / "requirements.txt").read_text()
    assert "apache-airflow=" not in wanted
    assert "\napache-airflow-providers-amazon " in wanted
    assert (folder / "Dockerfile").read_text().count("FROM ") == 1


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


@pytest.fixture
def s3(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in {**s3_server, "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, value)
    return boto3.client("s3")


@pytest.fixture
def bucket(s3: Any) -> Iterator[Bucket]:
    """An environment's bucket, in which the old deployment and somebody else's DAG are live."""
    name = f"mwaa-{uuid4().hex}"
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    yield Bucket(s3, name, "team/")
    s3.delete_bucket_policy(Bucket=name)


@pytest.fixture
def put(bucket: Bucket, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Upload a project of a few files."""

    def deploy(files: dict[str, str], settings: str = "export ML_LAKE_ROOT=s3://lake\n"):
        folder = tmp_path / uuid4().hex
        for name, text in files.items():
            path = folder / "dags" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for name in upload.OTHERS:
            (folder / name).write_text(settings)
        return upload.upload(folder, bucket)

    return deploy


def live(bucket: Bucket) -> dict[str, str]:
    """All that MWAA would see."""
    start = f"{bucket.prefix}{LIVE}"
    listed = bucket.client.list_objects_v2(Bucket=bucket.name, Prefix=start).get("Contents", [])
    files = [entry["Key"].removeprefix(start) for entry in listed]
    return {file: (bucket.read(LIVE + file) or b"").decode() for file in files}


NEVER = 10**6


def cut(bucket: Bucket, first: int, last: float = float("inf")) -> list[str]:
    """From its `first` to its `last` request, whatever the client sends is lost.

    Returns all that is sent from now on.
    """
    sent: list[str] = []

    def lose(request: Any, **_: Any) -> None:
        sent.append(f"{request.method} {request.url}")
        if first <= len(sent) <= last:
            raise ConnectionClosedError(endpoint_url=request.url)

    bucket.client.meta.events.register("before-send.s3", lose, unique_id="cut")
    return sent


def mend(bucket: Bucket) -> None:
    bucket.client.meta.events.unregister("before-send.s3", unique_id="cut")


def what_goes_live(
    bucket: Bucket, put: Callable[..., dict[str, str]]
) -> dict[int, tuple[str, str]]:
    """Which requests of an update from the old files to the new change live ones, and how."""
    put(OLD)
    sent = cut(bucket, NEVER)
    put(NEW)
    mend(bucket)
    return {
        number: (request.split()[0], request.partition(f"/team/{LIVE}")[2])
        for number, request in enumerate(sent, start=1)
        if f"/team/{LIVE}" in request and "GET" not in request and upload.PROBE not in request
    }


def test_a_deployment_replaces_its_own_files_and_leaves_those_of_others(
    bucket: Bucket, put: Callable[..., dict[str, str]]
) -> None:
    put(OLD)
    bucket.write(f"{LIVE}somebody_elses.py", b"dag")
    versions = put(NEW)
    assert live(bucket) == {**NEW, "somebody_elses.py": "dag"}
    assert sorted(versions) == sorted(upload.OTHERS)
    assert all(versions.values()), "the environment has to be told them"
    left = bucket.client.list_objects_v2(Bucket=bucket.name, Prefix=f"{bucket.prefix}{STAGED}")
    assert left["KeyCount"] == 0


def test_files_that_are_the_same_are_not_touched(
    bucket: Bucket, put: Callable[..., dict[str, str]]
) -> None:
    versions = put(OLD)
    sent = cut(bucket, NEVER)
    assert put(OLD) == versions
    assert {request.split()[0] for request in sent} == {"GET"}


def test_dag_files_go_live_after_the_library_and_deletions_last(
    bucket: Bucket, put: Callable[..., dict[str, str]]
) -> None:
    changes = list(what_goes_live(bucket, put).values())
    assert changes[:4] == [
        ("PUT", "include/added.py"), ("PUT", "include/changed.py"),
        ("PUT", "added.py"), ("PUT", "changed.py"),
    ]  # fmt: skip
    assert sorted(changes[4:]) == [("DELETE", "gone.py"), ("DELETE", "include/gone.py")]


def test_an_upload_that_is_cut_off_anywhere_before_it_goes_live_changes_nothing_live(
    bucket: Bucket, put: Callable[..., dict[str, str]]
) -> None:
    for request in range(1, min(what_goes_live(bucket, put))):
        put(OLD)
        cut(bucket, request)
        with pytest.raises(DeployError, match="Its live dags/ is what it was before"):
            put(NEW, settings=f"export NUMBER={request}\n")
        mend(bucket)
        assert live(bucket) == OLD


def test_a_request_that_is_lost_while_it_goes_live_is_answered_by_putting_the_old_back(
    bucket: Bucket, put: Callable[..., dict[str, str]]
) -> None:
    for request in what_goes_live(bucket, put):
        put(OLD)
        cut(bucket, request, request)
        with pytest.raises(DeployError, match="Its live dags/ is what it was before"):
            put(NEW)
        mend(bucket)
        assert live(bucket) == OLD


def test_a_connection_that_is_gone_while_it_goes_live_is_said_and_completed_by_the_next(
    bucket: Bucket, put: Callable[..., dict[str, str]]
) -> None:
    third = list(what_goes_live(bucket, put))[2]
    put(OLD)
    cut(bucket, third)
    with pytest.raises(DeployError, match=r"HALF NEW.*include/added.py.*Deploy again"):
        put(NEW)
    mend(bucket)
    bucket.undo.clear()  # the next one is another process
    put(NEW)
    assert live(bucket) == NEW


def test_a_bucket_that_does_not_exist_is_named(
    s3: Any, bucket: Bucket, put: Callable[..., dict[str, str]]
) -> None:
    bucket.name = "no-such-bucket"
    with pytest.raises(DeployError, match=r"s3://no-such-bucket/team/(.|\n)*no such bucket"):
        put(NEW)
    bucket.name = "bucket"


@pytest.mark.parametrize("action", ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"])
def test_without_rights_nothing_live_changes_and_the_rights_are_named(
    action: str, bucket: Bucket, put: Callable[..., dict[str, str]]
) -> None:
    put(OLD)
    everything = f"arn:aws:s3:::{bucket.name}/*"
    deny = {"Effect": "Deny", "Principal": "*", "Action": action, "Resource": everything}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    bucket.client.put_bucket_policy(Bucket=bucket.name, Policy=policy)
    with pytest.raises(DeployError, match=r"(.|\n)*You lack rights there.*s3:DeleteObject"):
        put(NEW)
    bucket.client.delete_bucket_policy(Bucket=bucket.name)
    assert live(bucket) == OLD


def test_settings_that_were_never_filled_in_are_not_uploaded(
    bucket: Bucket, put: Callable[..., dict[str, str]]
) -> None:
    template = (package.TEMPLATES / "mwaa" / "startup.sh").read_text()
    with pytest.raises(DeployError, match=r"still says CHANGE-ME.*Nothing was uploaded"):
        put(NEW, settings=template)
    assert live(bucket) == {}


def test_the_startup_script_is_a_script_and_the_library_is_parsed_by_no_one() -> None:
    startup = package.TEMPLATES / "mwaa" / "startup.sh"
    assert subprocess.run(["sh", "-n", startup], check=False).returncode == 0
    assert ast.parse((package.TEMPLATES / "mwaa" / "include_in_plugins.py").read_text())
