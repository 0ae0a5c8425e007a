"""What holds for every kind of target: the rest of the library relies on it."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.targets import Binary, Multiclass, Regression, Target

ROWS = 400


@dataclass(frozen=True)
class Sample:
    """A target, labels as a use case gives them, and the predictions that are right."""

    target: Target
    given: pl.Series
    perfect: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        return self.target.codes(self.given).to_numpy()

    @property
    def baseline(self) -> np.ndarray:
        known = self.target.baseline([self.target.describe(self.labels)])
        return np.broadcast_to(known, (ROWS, *known.shape))


RANDOM = np.random.default_rng(7)
CLASSES = ["red", "green", "blue"]
YES = RANDOM.integers(0, 2, ROWS).astype(np.int8)
MINUTES = RANDOM.normal(10, 30, ROWS)
COLOURS = RANDOM.integers(0, 3, ROWS)
EXACT = np.column_stack([MINUTES] * 3)
SAMPLES = {
    "binary": Sample(Binary(), pl.Series(YES), YES.astype(float)),
    "costs": Sample(Binary("late", costs=(1, 4)), pl.Series(YES), YES.astype(float)),
    "absolute": Sample(Regression("minutes"), pl.Series(MINUTES), EXACT),
    "squared": Sample(Regression("minutes", error="squared"), pl.Series(MINUTES), EXACT),
    "pinball": Sample(
        Regression("minutes", error="pinball", quantile=0.9), pl.Series(MINUTES), EXACT
    ),
    "multiclass": Sample(
        Multiclass(CLASSES), pl.Series([CLASSES[n] for n in COLOURS]), np.eye(3)[COLOURS]
    ),
}  # fmt: skip


@pytest.fixture(params=SAMPLES.values(), ids=SAMPLES.keys())
def sample(request: pytest.FixtureRequest) -> Sample:
    found: Sample = request.param
    return found


def test_each_kind_has_all_that_the_library_asks_for(sample: Sample) -> None:
    assert isinstance(sample.target, Target)
    assert set(sample.target.watched) <= set(sample.target.columns)
    for name in (sample.target.loss, sample.target.calibration, sample.target.headline):
        assert name in sample.target.measures


def test_labels_that_a_use_case_gives_are_right(sample: Sample) -> None:
    assert sample.target.wrong_labels(sample.given) == ""
    assert "never null" in sample.target.wrong_labels(sample.given.clone().scatter(3, None))
    assert "has to be" in sample.target.wrong_labels(sample.given.cast(pl.Binary, strict=False))


def test_the_mean_loss_is_among_the_figures(sample: Sample) -> None:
    for predictions in (sample.perfect, sample.baseline):
        found = sample.target.figures(sample.labels, predictions)
        losses = sample.target.losses(sample.labels, predictions)
        assert losses.shape == (ROWS,)
        assert found[sample.target.loss] == pytest.approx(losses.mean(), rel=1e-12)
        assert found["rows"] == ROWS
        assert sample.target.measures.keys() <= found.keys()
        json.dumps(found)


def test_no_constant_prediction_has_a_smaller_loss_than_the_baseline(sample: Sample) -> None:
    least = sample.target.losses(sample.labels, sample.baseline).mean()
    for other in np.random.default_rng(1).permutation(sample.perfect)[:20]:
        mixed = 0.9 * sample.baseline + 0.1 * np.broadcast_to(other, sample.baseline.shape)
        assert sample.target.losses(sample.labels, mixed).mean() >= least - 1e-3 * abs(least)


def test_what_is_right_costs_nothing_and_less_than_the_baseline(sample: Sample) -> None:
    right = sample.target.losses(sample.labels, sample.perfect).mean()
    assert right == pytest.approx(0, abs=1e-6)
    assert right < sample.target.losses(sample.labels, sample.baseline).mean()


def test_a_loss_can_be_expected_without_labels(sample: Sample) -> None:
    found = sample.target.expected_losses(sample.baseline)
    assert found.shape == (ROWS,)
    real = sample.target.losses(sample.labels, sample.baseline).mean()
    assert found.mean() == pytest.approx(real, rel=0.15)


def test_labels_of_several_parts_count_together(sample: Sample) -> None:
    described = [sample.target.describe(part) for part in np.array_split(sample.labels, 3)]
    json.dumps(described)
    together = sample.target.baseline(described)
    scale = np.abs(sample.baseline).max()
    np.testing.assert_allclose(together, sample.baseline[0], atol=0.15 * scale)


def test_labels_from_which_nothing_can_be_learned_are_named(sample: Sample) -> None:
    describe, lacking = sample.target.describe, sample.target.lacking
    assert lacking(describe(sample.labels)) == ""
    assert "no labelled row" in lacking(describe(sample.labels[:0]))
    assert "only" in lacking(describe(np.repeat(sample.labels[:1], 9)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_prediction_that_is_no_number_is_wrong(sample: Sample, value: float) -> None:
    assert sample.target.wrong(sample.perfect.astype(np.float32)) == ""
    assert sample.target.wrong(sample.baseline.astype(np.float32)) == ""
    spoilt = sample.perfect.astype(np.float32)
    spoilt[3] = value
    assert "1 of 400" in sample.target.wrong(spoilt)


@given(st.data())
@pytest.mark.parametrize("kind", SAMPLES)
def test_models_that_agree_are_combined_to_what_they_say(kind: str, data: st.DataObject) -> None:
    target, said = SAMPLES[kind].target, SAMPLES[kind].baseline
    weights = data.draw(st.lists(st.floats(0.01, 9), min_size=1, max_size=5))
    shares = {str(n): weight / sum(weights) for n, weight in enumerate(weights)}
    found = target.combine(dict.fromkeys(shares, said), shares)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, said, rtol=1e-5, atol=1e-6)
    assert target.wrong(found) == ""


def test_a_combination_lies_between_its_parts(sample: Sample) -> None:
    one, other = sample.perfect, sample.baseline
    found = sample.target.combine({"a": one, "b": other}, {"a": 0.25, "b": 0.75})
    assert (found >= np.minimum(one, other) - 1e-4).all()
    assert (found <= np.maximum(one, other) + 1e-4).all()


def test_a_server_gives_back_what_was_predicted(sample: Sample) -> None:
    sent = sample.baseline.astype(np.float32).reshape(ROWS, len(sample.target.columns))
    found = sample.target.from_output(sent, ROWS)
    np.testing.assert_array_equal(found, sample.baseline.astype(np.float32))
    for wrong in (sent[:-1], np.zeros((ROWS, 9), np.float32), np.zeros((ROWS, 1, 1), np.float32)):
        with pytest.raises(ValueError, match=f"for {ROWS} rows"):
            sample.target.from_output(wrong, ROWS)


def test_every_plot_can_be_drawn(sample: Sample) -> None:
    both = {"champion": sample.perfect, "challenger": sample.baseline}
    drawn = sample.target.plots(sample.labels, both)
    drawn |= {
        name: draw(sample.labels, both) for name, draw in sample.target.outcome_plots().items()
    }
    for figure in drawn.values():
        figure.canvas.draw()
        assert figure.get_suptitle().endswith("?")


REPO = Path(__file__).resolve().parents[3]
SHARED = ["include", "dags", "plugins", "prometheus", "grafana", "serving"]
OWN = ("include/targets/", "include/usecases/", "include/intervals.py")
WORDS = re.compile(
    r"log[-_ ]?loss|\b(?:roc_)?auc\b|predict_proba|base[ _]rate|brier|multiclass|regression|pinball"
    r"|mean_(?:absolute|squared)_error",
    re.IGNORECASE,
)


def test_nothing_else_names_a_kind_of_target_or_a_loss() -> None:
    files = [path for room in SHARED for path in (REPO / room).rglob("*") if path.is_file()]
    names = [path.relative_to(REPO).as_posix() for path in files if path.suffix not in (".pyc", "")]
    lines = [
        (name, number, line)
        for name in names
        if not name.startswith(OWN)
        for number, line in enumerate((REPO / name).read_text().splitlines(), start=1)
    ]
    assert len(lines) > 10_000
    assert [found for found in lines if WORDS.search(found[2])] == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Multiclass(["a", "b"]), "name three different ones"),
        (lambda: Multiclass(["a", "b", "a"]), "name three different ones"),
        (lambda: Multiclass(["a", "b", "not this"]), "letters, digits and underscores"),
        (lambda: Multiclass(["a", "b", "c"], costs={"d": 2}), "costs names d"),
        (lambda: Multiclass(["a", "b", "c"], costs={"a": 0}), "the cost of a"),
        (lambda: Binary(costs=(1, 0)), "not two numbers above 0"),
        (lambda: Binary(costs=(1, 2, 3)), "not two numbers above 0"),
        (lambda: Regression(""), "says what numbers count"),
        (lambda: Regression("share"), "says what numbers count"),
        (lambda: Regression("m", error="huber"), "not absolute or squared or pinball"),
        (lambda: Regression("m", interval=1.0), "interval is 1.0"),
        (lambda: Regression("m", quantile=0.0), "quantile is 0.0"),
        (lambda: Regression("m", least=5, most=5), "not below most"),
        (lambda: Regression("m", log=True), "set least=0"),
    ],
)
def test_a_declaration_that_could_never_work_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
