"""Lands and validates some history at once, in this process, without Airflow.

    python -m local.seed [--from DAY] [--to DAY]

It takes the same steps as `data_validation`, in a tenth of a second per day, to prepare a first
training. In production, backfill that DAG instead.
"""

import argparse
import sys
from collections.abc import Callable
from contextlib import suppress

from include.errors import BadData, MissingData, Overtaken, PipelineError
from include.expected import expected_days
from include.partitions import parse_key
from include.usecase import UseCase, UsecaseInvalid
from local.choose import add_option, chosen
from local.in_process import validate_day


def seed(case: UseCase, start: str, end: str, say: Callable[[str], None] = print) -> int:
    """Validate inputs and truth of every day of a window that is not published yet.

    Missing, bad and unexpected days are skipped.

    Returns:
        Number of days of the window that are published now.
    """
    first, last = parse_key(start), parse_key(end)
    days = [day.isoformat() for day in expected_days(case, first, last)]
    published = 0
    for number, key in enumerate(days, start=1):
        try:
            for table in case.tables:
                if case.lake.manifest(table, key) is None:
                    with suppress(Overtaken):  # Airflow published it meanwhile
                        validate_day(case, table, key)
            published += 1
        except (BadData, MissingData) as error:
            say(f"{key}: {error}")
        if number % 10 == 0 or number == len(days):
            say(f"Seeded {number} of {len(days)} days")
    return published


def main(arguments: list[str] | None = None) -> int:
    """Seed the window of the first training, or another one."""
    parser = argparse.ArgumentParser(prog="python -m local.seed", description=main.__doc__)
    parser.add_argument("--from", dest="start", help="first day; default: of the first training")
    parser.add_argument("--to", dest="end", help="last day; default: of the first training")
    add_option(parser)
    options = parser.parse_args(arguments)
    try:
        case = chosen(options.usecase)
        start, end = options.start or str(case.training_start), options.end or case.first_window[1]
        published = seed(case, start, end)
    except (PipelineError, UsecaseInvalid) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{published} days from {start} to {end} are published in the lake of {case}")
    return 0 if published else 1


if __name__ == "__main__":
    sys.exit(main())
