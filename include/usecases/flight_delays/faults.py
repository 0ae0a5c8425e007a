"""Upstream faults of a day's data: `make replay` shows which of them are caught."""

from collections.abc import Callable
from datetime import timedelta

import polars as pl

Fault = Callable[[pl.DataFrame], pl.DataFrame]
"""Takes the source's rows of the main input, and returns the faulty rows that land instead."""

UTC_OFFSET = timedelta(hours=5)


def _hhmm(minutes: pl.Expr) -> pl.Expr:
    of_day = minutes % (24 * 60)
    return (of_day // 60 * 100 + of_day % 60).replace(0, 2400).cast(pl.Int32)


def _minutes(name: str) -> pl.Expr:
    return pl.col(name) // 100 * 60 + pl.col(name) % 100


def _local_time_as_utc(rows: pl.DataFrame) -> pl.DataFrame:
    earlier = int(UTC_OFFSET.total_seconds() // 60)
    return rows.with_columns(
        sched_dep_time=_hhmm(_minutes("sched_dep_time") - earlier),
        sched_arr_time=_hhmm(_minutes("sched_arr_time") - earlier),
        time_hour=pl.col("time_hour") - UTC_OFFSET,
    )


def _minutes_for_hhmm(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(
        _minutes(name).cast(pl.Int32).alias(name) for name in ("sched_dep_time", "sched_arr_time")
    )


def _one_in(number: int, change: pl.Expr, name: str) -> Fault:
    chosen = pl.int_range(pl.len()) % number == 0
    return lambda rows: rows.with_columns(pl.when(chosen).then(change).otherwise(name).alias(name))


def _three_in_ten_null(rows: pl.DataFrame) -> pl.DataFrame:
    chosen = pl.int_range(pl.len()) % 10 < 3
    return rows.with_columns(seats=pl.when(~chosen).then("seats"))


FAULTS: dict[str, Fault] = {
    "local time read as UTC": _local_time_as_utc,
    "miles as kilometres": lambda rows: rows.with_columns(
        (pl.col("distance") * 1.609).round().cast(pl.Int32)
    ),
    "HHMM not parsed": _minutes_for_hhmm,
    "a carrier renamed": lambda rows: rows.with_columns(
        pl.col("carrier").replace(rows["carrier"].mode()[0], "ZZ")
    ),
    "an airport's feed missing": lambda rows: rows.filter(
        pl.col("origin") != rows["origin"].mode().sort()[0]
    ),
    "20 % of destinations in lower case": _one_in(5, pl.col("dest").str.to_lowercase(), "dest"),
    "30 % of seats null": _three_in_ten_null,
    "plane age off by 3 years": lambda rows: rows.with_columns(pl.col("plane_year") - 3),
    "10 % of block times zeroed": _one_in(10, pl.lit(0, pl.Int32), "block_minutes"),
}
