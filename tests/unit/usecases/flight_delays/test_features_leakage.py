"""No fact from after the fact reaches a feature: scrambling all of them changes no bit of any.

The scrambled tables go in where the source reads its files, and come out as published features.
"""

import zlib
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from include.inference import scoring
from include.lake.tables import Lake
from include.usecases.flight_delays import features, source
from local.in_process import validate_day
from tests.case import at
from tests.unit.conftest import History
from tests.unit.helpers import AFTER_THE_FACT

DAYS = ["2013-02-08", "2013-02-20"]
"""A day of a storm, with half of its flights cancelled, and a usual one."""

Tables = dict[str, pl.DataFrame]


@pytest.fixture(scope="module")
def tables() -> Tables:
    """The source's tables as they are, with every column; flights and weather about the days."""
    names = ["flights.csv.zip", "weather.csv", "planes.csv", "airports.csv"]
    found = {name: source._read(name, None) for name in names}  # type: ignore[arg-type]
    near = pl.any_horizontal(
        pl.date("year", "month", "day").is_between(day - timedelta(1), day + timedelta(1))
        for day in map(date.fromisoformat, DAYS)
    )
    return found | {name: found[name].filter(near) for name in names[:2]}


@pytest.fixture
def features_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, Tables], tuple[pl.DataFrame, str]]]:
    """From a day and the source's tables to the day's published features and their hash."""
    number = iter(range(100))

    def build(key: str, tables: Tables) -> tuple[pl.DataFrame, str]:
        monkeypatch.setattr(source, "_read", lambda name, columns: tables[name].select(columns))
        forget()
        lake = Lake(str(tmp_path / f"lake-{next(number)}"))
        validate_day(at(lake), "validated", key)
        version = lake.version(scoring.preprocess(at(lake), key))
        return version.read("features"), version.describe("features").sha256

    def forget() -> None:
        source._flights.cache_clear()
        source._weather.cache_clear()

    yield build
    forget()


def scrambled(rows: pl.DataFrame, columns: list[str], seed: int) -> pl.DataFrame:
    """Each of these columns' values, nulls too, shuffled across the rows."""
    return rows.with_columns(
        pl.col(name).shuffle(seed + zlib.crc32(name.encode())) for name in columns
    )


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("key", DAYS)
def test_no_outcome_and_no_order_of_rows_reaches_a_feature(
    key: str, seed: int, tables: Tables, features_of: Callable[..., tuple[pl.DataFrame, str]]
) -> None:
    flights = scrambled(tables["flights.csv.zip"], AFTER_THE_FACT, seed)
    changed = {
        name: rows.sample(fraction=1, shuffle=True, seed=seed)
        for name, rows in (tables | {"flights.csv.zip": flights}).items()
    }
    before, after = features_of(key, tables), features_of(key, changed)
    assert before[0].equals(after[0])
    assert before[1] == after[1]


@pytest.mark.parametrize("key", DAYS)
def test_the_outcomes_that_are_scrambled_are_the_labels(
    key: str, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    def labels(flights: pl.DataFrame) -> pl.DataFrame:
        changed = tables | {"flights.csv.zip": flights}
        monkeypatch.setattr(source, "_read", lambda name, columns: changed[name].select(columns))
        source._flights.cache_clear()
        rows = source.fetch("actuals", date.fromisoformat(key))
        source._flights.cache_clear()
        assert rows is not None
        return features.build_labels(rows)

    flights = tables["flights.csv.zip"]
    assert not labels(flights).equals(labels(scrambled(flights, AFTER_THE_FACT, 1)))


@pytest.mark.parametrize("hours", [0, 6, 12])
@pytest.mark.parametrize("key", DAYS)
def test_no_weather_of_less_than_two_hours_before_reaches_a_feature(
    key: str, hours: int, tables: Tables, features_of: Callable[..., tuple[pl.DataFrame, str]]
) -> None:
    flights = source.fetch("flights", date.fromisoformat(key))
    assert flights is not None
    first = flights["time_hour"].min()
    assert isinstance(first, datetime)
    now = first + timedelta(hours=hours)
    observed = source._utc("time_hour")
    weather = tables["weather.csv"]
    past = weather.filter(observed <= now - timedelta(hours=2))
    future = scrambled(weather.filter(observed > now - timedelta(hours=2)), source.WEATHER, hours)
    changed = tables | {"weather.csv": pl.concat([past, future])}
    before, after = features_of(key, tables)[0], features_of(key, changed)[0]
    until_now = (flights["time_hour"] <= now).to_numpy()
    assert len(before) == len(flights)
    assert before.filter(until_now).equals(after.filter(until_now))
    assert not before.filter(~until_now).equals(after.filter(~until_now)), "the future did change"


def test_no_single_feature_reveals_the_label(history: History) -> None:
    """A model given `dep_delay` reaches an AUC of 0.91; no honest feature comes near it."""
    rows = history.lake.version(history.snapshot).read("training")
    labels = rows["label"].to_numpy()
    found = {}
    for name in features.FEATURES:
        values = rows[name]
        if name in features.CATEGORICAL:
            rate = rows.group_by(name).agg(rate=pl.col("label").mean())
            values = rows.join(rate, on=name, how="left", maintain_order="left")["rate"]
        for known in (values.is_null().cast(pl.Float32), values.fill_null(values.mean())):
            found[name] = abs(roc_auc_score(labels, np.nan_to_num(known.to_numpy())) - 0.5)
            assert found[name] < 0.15, f"{name} alone has an AUC of {0.5 + found[name]:.2f}"
    assert set(found) == set(features.FEATURES)


def test_features_are_named_once_and_none_is_a_fact_from_afterwards() -> None:
    assert len(set(features.FEATURES)) == len(features.FEATURES)
    assert not set(features.FEATURES) & {*AFTER_THE_FACT, "tailnum", "label"}
