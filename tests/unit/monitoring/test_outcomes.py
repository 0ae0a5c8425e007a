"""Predictions and their truth: when it comes, each row once, and what the models were worth."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from include.inference import ensemble
from include.lake.tables import Lake
from include.messages import ModelVersion
from include.monitoring import measure, outcomes
from include.monitoring.history import read, select
from include.partitions import days_before, parse_key
from include.registry import registry
from include.targets import Regression
from include.usecases.flight_delays import features
from include.usecases.flight_delays.schema import KEY
from local.in_process import batch_inference, validate_day
from tests.case import CASE, at, with_target
from tests.unit.champions import challengers
from tests.unit.conftest import OLD_DAY, TRAINED, History
from tests.unit.ensembles import BY_NAME, ask, publish
from tests.unit.helpers import landed, replace, republish

BEFORE = days_before(OLD_DAY, 1)
CHAMPION = {"model": "champion", "slice": "all"}


@pytest.fixture
def second(history: History, own_registry: Path) -> ModelVersion:
    """Version 2: version 1's files, with a run of its own that names no snapshot."""
    [made] = challengers(1)
    registry.log_reference(CASE, made.run_id, registry.reference(CASE, history.champion))
    return made


def without_truth(lake: Lake, *keys: str) -> None:
    for key in keys:
        shutil.rmtree(lake.partition_path("actuals", key))


def truth(lake: Lake, key: str) -> pl.DataFrame:
    return features.build_labels(lake.current("actuals", key).read("actuals"))


def known(lake: Lake, metric: str, **labels: str) -> pl.DataFrame:
    """What the history says of the champion, or of what else the labels name."""
    return select(read(at(lake), OLD_DAY, 28), metric, **(labels or CHAMPION))


def value(lake: Lake, metric: str, **labels: str) -> float:
    [found] = known(lake, metric, **labels)["value"]
    return float(found)


def published(lake: Lake, key: str = OLD_DAY) -> pl.DataFrame:
    return lake.current(outcomes.TABLE, key).read("outcomes")


# --- When truth comes -----------------------------------------------------------------------------


def test_without_truth_yet_there_is_nothing_to_say(lake: Lake, history: History) -> None:
    batch_inference(CASE, OLD_DAY, history.champion)
    without_truth(lake, OLD_DAY)
    assert outcomes.update(CASE, OLD_DAY) == []
    assert lake.manifest(outcomes.TABLE, OLD_DAY) is None
    assert read(CASE, OLD_DAY, 28).is_empty()


def test_truth_of_a_day_without_predictions_is_left_alone(lake: Lake) -> None:
    assert outcomes.update(CASE, OLD_DAY) == []
    assert read(CASE, OLD_DAY, 28).is_empty()


def test_each_prediction_is_joined_with_its_truth(lake: Lake, history: History) -> None:
    predicted = batch_inference(CASE, OLD_DAY, history.champion)
    assert outcomes.update(CASE, OLD_DAY) == [OLD_DAY]
    rows = published(lake)
    given = lake.current("predictions", OLD_DAY).read("predictions", [*KEY, "score"])
    both = rows.select(*KEY, "score", "label")
    assert_frame_equal(
        both.drop("label").join(given, on=KEY), both.join(given, on=KEY).drop("label")
    )
    assert_frame_equal(both.join(given, on=[*KEY, "score"]), both)
    assert_frame_equal(both.select(*KEY, "label"), truth(lake, OLD_DAY), check_row_order=False)
    assert set(rows["model_version"]) == {"1"}
    assert value(lake, "label_coverage") == len(rows) / predicted < 1


def test_late_truth_is_picked_up_on_a_later_day_and_never_counted_twice(
    lake: Lake, history: History
) -> None:
    late = days_before(OLD_DAY, 3)
    for key in (late, BEFORE):
        batch_inference(CASE, key, history.champion)
    without_truth(lake, late)
    assert outcomes.update(CASE, BEFORE) == [BEFORE]
    validate_day(CASE, "actuals", late)
    assert outcomes.update(CASE, OLD_DAY) == [late]
    assert outcomes.update(CASE, OLD_DAY) == []
    rows = outcomes.read(CASE, OLD_DAY, 28)
    assert not rows.select("day", *KEY).is_duplicated().any()
    assert known(lake, "log_loss")["n"].sum() == len(rows)


