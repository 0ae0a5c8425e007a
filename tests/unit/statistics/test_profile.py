"""A profile: what it counts exactly, how far it rounds, that days add up, and bad columns."""

import math
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from include.errors import BadData
from include.statistics import profile
from include.statistics.profile import Column, Profile, Profiler, merge, profile_of

NUMBERS = st.floats(-1e6, 1e6, width=32) | st.sampled_from([0.0, -0.0, 1.0, 512.0, -3.0, 1e-40])
SAMPLES = arrays.arrays(np.float64, st.integers(1, 60), elements=NUMBERS)
VALUES = st.none() | st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, 1e300])
TABLES = st.lists(st.tuples(VALUES, st.none() | st.sampled_from("abcd")), max_size=30)


def column_of(values: object, dtype: pl.DataType | type[pl.DataType] | None = None) -> Column:
    return profile_of(pl.DataFrame({"x": pl.Series(values, dtype=dtype)}))["x"]


def assert_same(one: Profile, other: Profile) -> None:
    """Counts and values to the last one, moments to rounding."""
    assert one.keys() == other.keys()
    for name, column in one.items():
        twin = other[name]
        assert column.values.tolist() == twin.values.tolist()
        assert column.counts.tolist() == twin.counts.tolist()
        for fact in ("name", "rows", "nulls", "least", "most"):
            assert getattr(column, fact) == getattr(twin, fact), fact
        size = max(abs(column.least or 0), abs(column.most or 0))
        assert column.mean == pytest.approx(twin.mean, rel=1e-9, abs=1e-12 * size)
        assert column.squares == pytest.approx(twin.squares, rel=1e-6, abs=1e-9 * size**2)


# --- What is counted ----------------------------------------------------------------------------


@given(SAMPLES)
def test_moments_and_extremes_are_exact(values: np.ndarray) -> None:
    found, size = column_of(values), abs(values).max()
    assert found.mean == pytest.approx(values.mean(), rel=1e-9, abs=1e-12 * size)
    assert found.standard_deviation == pytest.approx(values.std(), rel=1e-6, abs=1e-6 * size)
    assert (found.least, found.most) == (values.min(), values.max())
    assert found.counts.sum() == len(values)


@given(SAMPLES)
def test_a_value_is_off_by_a_five_hundredth_of_itself_at_most(values: np.ndarray) -> None:
    errors = abs(profile.rounded(values) - values)
    assert (errors <= abs(values) * 2**-9 + np.finfo(np.float32).tiny).all()


@given(SAMPLES)
def test_rounding_keeps_the_order(values: np.ndarray) -> None:
    assert (np.diff(profile.rounded(np.sort(values))) >= 0).all()
    found = column_of(values)
    assert (np.diff(found.values) > 0).all()
    assert found.values.tolist() == np.unique(profile.rounded(values)).tolist()


@given(SAMPLES, st.floats(0, 1))
def test_a_quantile_is_the_rounded_one(values: np.ndarray, share: float) -> None:
    place = np.searchsorted(np.arange(1, len(values) + 1), share * len(values))
    expected = profile.rounded(np.sort(values))[min(place, len(values) - 1)]
    assert column_of(values).quantile(share) == expected


def test_integers_to_512_are_exact() -> None:
    values = np.arange(-512, 513)
    assert column_of(values).values.tolist() == values.tolist()


def test_zero_has_no_sign() -> None:
    found = column_of([0.0, -0.0, -1e-45, 1e-45])
    assert found.values.tolist() == [0]
    assert found.counts.tolist() == [4]


def test_numbers_beyond_float32_count_as_its_largest() -> None:
    found = column_of([math.inf, -math.inf, 1e300, 1.0])
    assert found.values.tolist() == [-profile.LARGEST, 1, profile.LARGEST]
    assert found.counts.tolist() == [1, 1, 2]
    assert math.isfinite(found.mean)
    assert math.isfinite(found.standard_deviation)


def test_nan_is_null() -> None:
    found = column_of([1.0, math.nan, None, 3.0])
    assert (found.rows, found.nulls, found.null_rate) == (4, 2, 0.5)
    assert (found.mean, found.least, found.most) == (2, 1, 3)


