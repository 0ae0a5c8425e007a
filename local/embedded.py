"""A whole Airflow on this machine, without Docker: SQLite, LocalExecutor, everyone is admin.

    python -m local.embedded start [--port N] | stop | status

Everything it makes is below one data folder, everything it opens listens on 127.0.0.1 only.
`start` returns an `Airflow`, the handle that tests, the demo and benchmarks drive it with.
"""

import argparse
import base64
import contextlib
import fcntl
import importlib.metadata
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from local.client import Airflow, EmbeddedError, poll

REPO = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
DEFAULT_PORT = 8080
START_SECONDS = 300  # a cold disk and two busy cores: the first start compiles all of Airflow
PARSE_SECONDS = 60
TASK_SECONDS = 10  # what running tasks get to finish in when Airflow is stopped
STOP_SECONDS = 5  # what a component gets after that, before it is killed

# The log servers of scheduler and triggerer bind all interfaces, without a setting to change it.
# The API server reads the same files from disk: on one machine they are not needed.
COMPONENTS = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}

Say = Callable[[str], None]


# --- configuration -----------------------------------------------------------------------------


def data_folder() -> Path:
    """The folder of everything made locally: `ML_DATA_DIR`, or `data` in the repository."""
    return Path(os.environ.get("ML_DATA_DIR") or REPO / "data").resolve()


def environment(
    data: Path, port: int, dags_folder: Path | None = None, extra: dict[str, str] | None = None
) -> dict[str, str]:
    """Everything the Airflow processes read, from one place; `extra` overrides."""
    home = data / "airflow"
    # A shell set up for another Airflow must not leak into this one. And without bytecode files
    # every process compiles Airflow again: 2.4 of the 3.6 CPU-seconds of importing it.
    dropped = ("AIRFLOW__", "AIRFLOW_HOME", "AIRFLOW_CONFIG", "PYTHONDONTWRITEBYTECODE")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    settings = {
        "core": {
            "executor": "LocalExecutor",
            "parallelism": "6",
            "dags_folder": str(dags_folder or REPO / "dags"),
            "plugins_folder": str(REPO / "plugins"),
            "load_examples": "false",
            "auth_manager": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager"
            ".SimpleAuthManager",
            "simple_auth_manager_all_admins": "true",
            "execution_api_server_url": f"http://{HOST}:{port}/execution/",
            "hostname_callable": "socket.gethostname",  # the default asks DNS, on some laptops 5 s
            "min_serialized_dag_update_interval": "5",
        },
        "database": {
            "sql_alchemy_conn": f"sqlite:///{home / 'airflow.db'}",
            "check_migrations": "false",  # `start` has migrated
        },
        "api": {"host": HOST, "port": str(port), "base_url": f"http://{HOST}:{port}"},
        "logging": {
            "base_log_folder": str(home / "logs"),
            "dag_processor_child_process_log_directory": str(home / "logs" / "dag_processor"),
            "colored_console_log": "false",
            # Nothing listens there (see COMPONENTS): asking for a running task's log fails at once.
            "worker_log_server_port": "9",
            "trigger_log_server_port": "9",
            "namespace_levels": "airflow.utils.log.file_task_handler=CRITICAL",
        },
        "scheduler": {
            "scheduler_idle_sleep_time": "0.2",
            # A laptop that slept, or a killed task: found in a minute, not in five.
            "task_instance_heartbeat_timeout": "60",
            "orphaned_tasks_check_interval": "60",
        },
        "dag_processor": {
            "refresh_interval": "5",  # looks for new files; a changed one is parsed at once
            "bundle_refresh_check_interval": "5",
            "min_file_process_interval": "60",
            "print_stats_interval": "0",
        },
        "workers": {"execution_api_timeout": "30"},  # two busy cores may take more than five
        "metrics": {"statsd_on": "false"},
    }
    configured = {
        f"AIRFLOW__{section.upper()}__{option.upper()}": value
        for section, options in settings.items()
        for option, value in options.items()
    }
    return {
        **inherited,
        **configured,
        **_secrets(home),
        "AIRFLOW_HOME": str(home),
        "ML_DATA_DIR": str(data),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Tasks side by side on few cores: threads that spin while they wait take 3 × as long.
        "OMP_WAIT_POLICY": "PASSIVE",
        "NO_PROXY": ",".join(filter(None, [inherited.get("NO_PROXY"), HOST, "localhost"])),
        "PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "config")]),
        "PYTHONUNBUFFERED": "1",
        **(extra or {}),
    }


def _secrets(home: Path) -> dict[str, str]:
    """Keys of this installation, made once and readable by its owner only."""
    path = home / "secrets.json"
    if not path.exists():
        keys = {
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
            "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(32),
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        }
        home.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w") as file:
            json.dump(keys, file)
    stored: dict[str, str] = json.loads(path.read_text())
    return stored


# --- start -------------------------------------------------------------------------------------