def test_truth_that_comes_in_two_parts_counts_each_row_once(lake: Lake, history: History) -> None:
    batch_inference(CASE, OLD_DAY, history.champion)
    whole = truth(lake, OLD_DAY)
    every_other = pl.when(pl.int_range(pl.len()) % 2 == 0).then("arr_delay")
    republish(lake, "actuals", OLD_DAY, arr_delay=every_other)
    some = truth(lake, OLD_DAY)
    assert outcomes.update(CASE, OLD_DAY) == [OLD_DAY]
    assert len(published(lake)) == len(some) < len(whole)
    lake.landing_path("actuals", OLD_DAY).unlink()
    validate_day(CASE, "actuals", OLD_DAY)
    assert outcomes.update(CASE, OLD_DAY) == [OLD_DAY]
    assert_frame_equal(published(lake).select(*KEY, "label"), whole, check_row_order=False)
    assert known(lake, "log_loss")["n"].to_list() == [len(whole)]


def test_how_far_back_is_looked_for_truth_is_a_setting(
    lake: Lake, history: History, configure: Callable[..., None]
) -> None:
    old = days_before(OLD_DAY, 4)
    batch_inference(CASE, old, history.champion)
    configure(outcome_lookback_days=4)
    assert outcomes.update(CASE, OLD_DAY) == []
    configure(outcome_lookback_days=5)
    assert outcomes.update(CASE, OLD_DAY) == [old]


def test_the_same_day_twice_changes_nothing(lake: Lake, history: History) -> None:
    batch_inference(CASE, OLD_DAY, history.champion)
    outcomes.update(CASE, OLD_DAY)
    manifest, rows = lake.manifest(outcomes.TABLE, OLD_DAY), read(CASE, OLD_DAY, 28)
    assert outcomes.update(CASE, OLD_DAY) == []
    assert lake.manifest(outcomes.TABLE, OLD_DAY) == manifest
    assert_frame_equal(read(CASE, OLD_DAY, 28), rows)


def test_a_day_scored_again_by_another_version_replaces_its_outcomes(
    lake: Lake, history: History, second: ModelVersion
) -> None:
    for model in (history.champion, second):
        batch_inference(CASE, OLD_DAY, model)
        assert outcomes.update(CASE, OLD_DAY) == [OLD_DAY]
        rows = published(lake)
        assert set(rows["model_version"]) == {model.version}
        assert not rows.select(KEY).is_duplicated().any()
    assert known(lake, "log_loss")["model_version"].to_list() == ["1", "2"]


def test_a_failure_between_history_and_outcomes_loses_and_doubles_nothing(
    lake: Lake, history: History
) -> None:
    batch_inference(CASE, OLD_DAY, history.champion)
    folder = lake.root / outcomes.TABLE
    assert isinstance(folder, Path)
    folder.symlink_to(lake.root / "a disk that is away")
    with pytest.raises(FileExistsError):
        outcomes.update(CASE, OLD_DAY)
    rows = read(CASE, OLD_DAY, 28)
    assert len(rows)
    folder.unlink()
    assert lake.manifest(outcomes.TABLE, OLD_DAY) is None
    assert outcomes.update(CASE, OLD_DAY) == [OLD_DAY]
    assert len(published(lake)) == known(lake, "log_loss")["n"].sum()
    assert_frame_equal(read(CASE, OLD_DAY, 28), rows)


# --- Truth that is odd ----------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.02, 1.0])
def test_truth_for_unknown_keys_is_counted_and_left_out(
    share: float, lake: Lake, history: History
) -> None:
    predicted = batch_inference(CASE, OLD_DAY, history.champion)
    path = landed(lake, "actuals", OLD_DAY, "actuals")
    rows = pl.read_parquet(path).with_columns(pl.col("arr_delay").fill_null(0))
    strangers = int(share * len(rows))
    other = pl.when(pl.int_range(pl.len()) < strangers).then(9999 - pl.int_range(pl.len()))
    replace(path, rows.with_columns(flight=other.otherwise("flight").cast(pl.Int32)))
    validate_day(CASE, "actuals", OLD_DAY)
    assert outcomes.update(CASE, OLD_DAY) == [OLD_DAY]
    assert len(published(lake)) == predicted - strangers
    [unknown] = select(read(CASE, OLD_DAY, 1), "unknown_truth_rows").rows(named=True)
    assert (unknown["value"], unknown["n"]) == (strangers, predicted)
    assert value(lake, "label_coverage") == 1 - strangers / predicted
    assert len(known(lake, "log_loss")) == (share < 1)


