"""The environment of the embedded Airflow, with every setting that differs from its default."""

import base64
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from include.settings import settings, variable
from include.usecase import UseCase

REPO = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
KEPT = ("ML_DATA_DIR", "ML_USECASES")


LOCK_SECONDS = 60
"""How long a writer waits for another one; SQLite's five seconds are too short under load."""

API_LOCK_SECONDS = 5
"""The same in the API server, where a waiting writer can block the one that it waits for until it
gives up. The request then fails with a 500, and tasks and our client retry it."""


def database(home: Path, lock_seconds: int) -> str:
    """Address of Airflow's database."""
    return f"sqlite:///{home / 'airflow.db'}?timeout={lock_seconds}"


def data_folder() -> Path:
    """The folder of everything made locally: `ML_DATA_DIR`, or `data` in the repository."""
    return Path(os.environ.get("ML_DATA_DIR") or REPO / "data").resolve()


def forget_settings() -> list[str]:
    """Drop the shell's settings, except the data folder and the use cases.

    Commands that break files and promote models must never touch a real lake.

    Returns:
        Names of the variables that were dropped.
    """
    dropped = sorted(of_the_project(os.environ).keys() - set(KEPT))
    for name in dropped:
        del os.environ[name]
    settings.cache_clear()
    return dropped


def variables(case: UseCase, values: Mapping[str, str]) -> dict[str, str]:
    """Variables that set these values, also for a use case whose folder has its own.

    Args:
        case: the use case.
        values: setting → value.
    """
    own = {variable(name, case.name): values[name] for name in values if name in case.own_settings}
    return {variable(name): value for name, value in values.items()} | own


def apart(case: UseCase, data: Path) -> dict[str, str]:
    """Variables that keep a use case away from a lake and notifiers in its own settings."""
    instead = {"lake_root": str(data / "lake" / case.name), "notify_urls": ""}
    return {
        variable(name, case.name): value
        for name, value in instead.items()
        if name in case.own_settings
    }


def of_the_project(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that are settings of the project or of MLflow."""
    ours = ("ML_", "MLFLOW_")
    return {name: value for name, value in variables.items() if name.upper().startswith(ours)}


def environment(
    data: Path,
    port: int,
    server_port: int,
    dags_folder: Path | None = None,
    extra: dict[str, str] | None = None,
) -> dict[str, str]:
    """All variables of the processes; `extra` overrides them.

    Args:
        port: port of Airflow's API and UI.
        server_port: port of the model server, for its Airflow connection.
    """
    home = data / "airflow"
    keys = _secrets(home)
    model_server = {
        "conn_type": "http",
        "host": HOST,
        "port": server_port,
        "password": keys["MODEL_SERVER_TOKEN"],
    }
    # Variables for another Airflow must not leak into this one. Without bytecode files, every
    # process would compile Airflow again: 2.4 of the 3.6 CPU-seconds of importing it.
    dropped = ("AIRFLOW__", "AIRFLOW_HOME", "AIRFLOW_CONFIG", "PYTHONDONTWRITEBYTECODE")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    no_proxy = ",".join(
        filter(None, [inherited.get("no_proxy") or inherited.get("NO_PROXY"), HOST, "localhost"])
    )
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
            "sql_alchemy_conn": database(home, LOCK_SECONDS),
            "check_migrations": "false",  # `start` has migrated
        },
        "api": {"host": HOST, "port": str(port), "base_url": f"http://{HOST}:{port}"},
        "logging": {
            "base_log_folder": str(home / "logs"),
            "dag_processor_child_process_log_directory": str(home / "logs" / "dag_processor"),
            "colored_console_log": "false",
            "file_task_handler_new_folder_permissions": "0o700",
            "file_task_handler_new_file_permissions": "0o600",
            # Nothing listens there (see embedded.py): requests for a running task's log fail fast.
            "worker_log_server_port": "9",
            "trigger_log_server_port": "9",
            "namespace_levels": "airflow.utils.log.file_task_handler=CRITICAL",
        },
        "scheduler": {
            "scheduler_idle_sleep_time": "0.2",
            # Notice a laptop that slept, or a killed task, within one minute instead of five.
            "task_instance_heartbeat_timeout": "60",
            "orphaned_tasks_check_interval": "60",
        },
        "dag_processor": {
            "refresh_interval": "5",  # to look for new files; changed ones are parsed at once
            "bundle_refresh_check_interval": "5",
            "min_file_process_interval": "60",
            "print_stats_interval": "0",
        },
        "workers": {"execution_api_timeout": "30"},  # two busy cores may need more than five
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
        **keys,
        "AIRFLOW_CONN_MODEL_SERVER": json.dumps(model_server),
        "AIRFLOW_HOME": str(home),
        "ML_DATA_DIR": str(data),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Tasks run in parallel on few cores, where spinning threads cost three times as much.
        "OMP_WAIT_POLICY": "PASSIVE",
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        "PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "config")]),
        "PYTHONUNBUFFERED": "1",
        **(extra or {}),
    }


def _secrets(home: Path) -> dict[str, str]:
    """Keys of this installation, each made once and readable by its owner only."""
    path = home / "secrets.json"
    stored: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    keys = {
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
        "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(32),
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        "MODEL_SERVER_TOKEN": secrets.token_urlsafe(32),
        **stored,
    }
    if keys != stored:
        home.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".new")
        unfinished.touch(mode=0o600)
        unfinished.write_text(json.dumps(keys))
        unfinished.replace(path)
    return keys
