"""What is particular to a lake on S3: it can be away, lack its bucket or refuse, and others write.

None of that may look as if nothing was published, nor as what was there a moment ago.
"""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import boto3
import httpx
import numpy as np
import polars as pl
import pytest

from include.errors import DependencyDown
from include.lake.files import exists, list_folder, open_parquet, put_text, read_text
from include.lake.tables import Lake
from include.monitoring import history, stages
from include.monitoring.history import Figure
from include.monitoring.page import health
from include.validation import contract, land
from local import seed
from local.environment import REPO
from local.in_process import validate_day
from tests.case import at
from tests.unit.conftest import History

DAY = "2013-03-01"
NOW = datetime(2013, 3, 2, tzinfo=UTC)


def publish(lake: Lake, content: int = 1) -> None:
    version = lake.new_version("table", DAY)
    version.write_frame("a", pl.DataFrame({"content": [content] * 10}))
    version.publish(["a"])


def text(lake: Lake) -> Any:
    return lake.root / "folder" / "note.txt"


LOOKS: dict[str, Callable[[Lake], object]] = {
    "a manifest": lambda lake: lake.manifest("table", DAY),
    "the current version": lambda lake: lake.current("table", DAY),
    "published days": lambda lake: list(lake.published_keys("table")),
    "a folder": lambda lake: list_folder(lake.root / "table"),
    "whether a file is there": lambda lake: exists(text(lake)),
    "a text": lambda lake: read_text(text(lake)),
    "a part": lambda lake: open_parquet(lake.landing_path("flights", DAY)),
    "what has landed": lambda lake: contract.check_contract(at(lake), "validated", DAY),
    "the history": lambda lake: history.read(at(lake), DAY, 3),
    "the stages": lambda lake: stages.rates(at(lake), NOW),
}
CHANGES: dict[str, Callable[[Lake], object]] = {
    "publishing": publish,
    "a text": lambda lake: put_text(text(lake), "text"),
    "landing": lambda lake: land.land(at(lake), "validated", DAY),
    "the history": lambda lake: history.append(at(lake), DAY, [Figure("p", "m", 1)]),
}


@pytest.fixture
def connect(
    s3_root: str, s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Lake]:
    """The lake by a connection of its own, with other credentials or another address."""

    def lake_as(name: str, bucket: str = "bucket", url: str = "", **credentials: str) -> Lake:
        connection = json.loads(s3_server["AIRFLOW_CONN_LAKE_TEST"]) | credentials
        connection["extra"]["endpoint_url"] = url or s3_server["AWS_ENDPOINT_URL"]
        folder = s3_root.rsplit("/", 1)[1]
        conn_id = f"{name}_{folder}"  # Airflow keeps its clients by their names
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
        return Lake(f"s3://{conn_id}@{bucket}/{folder}")

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    return lake_as