def test_a_day_on_which_no_flight_arrived_has_outcomes_without_rows(
    lake: Lake, history: History
) -> None:
    batch_inference(CASE, OLD_DAY, history.champion)
    republish(lake, "actuals", OLD_DAY, arr_delay=pl.lit(None, pl.Float64))
    assert outcomes.update(CASE, OLD_DAY) == [OLD_DAY]
    assert published(lake).is_empty()
    assert value(lake, "label_coverage") == 0
    assert known(lake, "log_loss").is_empty()
    assert len(outcomes.read(CASE, OLD_DAY, 28)) == 0


@pytest.mark.parametrize(("delay", "rate"), [(0.0, 0), (90.0, 1)])
def test_a_day_of_a_single_class_has_no_auc_but_all_else(
    delay: float, rate: float, lake: Lake, history: History
) -> None:
    batch_inference(CASE, OLD_DAY, history.champion)
    republish(lake, "actuals", OLD_DAY, arr_delay=pl.lit(delay))
    outcomes.update(CASE, OLD_DAY)
    assert value(lake, "rate") == rate
    for metric in ("log_loss", "brier", "calibration_error", "skill"):
        assert np.isfinite(value(lake, metric))
    for metric in ("roc_auc", "average_precision"):
        assert known(lake, metric).is_empty()


def test_ten_rows_of_truth_give_ten_outcomes(lake: Lake, history: History) -> None:
    batch_inference(CASE, OLD_DAY, history.champion)
    few = pl.when(pl.int_range(pl.len()) < 10).then(pl.col("arr_delay").fill_null(0))
    republish(lake, "actuals", OLD_DAY, arr_delay=few)
    outcomes.update(CASE, OLD_DAY)
    assert known(lake, "log_loss")["n"].to_list() == [10]
    origins = [row for row in slices(lake, "origin") if row["n"]]
    assert sum(row["n"] for row in origins) == 10


# --- What the models were worth -------------------------------------------------------------------


def slices(lake: Lake, column: str, metric: str = "log_loss") -> list[dict[str, Any]]:
    """The rows of the history about the champion's slices of a column."""
    rows = known(lake, metric, model="champion").rows(named=True)
    return [row for row in rows if f'"{column} = ' in row["labels"]]


@pytest.mark.parametrize("column", features.SLICES)
def test_slices_add_up_to_all_rows(column: str, lake: Lake, history: History) -> None:
    batch_inference(CASE, OLD_DAY, history.champion)
    outcomes.update(CASE, OLD_DAY)
    for metric in ("log_loss", "brier", "rate", "mean_score", "base_log_loss"):
        found = slices(lake, column, metric)
        total = sum(row["value"] * row["n"] for row in found)
        rows = sum(row["n"] for row in found)
        assert rows == len(published(lake))
        assert total / rows == pytest.approx(value(lake, metric), abs=1e-6)


def test_a_slice_that_is_a_feature_and_no_key_is_found_in_the_features(
    lake: Lake, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "SLICES", ["origin", "dest"])
    batch_inference(CASE, OLD_DAY, history.champion)
    outcomes.update(CASE, OLD_DAY)
    sizes = dict(published(lake)["dest"].value_counts().iter_rows())
    found = {row["labels"].split("dest = ")[1][:3]: row["n"] for row in slices(lake, "dest")}
    assert found == sizes


