"""From landed history to a fitted, evaluated model."""

from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from include import registry, scoring, training
from include.encoder import FeatureEncoder
from include.errors import BadData, MissingData
from include.lake import Lake
from include.usecase.features import FEATURES
from include.usecase.schema import KEY
from tests.unit.conftest import FIRST_DAY, LAST_DAY, TRAINED, History


def test_the_holdout_is_later_than_any_day_that_is_trained_on(lake: Lake) -> None:
    version = lake.version(training.build_training_set(lake, "2013-02-10", "2013-02-15", 2))
    rows = version.read("rows")
    days = [date(2013, 2, day) for day in range(10, 16)]
    assert rows["day"].unique().sort().to_list() == days
    assert rows.filter("is_holdout")["day"].unique().sort().to_list() == days[-2:]
    assert lake.current("training", "2013-02-15").name == version.name


def test_every_flight_that_arrived_is_in_the_training_set_once(lake: Lake) -> None:
    version = lake.version(training.build_training_set(lake, "2013-02-08", "2013-02-10", 1))
    rows = version.read("rows")
    keys = [f"2013-02-{day:02}" for day in (8, 9, 10)]
    truth = pl.concat([lake.current("actuals", key).read("actuals") for key in keys])
    arrived = truth.drop_nulls("arr_delay").select(*KEY, label=pl.col("arr_delay") >= 15)
    found = rows.select(*KEY, label=pl.col("label") == 1)
    assert found.sort(KEY).equals(arrived.sort(KEY))
    assert set(rows.columns) == {*KEY, *FEATURES, "label", "day", "is_holdout"}


def test_a_training_set_names_the_versions_it_was_made_from(lake: Lake) -> None:
    version = lake.version(training.build_training_set(lake, "2013-02-10", "2013-02-12", 1))
    sources = version.manifest().metadata["sources"]
    for key in ("2013-02-10", "2013-02-11", "2013-02-12"):
        assert sources[key] == [str(lake.current(table, key)) for table in ("validated", "actuals")]


def test_the_same_history_gives_the_same_training_set(lake: Lake, history: History) -> None:
    again = lake.version(training.build_training_set(lake, *TRAINED, holdout_days=5))
    assert again.read("rows").equals(lake.version(history.training_set).read("rows"))


def test_every_day_that_is_missing_is_named(lake: Lake) -> None:
    start, end = FIRST_DAY - timedelta(1), LAST_DAY + timedelta(1)
    words = r"4 partition\(s\).*validated 2013-01-31, actuals 2013-01-31, validated 2013-02-21"
    with pytest.raises(MissingData, match=words):
        training.build_training_set(lake, str(start), str(end), 5)
    assert lake.manifest("training", str(end)) is None


def test_a_long_list_of_missing_days_is_cut(lake: Lake) -> None:
    with pytest.raises(MissingData, match="actuals 2013-04-05 and 50 more"):
        training.build_training_set(lake, "2013-04-01", "2013-04-30", 5)


@pytest.mark.parametrize(
    ("start", "end", "holdout_days"),
    [
        ("2013-02-10", "2013-02-10", 1),
        ("2013-02-10", "2013-02-14", 5),
        ("2013-02-14", "2013-02-10", 1),
    ],
)
def test_a_window_without_a_day_to_train_on_is_refused(
    start: str, end: str, holdout_days: int, lake: Lake
) -> None:
    with pytest.raises(BadData, match=f"window is {start} to {end}"):
        training.build_training_set(lake, start, end, holdout_days)


@pytest.mark.parametrize("end", ["2013-2-14", "20130214", "", "../x"])
def test_a_window_that_ends_on_no_date_is_refused(end: str, lake: Lake) -> None:
    with pytest.raises(BadData, match="is no partition"):
        training.build_training_set(lake, "2013-02-10", end, 1)


@pytest.mark.parametrize(("part", "use"), [("training days", "train"), ("holdout", "evaluate")])
def test_a_window_of_one_class_is_refused(
    part: str, use: str, lake: Lake, history: History
) -> None:
    rows = lake.version(history.training_set).read("rows")
    here = pl.col("is_holdout") if part == "holdout" else ~pl.col("is_holdout")
    one = rows.with_columns(label=pl.when(here).then(pl.lit(0, pl.Int8)).otherwise("label"))
    version = lake.new_version("training", TRAINED[1])
    version.write_frame("rows", one)
    judge = {"train": training.train, "evaluate": training.evaluate}[use]
    with pytest.raises(BadData, match=rf"only one class in \d+ labelled rows of the {part}"):
        judge(lake, str(version), history.champion.run_id)


def test_training_again_gives_the_same_model(lake: Lake, history: History, own_registry) -> None:
    again = registry.load_run(training.train(lake, history.training_set, "again"))
    rows = lake.version(history.training_set).read("rows")
    champion = registry.load(history.champion)
    np.testing.assert_array_equal(again.predict_proba(rows), champion.predict_proba(rows))


def test_the_model_knows_the_days_before_the_holdout_only(lake: Lake, history: History) -> None:
    rows = lake.version(history.training_set).read("rows").filter(~pl.col("is_holdout"))
    encoder = registry.load(history.champion)[0]
    assert isinstance(encoder, FeatureEncoder)
    assert encoder.categories_["dest"] == rows["dest"].unique().sort().to_list()


def test_the_evaluation_is_that_of_the_holdout(lake: Lake, history: History, own_registry) -> None:
    from sklearn.metrics import roc_auc_score

    metrics = training.evaluate(lake, history.training_set, history.champion.run_id)
    rows = lake.version(history.training_set).read("rows").filter("is_holdout")
    scores = registry.load(history.champion).predict_proba(rows)[:, 1]
    assert metrics["roc_auc"] == pytest.approx(roc_auc_score(rows["label"].to_numpy(), scores))
    assert set(metrics) == {"log_loss", "roc_auc", "average_precision", "brier", "base_log_loss"}
    assert 0.5 < metrics["roc_auc"] < 0.8, "better than a coin, and worse than one who looks ahead"
    reference = registry.reference(history.champion)
    assert scoring.population_stability(scores, reference) == pytest.approx(0, abs=1e-12)


def test_another_seed_gives_another_model(
    lake: Lake, history: History, own_registry, configure: Callable[..., None]
) -> None:
    configure(seed=8)
    other = registry.load_run(training.train(lake, history.training_set, "another seed"))
    rows = lake.version(history.training_set).read("rows")
    champion = registry.load(history.champion)
    assert (other.predict_proba(rows) != champion.predict_proba(rows)).any()
