"""An upload to MWAA goes live whole, or leaves what was live, and says which of the two."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ConnectionClosedError

from deploy import package, upload
from deploy.package import DeployError
from deploy.upload import LIVE, STAGED, Bucket

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


def restore(bucket: Bucket) -> None:
    bucket.client.meta.events.unregister("before-send.s3", unique_id="cut")


def what_goes_live(
    bucket: Bucket, put: Callable[..., dict[str, str]]
) -> dict[int, tuple[str, str]]:
    """Which requests of an update from the old files to the new change live ones, and how."""
    put(OLD)
    sent = cut(bucket, NEVER)
    put(NEW)
    restore(bucket)
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
        with pytest.raises(DeployError, match="Its live dags/ is unchanged"):
            put(NEW, settings=f"export NUMBER={request}\n")
        restore(bucket)
        assert live(bucket) == OLD


def test_a_request_that_is_lost_while_it_goes_live_is_answered_by_putting_the_old_back(
    bucket: Bucket, put: Callable[..., dict[str, str]]
) -> None:
    for request in what_goes_live(bucket, put):
        put(OLD)
        cut(bucket, request, request)
        with pytest.raises(DeployError, match="Its live dags/ is unchanged"):
            put(NEW)
        restore(bucket)
        assert live(bucket) == OLD


def test_a_connection_lost_while_going_live_is_reported_and_the_next_upload_completes_it(
    bucket: Bucket, put: Callable[..., dict[str, str]]
) -> None:
    third = list(what_goes_live(bucket, put))[2]
    put(OLD)
    cut(bucket, third)
    with pytest.raises(DeployError, match=r"HALF NEW.*include/added.py.*Deploy again"):
        put(NEW)
    restore(bucket)
    bucket.undo.clear()  # the next one is another process
    put(NEW)
    assert live(bucket) == NEW


def test_a_bucket_that_does_not_exist_is_named(
    s3: Any, bucket: Bucket, put: Callable[..., dict[str, str]]
) -> None:
    bucket.name = "no-such-bucket"
    with pytest.raises(DeployError, match=r"s3://no-such-bucket/team/(.|\n)*does not exist"):
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
    with pytest.raises(DeployError, match=r"still has CHANGE-ME.*Nothing was uploaded"):
        put(NEW, settings=template)
    assert live(bucket) == {}


def test_what_was_not_built_is_not_uploaded(
    s3: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(upload, "DIST", Path("no/such/folder"))
    monkeypatch.setattr(sys, "argv", ["upload", "bucket"])
    assert upload.main() == 1
    said = "no dist/mwaa that has passed its checks: make mwaa first"
    assert said in capsys.readouterr().err
