"""Is the challenger better? The difference of mean losses, and how sure it is by the days."""

from collections.abc import Callable
from datetime import date

import numpy as np
import polars as pl
import pytest

from include.lake.tables import Lake
from include.messages import CHALLENGER, CHAMPION, ModelVersion
from include.monitoring import experiment, outcomes, policy
from include.monitoring import history as records
from include.partitions import days_before
from tests.case import CASE
from tests.unit.conftest import OLD_DAY, History
from tests.unit.helpers import infer

BEFORE = days_before(OLD_DAY, 1)


@pytest.mark.parametrize(("mode", "rows"), [("ab", "own"), ("shadow", "same")])
def test_the_monitor_compares_the_two_on_their_outcomes(
    mode: str,
    rows: str,
    challenger: ModelVersion,
    lake: Lake,
    history: History,
    configure: Callable[..., None],
) -> None:
    configure(experiment=mode, ab_share=0.5)
    for key in (BEFORE, OLD_DAY):
        infer(lake, key, history.champion)
    outcomes.update(CASE, OLD_DAY)
    known = records.read(CASE, OLD_DAY, 28)
    losses = {
        name: records.select(known, "log_loss", model=name, slice="all")
        for name in (CHAMPION, CHALLENGER)
    }
    assert [len(found) for found in losses.values()] == [2, 2]
    assert set(losses[CHALLENGER]["model_version"]) == {challenger.version}
    joined = outcomes.read(CASE, OLD_DAY, 2)
    both = joined["score"].is_not_null() & joined["score_challenger"].is_not_null()
    assert both.all() if rows == "same" else not both.any()
    found = experiment.compare(CASE, known, OLD_DAY)
    assert found is not None
    assert (found.days, found.champion, found.challenger) == (2, "1", challenger.version)
    mine = joined.drop_nulls("score")
    theirs = joined.drop_nulls("score_challenger")
    gain = loss(mine, "score") - loss(theirs, "score_challenger")
    assert found.gain.value == pytest.approx(gain, abs=1e-9)
    assert found.rows == len(theirs)
    [reason] = [
        one for one in policy.decide(CASE, known, OLD_DAY).reasons if one.rule == "experiment"
    ]
    assert reason.action == "healthy"
    assert f"a confidence of {found.gain.confidence:.0%}" in reason.found


def loss(rows: pl.DataFrame, column: str) -> float:
    return CASE.target.losses(rows["label"].to_numpy(), rows[column].to_numpy()).mean()


def days(gains: list[float], version: str = "2", trained: int = 0) -> pl.DataFrame:
    """A history in which the challenger gains so much, on each day up to the old one."""
    frames = []
    for back, gain in enumerate(reversed(gains)):
        found = [
            records.Figure("outcomes", "log_loss", value, 100, number, {"model": m, "slice": "all"})
            for m, number, value in ((CHAMPION, "1", 0.5), (CHALLENGER, version, 0.5 - gain))
        ]
        about = {"model": CHALLENGER, "slice": "all"}
        age = len(gains) - back - trained
        found.append(records.Figure("outcomes", "days_after_training", age, 100, version, about))
        frames.append(records.to_frame(days_before(OLD_DAY, back), found))
    return pl.concat(frames)


@pytest.mark.parametrize("number", [2, 5, 28])
def test_nine_of_ten_ranges_hold_the_true_gain_however_few_days_there_are(number: int) -> None:
    random, gain, held = np.random.default_rng(7), 0.01, []
    for _ in range(2000):
        weather = random.normal(0.5, 0.1, number)  # both models have the same
        day = random.integers(600, 1000, number)
        rows = random.binomial(day, [[0.8], [0.2]])
        own = random.normal(0, 0.5, (2, number)) / np.sqrt(rows)
        champion, challenger = np.stack([weather + own, rows], axis=2)
        challenger[:, 0] -= gain
        found = experiment.gain_of(champion, challenger)
        held.append(found.low <= gain <= found.high)
    assert np.mean(held) == pytest.approx(0.9, abs=0.03)


def test_how_sure_it_is_follows_from_the_scatter_of_days() -> None:
    cases = (
        ([0.01] * 10, 1), ([-0.01] * 10, 0), ([0.0] * 10, 0.5), ([1, -1] * 5, 0.5), ([0.3], 0.5),
        ([0.01, 0.03], 0.852),  # Student's t of 1 degree of freedom, at 2
    )  # fmt: skip
    for gains, confidence in cases:
        found = experiment.compare(CASE, days(gains), OLD_DAY)
        assert found is not None
        assert found.gain.value == pytest.approx(np.mean(gains))
        assert found.gain.confidence == pytest.approx(confidence, abs=0.001), gains


def test_days_that_a_model_was_trained_on_are_not_compared() -> None:
    found = experiment.compare(CASE, days([5, 5, 0.1, 0.1], trained=2), OLD_DAY)
    assert found is not None
    assert (found.days, found.gain.value) == (2, pytest.approx(0.1))


def test_only_the_pair_that_was_compared_last_counts() -> None:
    earlier = days([5] * 6, "2").filter(pl.col("time") < date.fromisoformat(BEFORE))
    now = days([0.1] * 2, "3")
    found = experiment.compare(CASE, pl.concat([earlier, now]), OLD_DAY)
    assert found is not None
    assert (found.challenger, found.days) == ("3", 2)


def test_without_an_experiment_nothing_is_reported(lake: Lake, history: History) -> None:
    infer(lake, OLD_DAY, history.champion)
    outcomes.update(CASE, OLD_DAY)
    known = records.read(CASE, OLD_DAY, 28)
    assert experiment.figures(CASE, known, OLD_DAY) == []
    assert "experiment" not in {one.rule for one in policy.decide(CASE, known, OLD_DAY).reasons}
