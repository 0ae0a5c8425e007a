"""Removes leftovers of killed writers from the lake, but nothing that was ever published.

    python -m local.clean_lake [--usecase NAME]

The next writer of a day removes that day's leftovers. This command checks every day of every table.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from include import usecases
from include.errors import PipelineError
from include.lake.files import ORPHANED_AFTER, list_folder, remove_old_scratch
from include.lake.tables import remove_orphans
from include.usecase import UseCase, UsecaseInvalid
from local.choose import add_option

if TYPE_CHECKING:
    from include.lake.files import AnyPath


def clean(case: UseCase) -> list[str]:
    """Remove old versions that were never published, and old half-written files.

    Returns:
        What was removed.
    """
    removed = [gone for folder in _partitions(case) for gone in remove_orphans(list_folder(folder))]
    if isinstance(case.lake.root, Path):
        for folder, _, _ in os.walk(case.lake.root):
            removed += remove_old_scratch(Path(folder))
    return removed


def _partitions(case: UseCase) -> "Iterator[AnyPath]":
    """The folders of all partitions of all tables; a table's name may have two parts."""
    for table in list_folder(case.lake.root):
        for folder in list_folder(table) if table.name != "landing" else []:
            if folder.name.startswith("date="):
                yield folder
            elif "." not in folder.name:
                yield from (one for one in list_folder(folder) if one.name.startswith("date="))


def main(arguments: list[str] | None = None) -> int:
    """Clean the lakes of all enabled use cases, or of one."""
    parser = argparse.ArgumentParser(prog="python -m local.clean_lake", description=main.__doc__)
    add_option(parser)
    options = parser.parse_args(arguments)
    try:
        usecases.check_variables()
        cases = [usecases.find(options.usecase)] if options.usecase else usecases.enabled()
        wrong: list[Exception] = [] if options.usecase else [*usecases.broken().values()]
    except (PipelineError, UsecaseInvalid) as error:
        cases, wrong = [], [error]
    for case in cases:
        try:
            removed = clean(case)
        except PipelineError as error:
            wrong.append(error)
            continue
        for path in removed:
            print(path)
        print(
            f"{len(removed)} unpublished versions and half-written files older than "
            f"{ORPHANED_AFTER.days} days were removed from {case.lake.root}"
        )
    for found in wrong:
        print(found, file=sys.stderr)
    return 2 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
