"""Pictures show what they were given, in the order and the colours that answer their question."""

import io
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from include.encoder import FeatureEncoder
from include.targets import Binary
from include.training import plots

ROWS = 1000
RANDOM = np.random.default_rng(7)

pytestmark = pytest.mark.filterwarnings("error::UserWarning")  # as matplotlib gives


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
    figure = plots.contributions({"seats": -0.001, "dep_minute": 0.1, "carrier": 0.02}, Binary())
    assert [name for name, _, _ in bars(figure)] == ["dep_minute", "carrier", "seats"]


@pytest.mark.parametrize("count", [0, 1, 40])
def test_any_number_of_bars_has_room(count: int) -> None:
    gains = {f"price = $_{number}$": float(number) for number in range(count)}
    for figure in (plots.slices(gains, -0.02), plots.contributions(gains, Binary())):
        assert png(figure).startswith(b"\x89PNG")
        boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
        assert not any(one.overlaps(other) for one, other in pairwise(boxes))


def test_the_feature_that_alone_decides_is_worth_the_most() -> None:
    rows = pl.DataFrame(
        {
            "key": range(ROWS),
            "noise": RANDOM.normal(size=ROWS).astype(np.float32),
            "carrier": RANDOM.choice(["UA", "B6", None], ROWS).tolist(),
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
    given = (Binary(), pipeline, rows, labels, features)
    gains = plots.feature_contributions(*given, seed=7, max_rows=500)
    assert list(gains) == features
    assert gains["carrier"] > 0.5
    assert gains["noise"] == pytest.approx(0, abs=0.01)
    assert gains["dest"] == pytest.approx(0, abs=0.01)
    again = plots.feature_contributions(*given, seed=7, max_rows=500)
    assert again == gains


def test_no_screen_and_no_global_state_is_used() -> None:
    script = "import sys, include.training.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
