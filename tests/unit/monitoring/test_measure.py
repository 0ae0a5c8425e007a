"""A day's rows and scores: what they are like, and how far from those before and the training's."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from include.inference import ensemble
from include.lake.tables import Lake
from include.messages import ModelVersion
from include.monitoring import measure
from include.monitoring.history import Figure, append
from include.partitions import days_before
from include.registry import registry
from include.settings import settings
from include.statistics import drift
from include.statistics.profile import profile_of
from include.statistics.profiles import keep
from include.usecases.flight_delays import features
from local.in_process import batch_inference, validate_day
from tests.case import CASE, at
from tests.unit.champions import challengers, without_champion
from tests.unit.conftest import NEW_DAY, OLD_DAY, TRAINED, History, copy_lake
from tests.unit.ensembles import publish
from tests.unit.helpers import landed, replace

DAYS = 4
"""Days of the window in these tests."""

ALL = [days_before(OLD_DAY, back) for back in reversed(range(DAYS + 1))]
BEFORE = ALL[:-1]

TRAINED_TO = days_before(TRAINED[1], 5)
"""Last day that the champion has seen, which the holdout follows."""

Configure = Callable[..., None]


@pytest.fixture(scope="module")
def inferred(history: History, tmp_path_factory: pytest.TempPathFactory) -> History:
    """The history's lake with the predictions of five days."""
    folder = tmp_path_factory.mktemp("inferred")
    copy_lake(history.lakes, folder / "lake")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", history.registry)
        settings.cache_clear()
        for key in ALL:
            batch_inference(at(Lake(str(folder / "lake" / CASE.name))), key, history.champion)
    settings.cache_clear()
    return History(folder, history.snapshot, history.champion)


@pytest.fixture
def lake(inferred: History, history: History, configure: Configure, tmp_path: Path) -> Lake:
    """A test's own lake, of which five days are scored."""
    copy_lake(inferred.lakes, tmp_path / "lake")
    configure(mlflow_tracking_uri=history.registry, drift_window_days=DAYS, score_drift_days=DAYS)
    return CASE.lake


@pytest.fixture
def second(history: History, own_registry: Path) -> ModelVersion:
    """Version 2: version 1's files, with a run that knows no snapshot and no evaluation."""
    [made] = challengers(1)
    registry.log_reference(CASE, made.run_id, registry.reference(CASE, history.champion))
    return made


def look(lake: Lake) -> list[Figure]:
    """All figures of the day."""
    return measure.figures(at(lake), OLD_DAY)


def found(day: list[Figure], metric: str, **labels: str) -> list[Figure]:
    """Those of one metric that have these labels."""
    return [one for one in day if one.metric == metric and labels.items() <= one.labels.items()]


def value(day: list[Figure], metric: str, **labels: str) -> float:
    [one] = found(day, metric, **labels)
    return one.value


def change(lake: Lake, key: str = OLD_DAY, **changes: pl.Expr) -> None:
    """Publish and score a day again, with other flights."""
    path = landed(lake, "flights", key)
    replace(path, pl.read_parquet(path).with_columns(**changes))
    validate_day(at(lake), "validated", key)
    batch_inference(at(lake), key, registry.champion(CASE))


def inputs(lake: Lake, *keys: str) -> pl.DataFrame:
    """The features of these days."""
    return pl.concat([lake.current("features", key).read("features") for key in keys])


def scores(lake: Lake, *keys: str) -> pl.Series:
    days = [lake.current("predictions", key).read("predictions", ["score"]) for key in keys]
    return pl.concat(days)["score"]


# --- The whole day --------------------------------------------------------------------------------


def test_no_figure_appears_twice_and_each_is_a_number(lake: Lake) -> None:
    figures = measure.figures(CASE, OLD_DAY)
    identities = [(f.pipeline, f.model_version, f.metric, str(f.labels)) for f in figures]
    assert len(set(identities)) == len(identities) > 100
    assert [one for one in figures if not np.isfinite(one.value) or one.n < 0] == []


def test_the_same_day_looked_at_twice_is_the_same(lake: Lake) -> None:
    assert append(CASE, OLD_DAY, measure.figures(CASE, OLD_DAY)) > 100
    assert append(CASE, OLD_DAY, measure.figures(CASE, OLD_DAY)) == 0


