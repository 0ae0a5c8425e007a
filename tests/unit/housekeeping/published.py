"""Versions that were published some time ago."""

import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from include.errors import Overtaken
from include.lake.tables import Lake, Version

DAY, NEXT = "2013-03-01", "2013-03-02"
NOW = datetime.now(UTC)


def age(path: Path, days: int) -> None:
    """Make a file or folder, and all that is in it, look as if it had not changed for some days."""
    then = (NOW - timedelta(days=days)).timestamp()
    for one in [*path.rglob("*"), path]:
        os.utime(one, (then, then))


def publish(
    lake: Lake, table: str = "table", key: str = DAY, days: int = 0, **metadata: Any
) -> Version:
    """A version that was published so many days ago; its rows hold its own name."""
    version = lake.new_version(table, key)
    version.write_frame("a", pl.DataFrame({"name": [version.name] * 3}))
    with suppress(Overtaken):
        version.publish(["a"], metadata)
    if isinstance(version.path, Path):
        age(version.path, days)
    return version


def is_whole(version: Version) -> bool:
    """Whether a version has all its rows, which are its own."""
    return version.read("a")["name"].to_list() == [version.name] * 3
