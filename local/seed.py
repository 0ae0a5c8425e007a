"""Land and validate a stretch of history at once, in this process, without Airflow.

    python -m local.seed [--from DAY] [--to DAY]

The same steps as `data_validation`, a tenth of a second a day: what a first training needs. In
production the history comes from a backfill of that DAG.
"""

import argparse
import sys
from collections.abc import Callable
from contextlib import suppress

from include.errors import BadData, MissingData, Overtaken, PipelineError
from include.expected import expected_days
from include.partitions import parse_key
from include.settings import settings
from include.usecase import UseCase
from include.validation import validation


def seed(case: UseCase, start: str, end: str, say: Callable[[str], None] = print) -> int:
    """Validate every day of a window, inputs and truth, that has not been published yet.

    A day that is missing or bad is passed over, as is one that is not expected.

    Returns:
        Days of the window that are published now.
    """
    first, last = parse_key(start), parse_key(end)
    days = [day.isoformat() for day in expected_days(case, first, last)]
    published = 0
    for number, key in enumerate(days, start=1):
        try:
            for table in validation.TABLES:
                if case.lake.manifest(table, key) is None:
                    with suppress(Overtaken):  # Airflow has published it meanwhile
                        validation.validate_day(case, table, key)
            published += 1
        except (BadData, MissingData) as error:
            say(f"{key}: {error}")
        if number % 10 == 0 or number == len(days):
            say(f"Seeded {number} of {len(days)} days")
    return published


def main(case: UseCase, arguments: list[str] | None = None) -> int:
    """Seed the window of the first training, or another one."""
    try:
        settings()
    except BadData as error:
        print(error, file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(prog="python -m local.seed", description=main.__doc__)
    parser.add_argument(
        "--from", dest="start", default=str(settings().train_start), help="first day"
    )
    parser.add_argument("--to", dest="end", default=case.first_window[1], help="last day")
    options = parser.parse_args(arguments)
    try:
        published = seed(case, options.start, options.end)
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{published} days from {options.start} to {options.end} are published in the lake")
    return 0 if published else 1


if __name__ == "__main__":
    sys.exit(main(case))
