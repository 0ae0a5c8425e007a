"""One real Airflow for all end-to-end tests, on a data folder of its own."""

import json
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from include.lake.tables import Lake
from include.messages import ModelVersion
from include.registry import registry
from include.settings import settings
from local import embedded
from local.client import Airflow
from local.environment import forget_settings
from local.seed import seed
from tests.case import CASE
from tests.e2e.dag_ids import INFERENCE, RETRAINING, ROLLBACK

SETTINGS = {
    "ML_CHUNK_ROWS": "250",
    "ML_RETRY_BASE_SECONDS": "1",
    "ML_RETRY_MAX_SECONDS": "2",
    "ML_APPROVAL_HOURS": "0.008",
    "ML_REMOTE_GIVE_UP_SECONDS": "3",
    "ML_MAX_MODEL_AGE_DAYS": "1",
    "ML_RETRAINING_MIN_NEW_DAYS": "1",
    "ML_HOLDOUT_DAYS": "5",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_ready(url: str) -> bool:
    """Whether a model server has found its champion."""
    try:
        return httpx.get(f"{url}/v2/health/ready").is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder with three weeks of history, which this process sees through its settings."""
    folder = tmp_path_factory.mktemp("data")
    forget_settings()
    patch = pytest.MonkeyPatch()
    patch.setenv("ML_DATA_DIR", str(folder))
    settings.cache_clear()
    registry.create_store(CASE)
    assert seed(CASE, "2013-01-01", "2013-01-21", say=lambda _: None) == 21
    yield folder
    patch.undo()
    settings.cache_clear()


class Pages:
    """A web hook that is told of pages, and can be down."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.down = False


@pytest.fixture(scope="session")
def pages_server() -> Iterator[tuple[Pages, int]]:
    found = Pages()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not found.down:
                found.taken.append(json.loads(body))
            self.send_response(503 if found.down else 200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield found, server.server_port
    server.shutdown()


@pytest.fixture
def pages(pages_server: tuple[Pages, int]) -> Pages:
    pages_server[0].taken.clear()
    return pages_server[0]


@pytest.fixture(scope="session")
def airflow(data: Path, pages_server: tuple[Pages, int]) -> Iterator[Airflow]:
    """The running Airflow; its DAGs are on, but for the daily ones, which tests start by hand."""
    notified = {"ML_NOTIFY_URLS": f"json://:secret@127.0.0.1:{pages_server[1]}/hook"}
    running = embedded.start(data, free_port(), extra=SETTINGS | notified)
    for dag_id in (INFERENCE, RETRAINING, ROLLBACK):
        running.unpause(dag_id)
    yield running
    embedded.stop(data)


@pytest.fixture(scope="session")
def lake(data: Path) -> Lake:
    return CASE.lake


@pytest.fixture(scope="session")
def champion(airflow: Airflow) -> ModelVersion:
    """A champion, trained by the DAG on what was seeded."""
    window = {"start": "2013-01-01", "end": "2013-01-21", "holdout_days": 5}
    run_id = airflow.trigger(RETRAINING, {"reason": "end-to-end test", **window})
    assert airflow.wait(RETRAINING, run_id) == "success"
    return registry.champion(CASE)
