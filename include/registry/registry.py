"""The only access to MLflow: which version is champion, its files, and registering new versions.

Only `promotion` changes the champion.

MLflow takes seconds to import, so only the functions that need it import it. Every error of the
store is raised as a `DependencyDown` or `MissingData` that names the model.
"""

import hashlib
import json
import logging
import math
import os
import re
import subprocess
import tempfile
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from include import metrics
from include.errors import BadData, DependencyDown, MissingData, ModelMissing
from include.lake.files import NOT_WRITABLE, first_line
from include.masking import masked
from include.messages import CHALLENGER, CHAMPION, ModelVersion
from include.partitions import parse_key
from include.settings import BUILT_FROM, PROJECT, settings
from include.targets import UNSAID
from include.usecase import UseCase
from include.wording import listed

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature
    from sklearn.pipeline import Pipeline

PREVIOUS = "previous"
"""Alias of the version that the champion replaced."""

EVENTS = ("refused", "registered", "promoted", "rolled_back")
"""Events in the lives of challengers and champions, for the metrics."""

REFERENCE = "reference.json"
"""Artifact with the distribution of the model's scores on its holdout."""

VERDICT = "verdict.md"
"""Artifact with the gate's tables."""

MEMBERS = "members"
"""Tag of a version: the versions of the ensemble's members that were trained with it, as JSON."""

MODEL_URI = "model_uri"
"""Tag of a run: the URI of its model."""

MODEL_FILE = "model.skops"
MODEL_SHA256 = "model_sha256"
"""Parameter of a run: hash of its model's file. A parameter can never be changed."""
TARGET = "target"
"""Parameter of a run: what the model was trained for."""


MODEL_PACKAGES = ["numpy", "polars", "pyarrow", "scikit-learn", "skops", "xgboost"]
"""Packages that a model needs where it is loaded."""

DAMAGED = (zipfile.BadZipFile, EOFError, LookupError, RuntimeError, ValueError)
"""Errors from reading a damaged model file, whose directory may contain anything."""

PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
"""MLflow's own seven tries would take four minutes; tasks have their own retries."""

KINDS = {"INVALID_PARAMETER_VALUE": BadData, "RESOURCE_DOES_NOT_EXIST": ModelMissing}
"""MLflow's codes for errors that neither a retry nor a healthy registry would change."""


log = logging.getLogger(__name__)


def champion(case: UseCase, key: str | None = None) -> ModelVersion:
    """The version that scores.

    Args:
        key: the day to score, for the message.

    Raises:
        MissingData: no version has been made champion yet.
        DependencyDown: the registry does not answer.
    """
    found = find_champion(case)
    if found is None:
        what, action = why_no_champion(case)
        raise MissingData(
            f"{what} Nothing was scored{f' for {key}' if key else ''}. {action}: the next try goes "
            "on from there, or clear this run's failed tasks."
        )
    return found


def why_no_champion(case: UseCase) -> tuple[str, str]:
    """Why there is no champion, as far as known, and what to do."""
    what = f"There is no champion of {case.name!r}"
    retraining = case.dag_id("model_retraining")
    with connection(case) as client:
        has_versions = bool(client.search_model_versions(f"name = '{case.name}'", max_results=1))
    if has_versions:
        return (
            f"{what} in {address(case)}: none of its versions has the alias {CHAMPION!r}.",
            f"Give a version the alias {CHAMPION!r} in MLflow, or run `{retraining}`",
        )
    if (scored := _last_scored(case)) is not None:
        key, number = scored
        return (
            f"{what} in {address(case)}, which has no version at all, but {key} was scored by "
            f"version {number}: this registry looks new. Was the old one moved, or is "
            "MLFLOW_TRACKING_URI wrong?",
            "Bring the old registry back, or set MLFLOW_TRACKING_URI to its address. Run "
            f"`{retraining}` only if it is lost: new versions begin at 1, and the history and "
            "predictions already use these numbers for other models",
        )
    return f"{what} yet in {address(case)}.", f"Run `{retraining}` once"


def _last_scored(case: UseCase) -> tuple[str, str] | None:
    """The newest day with predictions in the lake, and the version that made them."""
    with suppress(Exception):  # one message about the registry is enough
        lake = case.lake
        for key in lake.published_keys("predictions"):
            found = lake.manifest("predictions", key)
            if found is not None and "model" in found.metadata:
                return key, str(found.metadata["model"]["version"])
    return None


