"""A whole Airflow on this machine, without Docker: SQLite, LocalExecutor, everyone is admin.

A model server runs beside it, the remote member of the ensemble.

    python -m local.embedded start [--port N] | stop | status

Everything it makes is below one data folder, which only its owner can read. Everything it opens
listens on 127.0.0.1 only.
`start` returns an `Airflow`, the client that tests, the demo and benchmarks use.
"""

import argparse
import contextlib
import fcntl
import importlib.metadata
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from include import usecases
from include.errors import BadData
from local.client import Airflow, EmbeddedError, poll
from local.environment import (
    API_LOCK_SECONDS,
    HOST,
    REPO,
    data_folder,
    database,
    environment,
    of_the_project,
)
from local.processes import Leader, send, wait_until_gone

DEFAULT_PORT = 8080
START_SECONDS = 300  # a cold disk and two busy cores: the first start compiles all of Airflow
PARSE_SECONDS = 60
TASK_SECONDS = 10  # time for running tasks to finish when Airflow is stopped
STOP_SECONDS = 5  # time for a component after that, before it is killed

# The log servers of scheduler and triggerer bind all interfaces, and no setting changes that. They
# are not needed on one machine, because the API server reads the same files from disk.
COMPONENTS = {
    "api-server": ["airflow", "api-server"],
    "scheduler": ["airflow", "scheduler", "--skip-serve-logs"],
    "dag-processor": ["airflow", "dag-processor"],
    "triggerer": ["airflow", "triggerer", "--skip-serve-logs"],
}
MODEL_SERVER = "model-server"
"""Optional: Airflow runs without it, as it does when it is down."""

PRIVATE = 0o077
"""The umask for everything made here: data, logs and secrets are readable by their owner only."""

