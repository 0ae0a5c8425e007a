"""A run whose use case was removed fails and says so, and no other run is touched."""

import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from airflow import settings as airflow_settings
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
from airflow.jobs.job import Job
from airflow.models import import_all_models
from airflow.models.base import Base
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.utils.db import synchronize_log_template
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType

from include.settings import PROJECT
from plugins.removed_usecases import RunFailer
from tests.case import BOTH
from tests.conftest import FLIGHTS

DELAYS, VISITS = "flight_delays.batch_inference", "doctor_visits.batch_inference"

OTHERS = """
from airflow.sdk import dag, task

@dag
def tool():
    @task
    def work(): ...
    work()

tool()
"""


def parse(folder: Path, bundle: str) -> None:
    """Let Airflow's database know the DAGs of a folder."""
    bag = BundleDagBag(dag_folder=str(folder), bundle_path=folder, bundle_name=bundle)
    assert not bag.import_errors
    with create_session() as session:
        if session.get(DagBundleModel, bundle) is None:
            session.add(DagBundleModel(name=bundle))
    sync_bag_to_db(bag, bundle, None)


def queue(dag_id: str) -> None:
    now = datetime.now(UTC)
    with create_session() as session:
        dag = SerializedDagModel.get_dag(dag_id, session=session)
        assert dag is not None
        dag.create_dagrun(
            run_id="waits",
            run_after=now,
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.TEST,
            state=DagRunState.QUEUED,
            session=session,
        )


def runs() -> dict[str, tuple[str, str | None]]:
    """State and note of each DAG's run."""
    with create_session() as session:
        return {run.dag_id: (run.state, run.note) for run in session.query(DagRun)}


def tasks() -> set[tuple[str, str | None]]:
    """The states that tasks of each DAG's run have."""
    with create_session() as session:
        return {(task.dag_id, task.state) for task in session.query(TaskInstance)}


@pytest.fixture
def waiting(
    configure: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A run of each use case is queued, and of two DAGs without one; a scheduler starts."""
    import_all_models()
    Base.metadata.create_all(airflow_settings.engine)
    synchronize_log_template()
    configure(usecases=BOTH)
    ours, others = tmp_path / "ours", tmp_path / "others"
    shutil.copytree(PROJECT / "dags", ours)
    with (ours / "batch_inference.py").open("a") as file:
        file.write(OTHERS.replace("tool", "beside"))
    parse(ours, "dags-folder")
    others.mkdir()
    (others / "tool.py").write_text(OTHERS)
    parse(others, "others")
    for dag_id in (DELAYS, VISITS, "tool", "beside"):
        queue(dag_id)
    monkeypatch.setattr(sys, "argv", ["airflow", "scheduler"])
    yield
    with create_session() as session:
        for run in session.query(DagRun):
            session.delete(run)


@pytest.mark.usefixtures("waiting")
def test_the_runs_of_a_removed_use_case_fail_and_say_so(configure: Callable[..., None]) -> None:
    configure(usecases=FLIGHTS)
    RunFailer().on_starting(Job())
    found = runs()
    state, note = found.pop(VISITS)
    assert state == "failed"
    assert note is not None
    assert "doctor_visits is no longer enabled" in note
    assert "ML_USECASES" in note
    assert tasks() == {(DELAYS, None), (VISITS, "failed"), ("tool", None), ("beside", None)}
    assert found == dict.fromkeys((DELAYS, "tool", "beside"), ("queued", None))


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize("usecases", [BOTH, "no_such_use_case,tests/usecases/doctor_visits"])
def test_while_each_use_case_may_come_back_every_run_waits(
    configure: Callable[..., None], usecases: str
) -> None:
    """One that is broken, or whose setting is wrong, is about to be repaired."""
    configure(usecases=usecases)
    RunFailer().on_starting(Job())
    assert runs()[VISITS] == ("queued", None)


@pytest.mark.usefixtures("waiting")
def test_a_wrong_setting_fails_no_run(
    configure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    configure(usecases=FLIGHTS)
    monkeypatch.setenv("ML_BATCH_ROWS", "many")
    configure()
    RunFailer().on_starting(Job())
    assert set(runs().values()) == {("queued", None)}
    assert "left as they are: ML_BATCH_ROWS=many is wrong" in caplog.text