def find_champion(case: UseCase) -> ModelVersion | None:
    """The version that scores, or None if no version has been made champion yet."""
    return _find(case, CHAMPION)


def find_challenger(case: UseCase) -> ModelVersion | None:
    """The version registered last, or given the alias by hand; None if there is none."""
    return _find(case, CHALLENGER)


def _find(case: UseCase, alias: str) -> ModelVersion | None:
    with connection(case) as client:
        found = client.search_registered_models(f"name = '{case.name}'")
        if not found or alias not in found[0].aliases:
            return None
        number = str(found[0].aliases[alias])
        try:
            return version(case, number)
        except MissingData as error:
            raise MissingData(
                f"The alias {alias!r} of {case.name!r} names version {number}, which is gone from "
                f"{address(case)}. Nothing was scored, trained or promoted. Give another version "
                f"the alias {alias!r} in MLflow, or delete the alias and run "
                f"`{case.dag_id('model_retraining')}`; then clear this run's failed tasks."
            ) from error


def version(case: UseCase, number: str) -> ModelVersion:
    """A registered version by its number."""
    with connection(case) as client:
        return _described(client.get_model_version(case.name, number))


def versions_of(case: UseCase, dag_run: str) -> list[ModelVersion]:
    """The versions that a DAG run registered."""
    with connection(case) as client:
        found = client.search_model_versions(f"name = '{case.name}'")
    return [_described(model) for model in found if model.tags.get("dag_run") == dag_run]


def trained_on(case: UseCase, snapshots: Collection[str]) -> list[ModelVersion]:
    """The registered versions, members included, that were trained on one of several snapshots."""
    with connection(case) as client:
        found = client.search_model_versions(f"name LIKE '{case.name}%'")
    registered = [_described(one) for one in found if one.name.partition(".")[0] == case.name]
    return [one for one in registered if param(case, one.run_id, "snapshot") in snapshots]


def _described(model: Any) -> ModelVersion:
    # A SQLite store gives the numbers of aliased versions as integers, a server as text.
    return ModelVersion(model.name, str(model.version), str(model.run_id))


@dataclass(frozen=True)
class Judged:
    """The gate's verdict about a candidate.

    Attributes:
        passed: whether it passed every rule of the gate.
        refused_by: the rules that it broke.
        chosen: whether it became the challenger.
        loss: mean loss of a row of the holdout; None if it was not kept.
    """

    candidate: str
    snapshot: str
    reason: str
    judged_at: datetime
    passed: bool
    refused_by: str
    chosen: bool
    loss: float | None


@dataclass(frozen=True)
class Overview:
    """A summary of the registry for people.

    Attributes:
        champion: the version that scores, if there is one.
        last_day: the last day that it was trained on.
        tags: number → tags of the champion and of the newest versions.
        judged: the candidates that the gate judged last, newest first.
    """

    champion: ModelVersion | None = None
    last_day: str = ""
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    judged: list[Judged] = field(default_factory=list)


def overview(case: UseCase, versions: int = 50, runs: int = 40) -> Overview:
    """The champion, the newest versions and the gate's last verdicts.

    This is read-only: if there is no local store yet, none is made.
    """
    uri = case.settings.registry
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return Overview()
    current = find_champion(case)
    with connection(case) as client:
        found = client.search_model_versions(f"name = '{case.name}'", max_results=versions)
        tags = {str(model.version): dict(model.tags) for model in found}
        trained_to = ""
        if current:
            known = client.get_model_version(current.name, current.version)
            tags[current.version] = dict(known.tags)
            trained_to = param(case, current.run_id, "last_day") or ""
        experiment = client.get_experiment_by_name(case.name)
        judged = (
            client.search_runs(
                [experiment.experiment_id],
                "tags.verdict LIKE '%'",
                max_results=runs,
                order_by=["attributes.start_time DESC"],
            )
            if experiment
            else []
        )
    # The run of a refitted model has the verdict too, but was not a candidate.
    candidates = [run for run in judged if "chosen" in run.data.tags]
    return Overview(current, trained_to, tags, [_judged(case, run) for run in candidates])


def _judged(case: UseCase, run: Any) -> Judged:
    tags, params = run.data.tags, run.data.params
    return Judged(
        candidate=params.get("candidate", ""),
        snapshot=params.get("snapshot", ""),
        reason=tags.get("reason", ""),
        judged_at=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
        passed=tags.get("verdict") == "passed",
        refused_by=tags.get("refused_by", ""),
        chosen=tags.get("chosen") == "true",
        loss=run.data.metrics.get(case.target.loss),
    )


