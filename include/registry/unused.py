"""What registered models refer to, and the runs that none of them does."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from include.registry.registry import REFERENCE, connection
from include.usecase import UseCase

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.store.artifact.artifact_repo import ArtifactRepository


@dataclass(frozen=True)
class References:
    """What the registered versions of a use case refer to.

    Attributes:
        runs: ids of the runs of all versions, members of ensembles included, and of the runs that
            those name: the judged one, the parent.
        text: all tags, parameters and reference distributions of the versions and these runs. The
            names of versions of the lake are in it.
    """

    runs: set[str]
    text: str


@dataclass(frozen=True)
class UnusedRun:
    """A run that nothing refers to.

    Attributes:
        bytes: size of its artifacts and models.
    """

    run_id: str
    name: str
    ended: datetime
    bytes: int


def references(case: UseCase) -> References:
    """What the registered versions of a use case refer to, whether they have an alias or not."""
    with connection(case) as client:
        runs = {run.info.run_id: run for run in _runs(case, client)}
        versions = list(_versions(case, client))
        texts = [f"{json.dumps(dict(version.tags))} {version.source}" for version in versions]
        new = {str(version.run_id) for version in versions}.union(*map(_ids, texts)) & runs.keys()
        found: set[str] = set()
        while new:
            found |= new
            said = [_said(client, runs[run_id]) for run_id in new]
            texts += said
            new = set[str]().union(*map(_ids, said)) & runs.keys() - found
    return References(found, "\n".join(texts))


def unused_runs(case: UseCase, in_use: References, before: datetime) -> list[UnusedRun]:
    """The runs that ended before a time and that no registered version refers to.

    A run that is `RUNNING` never counts, however old it is.
    """
    found = []
    with connection(case) as client:
        for run in _runs(case, client):
            ended = datetime.fromtimestamp((run.info.end_time or 0) / 1000, UTC)
            is_open = run.info.status in ("RUNNING", "SCHEDULED")
            if is_open or ended >= before or run.info.run_id in in_use.runs:
                continue
            models = _models(client, run)
            if not any(model.model_id in in_use.text for model in models):
                places = [run.info.artifact_uri, *(model.artifact_location for model in models)]
                size = sum(_size(_files(place)) for place in places)
                found.append(UnusedRun(run.info.run_id, run.info.run_name or "", ended, size))
    return found


def delete_run(case: UseCase, run_id: str) -> None:
    """Delete the files of a run and of its models, then the run.

    If this is interrupted, the run is still there to be deleted again.
    """
    with connection(case) as client:
        run = client.get_run(run_id)
        for model in _models(client, run):
            _files(model.artifact_location).delete_artifacts()
            client.delete_logged_model(model.model_id)
        _files(run.info.artifact_uri).delete_artifacts()
        client.delete_run(run_id)


def _versions(case: UseCase, client: "MlflowClient") -> Iterator[Any]:
    """All versions of the use case's registered model and of its members."""
    for model in _pages(client.search_registered_models):
        if model.name == case.name or model.name.startswith(f"{case.name}."):
            yield from _pages(client.search_model_versions, filter_string=f"name = '{model.name}'")


def _runs(case: UseCase, client: "MlflowClient") -> Iterator["Run"]:
    """All runs of the use case's experiment that are not deleted."""
    if (experiment := client.get_experiment_by_name(case.name)) is not None:
        yield from _pages(client.search_runs, experiment_ids=[experiment.experiment_id])


def _pages(search: Callable[..., Any], **about: Any) -> Iterator[Any]:
    page = search(**about)
    yield from page
    while page.token:
        page = search(**about, page_token=page.token)
        yield from page


def _said(client: "MlflowClient", run: "Run") -> str:
    """The parameters and tags of a run, and the reference distribution that it has."""
    told = json.dumps({**run.data.params, **run.data.tags})
    if any(file.path == REFERENCE for file in client.list_artifacts(run.info.run_id)):
        with TemporaryDirectory() as folder:
            path = client.download_artifacts(run.info.run_id, REFERENCE, folder)
            told += Path(path).read_text(errors="replace")
    return told


def _ids(text: str) -> set[str]:
    """What may be ids of runs in a text."""
    return set(re.findall(r"[0-9a-f]{32}", text))


def _models(client: "MlflowClient", run: "Run") -> "list[LoggedModel]":
    """The models that a run has logged and that are not deleted."""
    return list(
        _pages(
            client.search_logged_models,
            experiment_ids=[run.info.experiment_id],
            filter_string=f"source_run_id = '{run.info.run_id}'",
        )
    )


def _files(uri: str) -> "ArtifactRepository":
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(uri)


def _size(files: "ArtifactRepository", path: str | None = None) -> int:
    """Bytes of the files below a path."""
    return sum(
        _size(files, file.path) if file.is_dir else file.file_size or 0
        for file in files.list_artifacts(path)
    )
