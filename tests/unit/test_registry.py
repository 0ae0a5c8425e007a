"""Which model scores, how it got there, and what is refused; on a real MLflow store."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.sklearn
import numpy as np
import pytest
from mlflow import MlflowClient
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from include import registry, scoring, usecase
from include.errors import BadData, DependencyDown, MissingData
from include.lake import Lake
from include.registry import ModelVersion
from include.usecase.models import TRUSTED_TYPES
from tests.unit.conftest import OLD_DAY, History
from tests.unit.helpers import infer, refused


class Burglar(BaseEstimator):
    """A step that does something when it is loaded."""

    def __init__(self, trace: str = ""):
        self.trace = trace

    def __setstate__(self, state: dict[str, Any]) -> None:
        Path(state["trace"]).touch()
        self.__dict__.update(state)

    def __reduce__(self) -> tuple[Any, ...]:
        return Burglar, (self.trace,), {"trace": self.trace}


def test_the_champion_is_the_version_with_that_alias(lake: Lake, history: History) -> None:
    assert registry.champion() == history.champion


@pytest.mark.parametrize("gone", ["alias", "model"])
def test_without_a_champion_nothing_is_scored_and_it_is_said_what_to_do(
    gone: str, lake: Lake, own_registry: Path
) -> None:
    client = MlflowClient(f"sqlite:///{own_registry}")
    if gone == "alias":
        client.delete_registered_model_alias(usecase.NAME, "champion")
    else:
        client.delete_registered_model(usecase.NAME)
    words = ["no champion of 'flight-delays'", str(own_registry), "`model_retraining`"]
    with refused(lake, "predictions", OLD_DAY, *words, kind=MissingData):
        infer(lake, OLD_DAY, registry.champion())


def test_registering_a_run_again_gives_the_same_version(
    history: History, own_registry: Path
) -> None:
    again = [registry.register(history.champion.run_id) for _ in range(2)]
    assert again == [history.champion, history.champion]
    found = MlflowClient(f"sqlite:///{own_registry}").search_model_versions()
    assert len(found) == 1


def new_version(history: History) -> ModelVersion:
    """Another run's model, registered."""
    return registry.register(registry.log_training(registry.load(history.champion), {}, {}))


def test_a_promoted_version_is_champion_and_the_one_before_is_previous(
    history: History, own_registry: Path
) -> None:
    second, third = new_version(history), new_version(history)
    client = MlflowClient(f"sqlite:///{own_registry}")
    for model, previous in ((second, history.champion), (third, second)):
        registry.promote(model)
        assert registry.champion() == model
        found = client.get_model_version_by_alias(usecase.NAME, "previous")
        assert str(found.version) == previous.version


def test_promoting_the_champion_again_changes_nothing(history: History, own_registry: Path) -> None:
    second = new_version(history)
    registry.promote(second)
    registry.promote(second)
    client = MlflowClient(f"sqlite:///{own_registry}")
    assert registry.champion() == second
    assert str(client.get_model_version_by_alias(usecase.NAME, "previous").version) == "1"


def test_the_first_champion_has_no_predecessor(history: History, own_registry: Path) -> None:
    client = MlflowClient(f"sqlite:///{own_registry}")
    client.delete_registered_model_alias(usecase.NAME, "champion")
    registry.promote(history.champion)
    assert registry.champion() == history.champion
    assert "previous" not in client.get_registered_model(usecase.NAME).aliases


def test_a_model_that_is_loaded_again_gives_the_same_probabilities(
    lake: Lake, history: History, own_registry: Path
) -> None:
    rows = lake.version(history.training_set).read("rows")
    pipeline = registry.load(history.champion)
    pipeline.fit(rows[:3000], rows["label"][:3000].to_numpy())
    expected = pipeline.predict_proba(rows)
    run = registry.log_training(pipeline, {"rows": 3000}, {"reason": "a test"})
    version = registry.register(run)
    for loaded in (registry.load_run(run), registry.load(version)):
        np.testing.assert_array_equal(loaded.predict_proba(rows), expected)
    assert MlflowClient().get_run(run).data.params == {"rows": "3000"}
    assert MlflowClient().get_run(run).data.tags["reason"] == "a test"


