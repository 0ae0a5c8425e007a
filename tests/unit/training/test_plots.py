"""Pictures show what they were given, in the order and the colours that answer their question."""

import io
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from include.encoder import FeatureEncoder
from include.training import plots

ROWS = 1000
RANDOM = np.random.default_rng(7)
SCORES = RANDOM.uniform(size=ROWS)
LABELS = (RANDOM.uniform(size=ROWS) < SCORES).astype(np.int8)
BOTH = {"challenger": SCORES, "champion": SCORES**2}

pytestmark = pytest.mark.filterwarnings("error")


def lines(axes: Axes) -> dict[str, np.ndarray]:
    """Points of each line that the legend names, of shape (points, 2)."""
    handles, names = axes.get_legend_handles_labels()
    return dict(zip(names, (handle.get_xydata() for handle in handles), strict=True))


def bars(figure: Figure) -> Iterator[tuple[str, float, str]]:
    """Name, length and colour of each bar, from top to bottom."""
    axes = figure.axes[0]
    bottom, top = axes.get_ylim()
    assert bottom > top, "the first bar is the lowest"
    for label, bar in zip(axes.get_yticklabels(), axes.patches, strict=True):
        yield label.get_text(), bar.get_width(), to_hex(bar.get_facecolor()).upper()


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer)
    return buffer.getvalue()


def test_true_probabilities_lie_on_the_diagonal() -> None:
    shown = lines(plots.calibration(LABELS, BOTH, bins=5).axes[0])
    assert list(shown) == ["challenger", "champion"]
    assert shown["challenger"].shape == (5, 2)
    assert shown["challenger"][:, 0] == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9], abs=0.05)
    assert shown["challenger"][:, 1] == pytest.approx(shown["challenger"][:, 0], abs=0.1)
    assert (shown["champion"][:, 1] > shown["champion"][:, 0]).all()


def test_equal_scores_are_one_point() -> None:
    shown = lines(plots.calibration(LABELS, {"champion": np.full(ROWS, 0.25)}).axes[0])
    np.testing.assert_allclose(shown["champion"], [[0.25, LABELS.mean()]])


def test_the_legend_shows_the_area_under_each_curve() -> None:
    scores = {"champion": np.full(ROWS, 0.25), "challenger": LABELS.astype(float)}
    assert list(lines(plots.roc(LABELS, scores).axes[0])) == [
        "champion: AUC 0.500",
        "challenger: AUC 1.000",
    ]


@pytest.mark.parametrize("draw", [plots.calibration, plots.roc])
def test_a_model_has_its_colour_in_every_picture(draw) -> None:
    for scores in (BOTH, dict(reversed(BOTH.items())), {"base rate": SCORES} | BOTH):
        handles, _ = draw(LABELS, scores).axes[0].get_legend_handles_labels()
        colours = {line.get_label().split(":")[0]: line.get_color() for line in handles}
        assert colours["challenger"] == plots.CHALLENGER
        assert colours["champion"] == plots.CHAMPION
        assert len(set(colours.values())) == len(scores)


@pytest.mark.parametrize("draw", [plots.calibration, plots.roc])
@pytest.mark.parametrize("score", [np.zeros(ROWS), np.ones(ROWS), LABELS, 1 - LABELS])
def test_scores_at_the_limits_are_drawn(draw, score: np.ndarray) -> None:
    assert png(draw(LABELS, {"challenger": score.astype(np.float32)})).startswith(b"\x89PNG")


def test_slices_are_sorted_and_those_beyond_the_bound_stand_out() -> None:
    gains = {"origin = EWR": 0.01, "origin = JFK": -0.03, "carrier = UA": -0.02, "carrier = B6": 0}
    figure = plots.slices(gains, -0.02)
    assert list(bars(figure)) == [
        ("origin = JFK", -0.03, plots.ALARM),
        ("carrier = UA", -0.02, plots.CHALLENGER),
        ("carrier = B6", 0, plots.CHALLENGER),
        ("origin = EWR", 0.01, plots.CHALLENGER),
    ]
    assert [-0.02, -0.02] in [list(line.get_xdata()) for line in figure.axes[0].lines]
    assert "1 of 4 slices" in figure.axes[0].get_title("left")


def test_contributions_are_shown_largest_first() -> None:
    figure = plots.contributions({"seats": -0.001, "dep_minute": 0.1, "carrier": 0.02})
    assert [name for name, _, _ in bars(figure)] == ["dep_minute", "carrier", "seats"]


@pytest.mark.parametrize("count", [0, 1, 40])
def test_any_number_of_bars_has_room(count: int) -> None:
    gains = {f"price = $_{number}$": float(number) for number in range(count)}
    for figure in (plots.slices(gains, -0.02), plots.contributions(gains)):
        assert png(figure).startswith(b"\x89PNG")
        boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
        assert not any(one.overlaps(other) for one, other in pairwise(boxes))


def test_the_feature_that_alone_decides_is_worth_the_most() -> None:
    rows = pl.DataFrame(
        {
            "key": range(ROWS),
            "noise": RANDOM.normal(size=ROWS).astype(np.float32),
            "carrier": RANDOM.choice(["UA", "B6", None], ROWS),
            "dest": RANDOM.choice(["IAH", "MIA"], ROWS),
        },
        strict=False,
    )
    labels = (rows["carrier"] == "UA").fill_null(False).to_numpy().astype(np.int8)
    features = ["noise", "carrier", "dest"]
    pipeline = Pipeline(
        [
            ("encode", FeatureEncoder(["noise"], ["carrier", "dest"])),
            ("one_hot", OneHotEncoder(max_categories=4)),
            ("classify", LogisticRegression()),
        ]
    ).fit(rows, labels)
    gains = plots.feature_contributions(pipeline, rows, labels, features, seed=7, max_rows=500)
    assert list(gains) == features
    assert gains["carrier"] > 0.5
    assert gains["noise"] == pytest.approx(0, abs=0.01)
    assert gains["dest"] == pytest.approx(0, abs=0.01)
    again = plots.feature_contributions(pipeline, rows, labels, features, seed=7, max_rows=500)
    assert again == gains


def test_no_screen_and_no_global_state_is_used() -> None:
    script = "import sys, include.training.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
