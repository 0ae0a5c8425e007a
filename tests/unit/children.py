"""What the tests run in processes of their own, most of them to be killed.

A child is forked from a server that has imported this module, so it starts in milliseconds.
"""

import json
import os
import random
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import polars as pl
import pytest
from mlflow import MlflowClient
from s3fs import S3FileSystem

from include import landed
from include.errors import BadData, Overtaken
from include.housekeeping import erasure, retention
from include.lake import files, tables
from include.lake.tables import Lake, Manifest
from include.messages import ModelVersion
from include.registry import promotion, registry, unused
from include.settings import settings
from include.validation import contract, rows
from local.in_process import validate_day
from tests.case import CASE, at
from tests.unit.helpers import infer

for waited_for in (  # what a child would wait for; skops is the faster the earlier it is
    "skops.io",
    "mlflow.artifacts",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "xgboost",
    "s3fs",
    "airflow.providers.amazon.aws.fs.s3",
    "airflow.providers.amazon.aws.hooks.s3",
):
    import_module(waited_for)

DAY = "2013-03-01"
PARTS = ["first", "second"]
WRITES = [
    "set_model_version_tag", "delete_model_version_tag", "log_param",
    "set_registered_model_alias", "delete_registered_model_alias",
]  # fmt: skip
"""Methods of MLflow's client by which a promotion changes something."""
LOOKS = ["get_run", "search_registered_models"]
"""Methods by which it looks at what others have changed."""


def run(function: Callable[..., object], environment: dict[str, str], *arguments: object) -> None:
    """Run a function of this module with an environment of its own."""
    os.environ.update(environment)
    settings.cache_clear()
    function(*arguments)


