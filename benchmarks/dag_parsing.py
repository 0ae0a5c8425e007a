"""Parsing dags/ against as many files with an empty DAG each, as Airflow's DAG processor does it.

The processor's own class parses each file in a fork of a process that has imported Airflow and
what config/ has a DAG processor import, and sends the serialized DAG back: no code of this
project is imported before, and nothing stays. What is timed is what Airflow reports as
`dag_processing.last_duration`. The files take turns; a folder's time is the sum over its files of
the best time of each.
"""

import os
import selectors
import time
import uuid
from pathlib import Path

from benchmarks.common import REPO, Claim, at_most, child, program, say, scratch_folder

REPEATS = {"small": 5, "full": 40}
MAX_RATIO = 1.3
NO_DAGS = ["broken_usecases.py"]
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


def main(size: str) -> list[Claim]:
    """Write as many empty DAG files as dags/ has, and parse both folders in a fresh process."""
    ours = sorted(str(path) for path in (REPO / "dags").glob("*.py") if path.name not in NO_DAGS)
    with scratch_folder() as folder:
        (folder / "dags").mkdir()
        empty = [str(folder / "dags" / f"empty_{number}.py") for number in range(len(ours))]
        for path in map(Path, empty):
            path.write_text(EMPTY.format(name=path.stem))
        env = {
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            "ML_DATA_DIR": str(folder),
            "PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "config")]),
        }
        repeats = REPEATS[size]
        say(f"Parsing {len(ours)} files of dags/ and {len(empty)} empty ones, {repeats} times each")
        best = child(parse_all, env, files=ours + empty, repeats=repeats)
    for name, seconds in best.items():
        say(f"  {Path(name).name:24}{seconds * 1000:7.1f} ms")
    spent, least = (sum(best[path] for path in paths) for paths in (ours, empty))
    against = (
        f"as many empty DAGs: {least * 1000:.1f} ms, dags/ {spent * 1000:.1f} ms "
        f"({len(ours)} files, best of {repeats})"
    )
    return [at_most("dag parsing", spent / least, "x peer's time", MAX_RATIO, against)]


def parse_all(files: list[str], repeats: int) -> dict[str, float]:
    """The best time of each file, in seconds."""
    import airflow_local_settings

    airflow_local_settings.preload_for_parses()
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

    with selectors.DefaultSelector() as selector, Path(os.devnull).open("wb") as log:
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
            client=None,  # type: ignore[arg-type]  # no DAG file may ask for anything
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
                    key.fileobj.close()  # type: ignore[union-attr]
        seconds = time.monotonic() - process.start_time
        found = process.parsing_result
        assert found is not None, path
        assert not found.import_errors, found.import_errors
        assert len(found.serialized_dags) == 1, path
        process.close()
    return seconds


if __name__ == "__main__":
    raise SystemExit(program(main, parse_all))