def test_columns_that_are_neither_number_nor_text_are_left_out() -> None:
    days = pl.DataFrame({"day": [date(2013, 1, 1)], "sure": [True], "n": [2], "word": ["a"]})
    found = profile_of(days)
    assert list(found) == ["sure", "n", "word"]
    assert found["sure"].mean == 1


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt64, pl.Float32, pl.Decimal(10, 2), pl.Boolean])
def test_every_kind_of_number_is_one(dtype: pl.DataType) -> None:
    assert column_of(pl.Series([1, 0, None]).cast(dtype)).values.tolist() == [0, 1]


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical, pl.Enum(["b", "a"])])
def test_every_kind_of_text_is_one(dtype: pl.DataType) -> None:
    found = column_of(["b", "a", "b", None], dtype)
    assert found.values.tolist() == ["a", "b"]
    assert found.counts.tolist() == [1, 2]
    assert (found.nulls, found.others, found.quantile(0.5), found.least) == (1, 0, None, None)


def test_the_most_frequent_of_many_categories_are_kept() -> None:
    often = [f"often {number}" for number in range(profile.MOST_CATEGORIES)]
    found = column_of([*often, *often, *(f"once {number}" for number in range(1000))])
    assert found.values.tolist() == sorted(often)
    assert set(found.counts) == {2}
    assert found.others == 1000


# --- Days add up --------------------------------------------------------------------------------


@given(st.lists(TABLES, max_size=5))
def test_the_profile_of_all_is_the_sum_of_the_profiles(days: list[list[tuple]]) -> None:
    schema = {"number": pl.Float64, "text": pl.String}
    frames = [pl.DataFrame(day, schema, orient="row") for day in days]
    whole = profile_of(pl.concat([pl.DataFrame(schema=schema), *frames]))
    empty = profile_of(pl.DataFrame(schema=schema))
    profiles = [empty, *map(profile_of, frames)]
    assert_same(whole, merge(profiles))
    assert_same(whole, merge([merge(profiles[:2]), merge(profiles[2:])]))


def test_a_profiler_counts_any_number_of_batches() -> None:
    rows = pl.DataFrame({"x": np.random.default_rng(1).normal(size=1000), "y": ["a", "b"] * 500})
    profiler = Profiler()
    for batch in rows.iter_slices(7):
        profiler.add(batch)
    assert_same(profiler.result(), profile_of(rows))


def test_no_batch_gives_no_column() -> None:
    assert Profiler().result() == {}


def test_a_day_without_values_adds_to_text_as_to_numbers() -> None:
    nothing = column_of([None])
    assert merge([{"x": nothing}, {"x": column_of(["a"])}])["x"].values.tolist() == ["a"]
    assert merge([{"x": nothing}, {"x": column_of([1])}])["x"].null_rate == 0.5


def test_numbers_and_text_do_not_add_up() -> None:
    with pytest.raises(BadData, match="'x' has numbers in one profile and text in another"):
        merge([{"x": column_of([1])}, {"x": column_of(["a"])}])


@given(TABLES)
def test_a_profile_survives_a_file(tmp_path: Path, rows: list[tuple]) -> None:
    frame = pl.DataFrame(rows, {"number": pl.Float64, "text": pl.String}, orient="row")
    kept = profile_of(frame.with_columns(nothing=pl.lit(None, pl.Int32)))
    profile.to_frame(kept).write_parquet(tmp_path / "profile.parquet")
    found = profile.from_frame(pl.read_parquet(tmp_path / "profile.parquet"))
    assert_same(found, kept)
    assert [column.is_number for column in found.values()] == [True, False, True]


def test_an_empty_profile_survives_as_a_frame() -> None:
    assert profile.from_frame(profile.to_frame({})) == {}


# --- Bad columns --------------------------------------------------------------------------------


def test_a_constant() -> None:
    found = column_of([7.25] * 10)
    assert (found.mean, found.standard_deviation, found.quantile(0.5)) == (7.25, 0, 7.25)


@pytest.mark.parametrize("dtype", [pl.Float64, pl.Null, pl.String])
@pytest.mark.parametrize("rows", [0, 3])
def test_all_null(dtype: type[pl.DataType], rows: int) -> None:
    found = column_of([None] * rows, dtype)
    assert (found.rows, found.nulls, len(found.values)) == (rows, rows, 0)
    assert (found.mean, found.standard_deviation, found.null_rate) == (0, 0, float(rows > 0))
    assert (found.least, found.most, found.quantile(0.5)) == (None, None, None)


def test_outliers_are_beyond_three_interquartile_ranges() -> None:
    reference = column_of(np.arange(101))  # quartiles 25 and 75
    assert profile.outliers(column_of([-126, -125, 50, 225, 226, 9_000_000, None]), reference) == 3


@pytest.mark.parametrize("reference", [[5.0, 5.0], [None], ["a"]])
def test_a_reference_without_a_spread_has_no_outliers(reference: list) -> None:
    assert profile.outliers(column_of([1.0, 1e9]), column_of(reference)) == 0
