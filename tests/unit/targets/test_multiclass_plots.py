"""Plots of classes name each of them."""

import numpy as np

from include.targets import multiclass_plots

CLASSES = ["red", "green", "$x$"]
LABELS = np.repeat([0, 1, 2], 50)
GIVEN = np.eye(3)[np.roll(LABELS, 10)]


def most_probable(probabilities: np.ndarray) -> np.ndarray:
    found: np.ndarray = probabilities.argmax(axis=1)
    return found


def test_the_confusion_of_a_class_is_the_share_of_its_rows() -> None:
    drawn = multiclass_plots.confusion(LABELS, {"champion": GIVEN}, CLASSES, most_probable)
    axes = drawn.axes[0]
    assert [text.get_text() for text in axes.texts] == [
        "80%", "0%", "20%", "20%", "80%", "0%", "0%", "20%", "80%",
    ]  # fmt: skip
    assert [label.get_text() for label in axes.get_xticklabels()] == CLASSES
    assert not any(label.get_parse_math() for label in axes.get_xticklabels())


def test_each_class_has_its_line() -> None:
    axes = multiclass_plots.calibration(LABELS, {"champion": GIVEN}, CLASSES).axes[0]
    assert axes.get_legend_handles_labels()[1] == CLASSES
