"""What a task pays for its typed signature: msgspec analyses the type of each annotation.

Each task is a fork of a process that has imported the libraries, so every task pays for it. Here
each task of `dags/` does it in a fork as well, several times; the figure is the most CPU-time of
any task, at its best.
"""

import inspect
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, get_type_hints

import msgspec

from benchmarks.common import REPO, Claim, at_most, child, program, say, scratch_folder

REPEATS = {"small": 5, "full": 20}
MAX_MILLISECONDS = 5.0


def main(size: str) -> list[Claim]:
    """Measure every task of one use case's DAGs in a fresh process."""
    with scratch_folder() as folder:
        env = {
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            "ML_DATA_DIR": str(folder),
        }
        found = child(measure, env, repeats=REPEATS[size])
    dearest = max(found, key=found.__getitem__)
    typical = sorted(found.values())[len(found) // 2]
    for name in sorted(found, key=found.__getitem__)[-3:]:
        say(f"  {name:50}{found[name]:6.2f} CPU-ms")
    against = f"{len(found)} tasks, the median {typical:.2f} CPU-ms; the dearest: {dearest}"
    return [at_most("typed tasks", found[dearest], "CPU-ms", MAX_MILLISECONDS, against)]


def measure(repeats: int) -> dict[str, float]:
    """CPU-milliseconds that each task's annotations take."""
    from airflow.dag_processing.dagbag import BundleDagBag

    folder = REPO / "dags"
    bag = BundleDagBag(dag_folder=str(folder), bundle_path=folder, bundle_name="dags-folder")
    return {
        f"{dag.dag_id}.{task.task_id}": min(_in_fork(task) for _ in range(repeats))
        for dag in bag.dags.values()
        for task in dag.tasks
        if hasattr(task, "python_callable")
    }


def _in_fork(task: Any) -> float:
    return _child_seconds(lambda: _analyse(inspect.unwrap(task.python_callable))) * 1000


def _analyse(function: Callable[..., Any]) -> None:
    for kind in get_type_hints(function).values():
        with suppress(msgspec.ValidationError):  # no task takes an object of nothing
            msgspec.convert(object, kind)


def _child_seconds(work: Callable[[], None]) -> float:
    """CPU-seconds that some work takes in a fork of this process."""
    reader, writer = os.pipe()
    child_id = os.fork()
    if child_id == 0:
        try:
            began = time.process_time()
            work()
            os.write(writer, str(time.process_time() - began).encode())
        finally:  # whatever happens, the child must not go on as a second benchmark
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        seconds = float(pipe.read())
    os.waitpid(child_id, 0)
    return seconds


if __name__ == "__main__":
    raise SystemExit(program(main, measure))
