"""The whole stack, started from a copy of the project as `make up` does, for all tests together."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from include import usecases
from include.usecase import UseCase
from local.client import FINISHED, Airflow, poll
from tests.case import CASE, SECOND
from tests.conftest import FLIGHTS
from tests.e2e.conftest import free_port

REPO = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent

PROJECT = [
    "Makefile", "Dockerfile", "docker-compose.yaml", ".dockerignore", ".env.example",
    "settings.env.example", "requirements.txt", "requirements.lock", "config", "dags", "grafana",
    "include", "local", "plugins", "prometheus", "serving",
]  # fmt: skip
"""What a person needs of the project to start the stack."""

OTHER = usecases.load(SECOND)
"""The use case beside `CASE`, which no test of the other may touch."""

NAME = "ml-pipelines-test"
PORTS = ("AIRFLOW", "GRAFANA", "PROMETHEUS", "ALERTMANAGER", "MLFLOW", "MODEL_SERVER")
ENVIRONMENT = {
    "COMPOSE_PROJECT_NAME": NAME,
    "COMPOSE_FILE": f"docker-compose.yaml:{HERE / 'docker-compose.yaml'}",
    "ALERT_WEBHOOK_URL": "http://receiver:8000/",
    "NETWORK": "10.213.58",  # beside a stack that the person may have running
}
SETTINGS = {
    "ML_USECASES": f"{CASE.name},{OTHER.name}",
    "ML_FLIGHT_DELAYS__TRAIN_START": "2013-01-01",
    "ML_FLIGHT_DELAYS__EXPERIMENT": "shadow",
    # How good the other's models are is not what is tested.
    "ML_DOCTOR_VISITS__GATE_CONFIDENCE": "0",
    "ML_DOCTOR_VISITS__GATE_MAX_SKILL": "1",
    "ML_DOCTOR_VISITS__GATE_MAX_CALIBRATION_ERROR": "1",
    "ML_DOCTOR_VISITS__GATE_MAX_SHIFT_RATIO": "1000",
    "ML_DOCTOR_VISITS__GATE_MAX_SLICE_SKILL_LOSS": "10",
    "ML_HOLDOUT_DAYS": "5",
    "ML_CHUNK_ROWS": "250",
    "ML_RETRY_BASE_SECONDS": "2",
    "ML_RETRY_MAX_SECONDS": "5",
    "ML_MONITORING_ACTS": "false",
}

HISTORY = {CASE: ("2013-01-01", "2013-01-21"), OTHER: OTHER.first_window}
"""The history that each champion is trained on."""

DAYS = {CASE: ["2013-01-22", "2013-01-23"], OTHER: ["2021-04-12"]}
"""Days that have gone through every pipeline when the numbers are looked at."""

TODAY = datetime.now(UTC).date()
YESTERDAY = (TODAY - timedelta(days=1)).isoformat()
SCHEDULED = [(TODAY - timedelta(days=2)).isoformat(), YESTERDAY]
"""Days that the schedule itself may run, before and after 06:00: broken files wait for them."""


def why_not() -> str:
    """Why the stack cannot run here; empty if it can."""
    if shutil.which("docker") is None:
        return "there is no docker here"
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"`{' '.join(command)}` says: {done.stderr.strip()[:200]}"
    return ""


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with secrets of its own."""
    if reason := why_not():
        pytest.skip(f"the stack needs Docker with its Compose plugin: {reason}")
    folder = tmp_path_factory.mktemp("project")
    for name in PROJECT:
        source = REPO / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    add_usecases(folder)
    folder.chmod(0o755)
    subprocess.run(["make", ".env", "settings.env"], cwd=folder, check=True)
    # Not 0: Docker would choose another port when a container is restarted.
    ports = {f"{name}_PORT": str(free_port()) for name in PORTS}
    for file, values in ((".env", ENVIRONMENT | ports), ("settings.env", SETTINGS)):
        with (folder / file).open("a") as lines:
            lines.writelines(f"{name}={value}\n" for name, value in values.items())
    return folder


