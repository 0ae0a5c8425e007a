"""NaN is missing and infinity is never a value, to every part of the project alike."""

from datetime import date
from math import inf, nan
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include import preprocess
from include.encoder import FeatureEncoder
from include.inference import branching, scoring
from include.lake.tables import Lake
from include.messages import Branches, ModelVersion
from include.statistics.profile import profile_of
from include.training import snapshot
from include.usecases.flight_delays import features
from include.values import infinite, without_nan
from tests.case import CASE, at
from tests.unit.conftest import OLD_DAY, History

FLOATS = st.one_of(st.none(), st.sampled_from([nan, inf, -inf, 0.0, 1.5]))
NESTED = {
    "flat": (pl.Float64, FLOATS),
    "single": (pl.Float32, FLOATS),
    "list": (pl.List(pl.Float64), st.lists(FLOATS, max_size=3)),
    "array": (pl.Array(pl.Float64, 2), st.lists(FLOATS, min_size=2, max_size=2)),
    "struct": (
        pl.Struct({"x": pl.Float64, "name": pl.String}),
        st.fixed_dictionaries({"x": FLOATS, "name": st.sampled_from(["a", None])}),
    ),
    "deep": (
        pl.List(pl.Struct({"x": pl.List(pl.Float32)})),
        st.lists(st.fixed_dictionaries({"x": st.lists(FLOATS, max_size=2)}), max_size=2),
    ),
    "text": (pl.String, st.sampled_from(["nan", "inf", None])),
}


def leaves(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [leaf for one in value for leaf in leaves(one)]
    return leaves(list(value.values())) if isinstance(value, dict) else [value]


def with_null_for_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [with_null_for_nan(one) for one in value]
    if isinstance(value, dict):
        return {name: with_null_for_nan(one) for name, one in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value


@pytest.mark.parametrize("kind", NESTED)
@given(data=st.data())
def test_nan_is_null_and_infinity_is_found_in_any_column(kind: str, data: st.DataObject) -> None:
    dtype, one = NESTED[kind]
    values = data.draw(st.lists(st.one_of(st.none(), one), max_size=5))
    rows = pl.DataFrame({"x": pl.Series(values, dtype=dtype)})
    found = without_nan(rows)
    assert found.schema == rows.schema
    assert found["x"].to_list() == with_null_for_nan(values)
    has_infinity = [any(leaf in (inf, -inf) for leaf in leaves(value)) for value in values]
    expected = {"x": has_infinity} if any(has_infinity) else {}
    assert {name: marks.to_list() for name, marks in infinite(found).items()} == expected


@given(values=st.lists(st.sampled_from([None, 0.0, 1.0, 2.5]), min_size=1, max_size=50))
def test_nan_and_null_are_the_same_to_profile_encoder_and_shift(
    values: list[float | None],
) -> None:
    null = pl.Series("x", values, dtype=pl.Float32)
    with_nan = null.fill_null(nan)
    (one,), (other,) = (profile_of(x.to_frame()).values() for x in (null, with_nan))
    assert (one.null_rate, one.mean) == (other.null_rate, other.mean)
    encoder = FeatureEncoder(["x"], []).fit(null.to_frame())
    encoded = [encoder.transform(x.to_frame()) for x in (null, with_nan)]
    np.testing.assert_array_equal(*encoded)
    whole = pl.Series("x", [1.0, 2.0], dtype=pl.Float32)
    assert snapshot._distance(whole, null) == snapshot._distance(whole, with_nan)


def test_a_row_whose_whole_group_is_nan_takes_the_path_of_rows_that_lack_it(lake: Lake) -> None:
    group = features.GROUPS[0]
    rows = preprocess.features_of(CASE, lake.current("validated", OLD_DAY))
    chosen = Branches("off", 0.1, {group.path: ModelVersion("m", "1", "run")}, {})
    for gap in (None, nan):
        gone = rows.with_columns(pl.lit(gap, pl.Float32).alias(name) for name in group.features)
        assert set(branching.paths(CASE, gone, chosen)) == {group.path}


@pytest.mark.parametrize(
    ("value", "usable"), [(None, False), (nan, False), (inf, False), (1.0, True)]
)
def test_a_required_feature_is_a_finite_number_in_scoring_and_in_training(
    value: float | None, usable: bool, lake: Lake, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    required = "distance"
    assert required in features.REQUIRED
    build = features.build_features

    def with_value(inputs: dict[str, pl.DataFrame]) -> pl.DataFrame:
        first = pl.int_range(pl.len()) < 10
        new = pl.when(first).then(pl.lit(value, pl.Float32)).otherwise(required)
        return build(inputs).with_columns(new.alias(required))

    before = scored_and_trained(lake)
    monkeypatch.setattr(features, "build_features", with_value)
    after = scored_and_trained(lake)
    assert [len(one) - len(other) for one, other in zip(before, after, strict=True)] == (
        [0, 0] if usable else [10, 10]
    )


def scored_and_trained(lake: Lake) -> list[pl.DataFrame]:
    """A day's rows as they would be scored, and as they would be trained on."""
    scored = lake.version(scoring.preprocess(at(lake), OLD_DAY)).read("features")
    validated, truth = (lake.current(table, OLD_DAY) for table in ("validated", "actuals"))
    trained = preprocess.labelled(CASE, date.fromisoformat(OLD_DAY), validated, truth)
    return [scored, trained]


def test_what_a_use_case_leaves_as_nan_is_null_in_its_published_features(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = features.build_features
    monkeypatch.setattr(
        features,
        "build_features",
        lambda inputs: build(inputs).with_columns(seats=pl.lit(nan, pl.Float32)),
    )
    published = lake.version(scoring.preprocess(CASE, OLD_DAY)).read("features")
    assert published["seats"].null_count() == len(published)