def write_version(lake: Lake, content: int, rows: int = 1000) -> Manifest:
    """Publish a version of which every value of every part says whose it is."""
    version = lake.new_version("table", DAY)
    for part in PARTS:
        version.write_frame(part, pl.DataFrame({"content": [content] * rows}), rows // 4)
    return version.publish(PARTS, {"content": content})


def content(lake: Lake) -> int:
    """The number that the published version is full of, after a proof that it is whole."""
    version = lake.current("table", DAY)
    manifest = version.manifest()
    assert {part: version.describe(part) for part in manifest.parts} == manifest.parts
    found = {number for part in PARTS for number in version.read(part)["content"]}
    assert found == {manifest.metadata["content"]}
    return found.pop()


def write_until_step(root: str, content: int, step: int, functions: set[str]) -> None:
    """Publish a version, but die at the n-th step of these functions of `lake.py`."""
    lake = Lake(root)
    die_at_step(step, functions)
    write_version(lake, content)


def write_until_request(root: str, content: int, step: int) -> None:
    """Publish a version, but die at a step of `die_at_request`."""
    die_at_request(step)
    write_version(Lake(root), content)


def put_until_request(root: str, size: int, step: int) -> None:
    """Put a file of so many bytes at the root, but die at a step of `die_at_request`."""
    die_at_request(step)
    with files.atomic_file(Lake(root).root / "file") as scratch:
        os.truncate(scratch, size)


def write_forever(root: str, contents: list[int]) -> None:
    """Publish one content after the other until somebody ends it."""
    lake = Lake(root)
    while True:
        for content in contents:
            write_version(lake, content)


def write_often(root: str, content: int, times: int) -> None:
    """Publish the same content again and again."""
    lake = Lake(root)
    for _ in range(times):
        with suppress(Overtaken):
            write_version(lake, content)


def validate_often(root: str, key: str, times: int) -> None:
    """Validate and publish the same day again and again."""
    for _ in range(times):
        with suppress(Overtaken):
            validate_day(at(Lake(root)), "validated", key)


def read_damaged(root: str, key: str, times: int) -> None:
    """Check a landed file again and again, each time with other bytes of it changed."""
    lake, chance = Lake(root), random.Random(7)
    path = lake.landing_path("flights", key)
    good = path.read_bytes()
    for _ in range(times):
        content = bytearray(good)
        first = chance.choice([0, len(content) // 2])  # the second half is mostly the footer
        for place in chance.choices(range(first, len(content)), k=chance.choice([1, 3])):
            content[place] ^= chance.randrange(1, 256)
        path.unlink()
        path.write_bytes(content)
        message = str(path)
        try:
            for file in contract.check_contract(at(lake), "validated", key):
                check = rows.check_rows(at(lake), file)
                assert check.rows == check.valid + check.quarantined
        except BadData as error:
            message = str(error)
        assert str(path) in message


def refuse_within_memory(path: str, column: str, megabytes: int) -> None:
    """Read a file that must be refused by the name of a column, with only so much memory more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + megabytes * 1_000_000
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with pytest.raises(BadData, match=f"column '{column}'"):
        list(landed.slices(CASE, Path(path), {}))


def infer_until_file(root: str, key: str, model: ModelVersion, files: int) -> None:
    """Score and publish a day, but die before the n-th file is given its name."""
    die_before_file(root, files)
    infer(Lake(root), key, model)


def erase_until_file(root: str, file: str, files: int) -> None:
    """Erase rows, but die before the n-th file is given its name."""
    die_before_file(root, files)
    erasure.erase(at(Lake(root)), file, [], dry_run=False)


def infer_often(root: str, key: str, model: ModelVersion, times: int) -> None:
    """Score and publish the same day again and again."""
    for _ in range(times):
        infer(Lake(root), key, model)


def change_champion_until(
    call: int, methods: list[str], change: Callable[..., None], *arguments: object
) -> None:
    """Promote or roll back, but die before the n-th call of these methods of MLflow's client."""
    before_call(call, methods, die)
    change(*arguments)


def change_champion_with_a_pause(
    says: Any,
    go_on: Any,
    call: int,
    methods: list[str],
    change: Callable[..., None],
    *arguments: object,
) -> None:
    """Promote or roll back, but stand still before the n-th such call until told to go on."""

    def pause() -> None:
        says.put("paused")
        go_on.get()

    before_call(call, methods, pause)
    says.put(refusal(change, *arguments))


def refusal(change: Callable[..., None], *arguments: object) -> str:
    """Promote or roll back. Returns why that was refused; nothing if it was not."""
    try:
        change(*arguments)
    except BadData as error:
        return str(error)
    return ""


def race(together: Any, outcomes: Any, turns: list[ModelVersion | None]) -> None:
    """Each turn promote a version, or roll back if it is None, when the others do so too."""
    for number, turn in enumerate(turns):
        together.wait(60)
        champion = registry.find_champion(CASE)
        wanted = turn or promotion.previous(CASE, champion)
        registry.load(CASE, wanted)
        together.wait(60)
        if turn:
            message = refusal(promotion.promote, CASE, turn, champion, "a race")
        else:
            message = refusal(promotion.roll_back, CASE, champion, wanted, "a race")
        together.wait(60)
        outcomes.put((number, wanted, message, registry.champion(CASE)))


def serve_registry(port: Any) -> None:
    """Be an MLflow server; the environment says where its database is."""
    from mlflow.server import app
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, app, threaded=True)
    port.put(server.server_port)
    server.serve_forever()


def keep_house_until_removal(number: int) -> None:
    """Delete what nothing needs any more, but die before the n-th file or folder is removed."""
    removals = count(1)

    def audit(event: str, _: tuple[Any, ...]) -> None:
        if event in ("os.remove", "os.rmdir") and next(removals) == number:
            die()

    unused.references = lambda _: unused.References(set(), "")
    unused.unused_runs = lambda *_: []
    expired, _ = retention.find(CASE, [], None, datetime.now(UTC))
    retention.find = lambda *_: (expired, [])
    sys.addaudithook(audit)
    retention.keep_house(CASE, [], None, dry_run=False)


def die_at_step(number: int, functions: set[str]) -> None:
    """Kill this process before the n-th line of these functions of `lake.py` that is run."""
    left = number

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        code = frame.f_code
        its_own = code.co_filename in (files.__file__, tables.__file__)
        if not its_own or code.co_name not in functions:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                die()
        return trace

    sys.settrace(trace)


def die_at_request(step: int) -> None:
    """Kill this process at a step: S3 has two for each request that writes, before and after it."""
    steps, real = count(1), S3FileSystem._call_s3

    async def call(store: Any, method: str, *arguments: Any, **options: Any) -> Any:
        writes = method.startswith(("put_", "create_", "upload_", "complete_"))
        if writes and next(steps) == step:
            die()
        answer = await real(store, method, *arguments, **options)
        if writes and next(steps) == step:
            die()
        return answer

    S3FileSystem._call_s3 = call


def die_before_file(folder: str, number: int) -> None:
    """Kill this process before the n-th time that a file under a folder is renamed."""
    left = number

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event == "os.rename" and str(arguments[1]).startswith(folder):
            left -= 1
            if left == 0:
                die()

    sys.addaudithook(audit)


def before_call(number: int, methods: list[str], act: Callable[[], None]) -> None:
    """Act before the n-th time that this process calls any of these methods of MLflow's client."""
    calls = count(1)

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(calls) == number:
                act()
            return method(*arguments, **options)

        return call

    for name in methods:
        setattr(MlflowClient, name, counted(getattr(MlflowClient, name)))


def die() -> None:
    """End this process as a lost machine does: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def environment(name: str) -> str | None:
    """A variable of this process."""
    return os.environ.get(name)


def deliver(root: str, connection: str, key: str) -> None:
    """Deliver a day to a database, or to Delta without a connection."""
    from dataclasses import replace

    from include.destinations import DeltaTable, SqlTable
    from include.inference import delivery

    named = json.loads(connection)
    there = SqlTable("there", named, "scores") if named else DeltaTable("there")
    delivery.deliver(replace(at(Lake(root)), destinations=(there,)), "there", key)
