"""A figure is shown with its unit."""

import pytest

from include.targets import Measure


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("share", 0.1234, "12.3%"),
        ("ratio", 0.71234, "0.712"),
        ("minutes", 1234.56, "1,235 minutes"),
        ("nats", 0.512345, "0.5123 nats"),
    ],
)
def test_a_value_is_shown_in_its_unit(unit: str, value: float, text: str) -> None:
    assert Measure("a figure", unit).text(value) == text
