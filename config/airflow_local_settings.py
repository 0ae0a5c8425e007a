"""Preloads the tasks' libraries in the parent process, and counts a Celery worker's heartbeats.

Every task is a new process. Without preloading, each one would import pandas, scikit-learn, MLflow…
itself, which takes seconds of CPU before its first line runs. A forked process has them in memory
instead. The same is done for parsing DAG files, which need much less.

Airflow imports this file at the start of each of its commands; only the parents of tasks and of
parses are affected. `include` is not preloaded, because edits to it would then need a restart.
"""

import importlib
import logging
import sys

from airflow.configuration import conf

log = logging.getLogger(__name__)

__all__: list[str] = []  # Airflow would copy the names of this module into its settings

PARSE_LIBRARIES = (
    "airflow.providers.standard.decorators.branch_python",  # Airflow's own are imported lazily
    "airflow.providers.standard.operators.hitl",
    "airflow.providers.standard.operators.trigger_dagrun",
    "airflow.sdk.definitions.decorators",
    "airflow.sdk.definitions.retry_policy",
    "msgspec.json",
    "pydantic_settings",
    "symtable",
)
TASK_LIBRARIES = (
    "httpx",
    "matplotlib.backends.backend_agg",
    "mlflow",
    "mlflow.sklearn",
    "mlflow.store.model_registry.sqlalchemy_store",  # otherwise 1.4 CPU-seconds in every task
    "mlflow.store.tracking.sqlalchemy_store",
    "numpy",
    "pandas",
    "pandera.polars",
    "polars",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "pydantic_settings",
    "scipy.stats",
    "sklearn.compose",
    "sklearn.ensemble",
    "sklearn.inspection",
    "sklearn.linear_model",
    "sklearn.metrics",
    "sklearn.pipeline",
    "tenacity",
    "xgboost",
)


def forks_tasks(command: list[str], executor: str, platform: str) -> bool:
    """Whether tasks are forked from the process that runs this command line of `airflow`."""
    if platform == "darwin":  # there a task is always a fresh interpreter
        return False
    if command[:1] == ["scheduler"]:
        return "LocalExecutor" in executor
    return command[:2] == ["celery", "worker"]


def preload_for_tasks() -> None:
    """Import the libraries; a missing one is only logged, and its tasks import it themselves."""
    for module in TASK_LIBRARIES:
        _try_import(module)
    _move_airflow_back()
    _try_import("skops.io")


def preload_for_parses() -> None:
    """Import what every DAG file imports, but nothing that only tasks need."""
    for module in PARSE_LIBRARIES:
        _try_import(module)


def show_heartbeats() -> None:
    """Count a Celery worker's heartbeats in Airflow's metrics, like those of other components."""
    try:
        from airflow.sdk.observability import stats
        from airflow.sdk.observability.metrics import stats_utils
        from celery.signals import heartbeat_sent

        stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)
        heartbeat_sent.connect(lambda **_: stats.incr("worker_heartbeat"), weak=False)
    except Exception as error:  # another version of Airflow or Celery: the worker must start anyway
        log.warning("This worker's heartbeats are not in the metrics: %r", error)


def _try_import(module: str) -> None:
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever a library raises, Airflow must start
        log.warning("%s is not preloaded: %s", module, error)


def _move_airflow_back() -> None:
    """Move Airflow's modules behind all other loaded modules.

    skops searches the loaded modules in this order for SciPy's functions, and Airflow's modules
    import more of Airflow for an unknown name: 3 s of CPU and a thousand warnings.
    """
    for name in [name for name in sys.modules if name.partition(".")[0] == "airflow"]:
        sys.modules[name] = sys.modules.pop(name)


if forks_tasks(sys.argv[1:], conf.get("core", "executor"), sys.platform):
    preload_for_tasks()
    if sys.argv[1] == "celery":
        show_heartbeats()
elif sys.argv[1:2] == ["dag-processor"]:
    preload_for_parses()
