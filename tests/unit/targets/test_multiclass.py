"""Probabilities of several classes: figures, order, and what is wrong."""

import numpy as np
import polars as pl
import pytest
from sklearn import metrics
from sklearn.linear_model import LogisticRegression

from include.targets import Binary, Multiclass

CLASSES = ["red", "green", "blue", "grey"]
TARGET = Multiclass(CLASSES)
ROWS = 2000
RANDOM = np.random.default_rng(7)
CHANCES = RANDOM.dirichlet(np.ones(4), ROWS)
LABELS = np.array([RANDOM.choice(4, p=row) for row in CHANCES], dtype=np.int16)


def test_figures_are_those_of_scikit_learn() -> None:
    found, chosen = TARGET.figures(LABELS, CHANCES), CHANCES.argmax(axis=1)
    expected = {
        "log_loss": metrics.log_loss(LABELS, CHANCES),
        "accuracy": metrics.accuracy_score(LABELS, chosen),
        "balanced_accuracy": metrics.balanced_accuracy_score(LABELS, chosen),
        "roc_auc": metrics.roc_auc_score(LABELS, CHANCES, multi_class="ovr"),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name
    assert found["calibration_error"] < 0.03, "labels were drawn with these probabilities"


def test_with_two_classes_there_would_be_the_figures_of_a_binary_target() -> None:
    two = np.column_stack([CHANCES[:, 0], 1 - CHANCES[:, 0], np.zeros(ROWS)])
    labels = (LABELS > 0).astype(np.int16)
    found = Multiclass(["no", "yes", "never"]).figures(labels, two)
    binary = Binary().figures(labels.astype(np.int8), two[:, 1])
    assert found["log_loss"] == pytest.approx(binary["log_loss"])
    assert found["roc_auc"] == pytest.approx(binary["roc_auc"])


def test_rows_of_one_class_have_no_curve() -> None:
    found = TARGET.figures(np.zeros(9, np.int16), CHANCES[:9])
    assert found["roc_auc"] is None
    assert found["balanced_accuracy"] is None


def test_labels_become_their_positions() -> None:
    assert TARGET.codes(pl.Series(["blue", "red"])).to_list() == [2, 0]
    wrong = TARGET.wrong_labels(pl.Series(["blue", "pink"]))
    assert wrong == "has to be one of red, green, blue, grey: there are pink, too"


def test_a_class_may_be_missing_where_models_are_judged_but_not_where_they_learn() -> None:
    described = TARGET.describe(LABELS[LABELS != 3])
    assert TARGET.lacking(described) == "no row of grey"
    assert TARGET.lacking(described, training=False) == ""


def test_a_model_that_knows_fewer_classes_gives_the_others_no_chance() -> None:
    rows = RANDOM.normal(size=(90, 2))
    model = LogisticRegression().fit(rows, np.repeat([0, 2, 3], 30))
    found = TARGET.predict(model, rows)
    assert found.shape == (90, 4)
    assert (found[:, 1] == 0).all()
    assert TARGET.wrong(found) == ""
    assert TARGET.wrong_model(model) == ""
    other = LogisticRegression().fit(rows, np.repeat([0, 2, 7], 30))
    assert "knows the classes 0, 2, 7" in TARGET.wrong_model(other)
    assert "no predict_proba" in TARGET.wrong_model(object())


def test_there_may_be_hundreds_of_classes() -> None:
    many = Multiclass([f"c{number}" for number in range(300)])
    found = many.others(np.eye(300, dtype=np.float32))["class"]
    assert found.to_pylist() == many.classes


def test_a_column_for_each_class_is_due() -> None:
    assert "a column for each class" in TARGET.wrong(CHANCES[:, :3])


def test_probabilities_sum_to_one() -> None:
    spoilt = CHANCES.copy()
    spoilt[7] *= 0.9
    assert TARGET.wrong(spoilt) == f"the probabilities of 1 of {ROWS} rows do not sum to 1"


def test_the_classes_are_part_of_what_models_agree_on() -> None:
    assert TARGET.name != Multiclass(CLASSES[::-1]).name


def test_the_class_that_is_published_costs_least() -> None:
    given = np.array([[0.5, 0.4, 0.1], [0.9, 0.05, 0.05], [0.3, 0.1, 0.6]], np.float32)
    plain, dear = Multiclass(CLASSES[:3]), Multiclass(CLASSES[:3], costs={"green": 3})
    assert plain.others(given)["class"].to_pylist() == ["red", "red", "blue"]
    assert dear.others(given)["class"].to_pylist() == ["green", "red", "blue"]
    labels = np.array([1, 1, 0])
    assert dear.figures(labels, given)["cost"] == pytest.approx((0 + 3 + 1) / 3)
    assert "cost" not in plain.figures(labels, given)
    assert dear.name == plain.name