def test_later_landings_do_not_change_a_day(lake: Lake, history: History) -> None:
    before = measure.figures(CASE, OLD_DAY)
    validate_day(CASE, "validated", NEW_DAY)
    batch_inference(CASE, NEW_DAY, history.champion)
    assert measure.figures(CASE, OLD_DAY) == before


def test_a_day_without_any_data_says_so(lake: Lake) -> None:
    figures = measure.figures(CASE, NEW_DAY)
    assert {one.labels["table"]: one.value for one in figures if one.metric == "published"} == {
        "validated": 0, "predictions": 0, "ensemble_predictions": 0
    }  # fmt: skip
    own = [one for one in figures if one.pipeline != "state" and "1" in one.labels.get("days", "1")]
    assert own == []


def test_a_published_day_is_reported_with_its_rows_and_the_age_of_its_model(lake: Lake) -> None:
    rows = len(inputs(lake, OLD_DAY))
    day = look(lake)
    there = {one.labels["table"]: (one.value, one.n) for one in found(day, "published")}
    assert there["predictions"] == (1, rows)
    assert there["ensemble_predictions"] == (0, 0)
    assert there["validated"][0] == 1
    assert days_before(OLD_DAY, int(value(day, "model_age_days"))) == TRAINED_TO


# --- What rows are like ---------------------------------------------------------------------------


def test_profiles_tell_what_the_rows_themselves_do(lake: Lake) -> None:
    rows = inputs(lake, OLD_DAY)
    day = look(lake)
    for name in ("distance", "seats", "temp"):
        about = {"table": "features", "column": name}
        assert value(day, "null_rate", **about) == rows[name].null_count() / len(rows)
        assert value(day, "mean", **about) == pytest.approx(rows[name].cast(float).mean())
        for metric, exact in (("least", rows[name].min()), ("most", rows[name].max())):
            assert value(day, metric, **about) == exact
        quantile = value(day, "p99", **about)
        exact = rows[name].drop_nulls().sort()[int(np.ceil(0.99 * rows[name].count())) - 1]
        assert quantile == pytest.approx(exact, rel=2**-9)


def test_the_most_frequent_categories_have_their_shares(lake: Lake) -> None:
    rows = inputs(lake, OLD_DAY)
    shares = {
        one.labels["category"]: one.value
        for one in found(look(lake), "category_share", table="features", column="dest")
    }
    counts = dict(rows["dest"].value_counts().iter_rows())
    assert shares == {name: counts[name] / len(rows) for name in shares}
    most = sorted(counts.values(), reverse=True)[: drift.TOP]
    assert sorted(shares.values(), reverse=True) == [count / len(rows) for count in most]


def test_a_constant_feature_has_no_spread_and_finite_drift(
    lake: Lake, configure: Configure
) -> None:
    configure(drift_window_days=2)
    for key in ALL[-3:]:
        change(lake, key, distance=pl.lit(500, pl.Int32))
    about = {"table": "features", "column": "distance"}
    day = look(lake)
    assert value(day, "standard_deviation", **about) == 0
    assert value(day, "outlier_share", **about) == 0
    trailing = {"feature": "distance", "reference": "trailing"}
    for metric in ("psi", "kolmogorov_smirnov", "wasserstein", "outside_range"):
        assert value(day, metric, **trailing) == pytest.approx(0, abs=1e-6)
    change(lake, distance=pl.lit(501, pl.Int32))
    day = look(lake)
    assert np.isfinite(value(day, "psi", **trailing))
    assert value(day, "outside_range", **trailing) == 1