def add_usecases(folder: Path) -> None:
    """Add both use cases as a fork does: their folders, and the package with the other's data."""
    ignored = shutil.ignore_patterns("__pycache__")
    for case in (FLIGHTS, SECOND):
        place = folder / "include" / "usecases" / case.name
        shutil.copytree(case, place, ignore=ignored, dirs_exist_ok=True)
    wanted = (REPO / "requirements-dev.txt").read_text().splitlines()
    [package] = [line for line in wanted if line.startswith("statsmodels==")]
    with (folder / "requirements.txt").open("a") as lines:
        lines.write(f"{package}\n")


@pytest.fixture(scope="session")
def docker_compose_project_name() -> str:
    return NAME


@pytest.fixture(scope="session")
def docker_compose_file(project: Path) -> list[str]:
    return [str(project / "docker-compose.yaml"), str(HERE / "docker-compose.yaml")]


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    """As `make up` does it; what an earlier session may have left goes first."""
    flags = os.environ.get("UP_FLAGS", "")
    return ["down --volumes --remove-orphans", "build", f"up --detach --wait {flags}"]


@dataclass
class Stack:
    """The running stack."""

    folder: Path
    airflow: Airflow
    addresses: dict[tuple[str, int], str] = field(default_factory=dict)

    def compose(self, *command: str, given: str | None = None) -> str:
        """Run a command of Docker Compose and return what it prints."""
        done = subprocess.run(
            ["docker", "compose", *command],
            cwd=self.folder, input=given, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"docker compose {' '.join(command)}: {done.stderr}"
        return done.stdout

    def python(self, script: str, *arguments: str, where: str = "airflow-scheduler") -> Any:
        """Run one of the scripts beside this file where the lake is; returns the JSON it prints."""
        text = (HERE / script).read_text()
        service = ["exec", "-T", where, "python", "-", *arguments]
        return json.loads(self.compose(*service, given=text).splitlines()[-1])

    def address(self, service: str, port: int) -> str:
        """Where a service's port is on this machine."""
        if (service, port) not in self.addresses:
            found = self.compose("port", service, str(port)).strip()
            self.addresses[service, port] = f"http://{found}"
        return self.addresses[service, port]

    def tell_exporter(self, line: str) -> None:
        """Send a line of StatsD from a container to the exporter."""
        send = (
            "import os, socket; socket.socket(type=socket.SOCK_DGRAM).sendto("
            f"{line.encode()!r}, (os.environ['ML_STATSD_HOST'], int(os.environ['ML_STATSD_PORT'])))"
        )
        self.compose("exec", "-T", "airflow-worker", "python", "-c", send)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What Prometheus says now: `metric` (its labels) and `value` of each series."""
        url = f"{self.address('prometheus', 9090)}/api/v1/query"
        answer = httpx.post(url, data={"query": expression}, trust_env=False, timeout=30).json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def value(self, expression: str) -> float:
        """The one number that Prometheus says now; NaN if there is none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else float("nan")

    def run_day(self, key: str) -> None:
        """Send a day through validation, inference and ensemble, and wait for its end."""
        self.start_day(key)
        self.end_day(key)

    def start_day(self, key: str, case: UseCase = CASE) -> str:
        """Begin the validation of a day. Returns its run."""
        return self.airflow.trigger(case.dag_id("data_validation"), partition_key=key)

    def end_day(self, key: str) -> None:
        """Wait until a day is scored by champion and ensemble."""
        for pipeline in ("data_validation", "batch_inference", "ensemble_inference"):
            dag_id = CASE.dag_id(pipeline)
            run = self.patiently(lambda dag=dag_id: self.airflow.wait_partition(dag, key, 600))
            assert run["state"] == "success", f"{dag_id} of {key}: {self.failures(dag_id, run)}"

    def has_ended_its_schedule(self, dag_id: str) -> bool:
        """Whether a DAG has run by itself, and no such run is left to end."""
        runs = [run for run in self.airflow.runs(dag_id) if run["run_type"] == "scheduled"]
        return bool(runs) and all(run["state"] in FINISHED for run in runs)

    def patiently(self, ask: Callable[[], Any]) -> Any:
        """Ask again while Airflow's API is away, as its database is being restarted."""

        def answered() -> list[Any] | None:
            try:
                return [ask()]
            except Exception as error:
                if "still runs" in str(error) or "no finished run" in str(error):
                    raise
                return None

        return poll(answered, 120, every=2)[0]

    def failures(self, dag_id: str, run: dict[str, Any]) -> dict[str, str]:
        """The last lines of what failed in a run, by task."""
        tasks = self.airflow.task_instances(dag_id, run["dag_run_id"])
        return {
            task["task_id"]: self.airflow.log(
                dag_id, run["dag_run_id"], task["task_id"], task["try_number"], task["map_index"]
            )[-2000:]
            for task in tasks
            if task["state"] == "failed"
        }


@pytest.fixture(scope="session")
def running(project: Path, docker_services: Any) -> Iterator[Stack]:
    """The stack as `make up` leaves it, with nothing in it."""
    lines = (project / ".env").read_text().splitlines()
    secrets = dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")
    stack = Stack(project, Airflow("", Path()))
    url = stack.address("airflow-apiserver", 8080)
    stack.airflow = Airflow(url, Path(), ("admin", secrets["AIRFLOW_PASSWORD"]))
    yield stack
    (HERE.parents[1] / "data").mkdir(exist_ok=True)
    logs = subprocess.run(
        ["docker", "compose", "-p", NAME, "logs", "--no-color"], capture_output=True, check=False
    )
    (HERE.parents[1] / "data" / "test-stack.log").write_bytes(logs.stdout)


@pytest.fixture(scope="session")
def stack(running: Stack) -> Stack:
    """The stack with champions and a challenger, on which yesterday's broken files were met."""
    for case in HISTORY:
        running.python("seed.py", case.name, *HISTORY[case], *SCHEDULED, where="airflow-worker")
    for dag in running.airflow.dags():
        running.airflow.unpause(dag["dag_id"])
    for case, (start, end) in HISTORY.items():
        dag_id = case.dag_id("model_retraining")
        why = {"reason": "integration tests", "start": start, "end": end}
        run_id = running.airflow.trigger(dag_id, why)
        state = running.airflow.wait(dag_id, run_id, 600)
        assert state == "success", running.failures(dag_id, {"dag_run_id": run_id})
    running.python("challenger.py", CASE.name, where="airflow-worker")
    for case in HISTORY:
        run_id = running.start_day(YESTERDAY, case)
        assert running.airflow.wait(case.dag_id("data_validation"), run_id) == "failed"
    return running


@pytest.fixture(scope="session")
def days(stack: Stack) -> dict[UseCase, list[str]]:
    """Days of each use case that have gone through every pipeline, the monitor included."""
    for case, keys in DAYS.items():
        days = ["make", "stack-days", f"USECASE={case}", f"FROM={keys[0]}", f"TO={keys[-1]}"]
        done = subprocess.run(days, cwd=stack.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        for key in keys:
            assert f"{key} is scored" in done.stdout
            assert f"{key} is monitored" in done.stdout
        # After a backfill, Airflow runs the DAG for yesterday, too: its figures must not come last.
        dag_id = case.dag_id("model_monitoring")
        with suppress(TimeoutError):
            poll(partial(stack.has_ended_its_schedule, dag_id), 120, every=2)
        # Once more, as of now: the stages that failed are those of the 24 hours before it was due.
        run_id = stack.airflow.trigger(dag_id, partition_key=keys[-1])
        assert stack.airflow.wait(dag_id, run_id) == "success"
        housekeeping = case.dag_id("housekeeping")
        run_id = stack.airflow.trigger(housekeeping)
        assert stack.airflow.wait(housekeeping, run_id) == "success"
    return DAYS
