"""The one door to MLflow: which model is champion, where a version's files are, how one is added.

MLflow takes seconds to import, so only the functions that need it do. Every error of the store
leaves here as a `DependencyDown` or a `MissingData` that says which model it was about.
"""

import json
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from include import usecase
from include.errors import BadData, DependencyDown, MissingData
from include.lake import first_line
from include.settings import settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from sklearn.pipeline import Pipeline

CHAMPION, PREVIOUS = "champion", "previous"

REFERENCE = "reference.json"
"""Artifact with what the model's scores looked like on its holdout."""

MODEL_URI = "model_uri"
"""Tag of a run that says where its model is."""

MODEL_PACKAGES = ["numpy", "polars", "pyarrow", "scikit-learn", "skops", "xgboost"]
"""Modules' packages that a model needs where it is loaded."""


KINDS = {"INVALID_PARAMETER_VALUE": BadData, "RESOURCE_DOES_NOT_EXIST": MissingData}
"""MLflow's codes for what another try, or a registry that is up, would not change at once."""


@dataclass(frozen=True)
class ModelVersion:
    """A registered version of a model."""

    name: str
    version: str
    run_id: str


def champion(key: str | None = None) -> ModelVersion:
    """The version that scores.

    Args:
        key: the day that is to be scored, for the message.

    Raises:
        MissingData: no version has been made champion yet.
        DependencyDown: the registry does not answer.
    """
    with _registry() as client:
        found = client.search_registered_models(f"name = '{usecase.NAME}'")
        if not found or CHAMPION not in found[0].aliases:
            raise MissingData(
                f"There is no champion of {usecase.NAME!r} yet in {_shown(settings().registry)}. "
                f"Nothing was scored{f' for {key}' if key else ''}. Run `model_retraining` once, "
                "then clear this run's failed tasks."
            )
        model = client.get_model_version_by_alias(usecase.NAME, CHAMPION)
    return ModelVersion(model.name, str(model.version), str(model.run_id))


def load(model: ModelVersion) -> "Pipeline":
    """The pipeline of a version, ready to predict."""
    return _load(f"models:/{model.name}/{model.version}")


def load_run(run_id: str) -> "Pipeline":
    """The pipeline that a training run kept, registered or not."""
    with _registry() as client:
        return _load(client.get_run(run_id).data.tags[MODEL_URI])


def _load(uri: str) -> "Pipeline":
    # Not by mlflow.sklearn.load_model: it trusts what the model's own folder says is trusted.
    import mlflow.artifacts
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    from include.usecase.models import TRUSTED_TYPES

    with _registry(), tempfile.TemporaryDirectory() as folder:
        files = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder)
        try:
            return skops.io.load(Path(files) / "model.skops", trusted=TRUSTED_TYPES)
        except FileNotFoundError as error:
            raise MissingData(
                f"There is no model.skops among the artifacts of {uri}. Nothing was scored. Bring "
                "it back, train a new model, or make an earlier version champion."
            ) from error
        except (UntrustedTypesFoundException, zipfile.BadZipFile) as error:
            raise BadData(
                f"The model file of {uri} is refused: {error} Nothing of it was run or scored. "
                "Find out who wrote it; train a new model, or make an earlier version champion."
            ) from error


def reference(model: ModelVersion) -> dict[str, Any]:
    """What the version's scores looked like on its holdout, as `training.evaluate` wrote it."""
    with _registry() as client, tempfile.TemporaryDirectory() as folder:
        path = client.download_artifacts(model.run_id, REFERENCE, folder)
        found: dict[str, Any] = json.loads(Path(path).read_text())
    return found


def log_training(pipeline: "Pipeline", params: dict[str, Any], tags: dict[str, str]) -> str:
    """Keep a fitted pipeline and how it was made in a new run.

    Returns:
        The run's id.
    """
    import mlflow
    import mlflow.sklearn

    from include.usecase.models import TRUSTED_TYPES

    with _registry(), mlflow.start_run(experiment_id=_experiment(), tags=tags) as run:
        mlflow.log_params(params)
        logged = mlflow.sklearn.log_model(
            pipeline,
            name="model",
            skops_trusted_types=TRUSTED_TYPES,
            pip_requirements=_installed(MODEL_PACKAGES),
        )
        mlflow.set_tag(MODEL_URI, logged.model_uri)
    return str(run.info.run_id)


def log_evaluation(run_id: str, metrics: dict[str, float], scores: dict[str, Any]) -> None:
    """Add a holdout's metrics and the scores' reference distribution to a run."""
    with _registry() as client:
        for name, value in metrics.items():
            client.log_metric(run_id, name, value)
        client.log_dict(run_id, scores, REFERENCE)


def register(run_id: str) -> ModelVersion:
    """Make a run's model a version of the registered model.

    Running it again for the same run gives the same version.
    """
    import mlflow

    with _registry() as client:
        made = client.search_model_versions(f"name = '{usecase.NAME}' and run_id = '{run_id}'")
        model_uri = client.get_run(run_id).data.tags[MODEL_URI]
        model = made[0] if made else mlflow.register_model(model_uri, usecase.NAME)
    return ModelVersion(usecase.NAME, str(model.version), run_id)


def promote(model: ModelVersion) -> None:
    """Make a version the champion; the one it replaces becomes `previous`."""
    with _registry() as client:
        # A SQLite store gives the versions as numbers, a server as text.
        current = str(client.get_registered_model(model.name).aliases.get(CHAMPION, ""))
        if current == model.version:
            return
        if current:
            client.set_registered_model_alias(model.name, PREVIOUS, current)
        client.set_registered_model_alias(model.name, CHAMPION, model.version)


def create_store() -> None:
    """Create the local store's tables; processes that open an empty one together would clash."""
    with _registry():
        _experiment()


@contextmanager
def _registry() -> Iterator["MlflowClient"]:
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    uri = settings().registry
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(uri)
    try:
        yield mlflow.MlflowClient()
    except (MlflowException, SQLAlchemyError) as error:
        kind = KINDS.get(getattr(error, "error_code", ""), DependencyDown)
        raise kind(
            f"The model registry at {_shown(uri)} failed on {usecase.NAME!r}: "
            f"{first_line(error)}. The champion is as it was. Check the registry and what was "
            "asked of it, then clear this run's failed tasks."
        ) from error


def _installed(packages: list[str]) -> list[str]:
    """The packages, pinned to what is installed here; `xgboost` may be here as `xgboost-cpu`."""
    found = {package.name: package.version for package in distributions()}
    pins = []
    for name in packages:
        pins += [f"{n}=={found[n]}" for n in (name, f"{name}-cpu") if n in found]
    return pins


def _shown(uri: str) -> str:
    """A URI without the password that may be in it."""
    place = urlsplit(uri).netloc
    return uri.replace(place, place.rpartition("@")[2], 1) if "@" in place else uri


def _experiment() -> str:
    """Id of the use case's experiment; a local store keeps its artifacts beside its database."""
    import mlflow

    found = mlflow.get_experiment_by_name(usecase.NAME)
    if found is not None:
        return str(found.experiment_id)
    folder = settings().data_dir / "mlflow" / "artifacts"
    local = settings().registry.startswith("sqlite:")
    return mlflow.create_experiment(
        usecase.NAME, artifact_location=folder.resolve().as_uri() if local else None
    )
