"""Parse DAG files as the DAG processor does."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
DAGS = REPO / "dags"

PARSE = """
import json, sys
from pathlib import Path
from airflow.dag_processing.dagbag import BundleDagBag
before = set(sys.modules)
bag = BundleDagBag(dag_folder=sys.argv[1], bundle_path=sys.argv[1], bundle_name="dags-folder")
def retry_policy_of(task):
    return task.partial_kwargs.get("retry_policy") if task.is_mapped else task.retry_policy
def names_of(assets):
    parts = getattr(assets, "objects", None)
    return [assets.name] if parts is None else [name for part in parts for name in names_of(part)]
def waits_for(dag):
    condition = getattr(dag.timetable, "asset_condition", None)
    return [] if condition is None else names_of(condition)
def describe(task):
    return {
        "downstream": sorted(task.downstream_task_ids),
        "mapped": task.is_mapped,
        "mapped_over": type(task._get_specified_expand_input()).__name__ if task.is_mapped else "",
        "retries": task.retries,
        "policy": task.has_retry_policy,
        "own_retries": getattr(retry_policy_of(task), "own_retries", None),
        "owner": task.owner,
        "doc": task.doc_md,
        "callback": bool(task.has_on_failure_callback),
        "pool": task.pool,
        "timeout": task.execution_timeout and task.execution_timeout.total_seconds(),
        "trigger_rule": task.trigger_rule,
        "subject": getattr(task, "subject", None),
    }
print(json.dumps({
    "errors": {str(file): error for file, error in bag.import_errors.items()},
    "imported": sorted({name.split(".")[0] for name in set(sys.modules) - before}),
    "dags": {
        dag.dag_id: {
            "doc": dag.doc_md,
            "catchup": dag.catchup,
            "max_active_runs": dag.max_active_runs,
            "timetable": type(dag.timetable).__name__,
            "cron": getattr(dag.timetable, "expression", None),
            "owner": dag.owner,
            "callbacks": [dag.on_failure_callback.__name__, dag.on_success_callback.__name__],
            "tags": sorted(dag.tags),
            "params": {name: dag.params.get_param(name).schema for name in dag.params},
            "tasks": {task.task_id: describe(task) for task in dag.tasks},
            "file": Path(dag.fileloc).name,
            "defaults": {n: dag.params.get_param(n).serialize()["value"] for n in dag.params},
            "waits_for": waits_for(dag),
            "assets": [*waits_for(dag), *(a.name for task in dag.tasks for a in task.outlets)],
        }
        for dag in bag.dags.values()
    },
}, default=str))
"""


def parse(folder: Path, variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Parse a folder as the DAG processor does, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PARSE, str(folder)],
        env=os.environ | dict(variables or {}),
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])
