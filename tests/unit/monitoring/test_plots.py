"""Pictures mark promotions, decisions and alarms where they belong, and show every name."""

from datetime import timedelta

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from include.monitoring import plots, views
from include.training.plots import ALARM
from tests.case import CASE
from tests.unit.histories import LAST, history_of, losses, sample_history

DAYS = [LAST - timedelta(1), LAST]


def cells(names: list[str], values: np.ndarray, outlined: np.ndarray) -> Axes:
    block = plots.Cells("features", names, DAYS, values, outlined, full=1)
    return plots.heat_map("a title", "a subtitle", [block]).axes[0]


def test_a_promotion_is_marked_on_its_first_day_and_decisions_on_theirs() -> None:
    history = history_of(sample_history())
    models = {name: views.losses(CASE, history, name) for name in ("champion", "ensemble")}
    retrained, paged = LAST - timedelta(21), [LAST - timedelta(40), LAST]
    decisions = pl.DataFrame({"day": [retrained, *paged], "action": ["retrain", "page", "page"]})
    axes = plots.skill(models, LAST - timedelta(89), LAST, decisions, window=14).axes[0]
    assert [text.get_text() for text in axes.texts] == [" version 2"]
    handles, names = axes.get_legend_handles_labels()
    assert names == ["champion", "ensemble", "retrain", "page"]
    assert [list(handle.get_xdata()) for handle in handles[2:]] == [[retrained], paged]


def test_a_healthy_day_has_no_mark() -> None:
    days = views.losses(CASE, history_of(losses(LAST, 0.4, 0.5)), "champion")
    decisions = pl.DataFrame({"day": [LAST], "action": ["healthy"]})
    axes = plots.skill({"champion": days}, LAST, LAST, decisions, window=14).axes[0]
    assert axes.get_legend_handles_labels()[1] == ["champion"]


def test_alarms_are_outlined_and_written_in_their_colour() -> None:
    outlined = np.array([[False, True], [True, False]])
    axes = cells(["seats", "distance"], np.array([[0.1, 0.9], [0.8, np.nan]]), outlined)
    edges = [(patch.get_x() - axes.get_xlim()[0], patch.get_y()) for patch in axes.patches]
    assert edges == [(1, 0), (0, 1)]
    written = {text.get_text(): to_rgba(text.get_color()) for text in axes.texts[:2]}
    assert list(written) == ["0.90", "–"]
    assert written["0.90"] == to_rgba(ALARM) != written["–"]


def test_a_long_name_is_cut_and_a_dollar_starts_no_formula() -> None:
    names = ["$x^2$", "a" * 25]
    axes = cells(names, np.zeros((2, 2)), np.zeros((2, 2), bool))
    labels = axes.get_yticklabels()
    assert [label.get_text() for label in labels] == ["$x^2$", "a" * 23 + "…"]
    assert not any(label.get_parse_math() for label in labels)
