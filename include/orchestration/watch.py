"""Watches for the files of a use case's `file_events`, in Airflow's triggerer."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, AssetWatcher
from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from include.file_events import FileEvent, created
from include.lake.files import first_line
from include.usecase import UseCase

SECONDS = 10.0
"""Time between two looks."""

SECONDS_AFTER_ERROR = 60.0

DAYS_BACK = 7
"""For how many days a folder is looked at: those that a triggerer that was down may have missed."""


class FileEventTrigger(BaseEventTrigger):
    """Reports files when they arrive. Its arguments are those of an `FileEvent`.

    It never ends: Airflow would start a failed trigger again at once, and for ever.
    """

    def __init__(self, root: str, pattern: str, queue: str = "") -> None:
        super().__init__()
        self.event = FileEvent(root, pattern, queue)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What another process makes the same trigger from."""
        return f"{__name__}.{type(self).__name__}", asdict(self.event)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Report new files, some at a time."""
        while True:
            try:
                arriving = self._from_queue() if self.event.queue else self._in_folder()
                async for paths in arriving:
                    if known := [path for path in paths if self.event.day_of(path)]:
                        yield TriggerEvent({"paths": known})
                    if len(known) < len(paths):
                        self.log.info("Files of no day: %s", sorted({*paths} - {*known}))
            except Exception as error:
                self.log.error(
                    "Cannot watch %s: %s: %s. The next try is in %.0f seconds; until then only the "
                    "schedule starts its days.",
                    self.event.queue or self.event.place,
                    type(error).__name__,
                    first_line(error),
                    SECONDS_AFTER_ERROR,
                )
                await asyncio.sleep(SECONDS_AFTER_ERROR)

    async def _in_folder(self) -> AsyncIterator[list[str]]:
        """New files; at first, all of the last days. Those that have landed start nothing."""
        known: set[str] = set()
        while True:
            found = await asyncio.to_thread(self._look)
            if found - known:
                yield sorted(found - known)
            known = found
            await asyncio.sleep(SECONDS)

    def _look(self) -> set[str]:
        folder, today = Path(self.event.place), datetime.now(UTC).date()
        if not folder.is_dir():
            raise FileNotFoundError("there is no such folder")
        days = [today - timedelta(days=back) for back in range(-1, DAYS_BACK + 1)]
        patterns = [day.strftime(self.event.pattern) for day in days]
        return {str(path) for one in patterns for path in folder.glob(one)}

    async def _from_queue(self) -> AsyncIterator[list[str]]:
        """What a bucket reports by its queue. Messages are deleted when they are read."""
        from airflow.providers.amazon.aws.triggers.sqs import SqsSensorTrigger

        reader = SqsSensorTrigger(
            self.event.queue,
            aws_conn_id=self.event.connection,
            max_messages=10,
            wait_time_seconds=int(SECONDS),
            waiter_delay=0,
        )
        while True:
            async for event in reader.run():
                bodies = [message["Body"] for message in event.payload["message_batch"]]
                for body in bodies:
                    if not created(body):
                        self.log.info("Not of a new file: %.500s", body)
                yield [path for body in bodies for path in created(body)]


def watched(case: UseCase) -> list[Asset]:
    """The files of a use case, as an asset that is updated when some arrive."""
    watchers = [
        AssetWatcher(f"file_event_{number}", FileEventTrigger(**asdict(event)))
        for number, event in enumerate(case.file_events)
    ]
    return [Asset(f"{case.name}.files", watchers=watchers)]