def count(case: UseCase, event: str) -> None:
    """Count one of `EVENTS` in the metrics."""
    metrics.count_one(case.name, "registry_events_total", "event", event, EVENTS)


def load(case: UseCase, model: ModelVersion) -> "Pipeline":
    """The pipeline of a version, ready to predict.

    Raises:
        BadData: it is damaged, or was trained for another target.
    """
    try:
        known = params(case, model.run_id)
    except (BadData, MissingData):  # its run was deleted or never existed
        known = {TARGET: case.target.name}
    pipeline = _load(case, f"models:/{model.name}/{model.version}", known.get(MODEL_SHA256))
    trained_for = known.get(TARGET, UNSAID)
    wrong = case.target.wrong_model(pipeline)
    if wrong or trained_for != case.target.name:
        why = f"was trained for {trained_for}" if trained_for != case.target.name else wrong
        raise BadData(
            f"{model} cannot answer what {case.name} asks, {case.target.name}: it {why}. Nothing "
            "was scored, and what was published stays. If TARGET in features.py was changed on "
            f"purpose, remove the alias {CHAMPION!r} from this version in MLflow and run "
            f"`{case.dag_id('model_retraining')}`; else restore TARGET."
        )
    return pipeline


def load_run(case: UseCase, run_id: str) -> "Pipeline":
    """The pipeline that a training run kept, registered or not."""
    return _load(case, _model_uri(case, run_id), param(case, run_id, MODEL_SHA256))


def _model_uri(case: UseCase, run_id: str) -> str:
    """The URI of a run's model, from its tag."""
    if not (uri := tag(case, run_id, MODEL_URI)):
        raise ModelMissing(
            f"Run {run_id} of {case.name!r} does not say where its model is: it has no tag "
            f"{MODEL_URI!r}. Nothing was scored or registered. Put the tag back in MLflow, or "
            "train a new model."
        )
    return uri


def _load(case: UseCase, uri: str, expected: str | None) -> "Pipeline":
    # mlflow.sklearn.load_model would trust the types that the model's own folder lists.
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    with connection(case), _model_file(uri) as path:
        try:
            _verify(case, path, uri, expected)
            return skops.io.load(path, trusted=_trusted(case))
        except FileNotFoundError as error:
            raise ModelMissing(
                f"There is no {MODEL_FILE} among the artifacts of {uri}. Nothing was scored. Bring "
                "it back, train a new model, or make an earlier version champion."
            ) from error
        except (UntrustedTypesFoundException, *DAMAGED) as error:
            raise BadData(
                f"The model file of {uri} is refused: {error} Nothing of it was run or scored. "
                "Find out who wrote it; train a new model, or make an earlier version champion."
            ) from error


def _verify(case: UseCase, path: Path, uri: str, expected: str | None) -> None:
    """Check that a model file is the one that its training stored.

    Raises:
        BadData: it is a different file.
    """
    if expected is None:
        _log_unverified(uri)
        return
    found = _sha256(path)
    if found != expected:
        raise BadData(
            f"The model file of {uri} is refused: {_place(case, uri)}/{MODEL_FILE} is not the file "
            f"that its training stored: its SHA-256 is {found}, not {expected}. Nothing of it was "
            "run or scored, and what was published before is untouched. Find out who replaced it; "
            "put the file back, make an earlier version champion "
            f"(`{case.dag_id('model_rollback')}`), or train a new model."
        )


@cache
def _log_unverified(uri: str) -> None:
    log.warning(
        "%s was registered by an older release, without a hash: its file is not verified", uri
    )


def _place(case: UseCase, uri: str) -> str:
    """Where the files of a registry URI are."""
    from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository

    return _shown(case, ModelsArtifactRepository.get_underlying_uri(uri))


def reference(case: UseCase, model: ModelVersion) -> dict[str, Any]:
    """The distribution of a version's scores on rows that it was not fitted on.

    `training.refit` writes it. Fields that a newer release adds are kept.

    Raises:
        BadData: it is damaged.
    """
    with connection(case) as client, tempfile.TemporaryDirectory() as folder:
        path = client.download_artifacts(model.run_id, REFERENCE, folder)
        content = Path(path).read_bytes()
    return as_reference(content, model)


