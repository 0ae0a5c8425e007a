"""What is told when a task has failed for good: one structured record, whatever the DAG."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from include.errors import kind_of

log = logging.getLogger(__name__)


def report_failure(context: Mapping[str, Any]) -> None:
    """Log one JSON record of a failed task: what failed, for which partition, and of what kind.

    It is every task's `on_failure_callback`, so it runs once, after the last try.
    """
    log.error("task_failed %s", json.dumps(failure_record(context)))


def failure_record(context: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a failed task from Airflow's context of its run."""
    instance = context["task_instance"]
    error = context.get("exception")
    return {
        "dag_id": instance.dag_id,
        "run_id": instance.run_id,
        "task_id": instance.task_id,
        "map_index": instance.map_index,
        "try_number": instance.try_number,
        "partition": context.get("partition_key"),
        "kind": kind_of(error) if isinstance(error, BaseException) else "killed",
        "error": type(error).__name__ if error else "unknown",
        "message": str(error or context.get("reason") or "") or repr(error),
        "log_url": getattr(instance, "log_url", None),
    }
