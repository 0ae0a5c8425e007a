"""Predictions go into tables and come out of them as they were."""

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from include.targets import Binary, Multiclass, Regression, Target, columns

ROWS = 50
RANDOM = np.random.default_rng(7)
SCORES = RANDOM.uniform(size=ROWS).astype(np.float32)
VALUES = np.sort(RANDOM.normal(size=(ROWS, 3)), axis=1).astype(np.float32)[:, [1, 0, 2]]
ALONE = np.column_stack([VALUES[:, 0], np.full((ROWS, 2), np.nan, np.float32)])
CHANCES = RANDOM.dirichlet(np.ones(3), ROWS).astype(np.float32)
PREDICTED = [
    pytest.param(Binary(), SCORES, id="binary"),
    pytest.param(Regression("minutes"), VALUES, id="regression"),
    pytest.param(Regression("minutes"), ALONE, id="without intervals"),
    pytest.param(Multiclass(["red", "green", "blue"]), CHANCES, id="multiclass"),
]


def table(target: Target, predictions: np.ndarray) -> pl.DataFrame:
    fields = columns.fields(target)
    arrays = columns.arrays(target, predictions)
    return pl.DataFrame(pl.from_arrow(pa.table(arrays, schema=pa.schema(fields))))


@pytest.mark.parametrize(("target", "predictions"), PREDICTED)
def test_predictions_are_published_and_read_again(target: Target, predictions: np.ndarray) -> None:
    np.testing.assert_array_equal(columns.read(target, table(target, predictions)), predictions)


@pytest.mark.parametrize(("target", "predictions"), PREDICTED)
def test_a_models_predictions_fit_into_one_column(target: Target, predictions: np.ndarray) -> None:
    packed = table(target, predictions).select(columns.pack(target)).to_series()
    np.testing.assert_array_equal(packed.to_numpy(), predictions)
    own = columns.packed(target, predictions)
    assert own.type == columns.packed_type(target)
    np.testing.assert_array_equal(pl.Series(own).to_numpy(), predictions)


@pytest.mark.parametrize(("target", "predictions"), PREDICTED)
def test_a_row_without_a_prediction_is_null_in_that_column(
    target: Target, predictions: np.ndarray
) -> None:
    rows = table(target, predictions).with_columns(
        pl.when(pl.int_range(pl.len()) != 3).then(pl.col(target.columns))
    )
    packed = rows.select(columns.pack(target)).to_series()
    assert packed.null_count() == 1
    assert packed[3] is None
    assert len(packed.drop_nulls().to_numpy()) == ROWS - 1


def test_the_most_probable_class_is_published_beside_the_probabilities() -> None:
    target = Multiclass(["red", "green", "blue"])
    found = table(target, CHANCES)["class"].cast(pl.String)
    assert found.to_list() == [target.classes[place] for place in CHANCES.argmax(axis=1)]


@pytest.mark.parametrize(("target", "predictions"), PREDICTED)
def test_agreement_is_the_correlation_of_what_is_watched(
    target: Target, predictions: np.ndarray
) -> None:
    assert columns.agreement(target, predictions, 3 * predictions + 1) == pytest.approx(1)
    assert columns.agreement(target, predictions, -predictions) == pytest.approx(-1)
    shuffled = predictions[RANDOM.permutation(ROWS)]
    assert abs(columns.agreement(target, predictions, shuffled) or 0) < 0.5
    constant = np.broadcast_to(predictions[0], predictions.shape)
    assert columns.agreement(target, predictions, constant) is None


@pytest.mark.parametrize(("target", "predictions"), PREDICTED)
def test_an_empty_day_has_the_same_columns(target: Target, predictions: np.ndarray) -> None:
    empty = table(target, predictions[:0])
    assert empty.schema == table(target, predictions).schema
    assert len(columns.read(target, empty)) == 0


def test_a_table_of_another_target_has_other_columns() -> None:
    assert columns.are_in(Binary(), ["date", "score", "model"])
    assert not columns.are_in(Regression("minutes"), ["date", "score", "model"])
