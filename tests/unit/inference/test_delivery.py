"""Whatever the destination: the newest version is delivered, whole, whatever is killed."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deltalake
import polars as pl
import pytest

from include.destinations import DeltaTable, SqlTable
from include.errors import BadData
from include.inference import delivery, delta_table
from include.usecase import UseCase
from tests.unit import children
from tests.unit.deliveries import (
    FIRST,
    case_of,
    delta_of,
    publish,
    rows_of,
    sql_rows,
)


def test_a_day_that_is_published_meanwhile_is_delivered_in_its_newest_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of(tmp_path, DeltaTable())
    publish(case.lake, FIRST, rows_of(FIRST, [0.1]))
    write, newer = delta_table.replace_day, []

    def published_meanwhile(*arguments: Any) -> str:
        if not newer:
            newer.append(publish(case.lake, FIRST, rows_of(FIRST, [0.9])))
        return write(*arguments)

    monkeypatch.setattr(delta_table, "replace_day", published_meanwhile)
    assert delivery.deliver(case, "delta", FIRST).version == str(newer[0])
    assert [round(one, 6) for one in pl.read_delta(delta_of(case))["score"]] == [0.9]


@pytest.mark.exhaustive
@pytest.mark.parametrize("place", ["delta", "sqlite", "postgres"])
def test_a_delivery_that_is_killed_anywhere_leaves_the_old_day_or_the_new_one(
    place: str, request: pytest.FixtureRequest, tmp_path: Path, start: Callable[..., Any]
) -> None:
    connection = "" if place == "delta" else request.getfixturevalue(place)
    environment = {
        name: value for name in ("AIRFLOW_CONN_POSTGRES_TEST", "AIRFLOW_CONN_SQLITE_TEST")
        if (value := children.environment(name))
    }  # fmt: skip
    destination = SqlTable("there", connection, "scores") if connection else DeltaTable("there")
    case = case_of(tmp_path, destination)
    seen = set()
    draw = random.Random(7)
    many = pl.concat([rows_of(FIRST, [0.0])] * 20_000).with_columns(flight=pl.int_range(20_000))
    for number in range(1, 16):
        rows = many.with_columns(score=pl.lit(number, pl.Float32))
        publish(case.lake, FIRST, rows)
        child = start(children.deliver, environment, str(tmp_path), json.dumps(connection), FIRST)
        time.sleep(draw.uniform(0.1, 1.5))  # it takes about a second
        child.kill()
        child.join()
        found = _scores_there(case, connection)
        assert len(found) in (0, 20_000)
        assert len(set(found)) <= 1
        seen |= set(found)
    delivery.deliver(case, "there", FIRST)
    assert set(_scores_there(case, connection)) == {15.0}


def _scores_there(case: UseCase, connection: str) -> list[float]:
    try:
        if connection:
            return [row["score"] for row in sql_rows(connection)]
        return pl.read_delta(delta_of(case))["score"].to_list()
    except (BadData, deltalake.exceptions.TableNotFoundError):
        return []