def test_a_feature_that_is_all_null_has_a_null_rate_and_no_moments(lake: Lake) -> None:
    shutil.rmtree(lake.root / "landing" / "weather")
    path = landed(lake, "weather", OLD_DAY)
    rows = pl.read_parquet(path)
    replace(path, rows.with_columns(pressure=pl.lit(None, pl.Float64)))
    validate_day(CASE, "validated", OLD_DAY)
    batch_inference(CASE, OLD_DAY, registry.champion(CASE))
    about = {"table": "features", "column": "pressure"}
    day = look(lake)
    assert value(day, "null_rate", **about) == 1
    assert found(day, "mean", **about) == []
    trailing = {"feature": "pressure", "reference": "trailing"}
    usual = inputs(lake, *BEFORE)["pressure"].is_null().to_numpy().mean()
    assert value(day, "null_rise", **trailing) == pytest.approx(1 - usual)
    assert value(day, "outside_range", **trailing) == 0
    assert np.isfinite(value(day, "psi", **trailing))
    assert found(day, "wasserstein", **trailing) == []


def test_a_category_never_seen_is_drift(lake: Lake) -> None:
    before = value(look(lake), "psi", feature="dest", reference="trailing")
    most = inputs(lake, OLD_DAY)["dest"].mode()[0]
    change(lake, dest=pl.col("dest").replace(most, "ZZZ"))
    day = look(lake)
    assert value(day, "psi", feature="dest", reference="trailing") > before + 0.1
    share = value(day, "category_share", table="features", column="dest", category="ZZZ")
    assert share == (inputs(lake, OLD_DAY)["dest"] == "ZZZ").to_numpy().mean()


def test_ten_rows_are_held_to_what_chance_gives_to_ten_rows(
    lake: Lake, history: History, configure: Configure
) -> None:
    configure(min_volume_ratio=0)
    path = landed(lake, "flights", OLD_DAY)
    replace(path, pl.read_parquet(path).sort("time_hour").tail(10))
    validate_day(CASE, "validated", OLD_DAY)
    batch_inference(CASE, OLD_DAY, history.champion)
    about = {"feature": "distance", "reference": "trailing"}
    day = look(lake)
    [psi], [chance] = found(day, "psi", **about), found(day, "psi_by_chance", **about)
    assert (psi.n, chance.n) == (10, 10)
    assert chance.value > 1 > value(day, "psi_by_chance", feature="distance", days=str(DAYS + 1))


def test_values_far_from_the_usual_are_outliers_and_outside_the_range(lake: Lake) -> None:
    one_in_five = pl.when(pl.int_range(pl.len()) % 5 == 0).then(10_000).otherwise("distance")
    change(lake, distance=one_in_five.cast(pl.Int32))
    share = (inputs(lake, OLD_DAY)["distance"] == 10_000).to_numpy().mean()
    about = {"table": "features", "column": "distance"}
    day = look(lake)
    assert value(day, "outlier_share", **about) == pytest.approx(share, abs=0.02)
    assert value(day, "outside_range", feature="distance") == pytest.approx(share)


# --- How far they are from others -----------------------------------------------------------------


def test_a_day_that_was_at_fault_is_not_what_the_next_is_compared_with(lake: Lake) -> None:
    kilometres = (pl.col("distance") * 1.609).cast(pl.Int32)
    change(lake, BEFORE[-1], distance=kilometres)
    append(CASE, BEFORE[-1], [Figure("decision", "rule", 3, 1, "", {"rule": "features"})])
    sound = pl.concat([inputs(lake, key) for key in BEFORE[:-1]])
    [rise] = found(look(lake), "psi", feature="distance", reference="trailing", days="1")
    pair = (sound["distance"], inputs(lake, OLD_DAY)["distance"])
    one, other = (drift.of_column(profile_of(rows.to_frame())["distance"]) for rows in pair)
    assert rise.value == pytest.approx(drift.compare(one, other).psi)


def test_a_column_that_was_text_before_is_not_compared(lake: Lake) -> None:
    """Code that makes it a number must not silence the monitor for as long as the window is."""
    key = BEFORE[-1]
    version = lake.current("features", key)
    profile = profile_of(inputs(lake, key).select(features.FEATURES).with_columns(temp=pl.lit("x")))
    keep(version, "features", profile)
    compared = {one.labels["feature"] for one in found(look(lake), "psi", days="1")}
    assert "temp" in compared, "the other days still say what is usual"


