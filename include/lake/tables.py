"""The layout of every table, and the only way to publish a partition: all or nothing.

    <root>/landing/<input>/<key>.parquet          raw files; an existing one is never replaced
    <root>/<table>/date=<key>/<version>/*.parquet a version's parts, invisible until published
    <root>/<table>/date=<key>/current.json        names the published version: its manifest

A writer fills its own version and publishes it by replacing `current.json`. A file system
(rename) and an object store (one PUT) both do this in one step. Readers start from `current.json`,
so they see the whole old version or the whole new one, no matter when the writer dies.
"""

import json
import logging
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include import datasets, metrics
from include.datasets import Dataset
from include.errors import BadData, DependencyDown, MissingData, Overtaken
from include.lake.files import (
    ORPHANED_AFTER,
    Part,
    asking,
    blames,
    etag_of,
    exists,
    hashed,
    list_folder,
    locked,
    open_file,
    open_parquet,
    passing_over,
    path_of,
    put_if_unchanged,
    put_text,
    read_json,
    remove_file,
    remove_folder,
    store_of,
    tag_of,
    to_arrow,
    write_parquet,
)
from include.metrics import Sample
from include.partitions import is_key, midnight, parse_key
from include.settings import settings

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa
    import pyarrow.parquet as pq

    from include.lake.files import AnyPath

log = logging.getLogger(__name__)

VERSION_TIME = "%Y%m%dT%H%M%S.%f"
"""Beginning of a version's name, so that names sort by the time when versions were begun."""

PROFILE = ".profile"
"""Suffix of a part that describes another part."""

TICK = timedelta(microseconds=1)
"""Minimum time between two versions, according to their names."""

PUBLISH_TRIES = 20
"""How often a version is published to S3 at most, if others publish the day at the same time."""

VERSION_NAME = re.compile(r"(\d{8}T\d{6}\.\d{6})-[0-9a-f]{8}")


@dataclass(frozen=True)
class Manifest:
    """The content of `current.json`, which describes a published partition.

    Attributes:
        made_from: the version of the partition's inputs. A version made from older inputs never
            replaces one made from newer inputs.
        parts: name → Parquet file of the partition.
        profiles: name → profile file of the partition.
    """

    table: str
    key: str
    version: str
    published_at: str
    made_from: str
    parts: dict[str, Part]
    metadata: dict[str, Any] = field(default_factory=dict)
    profiles: dict[str, Part] = field(default_factory=dict)


