"""Sends days through the pipelines of a running Airflow, monitoring included.

    python -m local.days --from 2026-03-01 --to 2026-03-07

Run it where the command `airflow` reaches that Airflow: in the containers of the stack.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from include.errors import BadData, PipelineError
from include.expected import expected_days
from include.inference import ensemble
from include.lake.files import list_folder
from include.partitions import parse_key
from include.usecase import UseCase, UsecaseInvalid
from include.wording import listed
from local.choose import add_option, chosen

PATIENCE_SECONDS = 900
"""If no day is done for this long, a person must look."""


def main(arguments: list[str] | None = None) -> int:
    """Run data_validation for some days, which the others follow, then model_monitoring."""
    today = datetime.now(UTC).date()
    week = [str(today - timedelta(days=back)) for back in (7, 1)]
    parser = argparse.ArgumentParser(prog="python -m local.days", description=main.__doc__)
    parser.add_argument("--from", dest="start", default=week[0], help="by default a week ago")
    parser.add_argument("--to", dest="end", default=week[1], help="by default yesterday")
    add_option(parser)
    options = parser.parse_args(arguments)
    try:
        case = chosen(options.usecase)
    except (PipelineError, UsecaseInvalid) as error:
        print(error, file=sys.stderr)
        return 2
    monitoring = case.dag_id("model_monitoring")
    try:
        first, last = parse_key(options.start), parse_key(options.end)
        keys = [day.isoformat() for day in expected_days(case, first, last)]
        if not keys:
            raise BadData(f"The use case expects no data from {first} to {last}: nothing was run.")
        backfill(case.dag_id("data_validation"), keys, "--max-active-runs", "2")
        wait(keys, "scored", lambda key: is_scored(case, key))
        # Past days notify no one and request no retraining.
        conf = '{"act": false}'
        backfill(monitoring, keys, "--max-active-runs", "1", "--dag-run-conf", conf)
        airflow("dags", "unpause", "--yes", monitoring)
        wait(keys, "monitored", lambda key: is_reported(case, key))
    except (PipelineError, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"{error}\n{error.stderr[-2000:]}", file=sys.stderr)
        return 1
    return 0


def is_scored(case: UseCase, key: str) -> bool:
    """Whether a day is published, by the champion and by the ensemble."""
    return all(case.lake.manifest(table, key) for table in ("predictions", ensemble.TABLE))


def is_reported(case: UseCase, key: str) -> bool:
    """Whether a day has a report of its monitoring."""
    return bool(list_folder(case.lake.partition_path("reports", key)))


def wait(keys: list[str], what: str, done: Callable[[str], bool]) -> None:
    """Print each day when it is done.

    Raises:
        TimeoutError: no day was done for a long time.
    """
    missing, since = list(keys), time.monotonic()
    while missing:
        for key in [key for key in missing if done(key)]:
            print(f"{key} is {what}", flush=True)
            missing.remove(key)
            since = time.monotonic()
        if missing and time.monotonic() - since > PATIENCE_SECONDS:
            raise TimeoutError(
                f"Not {what} within {PATIENCE_SECONDS / 60:.0f} minutes: {listed(missing)}. "
                "Look for red, paused or queued runs in Airflow, then send these days again."
            )
        time.sleep(1)


def backfill(dag_id: str, keys: list[str], *options: str) -> None:
    """Start the runs of days that have none yet."""
    dates = ["--from-date", keys[0], "--to-date", f"{keys[-1]}T23:59:59"]
    airflow("backfill", "create", "--dag-id", dag_id, *dates, *options)


def airflow(*command: str) -> None:
    """Run an `airflow` command."""
    subprocess.run(["airflow", *command], capture_output=True, text=True, check=True)


if __name__ == "__main__":
    sys.exit(main())
