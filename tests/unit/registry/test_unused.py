"""Which runs no registered version refers to, and that deleting one frees its files."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from mlflow import MlflowClient

from include.registry import registry, unused
from tests.case import CASE
from tests.unit.conftest import History

NOW = datetime.now(UTC)
BEFORE = NOW - timedelta(days=90)


@pytest.fixture
def client(own_registry: Path) -> Iterator[MlflowClient]:
    with registry.connection(CASE) as client:
        yield client


def ended(client: MlflowClient, days: int = 100, **tags: str) -> str:
    """A run that ended so many days ago, with a file of seven bytes."""
    experiment = client.get_experiment_by_name(CASE.name)
    assert experiment is not None
    run_id: str = client.create_run(experiment.experiment_id, tags=tags).info.run_id
    client.log_text(run_id, "content", "folder/note.txt")
    then = int((NOW - timedelta(days=days)).timestamp() * 1000)
    client.set_terminated(run_id, end_time=then)
    return run_id


def found() -> set[str]:
    return {run.run_id for run in unused.unused_runs(CASE, unused.references(CASE), BEFORE)}


def files(client: MlflowClient, run_id: str) -> Path:
    return Path(urlsplit(client.get_run(run_id).info.artifact_uri).path)


def test_only_runs_that_ended_long_ago_count(client: MlflowClient) -> None:
    old, young = ended(client), ended(client, days=80)
    experiment = client.get_run(old).info.experiment_id
    running = client.create_run(experiment, start_time=0).info.run_id
    assert found() == {old}
    assert {old, young, running} & unused.references(CASE).runs == set()


def test_no_run_of_a_registered_version_counts_nor_one_that_it_names(
    client: MlflowClient, history: History
) -> None:
    judged = ended(client)
    grandparent = ended(client)
    parent = ended(client, **{"mlflow.parentRunId": grandparent})
    refitted = ended(client, **{"mlflow.parentRunId": parent})
    member = ended(client)
    for name, run_id, tags in (
        (CASE.name, refitted, {"judged_run": judged}),
        (f"{CASE.name}.member", member, {}),
    ):
        if name != CASE.name:
            client.create_registered_model(name)
        client.create_model_version(name, f"runs:/{run_id}/model", run_id, tags=tags)
    old = ended(client)
    assert found() == {old}
    every = unused.unused_runs(CASE, unused.References(set(), ""), NOW + timedelta(days=1))
    assert {history.champion.run_id, judged, parent, member} <= {run.run_id for run in every}


def test_what_versions_refer_to_holds_their_snapshots_and_evaluations(
    client: MlflowClient, history: History
) -> None:
    text = unused.references(CASE).text
    assert history.snapshot in text
    run_id = ended(client)
    client.log_dict(run_id, {"evaluation": "evaluations/2013-03-01/x"}, registry.REFERENCE)
    client.create_model_version(CASE.name, f"runs:/{run_id}/model", run_id)
    assert "evaluations/2013-03-01/x" in unused.references(CASE).text


def test_deleting_a_run_frees_its_files_and_those_of_its_model(
    client: MlflowClient, history: History
) -> None:
    pipeline = registry.load(CASE, history.champion)
    run_id = registry.log_training(CASE, pipeline, {"candidate": "x"}, {})
    [model] = unused._models(client, client.get_run(run_id))
    client.log_text(run_id, "content", "note.txt")
    [run] = [
        one
        for one in unused.unused_runs(CASE, unused.References(set(), ""), NOW + timedelta(days=1))
        if one.run_id == run_id
    ]
    places = [files(client, run_id), Path(urlsplit(model.artifact_location).path)]
    every = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert run.bytes == sum(path.stat().st_size for path in every) > 10_000
    unused.delete_run(CASE, run_id)
    assert [place for place in places if place.exists()] == []
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"
    assert run_id not in found()
    registry.load(CASE, history.champion)


@pytest.mark.parametrize("method", ["delete_logged_model", "delete_run"])
def test_a_deletion_that_was_interrupted_is_done_by_the_next(
    method: str, client: MlflowClient, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = registry.load(CASE, history.champion)
    run_id = registry.log_training(CASE, pipeline, {"candidate": "x"}, {})
    then = int((NOW - timedelta(days=100)).timestamp() * 1000)
    client.set_terminated(run_id, end_time=then)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, method, interrupted)
        with pytest.raises(KeyboardInterrupt):
            unused.delete_run(CASE, run_id)
    assert found() == {run_id}
    unused.delete_run(CASE, run_id)
    assert found() == set()


def test_a_run_whose_model_is_registered_by_its_address_alone_does_not_count(
    client: MlflowClient, history: History
) -> None:
    run_id = registry.log_training(CASE, registry.load(CASE, history.champion), {"x": 1}, {})
    uri = registry.tag(CASE, run_id, registry.MODEL_URI)
    client.create_model_version(CASE.name, uri)
    every = unused.unused_runs(CASE, unused.references(CASE), NOW + timedelta(days=1))
    assert run_id not in {run.run_id for run in every}