Say = Callable[[str], None]


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
    home.chmod(0o700)
    with _only_one(home):
        port = choose_port(data, port, say)
        if (airflow := running(data)) is not None:
            say(f"Airflow already runs at {airflow.url}, with the settings it was started with")
            return airflow
        server_port = _free_port()
        env = environment(data, port, server_port, dags_folder, extra)
        say(f"Airflow is starting at {_url(port)} (logs: {home / 'logs'})")
        if _has_old_tables(data / "lake"):
            say(f"Warning: {data / 'lake'} has tables of release 0.1: `make migrate` moves them")
        began = datetime.now(UTC)
        _migrate(home, env)
        ports = {"port": port, "server_port": server_port}
        address = database(home, API_LOCK_SECONDS)
        own = {"api-server": {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": address}}
        airflow = Airflow(_url(port), data)
        try:
            processes = {
                name: _launch(home, name, command, env | own.get(name, {}), ports)
                for name, command in COMPONENTS.items()
            }
            start_model_server(data, extra)
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
            say(f"Warning: {error['filename']} cannot be imported: {_reason(error['stack_trace'])}")
        return airflow


def _has_old_tables(lake: Path) -> bool:
    """Whether tables are directly in a lake, as in release 0.1, and no use case uses them there."""
    if not (lake / "validated").is_dir():
        return False
    roots = [case.lake.root for case in usecases.enabled()]
    return lake.resolve() not in [root.resolve() for root in roots if isinstance(root, Path)]


@contextlib.contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Lock the folder while starting, so that two starts at once do not make two Airflows."""
    with (home / "start.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EmbeddedError(f"Another start is in progress on {home}: wait for it.") from None
        yield


def _url(port: int) -> str:
    return f"http://{HOST}:{port}"


def parse_port(text: str) -> int:
    """A port from the command line.

    Raises:
        EmbeddedError: it is not a port.
    """
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise EmbeddedError(
            f"PORT={text} is not a port: choose one from 1 to 65535, like PORT=8123"
        )
    return int(text)


def choose_port(data: Path, named: int | None, say: Say = print) -> int:
    """The port of the Airflow that runs on a data folder, or the one for the next start.

    That is the named port, or else the previous one, or else the next free one from 8080 on. The
    remains of an Airflow that crashed are stopped, because they may hold the port.

    Raises:
        EmbeddedError: the named port is taken, or Airflow already runs on another one.
    """
    before = _read_state(data / "airflow")[0].get("port", DEFAULT_PORT)
    if running(data) is not None:
        if named not in (None, before):
            raise EmbeddedError(f"Airflow already runs at {_url(before)}: `make stop` ends it.")
        return before
    stop(data, say=lambda _: None)
    wanted = named or before
    reason = _not_free(wanted)
    if reason is None:
        return wanted
    if named is not None:
        raise EmbeddedError(
            f"Port {named} cannot be used ({reason}): choose another one, like PORT=8123"
        )
    for port in range(DEFAULT_PORT, DEFAULT_PORT + 100):
        if _not_free(port) is None:
            say(f"Port {wanted} cannot be used ({reason}): using {port}")
            return port
    raise EmbeddedError(f"No port from {DEFAULT_PORT} on is free: choose one, like PORT=18080")


def _not_free(port: int) -> str | None:
    """Why a port cannot be listened on; None if it can."""
    if not 0 < port < 65536:
        return "ports are 1 to 65535"
    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)) == 0:
            return "it is taken"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return error.strerror or str(error)
    return None


def _migrate(home: Path, env: dict[str, str]) -> None:
    """Migrate the database to this Airflow's schema; takes 4 s, so only if it may be needed."""
    version = importlib.metadata.version("apache-airflow-core")
    stamp = home / "migrated"
    if (home / "airflow.db").exists() and stamp.exists() and stamp.read_text() == version:
        return
    log = home / "logs" / "db-migrate.log"
    with log.open("w") as output:
        code = subprocess.call(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env=env, cwd=REPO, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            umask=PRIVATE,
        )  # fmt: skip
    if code != 0:
        raise EmbeddedError(f"`airflow db migrate` failed:\n{_tail(log)}")
    stamp.write_text(version)


def _launch(
    home: Path, name: str, command: list[str], env: dict[str, str], ports: dict[str, int]
) -> subprocess.Popen[bytes]:
    """Start one process as the leader of its own session, and record it for `stop`."""
    with (home / "logs" / f"{name}.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=env, cwd=REPO, start_new_session=True, umask=PRIVATE,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    _, leaders = _read_state(home)
    leaders[name] = Leader.of(process.pid)
    described = {each: asdict(leader) for each, leader in leaders.items()}
    _state_file(home).write_text(json.dumps({**ports, "leaders": described}, indent=2))
    return process


def start_model_server(
    data: Path, extra: dict[str, str] | None = None, faults: bool = False
) -> str:
    """Start the model server beside an Airflow, unless it runs, on its connection's port.

    Args:
        faults: whether it can be made to fail.

    Returns:
        Its address.
    """
    home = data.resolve() / "airflow"
    ports, leaders = _read_state(home)
    if MODEL_SERVER in leaders and leaders[MODEL_SERVER].alive():
        return _url(ports["server_port"])
    env = environment(home.parent, ports["port"], ports["server_port"], extra=extra)
    command = ["serving", "--port", str(ports["server_port"]), *(["--faults"] if faults else [])]
    _launch(home, MODEL_SERVER, command, env, ports)
    return _url(ports["server_port"])


def stop_model_server(data: Path) -> None:
    """Stop the model server, as if it had failed."""
    home = data.resolve() / "airflow"
    _, leaders = _read_state(home)
    if MODEL_SERVER in leaders and (process := leaders[MODEL_SERVER].process()):
        send(process, signal.SIGKILL)
        wait_until_gone([process], STOP_SECONDS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


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
    """Wait until each DAG file has DAGs or an import error; return files with neither."""
    missing = {
        str(path.relative_to(dags_folder))
        for path in dags_folder.rglob("*.py")
        if re.search(r"@dag\b|@pipeline\b|\bDAG\(", path.read_text(errors="replace"))
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


def _reason(stack_trace: str) -> str:
    """The exception at the end of a traceback, with the lines of its message that follow."""
    lines = stack_trace.strip().splitlines()
    exceptions = [n for n, line in enumerate(lines) if re.match(r"[\w.]*[A-Z]\w*: ", line)]
    return "\n".join(lines[exceptions[-1] if exceptions else -1 :])


def _tail(log: Path, lines: int = 15) -> str:
    text = log.read_text(errors="replace").strip().splitlines()
    return "\n".join([*text[-lines:], f"(all of it: {log})"])


def check_usecases(say: Say = print) -> None:
    """Print what is wrong with use cases, whose DAGs will be missing.

    Raises:
        EmbeddedError: there would be no DAG at all.
    """
    usecases.check_variables()
    wrong = [str(error) for error in usecases.broken().values()]
    if not usecases.enabled():
        raise EmbeddedError("\n".join(wrong) or "No use case is enabled: there would be no DAG.")
    for text in wrong:
        say(f"Warning: {text}")


# --- running, stop -----------------------------------------------------------------------------


def running(data: Path | None = None) -> Airflow | None:
    """The Airflow that runs on a data folder; None if there is none, or a part of it has died."""
    data = (data or data_folder()).resolve()
    ports, leaders = _read_state(data / "airflow")
    if not all(name in leaders and leaders[name].alive() for name in COMPONENTS):
        return None
    return Airflow(_url(ports["port"]), data)


def settings_of_running(data: Path) -> dict[str, str]:
    """The project's variables that the Airflow on a data folder was started with."""
    _, leaders = _read_state(data.resolve() / "airflow")
    process = leaders["dag-processor"].process()
    started_with = of_the_project(process.environ()) if process else {}
    return {name: value for name, value in started_with.items() if not name.startswith("MLFLOW_")}


def is_outdated(data: Path) -> bool:
    """Whether the library was edited since Airflow was started, which has parts of it loaded."""
    _, leaders = _read_state(data.resolve() / "airflow")
    folders = (REPO / "include", *usecases.folders())
    edited = max(path.stat().st_mtime for folder in folders for path in folder.rglob("*.py"))
    return edited > leaders["scheduler"].created


def stop(data: Path | None = None, say: Say = print) -> None:
    """Stop the processes that `start` started on a data folder, with their children; no others."""
    home = (data or data_folder()).resolve() / "airflow"
    ports, leaders = _read_state(home)
    ending = {name: process for name, leader in leaders.items() if (process := leader.process())}
    workers = leaders["scheduler"].followers() if "scheduler" in leaders else []

    def end(name: str) -> None:
        say(f"Stopping {name} (pid {ending[name].pid})")
        send(ending[name], signal.SIGTERM)

    for name in ending:
        if name != "api-server":
            end(name)
    wait_until_gone(workers, TASK_SECONDS)
    if "api-server" in ending:  # last, because tasks that end in time report their state to it
        end("api-server")
    wait_until_gone(ending.values(), STOP_SECONDS)
    left = [process for leader in leaders.values() for process in leader.session()]
    for process in left:
        send(process, signal.SIGKILL)
    wait_until_gone(left, STOP_SECONDS)
    if ports:  # the next start uses the same ports
        _state_file(home).write_text(json.dumps({**ports, "leaders": {}}, indent=2))


def _state_file(home: Path) -> Path:
    return home / "state.json"


def _read_state(home: Path) -> tuple[dict[str, int], dict[str, Leader]]:
    """Ports of the last start, and its processes if it was not stopped."""
    try:
        state = json.loads(_state_file(home).read_text())
    except (FileNotFoundError, ValueError):
        return {}, {}
    leaders = {name: Leader(**leader) for name, leader in state.pop("leaders").items()}
    return state, leaders


# --- command line ------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Start, stop or show the Airflow of the data folder."""
    parser = argparse.ArgumentParser(prog="python -m local.embedded", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("start", help="start it, unless it runs")
    starting.add_argument("--port", help="port of the UI; default: 8080 or the next free")
    commands.add_parser("stop", help="stop all its processes")
    commands.add_parser("status", help="show whether it runs, and where")
    options = parser.parse_args(arguments)
    os.umask(PRIVATE)
    try:
        if options.command == "start":
            check_usecases()
            port = parse_port(options.port) if options.port else None
            print(f"The UI is at {start(port=port).url} (no login); `make stop` ends it.")
        elif options.command == "stop":
            stop()
            print("Airflow is stopped")
        else:
            airflow = running()
            print(f"Airflow runs at {airflow.url}" if airflow else "Airflow does not run")
            return 0 if airflow else 1
    except (EmbeddedError, BadData) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted: everything that was started has been stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
