"""The look that all plots share."""

import numpy as np
import pytest

from include.plotting import distributions


@pytest.mark.parametrize("groups", [1, 2])
def test_each_group_of_scores_shows_its_rows_and_its_mean(groups: int) -> None:
    scores = {"today": np.array([0.25, 0.75]), "before": np.full(1000, 0.1)}
    shown = dict(list(scores.items())[:groups])
    axes = distributions("a title", "a subtitle", shown, "Score", (0, 1)).axes[0]
    named = ["today: 2 rows, mean 50.0%", "before: 1,000 rows, mean 10.0%"][:groups]
    assert axes.get_legend_handles_labels()[1] == named


def test_numbers_without_known_ends_are_shown_but_the_outermost() -> None:
    values = np.append(np.linspace(-10, 30, 1000), 1e9)
    axes = distributions("a title", "a subtitle", {"today": values}, "Minutes", (-np.inf, np.inf))
    low, high = axes.axes[0].get_xlim()
    assert low == pytest.approx(-10, abs=1)
    assert high == pytest.approx(30, abs=1)
    assert axes.axes[0].get_xlabel() == "Minutes"
