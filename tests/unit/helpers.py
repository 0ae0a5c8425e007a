"""Steps that many tests take."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import httpx
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uvicorn

from include.errors import BadData, PipelineError
from include.lake.files import Part, to_arrow
from include.lake.tables import Lake, Version
from include.messages import ModelVersion
from include.settings import PROJECT
from include.usecase import UseCase
from include.validation import land
from local.in_process import batch_inference, validate_day
from serving import app, listening
from tests.case import CASE, SECOND, at

if TYPE_CHECKING:
    from fastapi.testclient import TestClient


NO_DATES = [
    None, "", "2013-3-1", "20130301", "2013-W09-5", "2013-02-30", "2013-03-01T00:00", " 2013-03-01",
    "2013-03-01\n", "../x", "2013-03-01/../2013-03-02", "date=2013-03-01", "yesterday", 20130301,
    date(2013, 3, 1),
]  # fmt: skip
ENDS = ["0001-01-01", "0010-12-31", "9990-01-01", "9999-12-31"]
"""Dates without room for the days before and after them."""

AFTER_THE_FACT = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"]
"""Columns of the flights that nobody knows before a flight has departed."""


def landed(lake: Lake, input_name: str, key: str, table: str = "validated") -> Path:
    """Land a day and give the path of one of its files, which may be changed."""
    land.land(at(lake), table, key)
    path = lake.landing_path(input_name, key)
    assert isinstance(path, Path)
    return path


def replace(path: Path, content: pa.Table | pl.DataFrame | bytes, **options: Any) -> None:
    """Put another file in place of one. Never writes into it: another lake may share it."""
    path.unlink(missing_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
        return
    table = content if isinstance(content, pa.Table) else to_arrow(content)
    pq.write_table(table, path, **options)


def damaged(text: str) -> list[str]:
    """What a JSON object may have become: nothing, a piece, other JSON, or one without a field."""
    found = json.loads(text)
    lacking = [{name: found[name] for name in found if name != lost} for lost in found]
    others = [None, [], {}, 0, "text", [found], dict.fromkeys(found, 7.5), *lacking]
    pieces = [text[: len(text) * part // 7] for part in range(7)]
    told = [json.dumps(other) for other in others if not _has_all(other, found)]
    return [*pieces, *told, "[" * 100_000, text + text]


def _has_all(other: object, found: dict[str, object]) -> bool:
    """Whether what is lacking is a field that may be."""
    return isinstance(other, dict) and {*found} - {*other} <= {"metadata", "published", "profiles"}


def shown(lake: Lake, table: str, key: str) -> dict[str, Part] | None:
    """What readers see of a partition: each part as it is now, and as the manifest promised it."""
    manifest = lake.manifest(table, key)
    if manifest is None:
        return None
    version = Version(lake, table, key, manifest.version)
    assert {part: version.describe(part) for part in manifest.parts} == manifest.parts
    return manifest.parts


@contextmanager
def refused(
    lake: Lake, table: str, key: str, *words: str, kind: type[PipelineError] = BadData
) -> "Iterator[pytest.ExceptionInfo[PipelineError]]":
    """The block fails with these words in its message, and readers see what they saw before."""
    manifest, before = lake.manifest(table, key), shown(lake, table, key)
    with pytest.raises(kind) as failure:
        yield failure
    assert [word for word in words if word not in str(failure.value)] == [], str(failure.value)
    assert lake.manifest(table, key) == manifest
    assert shown(lake, table, key) == before


def infer(lake: Lake, key: str, model: ModelVersion) -> pl.DataFrame:
    """All steps from a validated day to its published predictions, which it returns."""
    batch_inference(at(lake), key, model)
    return lake.current("predictions", key).read("predictions")


@contextmanager
def watched(read: Callable[[], object], pause: float = 0.01) -> Iterator[list[object]]:
    """Read all the time while the block runs; what a reader raises, the block's end raises."""
    seen: list[object] = []
    failures: list[Exception] = []
    done = Event()

    def watch() -> None:
        while not done.wait(pause) and not failures:
            try:
                seen.append(read())
            except Exception as error:
                failures.append(error)

    reader = Thread(target=watch)
    reader.start()
    try:
        yield seen
    finally:
        done.set()
        reader.join()
    for failure in failures:
        raise failure
    assert seen


@contextmanager
def running(
    faults: bool = False, ready: bool = True, cases: Sequence[UseCase] = (CASE,)
) -> Iterator[str]:
    """A model server on a port of its own; gives its address."""
    server = uvicorn.Server(listening.config(app.create_app(cases, faults), "127.0.0.1", 0))
    thread = Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        if ready:
            wait_until(lambda: httpx.get(f"{url}/v2/health/ready").status_code == 200)
        yield url
    finally:
        server.should_exit = True
        thread.join()


def free_ports(number: int) -> list[int]:
    """Different ports of localhost that nobody listened on a moment ago."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def log_in(client: "TestClient", name: str, role: str | None) -> "TestClient":
    """Log a browser in to the Airflow of the fixture `api_server`."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    user = SimpleAuthManagerUser(username=name, role=role)
    client.cookies.set("_token", get_auth_manager().generate_jwt(user))
    return client


def republish(lake: Lake, table: str, key: str, **changes: pl.Expr) -> None:
    """Publish a newer version of a partition, from landed data that was changed."""
    name = "flights" if table == "validated" else table
    path = landed(lake, name, key, table)
    replace(path, pl.read_parquet(path).with_columns(**changes))
    validate_day(at(lake), table, key)


class Clock(datetime):
    """A clock that is ahead of the right one, or behind it."""

    ahead = 0

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime.now(tz) + timedelta(seconds=cls.ahead)


def run_python(folder: Path | str, data: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, with these use cases."""
    named = {"ML_USECASES": str(folder), "ML_DATA_DIR": str(data), "PYTHONPATH": str(PROJECT)}
    return subprocess.run(
        [sys.executable, *command],
        cwd=PROJECT,
        env=os.environ | named,
        capture_output=True,
        text=True,
    )


def copied(folder: Path) -> Path:
    """A copy of the second use case, which may be changed."""
    shutil.copytree(SECOND, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def edit(file: Path, old: str, new: str) -> None:
    """Write something else in place of a text that a file has."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