@pytest.mark.parametrize("feature", ["distance", "temp", "carrier"])
def test_the_day_is_compared_with_all_days_before_it_together(feature: str, lake: Lake) -> None:
    sides = [profile_of(inputs(lake, *keys))[feature] for keys in (BEFORE, [OLD_DAY])]
    expected = drift.compare(*map(drift.of_column, sides))
    about = {"feature": feature, "reference": "trailing", "days": "1"}
    day = look(lake)
    [psi] = found(day, "psi", **about)
    assert psi.value == pytest.approx(expected.psi, abs=1e-9)
    assert psi.n == expected.rows
    assert psi.labels["kind"] == ("seasonal" if feature == "temp" else "stable")
    assert value(day, "jensen_shannon", **about) == pytest.approx(expected.jensen_shannon)
    rise = sides[1].null_rate - sides[0].null_rate
    assert value(day, "null_rise", **about) == pytest.approx(rise)


@pytest.mark.parametrize("feature", ["distance", "carrier"])
def test_the_window_is_compared_with_the_training(
    feature: str, lake: Lake, history: History
) -> None:
    snapshot = lake.version(history.snapshot)
    rows = pl.concat([snapshot.read(part, [feature]) for part in ("training", "holdout")])
    sides = [profile_of(side)[feature] for side in (rows, inputs(lake, *ALL))]
    expected = drift.compare(*map(drift.of_column, sides))
    [psi] = found(look(lake), "psi", feature=feature, reference="training", days=str(DAYS + 1))
    assert psi.value == pytest.approx(expected.psi, abs=1e-9)
    assert psi.n == expected.rows


@pytest.mark.parametrize(("gaps", "reference"), [(2, "trailing"), (3, "training"), (4, "training")])
def test_after_a_gap_the_day_is_compared_with_the_training_instead(
    gaps: int, reference: str, lake: Lake
) -> None:
    for key in BEFORE[:gaps]:
        shutil.rmtree(lake.partition_path("features", key))
    daily = [one for one in found(look(lake), "psi", days="1") if one.model_version == ""]
    assert [one.labels["feature"] for one in daily] == features.FEATURES
    assert {one.labels["reference"] for one in daily} == {reference}


def test_days_older_than_monitoring_count_as_missing(lake: Lake) -> None:
    for key in BEFORE:
        (lake.current("features", key).part_path("features.profile")).unlink()
    day = look(lake)
    assert found(day, "psi", feature="distance", reference="trailing") == []
    assert len(found(day, "psi", feature="distance", reference="training", days="1")) == 1


# --- Scores ---------------------------------------------------------------------------------------


def test_scores_are_compared_with_those_of_the_days_before(lake: Lake) -> None:
    sides = [
        drift.of_column(profile_of(scores(lake, *keys).to_frame())["score"])
        for keys in (BEFORE, [OLD_DAY])
    ]
    [psi] = found(look(lake), "psi", feature="score", reference="trailing")
    assert psi.value == pytest.approx(drift.compare(*sides).psi, abs=1e-9)
    assert (psi.model_version, psi.n) == ("1", len(scores(lake, OLD_DAY)))


@pytest.fixture
def judged(lake: Lake, second: ModelVersion) -> ModelVersion:
    """A version whose evaluation is known: its holdout's scores are those of the day before."""
    version = lake.new_version("evaluations", BEFORE[-1])
    rows = scores(lake, BEFORE[-1]).to_frame()
    labels = np.random.default_rng(7).random(len(rows)) < rows["score"].to_numpy()
    version.write_frame("scores", rows.with_columns(label=pl.Series(labels.astype(np.int8))))
    version.publish(["scores"])
    reference = {**registry.reference(CASE, second), "evaluation": str(version)}
    registry.log_reference(CASE, second.run_id, reference)
    return second


def test_a_versions_own_days_are_compared_with_its_holdout(
    lake: Lake, judged: ModelVersion
) -> None:
    about = {"feature": "score", "reference": "training"}
    assert found(look(lake), "psi", **about) == [], "none is its own"
    for days, key in enumerate(reversed(ALL[-2:]), 1):
        batch_inference(CASE, key, judged)
        [psi] = found(look(lake), "psi", **about)
        assert (psi.model_version, psi.labels["days"]) == ("2", str(days))
    sides = [drift.distribution(scores(lake, *keys)) for keys in (ALL[-2:-1], ALL[-2:])]
    assert psi.n == sides[1].rows
    assert psi.value == pytest.approx(drift.compare(*sides).psi, abs=0.02), "one side is rounded"


