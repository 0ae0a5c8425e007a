"""Numbers and their intervals: figures, losses, baseline, and what is wrong."""

import numpy as np
import polars as pl
import pytest
from sklearn import metrics
from sklearn.dummy import DummyClassifier, DummyRegressor

from include.errors import BadData
from include.targets import Regression

ROWS = 1000
RANDOM = np.random.default_rng(7)
LABELS = RANDOM.normal(10, 30, ROWS)
VALUES = LABELS + RANDOM.normal(3, 10, ROWS)
GIVEN = np.column_stack([VALUES, VALUES - 12, VALUES + 9])
TARGET = Regression("minutes")


def test_figures_are_those_of_scikit_learn() -> None:
    found = TARGET.figures(LABELS, GIVEN)
    covered = ((GIVEN[:, 1] <= LABELS) & (GIVEN[:, 2] >= LABELS)).mean()
    expected = {
        "mean_label": LABELS.mean(),
        "mean_prediction": VALUES.mean(),
        "mean_absolute_error": metrics.mean_absolute_error(LABELS, VALUES),
        "root_mean_squared_error": metrics.root_mean_squared_error(LABELS, VALUES),
        "r2": metrics.r2_score(LABELS, VALUES),
        "bias": (VALUES - LABELS).mean(),
        "coverage": covered,
        "coverage_error": abs(covered - 0.8),
        "interval_width": 21,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Regression("m"), metrics.mean_absolute_error(LABELS, VALUES)),
        (Regression("m", error="squared"), metrics.mean_squared_error(LABELS, VALUES)),
        (
            Regression("m", error="pinball", quantile=0.9),
            metrics.mean_pinball_loss(LABELS, VALUES, alpha=0.9),
        ),
    ],
)
def test_the_loss_is_the_one_that_was_declared(target: Regression, expected: float) -> None:
    assert target.losses(LABELS, GIVEN).mean() == pytest.approx(expected)
    assert target.figures(LABELS, GIVEN)[target.loss] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Regression("m"), np.median(LABELS)),
        (Regression("m", error="squared"), LABELS.mean()),
        (Regression("m", error="pinball", quantile=0.9), np.quantile(LABELS, 0.9)),
    ],
)
def test_the_baseline_is_what_the_loss_asks_for(target: Regression, expected: float) -> None:
    value, lower, upper = target.baseline([target.describe(LABELS)])
    assert value == pytest.approx(expected)
    assert lower <= np.quantile(LABELS, 0.1) + 1e-9
    assert upper >= np.quantile(LABELS, 0.9) - 1e-9


def test_rows_of_one_value_have_no_r2() -> None:
    assert TARGET.figures(np.full(5, 3.0), GIVEN[:5])["r2"] is None


def test_without_intervals_nothing_is_covered() -> None:
    alone = np.column_stack([VALUES, np.full((ROWS, 2), np.nan)])
    found = TARGET.figures(LABELS, alone)
    assert found["coverage"] is None
    assert found["interval_width"] is None
    assert TARGET.wrong(alone) == ""
    assert "coverage" not in TARGET.plots(LABELS, {"champion": alone})


def test_a_member_without_interval_moves_the_interval_with_its_value() -> None:
    alone = np.column_stack([VALUES + 100, np.full((ROWS, 2), np.nan)])
    found = TARGET.combine({"a": GIVEN, "b": alone}, {"a": 0.9, "b": 0.1})
    np.testing.assert_allclose(found[:, 0], VALUES + 10, rtol=1e-4)
    np.testing.assert_allclose(found[:, 1:], GIVEN[:, 1:] + 10, rtol=1e-4)


@pytest.mark.parametrize(
    ("target", "row", "words"),
    [
        (TARGET, [0, 1, 2], "outside their own interval"),
        (TARGET, [0, -1, -0.5], "outside their own interval"),
        (TARGET, [0, np.nan, 1], "only one end"),
        (TARGET, [np.nan, np.nan, np.nan], "are NaN or infinite"),
        (TARGET, [1, -np.inf, 2], "are NaN or infinite"),
        (Regression("m", least=0), [1, -1, 3], "are NaN or outside 0 to inf"),
        (Regression("m", least=0), [-1, -2, 3], "are NaN or outside 0 to inf"),
        (Regression("m", most=5), [6, 1, 7], "are NaN or outside -inf to 5"),
    ],
)
def test_an_impossible_prediction_is_named(
    target: Regression, row: list[float], words: str
) -> None:
    given = np.tile(np.array([1.0, 0.5, 2.0], np.float32), (9, 1))
    given[4] = row
    assert target.wrong(given).startswith("1 of 9 ")
    assert words in target.wrong(given)


@pytest.mark.parametrize(
    ("label", "words"),
    [(np.nan, "has to be a finite number"), (np.inf, "has to be a finite"), (-1.0, "of 0 or more")],
)
def test_an_impossible_label_is_named(label: float, words: str) -> None:
    assert words in Regression("m", least=0).wrong_labels(pl.Series([1.0, label]))


def test_values_at_the_bounds_are_possible_as_they_are_published() -> None:
    target = Regression("m", least=0.1, most=0.7)
    ends = np.array([[0.1, 0.1, 0.1], [0.7, 0.7, 0.7]])
    assert target.wrong(ends) == ""
    assert target.wrong(ends.astype(np.float32)) == ""


def test_a_model_of_two_quantiles_is_named() -> None:
    class Two:
        def predict(self, rows: np.ndarray) -> np.ndarray:
            return np.zeros((len(rows), 2))

    with pytest.raises(BadData, match="has to predict one or three quantiles"):
        TARGET.predict(Two(), np.zeros((5, 1)))
    assert "not value, lower and upper" in TARGET.wrong(np.zeros((5, 2)))


def test_labels_are_floats() -> None:
    assert "it is Int64" in TARGET.wrong_labels(pl.Series([1, 2]))


def test_a_classifier_is_no_model_for_numbers() -> None:
    assert "is no regressor" in TARGET.wrong_model(DummyClassifier())
    assert TARGET.wrong_model(DummyRegressor()) == ""


def test_the_unit_is_part_of_what_models_agree_on() -> None:
    assert TARGET.name == "regression in minutes (absolute error, 80%)"
    assert TARGET.name != Regression("minutes", interval=0.9).name
    assert TARGET.axis == "Prediction, minutes"
    assert TARGET.measures["bias"].unit == "minutes"
