"""Which days the files that have arrived start."""

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from include.lake.files import exists
from include.partitions import is_key
from include.usecase import UseCase

log = logging.getLogger(__name__)


def days_to_start(case: UseCase, paths: Iterable[str], now: datetime | None = None) -> list[str]:
    """The days of files that have arrived; the log says why a file starts none.

    A day whose first input has landed has been started before. What arrives later waits for the
    schedule.

    Args:
        paths: the files, as a trigger reports them.
        now: by default now.
    """
    main = case.inputs[0]
    today = (now or datetime.now(UTC)).astimezone(ZoneInfo(main.time_zone)).date()
    days: set[str] = set()
    for path in sorted(set(paths)):
        day = next(filter(None, (one.day_of(path) for one in case.file_events)), None)
        if day is None or not is_key(day.isoformat()):
            log.warning("%s starts no day: its path names none", path)
        elif day > today:
            log.warning("%s starts no day: %s has not begun", path, day)
        elif exists(case.lake.landing_path(main.name, day.isoformat())):
            log.info("%s starts no day: %s of %s has landed before", path, main.name, day)
        else:
            log.info("%s starts %s", path, day)
            days.add(day.isoformat())
    return sorted(days)
