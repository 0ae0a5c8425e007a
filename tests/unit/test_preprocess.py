"""Features are those of the validated rows, each once and in their order, or refused."""

from collections.abc import Callable

import polars as pl
import pytest

from include.inference import scoring
from include.lake.tables import Lake
from tests.case import CASE
from tests.unit.conftest import OLD_DAY
from tests.unit.helpers import refused


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.clear(), "gives 0 rows of features for 812 rows of flights of"),
        (lambda rows: rows[:500], "gives 500 rows of features for 812 rows of flights of"),
        (lambda rows: pl.concat([rows, rows[:9]]), "gives 821 rows of features for 812 rows"),
        (lambda rows: rows.reverse(), "or another order: row 0 has the key (datetime.date(2013, 2"),
        (lambda rows: pl.concat([rows[:-1], rows[:1]]), "or another order: row 811 has the key"),
        (lambda rows: rows.with_columns(pl.col("flight").cast(str)), "keys of other types"),
    ],
)
def test_features_of_other_rows_or_in_another_order_are_refused(
    change: Callable[[pl.DataFrame], pl.DataFrame],
    said: str,
    lake: Lake,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = CASE.features.build_features
    monkeypatch.setattr(CASE.features, "build_features", lambda day: change(build(day)))
    said = said.replace("812", str(rows := count_of(lake))).replace("821", str(rows + 9))
    with refused(lake, "features", OLD_DAY, said.replace("811", str(rows - 1))):
        scoring.preprocess(CASE, OLD_DAY)


def count_of(lake: Lake) -> int:
    manifest = lake.manifest("validated", OLD_DAY)
    assert manifest is not None
    return manifest.parts["flights"].rows
