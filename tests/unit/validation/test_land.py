"""Landing keeps a file that exists, and a wrong result of `fetch` is explained."""

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from include.errors import BadData
from include.lake.tables import Lake
from include.partitions import parse_key
from include.usecase import Fetched
from include.validation import contract, land
from local.in_process import validate_day
from tests.case import CASE, at
from tests.unit.conftest import NEW_DAY
from tests.unit.helpers import ENDS, NO_DATES, landed, refused, replace


def test_a_file_that_has_landed_is_never_fetched_again(lake: Lake) -> None:
    path = landed(lake, "flights", NEW_DAY)
    replace(path, b"dropped by hand")
    assert land.land(CASE, "validated", NEW_DAY) == ["flights", "weather"]
    assert path.read_bytes() == b"dropped by hand"


def test_a_file_that_lands_during_a_fetch_stays(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run may be checking it by now."""
    fetch, path = CASE.source.fetch, lake.landing_path("flights", NEW_DAY)

    def slow(name: str, day: date) -> pl.DataFrame | None:
        if name == "flights":
            replace(path, b"landed meanwhile")
        return fetch(name, day)

    monkeypatch.setattr(CASE.source, "fetch", slow)
    path.parent.mkdir(parents=True, exist_ok=True)
    land.land(CASE, "validated", NEW_DAY)
    assert path.read_bytes() == b"landed meanwhile"
    assert sorted(path.parent.glob(".*")) == []


def test_truth_lands_separately_from_the_inputs(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    assert land.land(at(lake), "actuals", NEW_DAY) == ["actuals"]
    assert [path.name for path in (tmp_path / "landing").iterdir()] == ["actuals"]


@pytest.mark.parametrize("key", [*NO_DATES, *ENDS])
@pytest.mark.parametrize("table", ["validated", "actuals"])
def test_a_key_that_is_not_a_partition_lands_and_publishes_nothing(
    table: str, key: str, tmp_path: Path
) -> None:
    for use in (land.land, contract.check_contract, validate_day):
        with pytest.raises(BadData) as failure:
            use(CASE, table, key)
        assert f"{key!r} is not a partition" in str(failure.value)
    assert not list(tmp_path.rglob("*.parquet"))
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("returned", "advice"),
    [
        (lambda rows: rows.to_pandas(), "pl.from_pandas"),
        (lambda rows: rows.to_arrow(), "pl.from_arrow"),
        (lambda rows: rows.lazy(), "frame.collect()"),
        (lambda rows: rows.to_dicts(), "Return a pl.DataFrame"),
    ],
    ids=["pandas", "Arrow", "a lazy frame", "dicts"],
)
def test_a_source_that_returns_no_polars_frame_is_refused_with_what_to_return(
    returned: Callable[[pl.DataFrame], object],
    advice: str,
    lake: Lake,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetch = CASE.source.fetch
    monkeypatch.setattr(CASE.source, "fetch", lambda *asked: returned(fetch(*asked)))
    words = [f"fetch('flights', {NEW_DAY})", advice, "Nothing landed"]
    with refused(lake, "validated", NEW_DAY, *words):
        land.land(CASE, "validated", NEW_DAY)
    assert not lake.landing_path("flights", NEW_DAY).exists()


# --- Rows in pieces -------------------------------------------------------------------------------


def test_frames_that_a_source_yields_land_as_one_file(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = CASE.source.fetch

    def in_pieces(name: str, day: date) -> Iterator[pl.DataFrame]:
        rows = fetch(name, day)
        assert rows is not None
        yield from rows.iter_slices(100)

    monkeypatch.setattr(CASE.source, "fetch", in_pieces)
    whole = fetch("flights", parse_key(NEW_DAY))
    land.land(CASE, "validated", NEW_DAY)
    landed_rows = pl.read_parquet(lake.landing_path("flights", NEW_DAY))
    assert landed_rows.equals(whole)
    assert land.fetch_whole(CASE, "flights", parse_key(NEW_DAY)).equals(whole)


def test_the_manifest_says_where_the_rows_of_a_day_come_from(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = CASE.source.fetch
    told = {"query": "SELECT 1", "rows": 961}
    monkeypatch.setattr(
        CASE.source, "fetch", lambda name, day: Fetched([fetch(name, day)], {**told, "of": name})
    )
    validate_day(CASE, "validated", NEW_DAY)
    report = lake.manifest("validated", NEW_DAY).metadata["report"]
    assert [one["origin"] for one in report["inputs"]] == [
        {**told, "of": name} for name in ("flights", "weather")
    ]


def test_a_source_without_any_frame_has_nothing_yet(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CASE.source, "fetch", lambda *_: iter([]))
    assert land.land(CASE, "validated", NEW_DAY) == []
    assert land.fetch_whole(CASE, "flights", parse_key(NEW_DAY)) is None


def test_frames_with_different_columns_leave_nothing(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = CASE.source.fetch

    def changing(name: str, day: date) -> Iterator[pl.DataFrame]:
        rows = fetch(name, day)
        assert rows is not None
        yield rows
        yield rows.rename({rows.columns[-1]: "other"})

    monkeypatch.setattr(CASE.source, "fetch", changing)
    with refused(lake, "validated", NEW_DAY, "frames with different columns", "Nothing landed"):
        land.land(CASE, "validated", NEW_DAY)
    assert not lake.landing_path("flights", NEW_DAY).exists()
