"""Rows that a shop drops as files, and those in its database, land as they were."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from include import usecases
from include.usecase import UseCase
from include.validation import land

FOLDER = Path(__file__).resolve().parents[2] / "usecases" / "diamond_prices"
DAYS = [date(2021, 3, day) for day in (1, 2, 3)]
"""Each kind of file is dropped on two of them."""


@pytest.fixture
def case(tmp_path: Path, configure: Callable[..., None], enable: Callable[..., None]) -> UseCase:
    configure(data_dir=tmp_path)
    enable(FOLDER)
    return usecases.find("diamond_prices")


def test_files_of_every_kind_land_as_the_shop_has_written_them(
    case: UseCase, tmp_path: Path
) -> None:
    kinds = set()
    for day in DAYS:
        assert land.land(case, "validated", str(day)) == ["stones"]
        landed = case.lake.landing_path("stones", str(day))
        offered = case.source.shop.stones(day)
        assert_frame_equal(
            pl.read_parquet(landed), offered.select("date", pl.exclude("date", "price"))
        )
        told = land.origin_of(pq.read_metadata(landed).metadata)["files"]
        assert [one["rows"] for one in told] == [80, 80]
        kinds |= {Path(one["path"]).suffix for one in told}
    assert kinds == {".csv", ".parquet", ".jsonl"}


@pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)
def test_sales_land_as_they_are_in_the_database(
    case: UseCase, database: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    is_sqlite = database == "sqlite_test"
    address = "sqlite:" if is_sqlite else request.getfixturevalue("postgres_server")
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", address)
    for day in DAYS:
        assert land.land(case, "actuals", str(day)) == ["sales"]
        landed = case.lake.landing_path("sales", str(day))
        sold = case.source.shop.stones(day).select("date", "stone", "price").sort("stone")
        assert_frame_equal(pl.read_parquet(landed), sold)
        told = land.origin_of(pq.read_metadata(landed).metadata)
        assert told["parameters"] == {"day": str(day)}
        assert told["rows"] == 160
