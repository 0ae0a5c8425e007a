"""Partition keys: the only place that knows that a partition is a day."""

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta

from include.errors import BadData
from include.wording import quoted

ROOM = timedelta(days=3653)
"""Distance of all partitions from both ends of the calendar, as room for windows of days."""


def parse_key(key: str | None) -> date:
    """The day a partition key names.

    Raises:
        BadData: the key is not an ISO date, or is too close to an end of the calendar.
    """
    try:
        day = date.fromisoformat(key or "")
    except (TypeError, ValueError):
        day = None
    if day is None or day.isoformat() != key:
        raise BadData(
            f"{quoted(key)} is not a partition: a partition key is a date such as 2026-03-01. "
            "Nothing was read or written; start the run again with a date."
        )
    first, last = date.min + ROOM, date.max - ROOM
    if not first <= day <= last:
        raise BadData(
            f"{quoted(key)} is not a partition: it must lie between {first} and {last}, so that "
            "there are days before and after it. Nothing was read or written; start the run again "
            "with another date."
        )
    return day


def is_key(key: str) -> bool:
    """Whether a partition can have this key."""
    with suppress(BadData):
        return bool(parse_key(key))
    return False


def midnight(key: str | None) -> datetime:
    """When the day of a partition begins, in UTC."""
    day = parse_key(key)
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def days_before(key: str | None, days: int) -> str:
    """The key of the partition `days` days before another."""
    return (parse_key(key) - timedelta(days=days)).isoformat()


def key_of(reference: str) -> str:
    """The partition key of the version that a reference names."""
    return reference.rsplit("/", 2)[1]
