"""Remove from the lake what killed writers have left half done; nothing that was ever published.

    python -m local.clean_lake

The next writer of a day removes what it finds there. This looks at every day of every table.
"""

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
    """The folders of all partitions of all tables, whose names may have two parts."""
    for table in list_folder(case.lake.root):
        for folder in list_folder(table) if table.name != "landing" else []:
            if folder.name.startswith("date="):
                yield folder
            elif "." not in folder.name:
                yield from (one for one in list_folder(folder) if one.name.startswith("date="))


def main() -> int:
    """Clean the lakes of all enabled use cases."""
    try:
        for case in usecases.enabled():
            removed = clean(case)
            for path in removed:
                print(path)
            print(
                f"{len(removed)} unpublished versions and half-written files older than "
                f"{ORPHANED_AFTER.days} days were removed from {case.lake.root}"
            )
    except (PipelineError, UsecaseInvalid) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
