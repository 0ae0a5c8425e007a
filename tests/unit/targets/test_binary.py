"""Probabilities and their outcomes: labels, figures, calibration."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from include.targets import Binary
from include.targets.binary import calibration_error

TARGET = Binary()
ROWS = 1000
RANDOM = np.random.default_rng(7)
SCORES = RANDOM.uniform(0.001, 0.999, ROWS)
LABELS = (RANDOM.uniform(size=ROWS) < SCORES**1.5).astype(np.int8)


@st.composite
def judged(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of a few rows."""
    rows = draw(st.integers(1, 60))
    labels = draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows))
    score = st.floats(0, 1) | st.sampled_from([0.0, 0.25, 1.0])
    scores = draw(st.lists(score, min_size=rows, max_size=rows))
    return np.array(labels, np.int8), np.array(scores)


# --- Figures ------------------------------------------------------------------------------------


def test_figures_are_those_of_scikit_learn() -> None:
    found = TARGET.figures(LABELS, SCORES)
    expected = {
        "rows": ROWS,
        "rate": LABELS.mean(),
        "mean_score": SCORES.mean(),
        "log_loss": metrics.log_loss(LABELS, SCORES),
        "brier": metrics.brier_score_loss(LABELS, SCORES),
        "roc_auc": metrics.roc_auc_score(LABELS, SCORES),
        "average_precision": metrics.average_precision_score(LABELS, SCORES),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("label", [0, 1])
def test_rows_of_one_class_have_no_curve(label: int) -> None:
    found = TARGET.figures(np.full(5, label, np.int8), SCORES[:5])
    assert found["roc_auc"] is None
    assert found["average_precision"] is None
    assert found["rate"] == label
    likely = SCORES[:5] if label else 1 - SCORES[:5]
    assert found["log_loss"] == pytest.approx(-np.log(likely).mean(), abs=1e-12)
    assert found["brier"] == pytest.approx(((1 - likely) ** 2).mean(), abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_certain_score_costs_nothing_or_much_but_not_infinitely_much(dtype: type) -> None:
    labels, scores = np.array([0, 1, 0, 1]), np.array([0, 1, 1, 0], dtype)
    costs = TARGET.losses(labels, scores)
    assert costs[:2].tolist() == [0, 0]
    assert costs[2:] == pytest.approx(-np.log(1e-7))


@given(judged())
def test_a_log_loss_is_finite_and_less_for_a_score_that_is_nearer(
    rows: tuple[np.ndarray, np.ndarray],
) -> None:
    labels, scores = rows
    costs = TARGET.losses(labels, scores)
    assert np.isfinite(costs).all()
    assert (costs >= 0).all()
    assert (TARGET.losses(labels, (scores + labels) / 2) <= costs).all()


# --- Calibration --------------------------------------------------------------------------------


def test_scores_that_are_the_rates_are_calibrated() -> None:
    rates = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    labels = np.concatenate([np.arange(10) < rate * 10 for rate in rates]).astype(int)
    assert calibration_error(labels, np.repeat(rates, 10)) == pytest.approx(0, abs=1e-12)


def test_a_calibration_error_known_by_hand() -> None:
    # Ten bins of two rows, each with one label of 1: the error is the mean of |0.5 - score|.
    labels, scores = np.tile([0, 1], 10), np.repeat(np.arange(10) / 10, 2)
    assert calibration_error(labels, scores) == pytest.approx(0.25, abs=1e-12)


@pytest.mark.parametrize(("score", "error"), [(0.25, 0), (0.0, 0.25), (1.0, 0.75)])
def test_one_score_for_all_is_as_wrong_as_its_rate(score: float, error: float) -> None:
    labels = np.tile([0, 0, 0, 1], 25)
    assert calibration_error(labels, np.full(100, score)) == pytest.approx(error)


@given(judged(), st.randoms(use_true_random=False))
def test_a_calibration_error_is_from_0_to_1_and_knows_no_order(
    rows: tuple[np.ndarray, np.ndarray], random: Any
) -> None:
    labels, scores = rows
    found = calibration_error(labels, scores)
    assert abs(labels.mean() - scores.mean()) - 1e-12 <= found <= 1
    order = random.sample(range(len(labels)), len(labels))
    assert calibration_error(labels[order], scores[order]) == pytest.approx(found)


# --- Costs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("costs", [(1, 1), (1, 4), (10, 0.5)])
def test_what_is_decided_costs_least_where_scores_are_probabilities(
    costs: tuple[float, float],
) -> None:
    happens = (RANDOM.uniform(size=ROWS) < SCORES).astype(np.int8)
    paid = Binary(costs=costs).figures(happens, SCORES)["cost"]
    false_alarm, miss = costs
    for threshold in np.linspace(0, 1.01, 30):
        decided = threshold <= SCORES
        cost = np.where(decided, false_alarm * (happens == 0), miss * (happens == 1)).mean()
        assert paid <= cost + 0.05 * max(costs)


def test_a_decision_is_published_only_if_costs_are_known() -> None:
    scores = np.array([0.19, 0.2, 0.9], np.float32)
    assert Binary().others(scores) == {}
    assert Binary(costs=(1, 4)).others(scores)["decision"].to_pylist() == [False, True, True]
    assert "cost" not in Binary().figures(LABELS, SCORES)


def test_costs_do_not_change_what_models_have_to_agree_on() -> None:
    assert Binary(positive="late", costs=(1, 4)).name == Binary().name
    assert Binary(positive="late").axis == "Probability of late"
