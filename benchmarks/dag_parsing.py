"""Parsing dags/ against as many files with an empty DAG each, as Airflow's DAG processor does it.

The processor's own class parses each file in a fork of a process that has imported Airflow, and
sends the serialized DAG back: nothing of this project is imported before, and nothing stays. What
is timed is what Airflow reports as `dag_processing.last_duration`. The files take turns; a
folder's time is the sum over its files of the best time of each.
"""

import json
import os
import selectors
import time
import uuid
from pathlib import Path

from benchmarks.common import REPO, at_most, child, options, report, say, scratch_folder

MODULE = "benchmarks.dag_parsing"
REPEATS = {"small": 5, "full": 15}
MAX_RATIO = 1.3
EMPTY = '''"""A DAG with one task that does nothing."""

from airflow.sdk import dag, task


@dag(schedule=None)
def {name}() -> None:
    @task
    def nothing() -> None:
        """Do nothing."""

    nothing()


{name}()
'''


def main() -> int:
    """Write as many empty DAG files as dags/ has, and parse both folders in a fresh process."""
    chosen = options(__doc__)
    if chosen.step:
        print(json.dumps(globals()[chosen.step](**chosen.arguments)))
        return 0
    ours = sorted(str(path) for path in (REPO / "dags").glob("*.py"))
    with scratch_folder() as folder:
        (folder / "dags").mkdir()
        empty = []
        for number, _ in enumerate(ours):
            path = folder / "dags" / f"empty_{number}.py"
            path.write_text(EMPTY.format(name=path.stem))
            empty.append(str(path))
        env = {
            **os.environ,
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            "ML_DATA_DIR": str(folder),
            "PYTHONPATH": str(REPO),
        }
        repeats = REPEATS[chosen.size]
        say(f"Parsing {len(ours)} files of dags/ and {len(empty)} empty ones, {repeats} times each")
        best = child(MODULE, "parse_all", env, files=ours + empty, repeats=repeats)
    for path, seconds in best.items():
        say(f"  {Path(path).name:24}{seconds * 1000:7.1f} ms")
    spent, least = (sum(best[path] for path in paths) for paths in (ours, empty))
    against = f"as many empty DAGs: {least * 1000:.1f} ms, dags/ {spent * 1000:.1f} ms"
    return report([at_most("dag parsing", spent / least, "x peer's time", MAX_RATIO, against)])


def parse_all(files: list[str], repeats: int) -> dict[str, float]:
    """The best time of each file, in seconds."""
    times: dict[str, list[float]] = {path: [] for path in files}
    for _ in range(repeats):
        for path in files:
            times[path].append(_parse(Path(path)))
    return {path: min(found) for path, found in times.items()}


def _parse(path: Path) -> float:
    """Parse one file as the DAG processor's manager does; returns its `last_duration`."""
    import structlog
    from airflow.cli.commands import dag_processor_command  # noqa: F401  what its parent has loaded
    from airflow.dag_processing.manager import logging_processors
    from airflow.dag_processing.processor import DagFileProcessorProcess

    with selectors.DefaultSelector() as selector, open(os.devnull, "wb") as log:
        logger = structlog.wrap_logger(
            structlog.BytesLogger(log), processors=logging_processors(json_output=True)
        )
        process = DagFileProcessorProcess.start(
            id=uuid.uuid4(),
            path=path,
            bundle_path=path.parent,
            bundle_name="dags-folder",
            dag_file_rel_path=path.name,
            callbacks=[],
            selector=selector,
            logger=logger.bind(),
            logger_filehandle=log,
            client=None,
        )
        while not process.is_ready:
            for key, _ in selector.select(timeout=0.001):
                handle, on_close = key.data
                try:
                    more = handle(key.fileobj)
                except (BrokenPipeError, ConnectionResetError):
                    more = False
                if not more:
                    on_close(key.fileobj)
                    key.fileobj.close()
        seconds = time.monotonic() - process.start_time
        found = process.parsing_result
        assert found is not None and not found.import_errors, found
        assert len(found.serialized_dags) == 1, path
        process.close()
    return seconds


if __name__ == "__main__":
    raise SystemExit(main())
