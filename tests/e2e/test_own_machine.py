"""The embedded Airflow is its user's: it answers to no foreign name, and no other user reads it."""

import os
import signal
from pathlib import Path

import httpx
import pytest

from include.messages import ModelVersion
from local import embedded
from local.client import Airflow
from local.processes import alive
from tests.e2e.conftest import SETTINGS

PAGES = ["/", "/api/v2/dags", "/auth/token", "/ui/config", "/execution/health", "/model-health/"]


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8080"])
def test_a_page_that_made_its_name_lead_here_is_refused(
    airflow: Airflow, path: str, host: str
) -> None:
    answer = httpx.get(airflow.url + path, headers={"Host": host}, trust_env=False, timeout=60)
    assert answer.status_code == 400
    assert answer.text == "Invalid host header"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "localhost:1", "airflow.localhost"])
def test_names_of_this_machine_are_answered(airflow: Airflow, host: str) -> None:
    for path in ("/", "/auth/token", "/execution/health"):
        answer = httpx.get(airflow.url + path, headers={"Host": host}, trust_env=False, timeout=60)
        assert answer.is_success


def test_only_its_user_can_read_airflows_files(
    airflow: Airflow, data: Path, champion: ModelVersion
) -> None:
    home = data / "airflow"
    assert home.stat().st_mode & 0o077 == 0  # and so is all that is below
    made = [home / "airflow.db", home / "secrets.json"]
    made += [path for path in (home / "logs").rglob("*") if "dag_id=" in str(path)]
    made += [*data.glob("lake/*/training/*/*"), *data.glob("lake/*/training/*/*/*")]
    artifacts = [path for path in (data / "mlflow").rglob("*") if champion.run_id in path.parts]
    assert len(artifacts) > 3
    assert len(made) > 10
    assert [str(path) for path in made + artifacts if path.stat().st_mode & 0o077] == []


@pytest.mark.exhaustive
def test_stop_ends_the_workers_of_a_scheduler_that_was_killed(airflow: Airflow, data: Path) -> None:
    _, leaders = embedded._read_state(data / "airflow")
    workers = leaders["scheduler"].followers()
    assert len(workers) >= 6
    os.kill(leaders["scheduler"].pid, signal.SIGKILL)
    port = int(airflow.url.rsplit(":", 1)[1])

    embedded.stop(data, say=lambda _: None)

    assert [found for leader in leaders.values() for found in leader.session()] == []
    assert not any(map(alive, workers))
    assert embedded.start(data, extra=SETTINGS).url == f"http://127.0.0.1:{port}"