def test_before_the_truth_is_known_predictions_promise_a_loss_that_their_holdout_corrects(
    lake: Lake, judged: ModelVersion
) -> None:
    batch_inference(CASE, OLD_DAY, judged)
    [promised] = found(look(lake), "loss")
    assert (promised.pipeline, promised.model_version) == ("estimate", "2")
    today = scores(lake, OLD_DAY).to_numpy()
    own = CASE.target.expected_losses(today).mean()
    # The labels of its holdout were drawn with its scores, so there is little to correct.
    assert promised.value == pytest.approx(own, rel=0.1)
    assert promised.n == len(today)


def test_an_evaluation_that_is_gone_is_nothing_to_compare_with(
    lake: Lake, judged: ModelVersion
) -> None:
    batch_inference(CASE, OLD_DAY, judged)
    shutil.rmtree(lake.root / "evaluations")
    day = look(lake)
    assert found(day, "psi", feature="score", reference="training") == []
    assert len(found(day, "psi", feature="score", reference="trailing")) == 1


def test_a_version_without_reference_is_compared_with_the_days_before_only(
    lake: Lake, second: ModelVersion
) -> None:
    batch_inference(CASE, OLD_DAY, second)
    day = look(lake)
    compared = found(day, "psi")
    assert {one.labels["reference"] for one in compared} == {"trailing"}
    assert len(compared) == len(features.FEATURES) + 1
    assert found(day, "model_age_days") == []


def test_a_day_is_measured_by_itself_if_the_versions_run_is_gone(lake: Lake) -> None:
    version = lake.current("predictions", OLD_DAY)
    gone = {"name": "flight_delays", "version": "9", "run_id": "0" * 32}
    version.publish(["predictions"], {**version.manifest().metadata, "model": gone})
    day = look(lake)
    assert len(found(day, "psi", reference="trailing")) == len(features.FEATURES) + 1
    assert found(day, "psi", reference="training") == found(day, "model_age_days") == []


def test_without_a_champion_or_predictions_the_inputs_are_measured(
    lake: Lake, own_registry: Path
) -> None:
    without_champion()
    shutil.rmtree(lake.root / "predictions")
    day = look(lake)
    assert {one.labels["feature"] for one in found(day, "psi")} == {*features.FEATURES}
    assert found(day, "model_age_days") == []
    assert value(day, "published", table="predictions") == 0


def test_a_day_that_was_not_scored_is_that_of_the_champion_of_now(lake: Lake) -> None:
    shutil.rmtree(lake.partition_path("predictions", OLD_DAY))
    day = look(lake)
    assert days_before(OLD_DAY, int(value(day, "model_age_days"))) == TRAINED_TO
    assert found(day, "psi", feature="score", reference="trailing") == []


# --- The ensemble, and pictures -------------------------------------------------------------------


def test_a_fallback_of_the_ensemble_and_its_absent_members_are_reported(
    lake: Lake, history: History
) -> None:
    rows = str(lake.current("features", OLD_DAY))
    nobody = dict.fromkeys(("xgboost", "remote"))
    publish(lake, rows, ensemble.call_roll(CASE, rows, history.champion, nobody, {}))
    day = look(lake)
    assert value(day, "fallback_level") == 1
    assert value(day, "members_absent") == 2
    assert value(day, "published", table="ensemble_predictions") == 1


def test_scores_for_pictures_are_those_of_the_day_and_the_window(lake: Lake) -> None:
    shutil.rmtree(lake.partition_path("predictions", BEFORE[1]))
    rows = measure.scores(CASE, OLD_DAY)
    days = [key for key in ALL if key != BEFORE[1]]
    assert rows["day"].unique().sort().dt.to_string().to_list() == days
    assert rows["score"].to_list() == scores(lake, *days).to_list()


def test_without_predictions_there_are_no_scores_for_pictures(lake: Lake) -> None:
    shutil.rmtree(lake.root / "predictions")
    rows = measure.scores(CASE, OLD_DAY)
    assert rows.is_empty()
    assert {*rows.columns} == {"score", "day"}
