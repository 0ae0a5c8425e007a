"""What a model is worth on the holdout: known figures, honest samples of days, every slice."""

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from include.encoder import FeatureEncoder
from include.errors import BadData
from include.lake.tables import Lake
from include.messages import CHAMPION, ModelVersion, Rival
from include.registry import promotion, registry
from include.training import evaluation
from include.usecases.flight_delays import features
from include.usecases.flight_delays.schema import KEY
from include.wording import counted
from tests.case import CASE
from tests.unit.conftest import History

ROWS = 1000
RANDOM = np.random.default_rng(7)
SCORES = RANDOM.uniform(0.001, 0.999, ROWS)
LABELS = (RANDOM.uniform(size=ROWS) < SCORES**1.5).astype(np.int8)


# --- Samples of days ----------------------------------------------------------------------------


def test_samples_of_days_scatter_about_the_mean_of_the_rows() -> None:
    days = np.repeat(np.arange(20), 50)
    values = RANDOM.normal(size=1000)
    means = evaluation.bootstrap_means(values, days, seed=7)
    assert means.shape == (evaluation.RESAMPLES,)
    error = means.std() / np.sqrt(evaluation.RESAMPLES)
    assert means.mean() == pytest.approx(values.mean(), abs=4 * error)


def test_a_day_is_drawn_whole() -> None:
    """A hundred equal rows a day say no more than one: the variance is that of twelve days."""
    by_day = np.arange(12.0)
    means = evaluation.bootstrap_means(np.repeat(by_day, 100), np.repeat(np.arange(12), 100), 7)
    assert np.isin(np.round(means * 12, 9), np.arange(12 * 11 + 1)).all(), "means of twelve days"
    assert means.std() == pytest.approx(by_day.std() / np.sqrt(12), rel=0.1)


def test_a_day_weighs_as_much_as_it_has_rows() -> None:
    values, days = np.array([0.0] * 30 + [1.0] * 10), np.array([1] * 30 + [2] * 10)
    means = evaluation.bootstrap_means(values, days, seed=7)
    assert set(np.unique(means)) == {0, 0.25, 1}