@st.composite
def judged(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of at least ten rows, of one class or both."""
    rows = draw(st.integers(10, 60))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    rate = draw(st.sampled_from([0.0, 0.2, 0.5, 1.0]))
    scores = np.round(random.beta(2, 5, rows), draw(st.sampled_from([1, 6])))  # with ties, without
    return (random.random(rows) < rate).astype(np.int8), scores.clip(0.01, 0.99).astype(np.float32)


def figures(labels: np.ndarray, base: float | None = 0.3, **scores: np.ndarray) -> dict[str, Any]:
    """What each model was worth on rows of one slice."""
    rows = pl.DataFrame({"label": labels, "origin": "EWR", "carrier": "UA", **scores})
    versions = {"champion": "7"}
    known = None if base is None else np.asarray(base)
    found = outcomes.figures(CASE, rows, len(rows), 0, known, versions)
    whole = [one for one in found if one.labels.get("slice") == "all"]
    return {f"{one.labels['model']} {one.metric}": one for one in whole}


@given(judged(), st.floats(0.01, 0.99))
def test_the_figures_are_those_of_scikit_learn(
    sample: tuple[np.ndarray, np.ndarray], base: float
) -> None:
    labels, scores = sample
    found = {name: one.value for name, one in figures(labels, base, score=scores).items()}
    exact = scores.astype(np.float64)
    of_base = log_loss(labels, np.full(len(labels), base), labels=[0, 1])
    expected = {
        "log_loss": log_loss(labels, exact, labels=[0, 1]),
        "base_log_loss": of_base,
        "skill": 1 - log_loss(labels, exact, labels=[0, 1]) / of_base,
        "brier": brier_score_loss(labels, exact, pos_label=1),
        "rate": labels.mean(),
        "mean_score": exact.mean(),
    }
    if 0 < labels.mean() < 1:
        expected["roc_auc"] = roc_auc_score(labels, scores)
        expected["average_precision"] = average_precision_score(labels, scores)
    for name, number in expected.items():
        assert found[f"champion {name}"] == pytest.approx(number, rel=1e-6, abs=1e-6), name
    assert ("champion roc_auc" in found) == ("roc_auc" in expected)


@given(judged())
def test_a_model_that_predicts_the_baseline_has_no_skill(
    sample: tuple[np.ndarray, np.ndarray],
) -> None:
    labels, _ = sample
    found = figures(labels, 0.25, score=np.full(len(labels), 0.25, np.float32))
    assert found["champion skill"].value == pytest.approx(0)


def test_without_a_baseline_there_is_no_skill() -> None:
    found = figures(np.array([0, 1] * 5), None, score=np.linspace(0.1, 0.9, 10))
    assert "champion log_loss" in found
    assert not {"champion skill", "champion base_log_loss"} & found.keys()


def test_rows_that_a_model_has_not_scored_are_not_held_against_it() -> None:
    labels, scores = np.array([0, 1] * 5), np.linspace(0.1, 0.9, 10)
    some = pl.Series(scores, strict=False).set(pl.int_range(10, eager=True) < 4, None)
    none = pl.Series([None] * 10, dtype=pl.Float32)
    found = figures(labels, score=scores, score_a=some, score_b=none)
    assert found["a log_loss"].n == 6
    assert found["a log_loss"].value == pytest.approx(log_loss(labels[4:], scores[4:]))
    assert not [name for name in found if name.startswith("b ")]


def test_the_ensemble_and_its_members_are_judged_beside_the_champion(
    lake: Lake, history: History
) -> None:
    batch_inference(CASE, OLD_DAY, history.champion)
    day = str(lake.current("features", OLD_DAY))
    names = [name for name, member in BY_NAME.items() if member.kind == "registry"]
    answers = {name: ask(lake, day, BY_NAME[name], history.champion) for name in names}
    publish(lake, day, ensemble.call_roll(CASE, day, history.champion, answers, {}))
    outcomes.update(CASE, OLD_DAY)
    rows = published(lake)
    for model, column in [("ensemble", "ensemble_score"), *((n, f"score_{n}") for n in names)]:
        loss = log_loss(rows["label"].to_numpy(), rows[column].to_numpy().astype(np.float64))
        assert value(lake, "log_loss", model=model, slice="all") == pytest.approx(loss, abs=1e-6)
    assert known(lake, "log_loss", model="remote").is_empty(), "it has not answered"
    versions = dict(known(lake, "log_loss", slice="all").select("labels", "model_version").rows())
    assert set(versions.values()) == {"1"}


def test_an_ensemble_that_is_late_is_joined_on_a_later_day(lake: Lake, history: History) -> None:
    batch_inference(CASE, OLD_DAY, history.champion)
    outcomes.update(CASE, OLD_DAY)
    day = str(lake.current("features", OLD_DAY))
    publish(lake, day, ensemble.call_roll(CASE, day, history.champion, {}, {}))
    assert outcomes.update(CASE, OLD_DAY) == [OLD_DAY]
    assert len(known(lake, "log_loss", model="ensemble", slice="all")) == 1
    assert len(known(lake, "log_loss")) == 1


# --- The baseline ---------------------------------------------------------------------------------


def test_the_baseline_is_that_of_the_champions_training(lake: Lake, history: History) -> None:
    last = TRAINED[1]
    days = [truth(lake, days_before(last, back))["label"] for back in range(16)]
    found = outcomes.baseline(CASE, OLD_DAY, history.champion)
    assert found == pytest.approx(pl.concat(days).to_numpy().mean(), abs=0.002)
    snapshot = lake.version(history.snapshot)
    labels = pl.concat([snapshot.read(part, ["label"]) for part in ("training", "holdout")])
    assert found == labels["label"].to_numpy().mean()


def test_for_a_version_without_a_snapshot_it_is_that_of_the_outcomes_before(
    lake: Lake, second: ModelVersion
) -> None:
    for key in (BEFORE, OLD_DAY):
        batch_inference(CASE, key, second)
    assert outcomes.update(CASE, OLD_DAY) == [BEFORE, OLD_DAY]
    skills = known(lake, "skill")
    assert skills["time"].dt.to_string().to_list() == [OLD_DAY], "nothing was known before"
    rate = published(lake, BEFORE)["label"].to_numpy().mean()
    assert lake.current(outcomes.TABLE, OLD_DAY).manifest().metadata["baseline"] == rate


@pytest.mark.parametrize("gone", ["run", "lake"])
def test_a_training_that_cannot_be_found_is_none(gone: str, lake: Lake, history: History) -> None:
    model = history.champion
    if gone == "run":
        model = ModelVersion(model.name, "9", "0" * 32)
    else:
        shutil.rmtree(lake.root / "training")
    assert outcomes.training_snapshot(CASE, model) is None
    assert outcomes.baseline(CASE, OLD_DAY, model) is None


# --- Reading --------------------------------------------------------------------------------------


def test_without_outcomes_a_table_of_no_rows_is_read(lake: Lake) -> None:
    rows = outcomes.read(CASE, OLD_DAY, 28)
    assert rows.is_empty()
    assert {"day", "label", "score", "model_version"} <= {*rows.columns}


def test_days_are_read_in_order_over_a_gap_and_lack_what_they_lack(
    lake: Lake, history: History
) -> None:
    first = days_before(OLD_DAY, 3)
    for key in (OLD_DAY, first):
        batch_inference(CASE, key, history.champion)
    day = str(lake.current("features", OLD_DAY))
    publish(lake, day, ensemble.call_roll(CASE, day, history.champion, {}, {}))
    outcomes.update(CASE, OLD_DAY)
    rows = outcomes.read(CASE, OLD_DAY, 28)
    assert rows["day"].is_sorted()
    days = rows["day"].dt.to_string()
    assert days.unique().sort().to_list() == [first, OLD_DAY]
    assert (rows["ensemble_score"].is_null() == (days == first)).all()
    assert len(outcomes.read(CASE, OLD_DAY, 3)) == (days == OLD_DAY).sum()


def test_outcomes_of_another_target_no_longer_count(lake: Lake, history: History) -> None:
    batch_inference(CASE, OLD_DAY, history.champion)
    assert outcomes.update(CASE, OLD_DAY) == [OLD_DAY]
    assert len(outcomes.read(CASE, OLD_DAY, 1)) > 0
    changed = with_target(at(lake), Regression("minutes"))
    assert outcomes.read(changed, OLD_DAY, 1).is_empty()
    assert outcomes.update(changed, OLD_DAY) == []
    assert list(measure.scores(changed, OLD_DAY)["score"]) == []


def test_predictions_in_another_unit_no_longer_count_though_they_have_the_same_columns(
    lake: Lake, history: History
) -> None:
    before = days_before(OLD_DAY, 1)
    for key in (before, OLD_DAY):
        batch_inference(CASE, key, history.champion)
    path = lake.partition_path("predictions", before) / "current.json"
    published = json.loads(path.read_text())
    assert published["metadata"]["target"] == CASE.target.name
    published["metadata"]["target"] = "an earlier one"
    path.write_text(json.dumps(published))
    assert outcomes.update(CASE, OLD_DAY) == [OLD_DAY]
    assert measure.scores(CASE, OLD_DAY)["day"].unique().to_list() == [parse_key(OLD_DAY)]