def start(
    data: Path | None = None,
    port: int | None = None,
    dags_folder: Path | None = None,
    extra: dict[str, str] | None = None,
    say: Say = print,
) -> Airflow:
    """Start Airflow on a data folder and return when it is healthy and has parsed its DAGs."""
    data = (data or data_folder()).resolve()
    home = data / "airflow"
    (home / "logs").mkdir(parents=True, exist_ok=True)
    with _only_one(home):
        if (airflow := running(data)) is not None:
            if port is not None and airflow.url != _url(port):
                raise EmbeddedError(f"Airflow already runs at {airflow.url}: `make stop` ends it.")
            say(f"Airflow already runs at {airflow.url}")
            return airflow
        stop(data, say=lambda _: None)  # what is left of one that did not end well
        port = _choose_port(port, say)
        env = environment(data, port, dags_folder, extra)
        say(f"Airflow is starting at {_url(port)} (logs: {home / 'logs'})")
        began = datetime.now(UTC)
        _migrate(home, env)
        airflow = Airflow(_url(port), data)
        try:
            processes = _launch(home, port, env)
            _wait_until_healthy(airflow, processes, began)
            missing = _wait_until_parsed(
                airflow, processes, Path(env["AIRFLOW__CORE__DAGS_FOLDER"]), began
            )
        except BaseException:
            stop(data, say=lambda _: None)
            raise
        for file in sorted(missing):
            say(f"Warning: {file} has not been parsed yet")
        for error in airflow.import_errors():
            reason = error["stack_trace"].strip().splitlines()[-1]
            say(f"Warning: {error['filename']} cannot be imported: {reason}")
        return airflow


@contextlib.contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Hold the folder while starting, so that two starts at once do not make two Airflows."""
    with (home / "start.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EmbeddedError(f"Another start is at work on {home}: wait for it.") from None
        yield


def _url(port: int) -> str:
    return f"http://{HOST}:{port}"


def _choose_port(named: int | None, say: Say) -> int:
    """The port that was named, or else 8080, or else the next free one."""
    if named is not None:
        if (reason := _not_free(named)) is not None:
            raise EmbeddedError(f"Port {named} cannot be used ({reason}): name another one.")
        return named
    for port in range(DEFAULT_PORT, DEFAULT_PORT + 100):
        if _not_free(port) is None:
            if port != DEFAULT_PORT:
                say(f"Port {DEFAULT_PORT} is taken: using {port}")
            return port
    raise EmbeddedError(f"No free port from {DEFAULT_PORT} on.")


def _not_free(port: int) -> str | None:
    """Why a port cannot be listened on; None if it can."""
    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)) == 0:
            return "it is taken"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            return getattr(error, "strerror", None) or str(error)
    return None


def _migrate(home: Path, env: dict[str, str]) -> None:
    """Bring the database to this Airflow's schema: 7 s, hence only when it is another version's."""
    version = importlib.metadata.version("apache-airflow-core")
    stamp = home / "migrated"
    if (home / "airflow.db").exists() and stamp.exists() and stamp.read_text() == version:
        return
    log = home / "logs" / "db-migrate.log"
    with log.open("w") as output:
        code = subprocess.call(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env=env, cwd=REPO, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    if code != 0:
        raise EmbeddedError(f"`airflow db migrate` failed:\n{_tail(log)}")
    stamp.write_text(version)


def _launch(home: Path, port: int, env: dict[str, str]) -> dict[str, subprocess.Popen[bytes]]:
    """Start the four side by side, each the leader of a session of its own."""
    processes: dict[str, subprocess.Popen[bytes]] = {}
    for name, command in COMPONENTS.items():
        with (home / "logs" / f"{name}.log").open("wb") as output:
            processes[name] = subprocess.Popen(
                [sys.executable, "-m", "airflow", *command],
                env=env, cwd=REPO, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        # Written after each, so that what was started can be stopped whatever happens next.
        leaders = {
            name: {"pid": process.pid, "created": psutil.Process(process.pid).create_time()}
            for name, process in processes.items()
        }
        _state_file(home).write_text(json.dumps({"port": port, "leaders": leaders}, indent=2))
    return processes


def _wait_until_healthy(
    airflow: Airflow, processes: dict[str, subprocess.Popen[bytes]], began: datetime
) -> None:
    """Wait for a heartbeat of each component that is newer than this start."""

    def healthy() -> bool:
        _fail_if_one_ended(airflow, processes)
        try:
            health = airflow.health()
        except EmbeddedError:
            return False  # the API server is not up yet
        beats = [
            health[name].get(f"latest_{name}_heartbeat")
            for name in ("scheduler", "dag_processor", "triggerer")
        ]
        return all(beat and datetime.fromisoformat(beat) >= began for beat in beats)

    try:
        poll(healthy, START_SECONDS, every=0.25)
    except TimeoutError:
        logs = airflow.data / "airflow" / "logs"
        raise EmbeddedError(f"Airflow is not healthy after {START_SECONDS} s: see {logs}") from None


def _wait_until_parsed(
    airflow: Airflow,
    processes: dict[str, subprocess.Popen[bytes]],
    dags_folder: Path,
    began: datetime,
) -> set[str]:
    """Wait until each DAG file gave its DAGs or an import error; return those that gave neither."""
    missing = {
        str(path.relative_to(dags_folder))
        for path in dags_folder.rglob("*.py")
        if re.search(r"@dag\b|\bDAG\(", path.read_text(errors="replace"))
    }

    def parsed() -> bool:
        nonlocal missing
        _fail_if_one_ended(airflow, processes)
        seen = [(dag["relative_fileloc"], dag["last_parsed_time"]) for dag in airflow.dags()]
        seen += [(error["filename"], error["timestamp"]) for error in airflow.import_errors()]
        missing -= {file for file, when in seen if when and datetime.fromisoformat(when) >= began}
        return not missing

    with contextlib.suppress(TimeoutError):
        poll(parsed, PARSE_SECONDS, every=0.25)
    return missing


def _fail_if_one_ended(airflow: Airflow, processes: dict[str, subprocess.Popen[bytes]]) -> None:
    for name, process in processes.items():
        if process.poll() is not None:
            log = airflow.data / "airflow" / "logs" / f"{name}.log"
            raise EmbeddedError(f"{name} ended with code {process.returncode}:\n{_tail(log)}")


def _tail(log: Path, lines: int = 15) -> str:
    text = log.read_text(errors="replace").strip().splitlines()
    return "\n".join([*text[-lines:], f"(all of it: {log})"])


# --- running, stop -----------------------------------------------------------------------------


def running(data: Path | None = None) -> Airflow | None:
    """The Airflow that runs on a data folder; None if there is none or a part of it is gone."""
    data = (data or data_folder()).resolve()
    state = _read_state(data / "airflow")
    if not state or len(state["leaders"]) < len(COMPONENTS):
        return None
    if not all(_leader(leader) for leader in state["leaders"].values()):
        return None
    return Airflow(_url(state["port"]), data)


def stop(data: Path | None = None, say: Say = print) -> None:
    """End what `start` started on a data folder, and what that started; never anything else."""
    home = (data or data_folder()).resolve() / "airflow"
    leaders = _read_state(home).get("leaders", {})
    running = {name: process for name in leaders if (process := _leader(leaders[name]))}
    tasks = [p for p in _session(leaders.get("scheduler")) if p != running.get("scheduler")]

    def end(name: str) -> None:
        say(f"Stopping {name} (pid {running[name].pid})")
        _signal(running[name], signal.SIGTERM)

    for name in running.keys() - {"api-server"}:
        end(name)
    _wait_until_gone(tasks, TASK_SECONDS)
    # The API server last: a task that ends in time reports its state to it.
    if "api-server" in running:
        end("api-server")
    _wait_until_gone(list(running.values()), STOP_SECONDS)
    left = [process for leader in leaders.values() for process in _session(leader)]
    for process in left:
        _signal(process, signal.SIGKILL)
    _wait_until_gone(left, STOP_SECONDS)
    _state_file(home).unlink(missing_ok=True)


def _state_file(home: Path) -> Path:
    return home / "state.json"


def _read_state(home: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads(_state_file(home).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return state


def _same(leader: dict[str, Any]) -> bool:
    """Whether a pid is still the process that was started: by now it may be somebody else's."""
    try:
        return abs(psutil.Process(leader["pid"]).create_time() - leader["created"]) < 2
    except psutil.Error:
        return False