@pytest.fixture
def user(
    s3_server: dict[str, str], connect: Callable[..., Lake]
) -> Iterator[Callable[..., tuple[Lake, Callable[[], None]]]]:
    """Make users with rights, and have the server ask for them. Gives each one's lake.

    The second thing that it gives takes the user's rights away.
    """
    iam = boto3.client("iam")
    ask = f"{s3_server['AWS_ENDPOINT_URL']}/moto-api/reset-auth"

    def make(name: str, *actions: str) -> tuple[Lake, Callable[[], None]]:
        httpx.post(ask, content="inf", trust_env=False)
        iam.create_user(UserName=name)
        if actions:
            allow = {"Effect": "Allow", "Action": actions, "Resource": "*"}
            policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
            iam.put_user_policy(UserName=name, PolicyName="rights", PolicyDocument=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        httpx.post(ask, content="0", trust_env=False).raise_for_status()

        def revoke() -> None:
            httpx.post(ask, content="inf", trust_env=False)
            iam.delete_user_policy(UserName=name, PolicyName="rights")
            httpx.post(ask, content="0", trust_env=False)

        made.append((name, key["AccessKeyId"]))
        login = {"login": key["AccessKeyId"], "password": key["SecretAccessKey"]}
        return connect(name, **login), revoke

    made: list[tuple[str, str]] = []
    yield make
    httpx.post(ask, content="inf", trust_env=False)
    for name, key in made:
        iam.delete_access_key(UserName=name, AccessKeyId=key)
        for policy in iam.list_user_policies(UserName=name)["PolicyNames"]:
            iam.delete_user_policy(UserName=name, PolicyName=policy)
        iam.delete_user(UserName=name)


@pytest.fixture(params=["no bucket", "no rights", "no server"])
def faulty(request: pytest.FixtureRequest, s3_root: str) -> tuple[Lake, str]:
    """A lake that cannot be used, though days are published at its place, and what S3 says."""
    publish(Lake(s3_root))
    if request.param == "no rights":
        return request.getfixturevalue("user")("nobody")[0], r"Access Denied|Forbidden"
    connect = request.getfixturevalue("connect")
    if request.param == "no bucket":
        return connect("lost", bucket="no-such-bucket"), "bucket does not exist"
    port = request.getfixturevalue("unused_port")
    return connect("away", url=f"http://127.0.0.1:{port}"), "Could not connect"


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_a_lake_that_cannot_be_read_never_looks_empty(
    faulty: tuple[Lake, str], look: Callable[[Lake], object]
) -> None:
    lake, said = faulty
    with pytest.raises(DependencyDown, match=said) as failure:
        look(lake)
    assert_tells_all(failure.value, lake)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_lake_that_cannot_be_written_is_a_dependency_that_is_down(
    faulty: tuple[Lake, str], change: Callable[[Lake], object], s3_root: str
) -> None:
    lake, said = faulty
    with pytest.raises(DependencyDown, match=said) as failure:
        change(lake)
    assert_tells_all(failure.value, lake)


def assert_tells_all(failure: DependencyDown, lake: Lake) -> None:
    """Where it is, what was kept safe and what to do, and nothing of how our clients say it."""
    message = str(failure)
    assert f"at {lake.root}/" in message
    assert "What was published before is untouched" in message
    assert "Check that the bucket exists" in message
    assert "\n" not in message


def test_a_reader_without_write_access_sees_published_days_and_publishes_nothing(
    user: Callable[..., Any], s3_root: str
) -> None:
    publish(Lake(s3_root), 1)
    lake, _ = user("reader", "s3:GetObject", "s3:ListBucket")
    with pytest.raises(DependencyDown, match="Access Denied"):
        publish(lake, 2)
    assert lake.current("table", DAY).read("a")["content"].unique().to_list() == [1]


def test_the_rights_that_the_documentation_names_are_enough(user: Callable[..., Any]) -> None:
    named = set(re.findall(r"`(s3:\w+)`", (REPO / "docs/deploy.md").read_text()))
    lake, _ = user("worker", *named)
    validate_day(at(lake), "validated", DAY)
    assert history.append(at(lake), DAY, [Figure("p", "m", 1)]) == 1
    assert list(lake.published_keys("validated")) == [DAY]
    assert history.read(at(lake), DAY, 1)["value"].to_list() == [1]


def test_rights_that_are_lost_while_a_part_is_read_are_a_dependency_that_is_down(
    user: Callable[..., Any], s3_root: str
) -> None:
    lake, revoke = user("leaver", "s3:*")
    version = lake.new_version("table", DAY)
    version.write_frame("a", pl.DataFrame({"x": np.random.default_rng(7).random(200_000)}))
    with version.parquet("a") as file:  # of which only the end is read until now
        revoke()
        with pytest.raises(DependencyDown, match="Access Denied"):
            file.read()


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (503, "ServiceUnavailable")])
def test_a_store_that_refuses_a_write_is_a_dependency_that_is_down(
    status: int, code: str, connect: Callable[..., Lake]
) -> None:
    class Refusing(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # else it never asks for the body that the client holds back

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = f"<Error><Code>{code}</Code><Message>no, {code}</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        lake = connect("refused", url=f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(DependencyDown, match=code):
            put_text(text(lake), "text")
        server.shutdown()


def test_the_health_page_says_why_it_is_empty(connect: Callable[..., Lake]) -> None:
    found = health.look(at(connect("lost", bucket="no-such-bucket")))
    assert not found.is_empty
    assert any("bucket does not exist" in problem for problem in found.problems)


def test_the_health_page_does_not_wait_for_a_lake_that_hangs(
    silent_lake: str, history: History, configure: Callable[..., None]
) -> None:
    configure(mlflow_tracking_uri=history.registry)
    for _ in range(6):  # more than there are threads to hang with it
        found = health.look(at(Lake(silent_lake)), seconds=60, lake_seconds=0.1)
        [problem] = found.problems
        assert problem.startswith(f"The lake at {silent_lake} has not answered in 0.1 s")
        assert found.champion is not None


def test_history_is_not_seeded_into_an_unreachable_lake_which_is_reported_once(
    connect: Callable[..., Lake],
    configure: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(lake_root=str(connect("lost", bucket="no-such-bucket").root))
    assert seed.main(["--from", "2013-01-01", "--to", "2013-01-20"]) == 2
    said = capsys.readouterr()
    assert said.err.count("bucket does not exist") == 1
    assert "Seeded" not in said.out