def test_a_seed_repeats_its_samples() -> None:
    values, days = RANDOM.normal(size=100), np.repeat(np.arange(10), 10)
    one, again, other = (evaluation.bootstrap_means(values, days, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


@given(
    st.integers(-1000, 1000).map(lambda number: number / 64),
    st.lists(st.integers(0, 5), min_size=1, max_size=30),
)
def test_what_is_the_same_in_all_rows_is_so_in_all_samples(value: float, days: list[int]) -> None:
    means = evaluation.bootstrap_means(np.full(len(days), value), np.array(days), seed=7)
    assert (means == value).all()


# --- Slices -------------------------------------------------------------------------------------


def test_every_value_of_a_slicing_column_is_judged(lake: Lake, history: History) -> None:
    rows = lake.version(history.snapshot).read("holdout")
    labels = rows["label"].to_numpy()
    scores = RANDOM.uniform(size=len(rows))
    found = evaluation.by_slice(CASE, rows, labels, scores)
    expected = {f"{column} = {v}" for column in features.SLICES for v in rows[column].unique()}
    assert set(found) == expected
    for column in features.SLICES:
        of_column = [figures for name, figures in found.items() if name.startswith(f"{column} = ")]
        counts = np.array([figures["rows"] for figures in of_column])
        assert counts.sum() == len(rows)
        losses = [figures["log_loss"] for figures in of_column]
        mean = CASE.target.losses(labels, scores).mean()
        assert np.average(losses, weights=counts) == pytest.approx(mean)
    jfk = (rows["origin"] == "JFK").to_numpy()
    assert found["origin = JFK"] == CASE.target.figures(labels[jfk], scores[jfk])


# --- Models on a holdout ------------------------------------------------------------------------


def test_a_run_is_judged_by_its_scores_of_the_holdout(
    lake: Lake, history: History, own_registry: Path
) -> None:
    run = history.champion.run_id
    version = lake.version(evaluation.evaluate_run(CASE, history.snapshot, run, "xgboost"))
    holdout = lake.version(history.snapshot).read("holdout")
    kept = version.read("scores")
    assert kept.drop("score").equals(holdout.select(*KEY, "day", "label"))
    scores = registry.load_run(CASE, run).predict_proba(holdout)[:, 1]
    np.testing.assert_array_equal(evaluation.read_scores(version), scores)

    facts = version.manifest().metadata
    labels = holdout["label"].to_numpy()
    assert facts["figures"] == CASE.target.figures(labels, scores)
    sliced = evaluation.by_slice(CASE, holdout, labels, scores)
    assert facts["slices"] == sliced
    assert facts["features"] == features.FEATURES
    assert facts["snapshot"] == history.snapshot
    assert (facts["candidate"], facts["run_id"]) == ("xgboost", run)
    assert facts["scoring_seconds_per_million"] > 0
    assert facts["model_bytes"] == registry.model_bytes(CASE, run) > 100_000
    assert 0.5 < facts["figures"]["roc_auc"] < 0.8, "better than a coin, and knows no future"


def test_the_figures_are_in_the_run(lake: Lake, history: History, own_registry: Path) -> None:
    run = history.champion.run_id
    version = lake.version(evaluation.evaluate_run(CASE, history.snapshot, run, "xgboost"))
    facts = version.manifest().metadata
    expected = dict(facts["figures"])
    expected["scoring_seconds_per_million"] = facts["scoring_seconds_per_million"]
    assert MlflowClient().get_run(run).data.metrics == expected


@pytest.mark.parametrize("batch_rows", [97, 100_000])
def test_scores_do_not_depend_on_how_many_rows_are_scored_at_once(
    batch_rows: int,
    lake: Lake,
    history: History,
    own_registry: Path,
    configure: Callable[..., None],
) -> None:
    configure(batch_rows=batch_rows)
    rival = evaluation.find_rival(CASE, history.snapshot)
    reference = evaluation.evaluate_champion(CASE, history.snapshot, rival)
    assert reference is not None
    holdout = lake.version(history.snapshot).read("holdout")
    expected = registry.load(CASE, history.champion).predict_proba(holdout)[:, 1]
    np.testing.assert_array_equal(evaluation.read_scores(lake.version(reference)), expected)


def test_the_champion_is_judged_on_the_same_rows(lake: Lake, history: History) -> None:
    rival = evaluation.find_rival(CASE, history.snapshot)
    assert rival == Rival(history.champion, last_day="2013-02-11")
    reference = evaluation.evaluate_champion(CASE, history.snapshot, rival)
    assert reference is not None
    version = lake.version(reference)
    assert evaluation.read_rival(version) == rival
    assert evaluation.read_rows(CASE, version).equals(
        lake.version(history.snapshot).read("holdout")
    )


def test_without_a_champion_there_is_nothing_to_judge(
    lake: Lake, history: History, own_registry: Path
) -> None:
    MlflowClient(f"sqlite:///{own_registry}").delete_registered_model_alias(CASE.name, CHAMPION)
    rival = evaluation.find_rival(CASE, history.snapshot)
    assert rival is None
    assert evaluation.evaluate_champion(CASE, history.snapshot, rival) is None


def crown(history: History, last_day: str) -> ModelVersion:
    """Make the history's model champion once more, as if it had been trained to another day."""
    known = registry.log_training(
        CASE, registry.load(CASE, history.champion), {"last_day": last_day}, {}
    )
    version = registry.register(CASE, known)
    promotion.promote(CASE, version, history.champion, "a test")
    return version


def test_only_days_that_the_champion_has_not_seen_count(
    lake: Lake, history: History, own_registry: Path, configure: Callable[..., None]
) -> None:
    version = crown(history, last_day="2013-02-13")
    configure(gate_min_days=3)
    rival = evaluation.find_rival(CASE, history.snapshot)
    assert rival == Rival(version, last_day="2013-02-13")
    assert msgspec.convert(json.loads(json.dumps(asdict(rival))), Rival | None) == rival
    later = lake.version(history.snapshot).read("holdout").filter(pl.col("day").dt.day() > 13)
    run = history.champion.run_id
    for reference in (
        evaluation.evaluate_champion(CASE, history.snapshot, rival),
        evaluation.evaluate_run(CASE, history.snapshot, run, "xgboost", rival),
    ):
        assert reference is not None
        judged = lake.version(reference)
        assert evaluation.read_rows(CASE, judged).equals(later)
        assert judged.read("scores")["day"].equals(later["day"])
        assert judged.manifest().metadata["figures"]["rows"] == len(later)


@pytest.mark.parametrize(("last_day", "unseen"), [("2013-02-12", 4), ("2013-02-28", 0)])
def test_a_champion_that_knows_the_holdout_cannot_be_compared(
    last_day: str, unseen: int, lake: Lake, history: History, own_registry: Path
) -> None:
    version = crown(history, last_day)
    with pytest.raises(BadData, match=f"Only {counted(unseen, 'day')} of the holdout") as failure:
        evaluation.find_rival(CASE, history.snapshot)
    five_later = date.fromisoformat(last_day) + timedelta(5)
    for words in (f"(version {version.version})", f"Ask again when the days to {five_later}"):
        assert words in str(failure.value)


def log_model(lake: Lake, history: History, numeric: list[str]) -> str:
    """Keep a model of a few numbers and the carrier in a run, whether the columns exist or not."""
    rows = lake.version(history.snapshot).read("training")
    rows = rows.with_columns(pl.lit(1.0).alias(n) for n in numeric if n not in rows.columns)
    encoder = FeatureEncoder(numeric, ["carrier"])
    pipeline = Pipeline([("encode", encoder), ("classify", LogisticRegression())])
    known = rows.drop_nulls(numeric)
    pipeline.fit(known, known["label"].to_numpy())
    return registry.log_training(CASE, pipeline, {}, {})


def test_a_champion_that_needs_other_columns_says_what_to_do(
    lake: Lake, history: History, own_registry: Path
) -> None:
    old = registry.register(CASE, log_model(lake, history, ["distance", "dep_delay"]))
    promotion.promote(CASE, old, history.champion, "a test")
    rival = evaluation.find_rival(CASE, history.snapshot)
    with pytest.raises(BadData, match=f"champion, version {old.version}, cannot be") as failure:
        evaluation.evaluate_champion(CASE, history.snapshot, rival)
    for words in ("lacks: dep_delay", "remove the alias 'champion' from it in MLflow"):
        assert words in str(failure.value)
    assert registry.champion(CASE) == old


def test_a_challenger_that_needs_other_columns_is_refused(
    lake: Lake, history: History, own_registry: Path
) -> None:
    run = log_model(lake, history, ["distance", "dep_delay"])
    with pytest.raises(BadData, match="lacks: dep_delay"):
        evaluation.evaluate_run(CASE, history.snapshot, run, "other")


def test_the_columns_that_a_model_reads_are_kept(
    lake: Lake, history: History, own_registry: Path
) -> None:
    run = log_model(lake, history, ["distance"])
    version = lake.version(evaluation.evaluate_run(CASE, history.snapshot, run, "other"))
    assert version.manifest().metadata["features"] == ["distance", "carrier"]


@pytest.mark.filterwarnings("ignore:invalid value encountered in matmul:RuntimeWarning")
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_scores_that_are_no_probabilities_are_refused(
    wrong: float, lake: Lake, history: History, own_registry: Path
) -> None:
    pipeline = registry.load_run(CASE, log_model(lake, history, ["distance"]))
    pipeline["classify"].coef_[:] = wrong
    run = registry.log_training(CASE, pipeline, {}, {})
    before = list(lake.published_keys("evaluations"))
    with pytest.raises(
        BadData, match=r"scores are missing, NaN or outside 0 to 1\. Nothing was promoted"
    ):
        evaluation.evaluate_run(CASE, history.snapshot, run, "other")
    assert list(lake.published_keys("evaluations")) == before


def test_a_few_rows_are_scored_again_until_their_time_says_something() -> None:
    asked = []

    class Model:
        def predict_proba(self, rows: pl.DataFrame) -> np.ndarray:
            asked.append(len(rows))
            return np.column_stack([1 - rows["a"], rows["a"]])

    given = np.linspace(0, 1, 70)
    scores, _ = evaluation.score(CASE, pl.DataFrame({"a": given}), Model())
    assert scores.tolist() == given.tolist()
    assert sum(asked) > evaluation.TIMED_ROWS