class Version:
    """A folder of Parquet parts that belongs to one writer, named by its URI."""

    def __init__(
        self, lake: "Lake", table: str, key: str, name: str, manifest: Manifest | None = None
    ):
        self.lake, self.table, self.key, self.name = lake, table, key, name
        self.path = lake.partition_path(table, key) / name
        self._manifest = manifest

    def part_path(self, part: str) -> "AnyPath":
        """Path of a part's file."""
        return self.path / f"{part}.parquet"

    @contextmanager
    def write(self, part: str, schema: "pa.Schema") -> Iterator["pq.ParquetWriter"]:
        """Write one part, one row group per batch. It appears, or is replaced, when complete."""
        with write_parquet(self.part_path(part), schema) as writer:
            yield writer

    def write_frame(self, part: str, frame: "pl.DataFrame", row_group_rows: int = 0) -> None:
        """Write one part from a frame, in row groups of `row_group_rows` (default: a batch)."""
        table = to_arrow(frame)
        with self.write(part, table.schema) as writer:
            writer.write_table(table, row_group_rows or settings().batch_rows)

    def parquet(self, part: str, verify: bool = True) -> "pq.ParquetFile":
        """Open a part for reading; only requested rows and columns are read.

        Args:
            verify: compare the content of a published part with its manifest. In a folder this
                reads the whole file once. Pages also have their own checksums.

        Raises:
            MissingData: the part does not exist.
            BadData: it is not what was published.
        """
        promised = None
        if verify:
            with suppress(MissingData):  # it is not published yet
                manifest = self.manifest()
                promised = manifest.parts.get(part) or manifest.profiles.get(part)
        path = self.part_path(part)
        try:
            return open_parquet(path, promised=promised)
        except MissingData as error:
            raise self.gone(path) from error

    def read(self, part: str, columns: list[str] | None = None) -> "pl.DataFrame":
        """A part, or some columns of it, in memory; a published part is verified."""
        import polars as pl

        with self.parquet(part) as file, blames(self.part_path(part)):
            return pl.DataFrame(pl.from_arrow(file.read(columns=columns)))

    def describe(self, part: str) -> Part:
        """Rows, size, content hash and columns of a part, as they are now."""
        import pyarrow.parquet as pq

        path = self.part_path(part)
        try:
            with open_file(path) as data, blames(path):
                digest, size = hashed(data)
                data.seek(0)
                with pq.ParquetFile(data, pre_buffer=False) as file:
                    rows, columns = file.metadata.num_rows, file.schema_arrow.names
                return Part(rows, size, digest, columns, etag_of(data))
        except FileNotFoundError as error:
            raise self.gone(path) from error

    def gone(self, path: "AnyPath") -> MissingData:
        """The error for a missing file of this version."""
        return MissingData(
            f"There is no file {path}. This task has published nothing. A version that is not "
            f"published within {ORPHANED_AFTER.days} days is removed, and so are replaced ones by "
            "`housekeeping`: clear the whole run, not this task alone, so that it is made again."
        )

    def publish(
        self, parts: list[str], metadata: dict[str, Any] | None = None, made_from: str | None = None
    ) -> Manifest:
        """Make this version the partition's current one, in one step.

        If two writers publish at the same moment, one of them goes first, and the other one sees
        its version. (In a store that is not S3 both may miss each other: the last one is current.)
        Replaced versions are kept until `housekeeping` removes them. A damaged `current.json` is
        replaced.

        Args:
            parts: the parts that belong to it.
            metadata: additional content of its manifest.
            made_from: the version of its inputs; by default its own, so the later version wins.

        Returns:
            Its manifest.

        Raises:
            Overtaken: the published version began later or has newer inputs, and stays. This
                version is complete, and can be read by its reference.
        """
        manifest = Manifest(
            table=self.table,
            key=self.key,
            version=self.name,
            published_at=datetime.now(UTC).isoformat(timespec="seconds"),
            made_from=made_from or self.name,
            parts={part: self.describe(part) for part in parts},
            metadata=metadata or {},
            profiles={part: self.describe(part) for part in self._profiles()},
        )
        text = json.dumps(asdict(manifest), indent=1)
        put_text(self.path / "manifest.json", text)
        self._manifest = manifest
        datasets.wrote(*self._datasets(manifest))
        current = self._replace_current(text, made_from)
        rows = max((part.rows for part in manifest.parts.values()), default=0)
        metrics.send(self.lake.usecase, "published_rows_total", rows, table=self.table)
        about = {"table": self.table}
        day = midnight(self.key).timestamp()
        samples = [Sample("newest_day_timestamp_seconds", day, about)]
        if current is None:  # publishing a day again does not show that new days still arrive
            samples.append(Sample("last_published_timestamp_seconds", time.time(), about))
        metrics.send_of_day(self.lake, self.table, self.key, samples)
        return manifest

    def amend(self) -> None:
        """Describe the parts of this published version again, after rows were erased from them."""
        known = self.manifest()
        self._manifest = replace(
            known,
            parts={part: self.describe(part) for part in known.parts},
            profiles={part: self.describe(part) for part in known.profiles},
        )
        text = json.dumps(asdict(self._manifest), indent=1)
        put_text(self.path / "manifest.json", text)
        current = self.lake.manifest(self.table, self.key)
        if current is not None and current.version == self.name:
            self._replace_current(text, known.made_from)

    def _replace_current(self, text: str, made_from: str | None) -> Manifest | None:
        """Make a manifest the current one, with no other writer between the check and this.

        Returns:
            The manifest that it replaces.
        """
        path = self.path.parent / "current.json"
        if isinstance(path, Path):
            with locked(path.parent.parent / ".lock"):
                current = self.check_is_newest(made_from)
                put_text(path, text)
                return current
        for _ in range(PUBLISH_TRIES):
            tag = tag_of(path)
            current = self.check_is_newest(made_from)
            if put_if_unchanged(path, text, tag):
                return current
            time.sleep(0.05 + secrets.randbelow(450) / 1000)
        raise DependencyDown(
            f"{path} was replaced during each of {PUBLISH_TRIES} tries to publish {self}. Nothing "
            "was published by this one; the retry goes on from here."
        )

    def check_is_newest(self, made_from: str | None = None) -> Manifest | None:
        """Check that the published version does not have newer inputs.

        Returns:
            The manifest of the published version, if there is one.

        Raises:
            Overtaken: it has newer inputs.
        """
        current = self._standing()
        if current is not None and current.made_from > (made_from or self.name):
            raise Overtaken(
                f"{self} is not published: {current.version} is, and was made from newer inputs. "
                "The run that made it has finished the day; there is nothing to do."
            )
        return current

    def _standing(self) -> Manifest | None:
        """The published version; if `current.json` is damaged, the newest ever published."""
        try:
            return self.lake.manifest(self.table, self.key)
        except BadData as error:
            log.warning("%s", error)
        found = []
        for folder in list_folder(self.path.parent):
            with suppress(BadData):
                found.append(_manifest(folder / "manifest.json"))
        others = [one for one in found if one is not None and one.version != self.name]
        return max(others, key=lambda one: one.made_from, default=None)

    def manifest(self) -> Manifest:
        """This version's manifest, whether it is current or not.

        Raises:
            MissingData: it was never published.
            BadData: its manifest is damaged.
        """
        if self._manifest is None:
            self._manifest = _manifest(self.path / "manifest.json")
        if self._manifest is None:
            raise MissingData(
                f"Version {self} was never published, or `housekeeping` has removed it. Run the "
                "pipeline that publishes it again."
            )
        datasets.read(*self._datasets(self._manifest))
        return self._manifest

    def _datasets(self, manifest: Manifest) -> Iterator[Dataset]:
        """Its parts: the first, the main one, has the table's name, and the others are below it."""
        table = self.lake.root / self.table
        for number, (name, part) in enumerate(manifest.parts.items()):
            place = table / name if number else table
            yield datasets.folder(place, part.columns, part.rows, part.bytes, str(self))

    def _profiles(self) -> list[str]:
        names = [path.name for path in list_folder(self.path)]
        return sorted(
            name.removesuffix(".parquet")
            for name in names
            if name.endswith(f"{PROFILE}.parquet") and name[0] != "."
        )

    def __str__(self) -> str:
        return f"{self.table}/{self.key}/{self.name}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)