def as_reference(content: bytes, model: ModelVersion) -> dict[str, Any]:
    """The result of `scoring.score_reference`, read from the artifact of a version.

    Raises:
        BadData: it is damaged.
    """
    try:
        found = json.loads(content)
        parts = found["columns"].values() if "columns" in found else [found]
        is_sound = isinstance(found.get("evaluation"), str | None) and all(map(_is_sound, parts))
    except (ValueError, TypeError, LookupError, RecursionError, AttributeError, OverflowError):
        is_sound = False
    if not is_sound:
        raise BadData(
            f"The artifact {REFERENCE} of {model} (run {model.run_id}) is damaged: it does not "
            "hold the edges and shares of a distribution of scores. Nothing was published. Put "
            "the file back, make an earlier version champion (the use case's `model_rollback` "
            "DAG), or train a new model."
        )
    return dict(found)


def _is_sound(distribution: dict[str, Any]) -> bool:
    edges, shares = distribution["edges"], distribution["shares"]
    numbers = [*edges, *shares]
    return (
        all(isinstance(one, int | float) and math.isfinite(one) for one in numbers)
        and len(edges) == len(shares) + 1 >= 2
        and edges == sorted(edges)
        and all(0 < share <= 1 for share in shares)
    )


def last_day(case: UseCase, model: ModelVersion) -> str | None:
    """The last day that a version was trained on; None if its run does not say.

    Raises:
        BadData: the run's value is not a date.
        MissingData: the run was deleted.
    """
    found = param(case, model.run_id, "last_day")
    if found is not None:
        try:
            parse_key(found)
        except BadData as error:
            raise BadData(
                f"The parameter last_day of run {model.run_id}, of {model}, is {found!r}, which is "
                "not a date, so the model's training days are unknown. The champion is unchanged. "
                "Make another version champion, or train a new model."
            ) from error
    return found


def log_training(
    case: UseCase,
    pipeline: "Pipeline",
    params: dict[str, Any],
    tags: dict[str, str],
    example: "pa.RecordBatch | None" = None,
    name: str | None = None,
) -> str:
    """Keep a fitted pipeline and how it was made in a new run.

    Args:
        params: everything that is needed to repeat the training.
        tags: additional facts about the run; the commit of the code is added.
        example: a few rows of features, whose scores complete the model's signature.
        name: name of the run; by default MLflow makes one up.

    Returns:
        The run's id.

    Raises:
        BadData: the model contains a type that is not trusted.
    """
    import mlflow
    import mlflow.sklearn

    signature = None if example is None else _signature(case, pipeline, example)
    tags = {"git_commit": git_commit(), **tags}
    with (
        connection(case),
        mlflow.start_run(experiment_id=_experiment(case), run_name=name, tags=tags) as run,
    ):
        mlflow.log_params(params)
        with _saving(str(params.get("candidate", "the model"))):
            logged = mlflow.sklearn.log_model(
                pipeline,
                name="model",
                signature=signature,
                skops_trusted_types=_trusted(case),
                pip_requirements=_installed(MODEL_PACKAGES),
            )
        mlflow.set_tag(MODEL_URI, logged.model_uri)
        with _model_file(logged.model_uri) as path:
            mlflow.log_param(MODEL_SHA256, _sha256(path))
    return str(run.info.run_id)


@contextmanager
def _saving(candidate: str) -> Iterator[None]:
    """A block that saves a model: MLflow would blame the store for faults of the model."""
    from mlflow.exceptions import MlflowException
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        yield
    except MlflowException as error:
        fault = error.__cause__ or error.__context__
        if not isinstance(fault, TypeError):  # as skops raises for a type
            raise
        what = first_line(fault)
        if not isinstance(fault, UntrustedTypesFoundException):
            raise BadData(
                f"{candidate} cannot be saved: {what}. The model was not stored. A model file "
                "cannot hold a function or class that is defined inside another one; change "
                "models.py, then train again."
            ) from error
        lacking = listed(re.findall(r"'([^']+)'", what), 20)
        raise BadData(
            f"TRUSTED_TYPES in models.py lacks types of {candidate}: {lacking}. The model was not "
            "stored. Add the types that you trust (loading a file may run their code), then train "
            "again."
        ) from error


@contextmanager
def _model_file(uri: str) -> Iterator[Path]:
    """A block with the path of a model's file; None if it has none."""
    import mlflow.artifacts

    with tempfile.TemporaryDirectory() as folder:
        files = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder)
        yield Path(files) / MODEL_FILE


