"""Training and registry on a real SQLite store: windows, classes, aliases, what a model file is."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from include import registry, training
from include.errors import BadData, DependencyDown, MissingData
from include.lake import Lake
from include.settings import settings
from include.usecase.features import FEATURES
from tests.unit.conftest import TRAINED, History

Configure = Callable[..., None]


def train(lake: Lake, holdout_days: int = 5) -> tuple[str, str]:
    """Train on the history's window. Returns the training set and the run."""
    training_set = training.build_training_set(lake, *TRAINED, holdout_days=holdout_days)
    return training_set, training.train(lake, training_set, "a test")


def test_the_holdout_is_later_than_every_training_row(lake: Lake, history: History) -> None:
    rows = lake.version(history.training_set).read("rows")
    trained, held_out = rows.partition_by("is_holdout", as_dict=True).values()
    assert trained["day"].max() < held_out["day"].min()
    assert held_out["day"].n_unique() == 5


def test_a_model_is_judged_on_the_holdout_and_so_is_the_base_rate(
    lake: Lake, history: History, own_registry: Path
) -> None:
    metrics = training.evaluate(lake, history.training_set, history.champion.run_id)
    rows = lake.version(history.training_set).read("rows")
    held_out, rate = rows.filter("is_holdout"), rows.filter(~pl.col("is_holdout"))["label"].mean()
    late = held_out["label"].to_numpy() == 1
    score = registry.load(history.champion).predict_proba(held_out)[:, 1]
    assert metrics["log_loss"] == pytest.approx(-np.log(np.where(late, score, 1 - score)).mean())
    assert metrics["base_log_loss"] == pytest.approx(-np.log(np.where(late, rate, 1 - rate)).mean())
    assert 0.55 < metrics["roc_auc"] < 0.85


def test_a_training_is_repeated_bit_for_bit(
    lake: Lake, history: History, own_registry: Path
) -> None:
    rows = lake.version(history.training_set).read("rows")
    _, run = train(lake)
    again = registry.load_run(run).predict_proba(rows)
    assert np.array_equal(again, registry.load(history.champion).predict_proba(rows))


def test_days_that_are_not_validated_are_all_named(lake: Lake) -> None:
    with pytest.raises(MissingData, match="validated 2013-01-30, actuals 2013-01-30") as failure:
        training.build_training_set(lake, "2013-01-30", "2013-02-10", holdout_days=3)
    assert "4 partition(s)" in str(failure.value)


def test_a_window_with_nothing_to_train_on_is_refused(lake: Lake) -> None:
    with pytest.raises(BadData, match="No day is left to train on"):
        training.build_training_set(lake, "2013-02-01", "2013-02-05", holdout_days=5)


@pytest.mark.parametrize("is_holdout", [False, True])
def test_days_with_one_class_only_train_and_judge_nothing(
    lake: Lake, history: History, own_registry: Path, is_holdout: bool
) -> None:
    version = lake.new_version("training", "2013-02-16")
    rows = lake.version(history.training_set).read("rows")
    one_class = pl.when(pl.col("is_holdout") == is_holdout).then(0).otherwise("label").cast(pl.Int8)
    version.write_frame("rows", rows.with_columns(label=one_class))
    with pytest.raises(BadData, match="only one class"):
        if is_holdout:
            training.evaluate(lake, str(version), history.champion.run_id)
        else:
            training.train(lake, str(version), "a test")
    assert registry.champion() == history.champion


def test_without_a_champion_the_error_says_how_to_get_one(tmp_path: Path) -> None:
    registry.create_store()
    with pytest.raises(MissingData, match="Run `model_retraining` once"):
        registry.champion()


def test_a_new_champion_keeps_the_old_one_as_previous(
    lake: Lake, history: History, own_registry: Path
) -> None:
    _, run = train(lake)
    newer = training.register_champion(run)
    assert registry.champion() == newer != history.champion
    assert alias("previous") == history.champion.version


def test_registering_and_promoting_again_changes_nothing(
    lake: Lake, history: History, own_registry: Path
) -> None:
    _, run = train(lake)
    first = training.register_champion(run)
    assert training.register_champion(run) == first
    assert alias("previous") == history.champion.version


def test_a_model_file_with_a_type_that_is_not_trusted_is_never_loaded(
    own_registry: Path, history: History
) -> None:
    stranger = Pipeline([("run", FunctionTransformer(subprocess.check_output))])
    with pytest.raises(Exception, match="[Uu]ntrusted"):
        run = registry.log_training(stranger, {}, {})
        registry.load_run(run)
    assert registry.champion() == history.champion


def test_a_loaded_model_needs_the_features_and_nothing_else(
    lake: Lake, history: History
) -> None:
    rows = lake.version(history.training_set).read("rows")
    pipeline = registry.load(history.champion)
    only = pipeline.predict_proba(rows.select(FEATURES))
    assert np.array_equal(only, pipeline.predict_proba(rows))
    with pytest.raises(BadData, match=f"lacks: {FEATURES[0]}"):
        pipeline.predict_proba(rows.drop(FEATURES[0]))


def test_a_registry_that_does_not_answer_is_a_dependency_that_is_down(
    configure: Configure, unused_port: int
) -> None:
    url = f"http://127.0.0.1:{unused_port}"
    code = (
        "from include import registry\n"
        "try: registry.champion()\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            "PYTHONPATH": ".",
            "MLFLOW_TRACKING_URI": url,
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("DependencyDown")
    assert url in done.stdout


def test_a_store_that_cannot_be_opened_is_a_dependency_that_is_down(
    configure: Configure, tmp_path: Path
) -> None:
    (tmp_path / "broken.db").write_text("this is no database, and it is longer than its header" * 9)
    configure(mlflow_tracking_uri=f"sqlite:///{tmp_path / 'broken.db'}")
    with pytest.raises(DependencyDown, match=r"broken\.db"):
        registry.champion()


def alias(name: str) -> str:
    """Version that an alias of the registered model names."""
    import mlflow

    from include import usecase

    client = mlflow.MlflowClient(settings().registry)
    return str(client.get_model_version_by_alias(usecase.NAME, name).version)


