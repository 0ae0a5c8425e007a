"""Files are reported when they arrive: in a folder, and by the queue that a bucket notifies."""

import asyncio
import json
import pickle
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import boto3
import pytest
from airflow.serialization.encoders import encode_trigger

from include.file_events import FileEvent
from include.orchestration import watch
from include.orchestration.watch import FileEventTrigger, watched
from tests.case import CASE
from tests.conftest import notified_queue

TODAY = datetime.now(UTC).date()
PATTERN = "%Y-%m-%d/*.csv"
SECONDS = 60
"""Time limit of a wait."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SECONDS", 0.05)
    monkeypatch.setattr(watch, "SECONDS_AFTER_ERROR", 0.05)


def drop(folder: Path, name: str, days_back: int = 0) -> str:
    path = folder / str(TODAY - timedelta(days=days_back)) / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    return str(path)


async def next_paths(events: AsyncIterator[Any]) -> list[str]:
    event = await asyncio.wait_for(anext(events), SECONDS)
    return event.payload["paths"]


def test_a_trigger_is_made_again_from_what_airflow_stores(tmp_path: Path) -> None:
    [asset] = watched(replace(CASE, file_events=[FileEvent(str(tmp_path), PATTERN)]))
    [watcher] = asset.watchers
    stored = json.loads(json.dumps(encode_trigger(watcher.trigger)))
    module, _, name = stored["classpath"].rpartition(".")
    again = getattr(import_module(module), name)(**stored["kwargs"])
    assert again.event == FileEvent(str(tmp_path), PATTERN)


def test_a_use_case_keeps_its_file_events_when_it_is_copied() -> None:
    case = replace(CASE, file_events=[FileEvent("drop", PATTERN)])
    assert pickle.loads(pickle.dumps(case)).file_events == case.file_events


def test_new_files_of_a_folder_are_reported_once(tmp_path: Path) -> None:
    async def look() -> None:
        missed = drop(tmp_path, "missed.csv", days_back=1)
        drop(tmp_path, "old.csv", days_back=30)
        drop(tmp_path, ".unfinished.csv")
        events = FileEventTrigger(str(tmp_path), PATTERN).run()
        assert await next_paths(events) == [missed]
        new = drop(tmp_path, "new.csv")
        assert await next_paths(events) == [new]

    asyncio.run(look())


def test_looking_at_a_folder_does_not_keep_others_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look() -> None:
        others_may_work = asyncio.Event()

        def slow(self: FileEventTrigger) -> set[str]:
            asyncio.run_coroutine_threadsafe(aset(), loop).result(SECONDS)
            return {f"{tmp_path}/{TODAY}/a.csv"}

        async def aset() -> None:
            others_may_work.set()

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(FileEventTrigger, "_look", slow)
        await next_paths(FileEventTrigger(str(tmp_path), PATTERN).run())
        assert others_may_work.is_set()

    asyncio.run(look())


def test_a_folder_that_is_gone_is_logged_and_watched_again_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look() -> list[str]:
        folder, logged = tmp_path / "drop", []
        trigger = FileEventTrigger(str(folder), PATTERN)

        def error(text: str, *values: object) -> None:
            logged.append(text % values)
            folder.mkdir(exist_ok=True)
            drop(folder, "a.csv")

        monkeypatch.setattr(trigger.log, "error", error)
        assert await next_paths(trigger.run()) == [f"{folder}/{TODAY}/a.csv"]
        return logged

    [said] = asyncio.run(look())
    assert "there is no such folder" in said
    assert "until then only the schedule starts its days" in said


@pytest.fixture
def queue(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """A queue that the bucket notifies."""
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    return notified_queue("bucket")


def test_new_objects_of_a_bucket_are_reported_by_its_queue(queue: str) -> None:
    async def look() -> None:
        events = FileEventTrigger("s3://lake_test@bucket/drop", PATTERN, queue).run()
        boto3.client("sqs").send_message(QueueUrl=queue, MessageBody="hello")
        s3 = boto3.client("s3")
        for key in ("drop/notes.txt", f"elsewhere/{TODAY}/a.csv", f"drop/{TODAY}/a b.csv"):
            s3.put_object(Bucket="bucket", Key=key)
        assert await next_paths(events) == [f"s3://bucket/drop/{TODAY}/a b.csv"]
        s3.put_object(Bucket="bucket", Key=f"drop/{TODAY}/b.csv")
        assert await next_paths(events) == [f"s3://bucket/drop/{TODAY}/b.csv"]

    asyncio.run(look())


def test_a_queue_that_is_gone_is_logged_and_read_again_when_it_is_back(
    queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqs, logged = boto3.client("sqs"), []
    sqs.delete_queue(QueueUrl=queue)

    async def look() -> None:
        trigger = FileEventTrigger("s3://lake_test@bucket/drop", PATTERN, queue)

        def error(text: str, *values: object) -> None:
            logged.append(text % values)
            sqs.create_queue(QueueName="drops")
            boto3.client("s3").put_object(Bucket="bucket", Key=f"drop/{TODAY}/a.csv")

        monkeypatch.setattr(trigger.log, "error", error)
        assert await next_paths(trigger.run()) == [f"s3://bucket/drop/{TODAY}/a.csv"]

    asyncio.run(look())
    assert f"Cannot watch {queue}" in logged[0]
    assert "NonExistentQueue" in logged[0] or "does not exist" in logged[0]
