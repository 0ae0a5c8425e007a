"""The encoder's matrix depends on each row alone: not on its neighbours, batches or container."""

from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.encoder import FeatureEncoder
from include.errors import BadData
from include.lake.files import to_arrow

TEXTS = st.one_of(st.none(), st.sampled_from(["UA", "B6", "ÑÜ", "日本", "", " UA"]))
NUMBERS = st.one_of(st.none(), st.floats(width=32))

ROWS = st.lists(st.tuples(NUMBERS, NUMBERS, TEXTS, TEXTS), max_size=30)


def frame(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    schema = {"x": pl.Float32, "y": pl.Float32, "carrier": pl.String, "dest": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


@pytest.fixture
def encoder() -> FeatureEncoder:
    known = frame([(0.0, 0.0, "UA", "日本"), (0.0, 0.0, "B6", "ÑÜ"), (0.0, 0.0, None, None)])
    return FeatureEncoder(["x", "y"], ["carrier", "dest"]).fit(known)


@given(rows=ROWS, data=st.data())
def test_rows_are_encoded_one_by_one(
    rows: list[tuple[Any, ...]], data: st.DataObject, encoder: FeatureEncoder
) -> None:
    order = data.draw(st.permutations(range(len(rows))))
    whole = encoder.transform(frame(rows))
    shuffled = encoder.transform(frame([rows[place] for place in order]))
    np.testing.assert_array_equal(whole[list(order)], shuffled)


@given(rows=ROWS, cuts=st.lists(st.integers(0, 30)))
def test_any_split_into_batches_gives_the_same_matrix(
    rows: list[tuple[Any, ...]], cuts: list[int], encoder: FeatureEncoder
) -> None:
    table = to_arrow(frame(rows))
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [encoder.transform(table[a:b]) for a, b in pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(parts), encoder.transform(table))


@given(rows=ROWS)
def test_every_container_gives_the_same_matrix(
    rows: list[tuple[Any, ...]], encoder: FeatureEncoder
) -> None:
    polars = frame(rows)
    arrow = to_arrow(polars)
    chunks = pa.concat_tables([arrow[:3], arrow[3:]])
    (batch,) = arrow.combine_chunks().to_batches() or [arrow]
    dictionaries = polars.with_columns(pl.col("carrier", "dest").cast(pl.Categorical))
    expected = encoder.transform(polars)
    for other in (arrow, chunks, batch, polars.to_pandas(), dictionaries):
        np.testing.assert_array_equal(encoder.transform(other), expected)


@given(rows=ROWS)
def test_columns_may_be_more_and_in_another_order(
    rows: list[tuple[Any, ...]], encoder: FeatureEncoder
) -> None:
    polars = frame(rows)
    other = polars.select("dest", "y", pl.lit(1).alias("extra"), "x", "carrier")
    np.testing.assert_array_equal(encoder.transform(other), encoder.transform(polars))


@given(rows=ROWS)
def test_numbers_are_kept_and_nulls_are_nan(
    rows: list[tuple[Any, ...]], encoder: FeatureEncoder
) -> None:
    matrix = encoder.transform(frame(rows))
    assert matrix.dtype == np.float32
    assert matrix.shape == (len(rows), 4)
    expected = np.array([[np.nan if v is None else v for v in row[:2]] for row in rows], np.float32)
    np.testing.assert_array_equal(matrix[:, :2], expected.reshape(-1, 2))


@given(rows=ROWS)
def test_a_category_is_its_place_among_the_sorted_known_ones_or_nan(
    rows: list[tuple[Any, ...]], encoder: FeatureEncoder
) -> None:
    assert encoder.categories_ == {"carrier": ["B6", "UA"], "dest": ["ÑÜ", "日本"]}
    matrix = encoder.transform(frame(rows))
    for position, name, place in ((2, "carrier", 2), (3, "dest", 3)):
        known = encoder.categories_[name]
        expected = [known.index(row[place]) if row[place] in known else np.nan for row in rows]
        np.testing.assert_array_equal(matrix[:, position], np.array(expected, np.float32))


def test_integers_and_their_nulls_are_numbers_too(encoder: FeatureEncoder) -> None:
    rows = frame([(1.0, 2.0, "UA", "ÑÜ"), (None, 3.0, "UA", "ÑÜ")])
    whole = rows.with_columns(pl.col("x", "y").cast(pl.Int16))
    np.testing.assert_array_equal(encoder.transform(whole), encoder.transform(rows))


def test_every_missing_column_is_named(encoder: FeatureEncoder) -> None:
    with pytest.raises(BadData, match=r"2 features that the table lacks: y, carrier"):
        encoder.transform(frame([]).drop("y", "carrier"))


def test_features_are_named_in_the_order_of_the_matrix(encoder: FeatureEncoder) -> None:
    assert encoder.get_feature_names_out().tolist() == ["x", "y", "carrier", "dest"]


def test_the_encoder_keeps_the_dotted_path_that_stored_models_refer_to() -> None:
    kind = FeatureEncoder
    assert f"{kind.__module__}.{kind.__qualname__}" == "include.encoder.FeatureEncoder"


def test_fitting_on_rows_in_another_order_learns_the_same() -> None:
    rows = frame([(0.0, 0.0, text, text) for text in ("UA", "B6", "ÑÜ")])
    one, other = (FeatureEncoder(["x"], ["dest"]).fit(f) for f in (rows, rows.reverse()))
    assert one.categories_ == other.categories_