def _trusted(case: UseCase) -> list[str]:
    return [*case.models.TRUSTED_TYPES, *case.target.trusted_types]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _signature(case: UseCase, pipeline: "Pipeline", example: "pa.RecordBatch") -> "ModelSignature":
    """The features that a model reads, some of them optional, and its output."""
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types import ColSpec, Schema

    inputs: list[Any] = [
        ColSpec(
            "float" if name in case.features.NUMERIC else "string",
            name,
            required=name in case.features.REQUIRED,
        )
        for name in case.features.FEATURES
    ]
    outputs = infer_signature(model_output=case.target.predict(pipeline, example)).outputs
    return ModelSignature(Schema(inputs), outputs)


def model_bytes(case: UseCase, run_id: str) -> int:
    """Size in bytes of the model files of a training run."""
    import mlflow.artifacts

    uri = _model_uri(case, run_id)
    with connection(case):
        files = mlflow.artifacts.list_artifacts(artifact_uri=uri)
    return sum(file.file_size or 0 for file in files)


def param(case: UseCase, run_id: str, name: str) -> str | None:
    """A parameter of a run; None if it has no such parameter."""
    return params(case, run_id).get(name)


def params(case: UseCase, run_id: str) -> dict[str, str]:
    """The parameters of a run."""
    with connection(case) as client:
        found = client.get_run(run_id).data.params
    return {name: str(value) for name, value in found.items()}


def tag(case: UseCase, run_id: str, name: str) -> str:
    """A tag of a run; empty if it has no such tag."""
    with connection(case) as client:
        return str(client.get_run(run_id).data.tags.get(name, ""))


def log_metrics(case: UseCase, run_id: str, metrics: dict[str, float]) -> None:
    """Add figures to a run."""
    with connection(case) as client:
        for name, value in metrics.items():
            client.log_metric(run_id, name, value)


def log_reference(case: UseCase, run_id: str, scores: dict[str, Any]) -> None:
    """Add the distribution that the model's later scores are compared with."""
    with connection(case) as client:
        client.log_dict(run_id, scores, REFERENCE)


def log_verdict(case: UseCase, run_id: str, markdown: str, tags: dict[str, str]) -> None:
    """Add the gate's verdict to the run of its model."""
    with connection(case) as client:
        client.log_text(run_id, markdown, VERDICT)
        for name, value in tags.items():
            client.set_tag(run_id, name, value)


def log_plots(case: UseCase, run_id: str, plots: dict[str, "Figure"]) -> None:
    """Add pictures to a run, by name, as `plots/<name>.png`."""
    with connection(case) as client:
        for name, figure in plots.items():
            client.log_figure(run_id, figure, f"plots/{name}.png")


def register(
    case: UseCase,
    run_id: str,
    description: str = "",
    tags: dict[str, str] | None = None,
    members: dict[str, ModelVersion] | None = None,
) -> ModelVersion:
    """Make a run's model a version of the registered model, with the alias `challenger`.

    Running it again for the same run gives the same version.

    Args:
        description: Markdown, shown with the version in MLflow.
        tags: its lineage.
        members: name → member of the ensemble that belongs to this version.
    """
    tags = dict(tags or {})
    if members:
        tags[MEMBERS] = json.dumps({name: asdict(member) for name, member in members.items()})
    with connection(case) as client:
        version = _register(case, client, case.name, run_id, tags)
        if description:
            client.update_model_version(case.name, version.version, description)
        client.set_registered_model_alias(case.name, CHALLENGER, version.version)
    return version


def register_member(case: UseCase, member: str, run_id: str, tags: dict[str, str]) -> ModelVersion:
    """Make a run's model a version of the ensemble's member, a registered model of its own.

    Running it again for the same run gives the same version.
    """
    with connection(case) as client:
        return _register(case, client, f"{case.name}.{member}", run_id, tags)


def _register(
    case: UseCase, client: "MlflowClient", name: str, run_id: str, tags: dict[str, str]
) -> ModelVersion:
    import mlflow

    made = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    model_uri = _model_uri(case, run_id)
    number = str((made[0] if made else mlflow.register_model(model_uri, name)).version)
    for tag_name, value in tags.items():
        client.set_model_version_tag(name, number, tag_name, value)
    return ModelVersion(name, number, run_id)