class Lake:
    """All tables under one root.

    Args:
        root: a folder, or a URI that Airflow's `ObjectStoragePath` opens (`s3://conn@bucket/x`).
        usecase: name of the use case that owns the tables, for the metrics.
    """

    def __init__(self, root: str, usecase: str = ""):
        self.usecase = usecase
        self.root = path_of(root)

    def landing_path(self, input_name: str, key: str) -> "AnyPath":
        """Path of the landed file of one input and partition."""
        return self.root / "landing" / input_name / f"{key}.parquet"

    def partition_path(self, table: str, key: str) -> "AnyPath":
        """The folder of one partition of one table."""
        return self.root / table / f"date={key}"

    def new_version(self, table: str, key: str) -> Version:
        """A version that no other writer has; nothing is written yet.

        Its name sorts after those of all existing versions of the partition, even if a clock was
        ahead, here or on another machine. Old versions that were never published are removed.
        """
        parse_key(key)
        folders = list_folder(self.partition_path(table, key))
        names = [folder.name for folder in folders]
        remove_orphans(folders)
        times = [datetime.now(UTC), *(time + TICK for name in names if (time := begun(name)))]
        return Version(self, table, key, version_name(max(times)))

    def published_keys(self, table: str) -> Iterator[str]:
        """Keys of the published partitions of a table, newest first, each looked up on demand.

        Folders whose name is not a partition key are skipped. Days with a damaged manifest are
        skipped and logged.
        """
        names = (path.name for path in list_folder(self.root / table))
        keys = {name.removeprefix("date=") for name in names if name.startswith("date=")}
        found = sorted(filter(is_key, keys), reverse=True)
        return (key for key in found if self.readable_manifest(table, key) is not None)

    def is_newest(self, table: str, key: str) -> bool:
        """Whether no later day of a table is published."""
        return next(self.published_keys(table), key) <= key

    def version(self, reference: str) -> Version:
        """The version that a reference (`str(version)`) names.

        Raises:
            BadData: it is not a reference.
        """
        if reference.count("/") < 2:
            raise BadData(
                f"{reference!r} is not a version of a table under {self.root}: its form is "
                "table/partition/version. Nothing was read. Correct the reference."
            )
        table, key, name = reference.rsplit("/", 2)
        return Version(self, table, key, name)

    def manifest(self, table: str, key: str) -> Manifest | None:
        """The manifest of a published partition; None if nothing was published.

        Raises:
            BadData: it is damaged.
        """
        parse_key(key)
        path = self.partition_path(table, key) / "current.json"
        try:
            found = _manifest(path)
            if found is not None and (found.table, found.key) != (table, key):
                raise BadData(f"{path} is the manifest of {found.table} {found.key}")
        except BadData as error:
            raise BadData(
                f"{error}. So the published version of {table} {key} is unknown. Its versions are "
                "untouched, and each keeps its own manifest.json. Run the pipeline that publishes "
                "this day again, or copy the newest version's manifest.json over that file."
            ) from error
        return found

    def readable_manifest(self, table: str, key: str) -> Manifest | None:
        """As `manifest`, but None if it is damaged: for those who look at many days.

        The log names the day that is passed over.
        """
        found = None
        with passing_over(f"{table} {key}"):
            found = self.manifest(table, key)
        return found

    def manifests(self, table: str, keys: Iterable[str]) -> dict[str, Manifest]:
        """The manifests of those of several partitions that are published, by key.

        A day whose manifest is damaged is passed over: the log names it.
        """
        with ThreadPoolExecutor(8) as readers:  # on an object store it is the waiting that counts
            found = readers.map(lambda key: (key, self.readable_manifest(table, key)), keys)
            return {key: manifest for key, manifest in found if manifest is not None}

    def current(self, table: str, key: str) -> Version:
        """The published version of a partition.

        Raises:
            MissingData: nothing has been published for this key.
        """
        manifest = self.manifest(table, key)
        if manifest is None:
            raise MissingData(
                f"Table {table!r} has no published partition {key} under {self.root}. "
                "Run the pipeline that publishes it for this date, then this one again."
            )
        return Version(self, table, key, manifest.version, manifest)


