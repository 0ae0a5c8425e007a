"""For which days there is data at all: the use case's calendar, by the tables made from it."""

from datetime import date, timedelta

from include.partitions import days_before, parse_key
from include.usecase import UseCase

LONGEST_PAUSE_DAYS = 31
"""How far back a day is looked for that was expected."""


def is_expected(case: UseCase, table: str, key: str) -> bool:
    """Whether a partition of `validated` (the first input decides) or `actuals` should come."""
    awaited = case.truth if table == "actuals" else case.inputs[0]
    return bool(awaited.expected(parse_key(key)))


def expected_days(case: UseCase, first: date, last: date) -> list[date]:
    """The days from first to last, both included, whose inputs are expected."""
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    return [day for day in days if is_expected(case, "validated", day.isoformat())]


def expected_before(case: UseCase, key: str) -> str | None:
    """The last day before one whose inputs were expected; None if that is very long ago."""
    before = (days_before(key, back) for back in range(1, LONGEST_PAUSE_DAYS + 1))
    return next((day for day in before if is_expected(case, "validated", day)), None)