def _leader(leader: dict[str, Any]) -> psutil.Process | None:
    """The process that was started, if it still runs."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(leader["pid"])
        if _same(leader) and _alive(process):
            return process
    return None


def _session(leader: dict[str, Any] | None) -> list[psutil.Process]:
    """All that runs in the session of a component: itself, workers and tasks, orphans too."""
    if leader is None:
        return []
    pid = leader["pid"]
    if psutil.pid_exists(pid) and not _same(leader):
        return []
    members = [process for process in psutil.process_iter() if _session_id(process) == pid]
    # While a session has members its pid is given to nobody else, but a reboot starts anew.
    return [p for p in members if _alive(p) and (_same(leader) or _is_airflow(p))]


def _session_id(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except OSError:
        return None


def _is_airflow(process: psutil.Process) -> bool:
    try:
        return "airflow" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _signal(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _wait_until_gone(processes: list[psutil.Process], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(map(_alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.1)


# --- command line ------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Start, stop or show the Airflow of the data folder."""
    parser = argparse.ArgumentParser(prog="python -m local.embedded", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("start", help="start it, or say that it runs")
    starting.add_argument("--port", type=int, help="port of the UI; default: 8080 or the next free")
    commands.add_parser("stop", help="end all its processes")
    commands.add_parser("status", help="say whether it runs, and where")
    options = parser.parse_args(arguments)
    try:
        if options.command == "start":
            print(f"Airflow is ready: {start(port=options.port).url}")
        elif options.command == "stop":
            stop()
            print("Airflow is stopped")
        else:
            airflow = running()
            print(f"Airflow runs at {airflow.url}" if airflow else "Airflow does not run")
            return 0 if airflow else 1
    except EmbeddedError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted: what was started is stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