def _manifest(path: "AnyPath") -> Manifest | None:
    try:
        return read_json(path, Manifest)
    except (FileNotFoundError, NotADirectoryError):
        return None


def version_name(time: datetime) -> str:
    """A unique name for a version that is begun at a time."""
    return f"{time.strftime(VERSION_TIME)}-{secrets.token_hex(4)}"


def begun(name: str) -> datetime | None:
    """When a version was begun, according to its name; None if it is not a version."""
    if not (found := VERSION_NAME.fullmatch(name)):
        return None
    try:
        time = datetime.strptime(found[1], VERSION_TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
    return time if time.year < datetime.max.year else None  # there must be room for a later one


def remove_orphans(folders: Iterable["AnyPath"]) -> None:
    """Remove abandoned, unpublished versions of a partition.

    A version that cannot be removed stays, and the log says why; it does not stop the writer.

    Args:
        folders: the contents of the partition's folder.
    """
    for folder in folders:
        try:
            if is_orphan(folder):
                remove_folder(folder)
        except Exception as error:
            log.warning("%s was begun and never published. It stays: %r", folder, error)


def is_orphan(folder: "AnyPath") -> bool:
    """Whether a folder is an abandoned version: never published, and old.

    Raises:
        BadData: `current.json` is damaged, so it is not known what is published.
    """
    before = datetime.now(UTC) - ORPHANED_AFTER
    time = begun(folder.name)
    if time is None or time > before or exists(folder / "manifest.json"):
        return False
    current = _manifest(folder.parent / "current.json")
    if current is not None and current.version == folder.name:
        return False
    if isinstance(folder, Path):
        times = [path.stat().st_mtime for path in (folder, *folder.iterdir())]
        return max(times) < before.timestamp() and not folder.is_symlink()
    with asking(folder):
        files = store_of(folder).ls(folder.path, detail=True)
    return all(file.get("LastModified", before) <= before for file in files)


def remove_version(folder: "AnyPath") -> None:
    """Remove a published version, its manifest first.

    If this is interrupted, an abandoned version is left, which is removed like those of writers.
    Readers get what they have already opened, or `MissingData`.
    """
    remove_file(folder / "manifest.json")
    remove_folder(folder)
