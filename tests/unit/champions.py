"""More versions of the model, and its aliases moved as a person moves them in MLflow."""

from mlflow import MlflowClient

from include.messages import ModelVersion
from include.registry import registry
from tests.case import CASE


def client() -> MlflowClient:
    return MlflowClient(CASE.settings.registry, CASE.settings.registry)


def challengers(number: int, files: str = "") -> list[ModelVersion]:
    """So many versions more, each with a run of its own and these files or those of version 1."""
    first = registry.version(CASE, "1")
    source = files or client().get_model_version(CASE.name, "1").source
    experiment = client().get_run(first.run_id).info.experiment_id
    made = []
    for _ in range(number):
        run_id = client().create_run(experiment).info.run_id
        model_id = source.removeprefix("models:/") if not files else None
        made_version = client().create_model_version(CASE.name, source, run_id, model_id=model_id)
        made.append(ModelVersion(CASE.name, str(made_version.version), run_id))
    return made


def without_champion() -> None:
    client().delete_registered_model_alias(CASE.name, "champion")
