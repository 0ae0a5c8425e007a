"""Which versions of the lake nothing needs any more: mark and sweep.

A version is needed if it is current, one of the newest of its day, or replaced only recently; if a
registered model names it; or if another version that is needed names it in its manifest. Names of
versions are unique, so every name in a text is a reference, whatever its form.
"""

import json
import logging
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from include.errors import BadData
from include.lake.files import Stored, read_text
from include.lake.tables import VERSION_NAME, begun
from include.partitions import is_key

if TYPE_CHECKING:
    from include.lake.files import AnyPath

QUARANTINE = "quarantine/"
"""How the tables of quarantined rows begin."""

log = logging.getLogger(__name__)


@dataclass
class StoredVersion:
    """A version as a listing has it.

    Attributes:
        published: when its manifest was written; None if it was never published.
        changed: when something in it was last changed.
    """

    folder: "AnyPath"
    bytes: int = 0
    published: datetime | None = None
    changed: datetime | None = None

    @property
    def name(self) -> str:
        """Its name, which sorts by the time when it was begun."""
        return self.folder.name


@dataclass
class Day:
    """A partition as a listing has it.

    Attributes:
        current: its `current.json`; None if there is none.
    """

    table: str
    current: "AnyPath | None" = None
    versions: dict[str, StoredVersion] = field(default_factory=dict)

    @property
    def published(self) -> list[StoredVersion]:
        """The published versions, the newest first."""
        found = [one for one in self.versions.values() if one.published]
        return sorted(found, key=lambda one: one.name, reverse=True)


def days_of(root: "AnyPath", files: Iterable[Stored]) -> list[Day]:
    """The partitions of all tables in a listing of the lake."""
    found: dict[str, Day] = {}
    for file in files:
        place = PurePosixPath(str(file.path).removeprefix(str(root)).lstrip("/"))
        number = next((n for n, part in enumerate(place.parts) if part.startswith("date=")), 0)
        if not number or not is_key(place.parts[number].removeprefix("date=")):
            continue
        partition, rest = place.parts[: number + 1], place.parts[number + 1 :]
        day = found.setdefault("/".join(partition), Day("/".join(partition[:-1])))
        if rest == ("current.json",):
            day.current = file.path
        elif rest and begun(rest[0]):
            folder = root.joinpath(*partition, rest[0])
            version = day.versions.setdefault(rest[0], StoredVersion(folder))
            version.bytes += file.bytes
            version.changed = max(version.changed or file.changed, file.changed)
            if rest[1:] == ("manifest.json",):
                version.published = file.changed
    return list(found.values())


def unneeded(
    days: Sequence[Day], references: str, keep: int, before: datetime
) -> list[tuple[StoredVersion, datetime]]:
    """The published versions that nothing needs, with the time since which they are replaced.

    Args:
        days: all partitions of the lake.
        references: text in which registered models name versions.
        keep: how many of the newest versions of a day are needed.
        before: a version that was replaced later is needed.

    Returns:
        The newest first: a version only refers to older ones, so none ever refers to one that was
        removed before it.

    Raises:
        BadData: the manifest of a version that is needed is damaged, so it is not known what it
            refers to.
    """
    tables = [day for day in days if not day.table.startswith(QUARANTINE)]
    old: dict[str, tuple[StoredVersion, datetime]] = {}
    for day in tables:
        for version in day.published[keep:] if day.current else []:
            if (since := _replaced(version, day.published)) < before:
                old[version.name] = version, since
    if not old:
        return []
    with ThreadPoolExecutor(8) as readers:  # in an object store, most of the time is waiting
        currents = [day.current for day in tables if day.current]
        texts = dict(zip(currents, readers.map(_text, currents), strict=True))
        for day in tables:
            if day.current and texts[day.current] is None:
                log.warning("%s is damaged: its versions stay", day.current)
                old = {name: one for name, one in old.items() if name not in day.versions}
        published = {one.name: one for day in tables for one in day.published}
        new = {name for text in (references, *texts.values()) for name in _names(text or "")}
        new |= published.keys() - old.keys()
        needed: set[str] = set()
        while new:
            needed |= new
            manifests = [published[name].folder / "manifest.json" for name in new & {*published}]
            found = list(readers.map(_text, manifests))
            if None in found:
                raise BadData(
                    f"{manifests[found.index(None)]} is damaged, so it is not known which versions "
                    "it needs. No replaced version was removed. Bring the file back from a copy; "
                    "or delete it, and its version is removed as one that was never published."
                )
            new = {name for text in found for name in _names(text or "")} - needed
    swept = [one for name, one in old.items() if name not in needed]
    return sorted(swept, key=lambda one: one[0].name, reverse=True)


def _replaced(version: StoredVersion, published: Sequence[StoredVersion]) -> datetime:
    """When the next version of the day was published; when it was itself, if it was overtaken."""
    assert version.published
    later = [one.published for one in published if one.published and one is not version]
    return min((time for time in later if time >= version.published), default=version.published)


def _names(text: str) -> set[str]:
    """The names of versions in a text."""
    return {found[0] for found in re.finditer(VERSION_NAME, text)}


def _text(path: "AnyPath") -> str | None:
    """The text of a manifest; None if it is damaged."""
    with suppress(ValueError, RecursionError, BadData):
        text = read_text(path)
        if isinstance(json.loads(text), dict):
            return text
    return None
