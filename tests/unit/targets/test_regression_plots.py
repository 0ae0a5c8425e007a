"""Plots of numbers show their unit, and say so if there is no interval."""

import numpy as np
from matplotlib.figure import Figure

from include.targets import regression_plots

LABELS = np.linspace(0, 100, 200)
GIVEN = np.column_stack([LABELS + 1, LABELS - 5, LABELS + 7])


def test_errors_are_in_the_unit_of_the_labels() -> None:
    axes = regression_plots.errors(LABELS, {"champion": GIVEN}, "dollars").axes[0]
    assert axes.get_xlabel() == "Prediction - truth, dollars"
    assert axes.get_legend_handles_labels()[1] == ["champion: mean absolute error 1 dollars"]


def test_predictions_that_are_too_high_lie_below_the_line() -> None:
    axes = regression_plots.calibration(LABELS, {"champion": GIVEN}, "dollars").axes[0]
    means, truths = axes.lines[0].get_xdata(), axes.lines[0].get_ydata()
    np.testing.assert_allclose(np.asarray(means) - np.asarray(truths), 1)


def test_a_predicted_median_is_compared_with_the_median_of_the_truth() -> None:
    skewed = LABELS + np.where(np.arange(200) % 5, 0, 1_000)
    middle = np.column_stack([LABELS, LABELS, LABELS])
    for share, apart in ((0.5, 10), (None, 150)):
        axes = regression_plots.calibration(skewed, {"champion": middle}, "m", share).axes[0]
        gaps = np.asarray(axes.lines[0].get_ydata()) - np.asarray(axes.lines[0].get_xdata())
        assert (gaps.max() > 150) == (apart == 150)


def test_coverage_is_drawn_of_the_models_that_give_an_interval() -> None:
    alone = np.column_stack([LABELS, np.full((200, 2), np.nan)])
    drawn = regression_plots.coverage(LABELS, {"champion": GIVEN, "remote": alone}, 0.8, "m")
    assert isinstance(drawn, Figure)
    assert drawn.axes[0].get_legend_handles_labels()[1] == ["champion: 100.0%"]
    assert "No model" in str(regression_plots.coverage(LABELS, {"remote": alone}, 0.8, "m"))