def members(case: UseCase, model: ModelVersion) -> dict[str, ModelVersion]:
    """The members of the ensemble that belongs to a version of the registered model, by name.

    Raises:
        BadData: the tag that names them is damaged.
    """
    with connection(case) as client:
        tags = client.get_model_version(model.name, model.version).tags
    return as_members(tags.get(MEMBERS, "{}"), model)


def as_members(text: str, model: ModelVersion) -> dict[str, ModelVersion]:
    """The members of an ensemble, from the tag of a version.

    Raises:
        BadData: it is damaged.
    """
    fields = ("name", "version", "run_id")
    try:
        found = {
            name: ModelVersion(*(member[field] for field in fields))
            for name, member in json.loads(text).items()
        }
        is_sound = all(
            isinstance(value, str) for one in found.values() for value in vars(one).values()
        )
    except (ValueError, TypeError, LookupError, RecursionError, AttributeError):
        is_sound = False
    if not is_sound:
        raise BadData(
            f"The tag {MEMBERS!r} of {model} is damaged: it must be a JSON object with each "
            f"member's name, version and run_id, but it begins with {text[:40]!r}. No member was "
            "asked. Put it back in MLflow; delete it, and the version has no ensemble; or make an "
            "earlier version champion (the use case's `model_rollback` DAG)."
        )
    return found


def address(case: UseCase) -> str:
    """The registry's address for messages, without a login."""
    return _shown(case, case.settings.registry)


def preload(case: UseCase) -> None:
    """Import what a client needs, so that later calls take only the registry's own time."""
    import mlflow  # noqa: F401

    if not case.settings.registry.startswith("http"):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def create_store(case: UseCase) -> None:
    """Create the local store's tables; processes that open an empty store together would clash."""
    with connection(case):
        _experiment(case)


@contextmanager
def connection(case: UseCase) -> Iterator["MlflowClient"]:
    """A client of the registry; failures in the block are raised as the project's own errors.

    Raises:
        DependencyDown: the registry does not answer, or its files cannot be written.
        ModelMissing: the model, version or run does not exist.
        BadData: the registry refuses the request.
    """
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    uri = case.settings.registry
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(uri)
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    try:
        yield mlflow.MlflowClient()
    except (MlflowException, SQLAlchemyError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in NOT_WRITABLE:
            raise
        kind = KINDS.get(getattr(error, "error_code", ""), DependencyDown)
        reason = getattr(error.__cause__, "orig", error)  # SQLAlchemy puts advice before the cause
        said = Exception(_shown(case, str(reason) or repr(reason)))
        action = "Check the registry and the request"
        if isinstance(error, OSError):
            action = "Free space or give write access"
        raise kind(
            f"The model registry at {_shown(case, uri)} failed on {case.name!r}: "
            f"{first_line(said)}. No champion was lost. {action}, then clear this run's failed "
            "tasks."
        ) from (
            error if _shown(case, str(error)) == str(error) else None
        )  # the log shows the cause, too


def git_commit() -> str:
    """Commit of this code, with a `+` if files differ from it."""
    if settings().git_commit:
        return settings().git_commit
    if BUILT_FROM.exists():
        return BUILT_FROM.read_text().strip()
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


def _installed(packages: list[str]) -> list[str]:
    """The packages, pinned to the installed versions; `xgboost` may be `xgboost-cpu` here."""
    found = {package.name: package.version for package in distributions()}
    pins = []
    for name in packages:
        pins += [f"{n}=={found[n]}" for n in (name, f"{name}-cpu") if n in found]
    return pins


def _shown(case: UseCase, text: str) -> str:
    """A text without the registry's login and those of other addresses in it."""
    address = urlsplit(case.settings.registry)
    user = unquote(address.username or "") or os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    password = unquote(address.password or "") or os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    text = masked(text, (password, os.environ.get("MLFLOW_TRACKING_TOKEN", "")), (user, password))
    return re.sub(r"//[^/@\s]+@", "//", text)


def _experiment(case: UseCase) -> str:
    """Id of the use case's experiment; a local store has its artifacts beside its database."""
    import mlflow

    found = mlflow.get_experiment_by_name(case.name)
    if found is not None:
        return str(found.experiment_id)
    folder = case.settings.data_dir / "mlflow" / "artifacts"
    local = case.settings.registry.startswith("sqlite:")
    return mlflow.create_experiment(
        case.name, artifact_location=folder.resolve().as_uri() if local else None
    )