def log_model(pipeline: Pipeline, **options: Any) -> str:
    """Keep a model as somebody else might: in our registry, by MLflow's own means."""
    with registry._registry(), mlflow.start_run(experiment_id=registry._experiment()) as run:
        logged = mlflow.sklearn.log_model(pipeline, name="model", pip_requirements=[], **options)
        mlflow.set_tag(registry.MODEL_URI, logged.model_uri)
    return str(run.info.run_id)


def test_a_model_file_with_a_type_that_is_not_trusted_is_refused_whatever_it_says_of_itself(
    history: History, own_registry: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "was here"
    champion = registry.load(history.champion)
    pipeline = Pipeline([*champion.steps, ("burglar", Burglar(str(trace)))])
    trusted = [*TRUSTED_TYPES, "tests.unit.test_registry.Burglar"]
    run = log_model(pipeline, skops_trusted_types=trusted)
    trace.unlink(missing_ok=True)
    with pytest.raises(BadData, match=r"tests\.unit\.test_registry\.Burglar"):
        registry.load(registry.register(run))
    assert not trace.exists()


def test_a_pickled_model_is_never_loaded(
    history: History, own_registry: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "was here"
    pipeline = Pipeline([("burglar", Burglar(str(trace)))])
    run = log_model(pipeline, serialization_format="cloudpickle")
    trace.unlink(missing_ok=True)
    with pytest.raises(MissingData, match=r"no model\.skops among the artifacts"):
        registry.load_run(run)
    assert not trace.exists()


@pytest.mark.parametrize("size", [0, 1000])
def test_a_model_file_that_is_cut_off_is_refused(
    size: int, history: History, own_registry: Path
) -> None:
    version = new_version(history)
    uri = MlflowClient().get_run(version.run_id).data.tags[registry.MODEL_URI]
    path = Path(mlflow.artifacts.download_artifacts(uri)) / "model.skops"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(BadData, match=f"models:/{usecase.NAME}/{version.version} is refused"):
        registry.load(version)


def test_a_model_whose_files_are_gone_is_missing(history: History, own_registry: Path) -> None:
    version = new_version(history)
    uri = MlflowClient().get_run(version.run_id).data.tags[registry.MODEL_URI]
    shutil.rmtree(mlflow.artifacts.download_artifacts(uri))
    with pytest.raises((MissingData, DependencyDown), match=r"artifact"):
        registry.load(version)


def test_what_is_logged_of_a_holdout_comes_back(history: History, own_registry: Path) -> None:
    version = new_version(history)
    scores = scoring.score_reference(np.linspace(0, 1, 50))
    registry.log_evaluation(version.run_id, {"roc_auc": 0.7}, scores)
    assert registry.reference(version) == scores
    assert MlflowClient().get_run(version.run_id).data.metrics == {"roc_auc": 0.7}


USES: list[Callable[[ModelVersion], object]] = [
    lambda model: registry.champion(),
    registry.load,
    lambda model: registry.load_run(model.run_id),
    registry.reference,
    lambda model: registry.register(model.run_id),
    registry.promote,
    lambda model: registry.log_evaluation(model.run_id, {"roc_auc": 0.5}, {}),
    lambda model: registry.create_store(),
]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("down", ["nobody listens", "no database", "no such scheme"])
def test_a_registry_that_does_not_work_is_an_error_that_says_which(
    down: str,
    use: Callable[[ModelVersion], object],
    history: History,
    configure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    unused_port: int,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    (tmp_path / "garbage.db").write_bytes(b"no database" * 100)
    uri = {
        "nobody listens": f"http://127.0.0.1:{unused_port}",
        "no database": f"sqlite:///{tmp_path / 'garbage.db'}",
        "no such scheme": "carrier-pigeon://roof",
    }[down]
    configure(mlflow_tracking_uri=uri)
    with pytest.raises(BadData if "scheme" in down else DependencyDown) as failure:
        use(history.champion)
    assert f"registry at {uri} failed on 'flight-delays'" in str(failure.value)


def test_a_champion_that_cannot_be_loaded_publishes_nothing(
    lake: Lake, history: History, configure: Callable[..., None], tmp_path: Path
) -> None:
    infer(lake, OLD_DAY, history.champion)
    (tmp_path / "garbage.db").write_bytes(b"no database" * 100)
    configure(mlflow_tracking_uri=f"sqlite:///{tmp_path / 'garbage.db'}")
    with refused(lake, "predictions", OLD_DAY, "registry at ", kind=DependencyDown):
        infer(lake, OLD_DAY, history.champion)
