"""Plots of probabilities show what they were given, in the colours of the models' roles."""

import io

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from include import plotting
from include.targets import binary_plots

ROWS = 1000
RANDOM = np.random.default_rng(7)
SCORES = RANDOM.uniform(size=ROWS)
LABELS = (RANDOM.uniform(size=ROWS) < SCORES).astype(np.int8)
BOTH = {"challenger": SCORES, "champion": SCORES**2}

pytestmark = pytest.mark.filterwarnings("error::UserWarning")  # as matplotlib gives


def lines(axes: Axes) -> dict[str, np.ndarray]:
    """Points of each line that the legend names, of shape (points, 2)."""
    handles, names = axes.get_legend_handles_labels()
    return dict(zip(names, (handle.get_xydata() for handle in handles), strict=True))


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer)
    return buffer.getvalue()


def test_true_probabilities_lie_on_the_diagonal() -> None:
    shown = lines(binary_plots.calibration(LABELS, BOTH, bins=5).axes[0])
    assert list(shown) == ["challenger", "champion"]
    assert shown["challenger"].shape == (5, 2)
    assert shown["challenger"][:, 0] == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9], abs=0.05)
    assert shown["challenger"][:, 1] == pytest.approx(shown["challenger"][:, 0], abs=0.1)
    assert (shown["champion"][:, 1] > shown["champion"][:, 0]).all()


def test_equal_scores_are_one_point() -> None:
    shown = lines(binary_plots.calibration(LABELS, {"champion": np.full(ROWS, 0.25)}).axes[0])
    np.testing.assert_allclose(shown["champion"], [[0.25, LABELS.mean()]])


def test_the_legend_shows_the_area_under_each_curve() -> None:
    scores = {"champion": np.full(ROWS, 0.25), "challenger": LABELS.astype(float)}
    assert list(lines(binary_plots.roc(LABELS, scores).axes[0])) == [
        "champion: AUC 0.500",
        "challenger: AUC 1.000",
    ]


@pytest.mark.parametrize("draw", [binary_plots.calibration, binary_plots.roc])
def test_a_model_has_its_colour_in_every_picture(draw) -> None:
    for scores in (BOTH, dict(reversed(BOTH.items())), {"baseline": SCORES} | BOTH):
        handles, _ = draw(LABELS, scores).axes[0].get_legend_handles_labels()
        colours = {line.get_label().split(":")[0]: line.get_color() for line in handles}
        assert colours["challenger"] == plotting.CHALLENGER
        assert colours["champion"] == plotting.CHAMPION
        assert len(set(colours.values())) == len(scores)


@pytest.mark.parametrize("draw", [binary_plots.calibration, binary_plots.roc])
@pytest.mark.parametrize("score", [np.zeros(ROWS), np.ones(ROWS), LABELS, 1 - LABELS])
def test_scores_at_the_limits_are_drawn(draw, score: np.ndarray) -> None:
    assert png(draw(LABELS, {"challenger": score.astype(np.float32)})).startswith(b"\x89PNG")


@pytest.mark.parametrize(("label", "words"), [(0, "are negative"), (1, "are positive")])
def test_outcomes_of_one_kind_are_told_in_a_sentence(label: int, words: str) -> None:
    labels = np.full(ROWS, label, np.int8)
    for draw in (binary_plots.by_outcome, binary_plots.calibration_of_outcomes):
        assert words in str(draw(labels, BOTH))
        assert isinstance(draw(LABELS, BOTH), Figure)
