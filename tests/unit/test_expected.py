"""For which days there is data: the calendar of the first input, and for the truth its own."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date

from include.expected import LONGEST_PAUSE_DAYS, expected_before, expected_days, is_expected
from include.usecase import UseCase
from include.usecases.flight_delays.schema import FLIGHTS, WEATHER
from tests.case import CASE, with_inputs

FRIDAY, SATURDAY, MONDAY = "2013-03-01", "2013-03-02", "2013-03-04"


def coming(expected: Callable[[date], bool]) -> UseCase:
    """The use case with a calendar of its first input; all else comes every day."""
    return with_inputs(CASE, replace(FLIGHTS, expected=expected), WEATHER)


WEEKDAYS = coming(lambda day: day.weekday() < 5)


def test_the_first_input_says_when_a_day_comes_and_the_truth_has_a_calendar_of_its_own() -> None:
    assert not is_expected(WEEKDAYS, "validated", SATURDAY)
    assert is_expected(WEEKDAYS, "validated", MONDAY)
    assert is_expected(WEEKDAYS, "actuals", SATURDAY)


def test_the_weekdays_of_a_week_are_expected_both_ends_included() -> None:
    days = expected_days(WEEKDAYS, date(2013, 3, 1), date(2013, 3, 8))
    assert [day.day for day in days] == [1, 4, 5, 6, 7, 8]
    assert expected_days(WEEKDAYS, date(2013, 3, 2), date(2013, 3, 3)) == []


def test_before_a_monday_comes_a_friday_and_before_the_longest_pause_nothing() -> None:
    assert expected_before(WEEKDAYS, MONDAY) == FRIDAY
    once = coming(lambda day: day == date(2013, 3, 1))
    assert expected_before(once, "2013-04-01") == FRIDAY
    assert (date(2013, 4, 1) - date(2013, 3, 1)).days == LONGEST_PAUSE_DAYS
    assert expected_before(once, "2013-04-02") is None
