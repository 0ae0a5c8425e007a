"""The days for which data is expected: the use case's calendar, by table."""

from datetime import date, timedelta

from include.partitions import days_before, parse_key
from include.usecase import UseCase

LONGEST_PAUSE_DAYS = 31
"""How many days back to look for an expected day."""


def is_expected(case: UseCase, table: str, key: str) -> bool:
    """Whether a partition of `validated` (the first input decides) or `actuals` is expected."""
    awaited = case.truth if table == "actuals" else case.inputs[0]
    return bool(awaited.expected(parse_key(key)))


def expected_days(case: UseCase, first: date, last: date) -> list[date]:
    """The days from first to last, both included, whose inputs are expected."""
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    return [day for day in days if is_expected(case, "validated", day.isoformat())]


def expected_before(case: UseCase, key: str) -> str | None:
    """The last day before this one whose inputs were expected; None if it is very long ago."""
    before = (days_before(key, back) for back in range(1, LONGEST_PAUSE_DAYS + 1))
    return next((day for day in before if is_expected(case, "validated", day)), None)
