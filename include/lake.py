"""Where every table lives, and the one way to publish a partition: all of it or nothing.

    <root>/landing/<input>/<key>.parquet          raw files; one that is there is never replaced
    <root>/<table>/date=<key>/<version>/*.parquet a version's parts, invisible until published
    <root>/<table>/date=<key>/current.json        names the published version: its manifest

A writer fills a version of its own and publishes it by replacing `current.json`, which a file
system (rename) and an object store (one PUT) each do in one step. Readers start from
`current.json`, so they see the whole old version or the whole new one, whenever the writer dies.
"""

import errno
import hashlib
import json
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include import metrics
from include.errors import BadData, DependencyDown, MissingData
from include.metrics import Sample
from include.settings import settings

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa
    import pyarrow.parquet as pq
    from airflow.sdk import ObjectStoragePath

    AnyPath = Path | ObjectStoragePath

NOT_WRITABLE = {
    errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.ENOSPC, errno.EPERM, errno.EROFS
}  # fmt: skip
VERSION_TIME = "%Y%m%dT%H%M%S.%f"
"""How a version's name begins, so that names are in the order in which versions were begun."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """One Parquet file of a version."""

    rows: int
    bytes: int
    sha256: str
    columns: list[str]


@dataclass(frozen=True)
class Manifest:
    """What `current.json` says of a published partition.

    Attributes:
        made_from: the version of the partition's inputs: what is made from an older one never
            replaces what is made from a newer one.
    """

    table: str
    key: str
    version: str
    published_at: str
    made_from: str
    parts: dict[str, Part]
    metadata: dict[str, Any] = field(default_factory=dict)


def parse_key(key: str | None) -> date:
    """The day a partition key names.

    Raises:
        BadData: the key is no ISO date, so no partition can have it.
    """
    try:
        day = date.fromisoformat(key or "")
    except (TypeError, ValueError):
        day = None
    if day is None or day.isoformat() != key:
        raise BadData(
            f"{key!r} is no partition: a partition key is a date such as 2026-03-01. "
            "Nothing was read or written; start the run again with a date."
        )
    return day


def days_before(key: str | None, days: int) -> str:
    """The key of the partition `days` days before another."""
    return (parse_key(key) - timedelta(days=days)).isoformat()


def key_of(reference: str) -> str:
    """The partition key of the version that a reference names."""
    return reference.rsplit("/", 2)[1]


@contextmanager
def atomic_file(path: "AnyPath") -> Iterator[Path]:
    """A local file to write that appears at `path` whole, when the block ends without an error.

    Raises:
        DependencyDown: the lake is full or read-only; what was at `path` is untouched.
    """
    scratch: Path
    try:
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = path.parent / f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}"
        else:
            handle, name = tempfile.mkstemp(prefix="lake-")
            os.close(handle)
            scratch = Path(name)
        try:
            yield scratch
            if isinstance(path, Path):
                with scratch.open("rb") as written:
                    os.fsync(written.fileno())
                scratch.replace(path)
            else:
                _put(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        raise DependencyDown(
            f"The lake cannot be written: {error.strerror or error} at {path}. What was published "
            "before is untouched. Free space or give write access; the retry continues from here."
        ) from error


class Version:
    """A folder of Parquet parts that belongs to one writer, named by its URI."""

    def __init__(self, lake: "Lake", table: str, key: str, name: str):
        self.lake, self.table, self.key, self.name = lake, table, key, name
        self.path = lake.partition_path(table, key) / name

    def part_path(self, part: str) -> "AnyPath":
        """Where a part's file is."""
        return self.path / f"{part}.parquet"

    @contextmanager
    def write(self, part: str, schema: "pa.Schema") -> Iterator["pq.ParquetWriter"]:
        """Write one part, each batch a row group. It appears, or is replaced, when complete."""
        with write_parquet(self.part_path(part), schema) as writer:
            yield writer

    def write_frame(self, part: str, frame: "pl.DataFrame", row_group_rows: int = 0) -> None:
        """Write one part from a frame, in row groups of `row_group_rows` (default: a batch)."""
        table = to_arrow(frame)
        with self.write(part, table.schema) as writer:
            writer.write_table(table, row_group_rows or settings().batch_rows)

    def parquet(self, part: str) -> "pq.ParquetFile":
        """Open a part for reading; only what is asked of it is read.

        Raises:
            MissingData: there is no such part.
        """
        return open_parquet(self.part_path(part))

    def read(self, part: str, columns: list[str] | None = None) -> "pl.DataFrame":
        """A whole part, or some columns of it, in memory."""
        import polars as pl

        with self.parquet(part) as file:
            return pl.DataFrame(pl.from_arrow(file.read(columns=columns)))

    def describe(self, part: str) -> Part:
        """Rows, size, content hash and columns of a part."""
        with self.parquet(part) as file:
            rows, columns = file.metadata.num_rows, file.schema_arrow.names
        digest, size = hashlib.sha256(), 0
        with _open(self.part_path(part)) as data:
            while block := data.read(1 << 20):
                digest.update(block)
                size += len(block)
        return Part(rows, size, digest.hexdigest(), columns)

    def publish(
        self, parts: list[str], metadata: dict[str, Any] | None = None, made_from: str | None = None
    ) -> Manifest:
        """Make this version the partition's current one, in one step.

        A run that was overtaken, by one that began later or has newer inputs, changes nothing.
        Replaced versions are kept: what was published can always be looked at again.

        Args:
            parts: the parts that belong to it.
            metadata: what else its manifest says.
            made_from: the version of its inputs, by default its own: what begins later is newer.

        Returns:
            The partition's current manifest now.
        """
        manifest = Manifest(
            table=self.table,
            key=self.key,
            version=self.name,
            published_at=datetime.now(UTC).isoformat(timespec="seconds"),
            made_from=made_from or self.name,
            parts={part: self.describe(part) for part in parts},
            metadata=metadata or {},
        )
        text = json.dumps(asdict(manifest), indent=1)
        put_text(self.path / "manifest.json", text)
        current = self.lake.manifest(self.table, self.key)
        if current is not None and current.made_from > manifest.made_from:
            log.warning("%s was overtaken: %s stays published", self, current.version)
            return current
        put_text(self.path.parent / "current.json", text)
        rows = max((part.rows for part in manifest.parts.values()), default=0)
        metrics.send("published_rows_total", rows, table=self.table)
        published = Sample("last_published_timestamp_seconds", time.time(), {"table": self.table})
        metrics.send_of_day(self.lake, self.table, self.key, [published])
        return manifest

    def manifest(self) -> Manifest:
        """What this version was published with, current or not.

        Raises:
            MissingData: it was never published.
        """
        found = _manifest(self.path / "manifest.json")
        if found is None:
            raise MissingData(f"Version {self} was never published. Run what publishes it again.")
        return found

    def __str__(self) -> str:
        return f"{self.table}/{self.key}/{self.name}"


class Lake:
    """All tables under one root.

    Args:
        root: a folder, or a URI that Airflow's `ObjectStoragePath` opens (`s3://conn@bucket/x`).
    """

    def __init__(self, root: str):
        self.root: AnyPath
        if "://" in root and not root.startswith("file://"):
            from airflow.sdk import ObjectStoragePath

            self.root = ObjectStoragePath(root)
        else:
            self.root = Path(root.removeprefix("file://")).absolute()

    def landing_path(self, input_name: str, key: str) -> "AnyPath":
        """Where a raw file of one input and partition lands."""
        return self.root / "landing" / input_name / f"{key}.parquet"

    def partition_path(self, table: str, key: str) -> "AnyPath":
        """The folder of one partition of one table."""
        return self.root / table / f"date={key}"

    def new_version(self, table: str, key: str) -> Version:
        """A version no one else has; nothing is written yet."""
        parse_key(key)
        name = f"{datetime.now(UTC).strftime(VERSION_TIME)}-{secrets.token_hex(4)}"
        return Version(self, table, key, name)

    def published_keys(self, table: str) -> Iterator[str]:
        """Keys of the published partitions of a table, newest first, each looked up when asked."""
        folders = (path for path in list_folder(self.root / table) if path.name.startswith("date="))
        keys = sorted((folder.name.removeprefix("date=") for folder in folders), reverse=True)
        return (key for key in keys if self.manifest(table, key) is not None)

    def is_newest(self, table: str, key: str) -> bool:
        """Whether no later day of a table is published."""
        return next(self.published_keys(table), key) <= key

    def version(self, reference: str) -> Version:
        """The version a reference (`str(version)`) names."""
        table, key, name = reference.rsplit("/", 2)
        return Version(self, table, key, name)

    def manifest(self, table: str, key: str) -> Manifest | None:
        """The manifest of a published partition, None if nothing was published."""
        parse_key(key)
        return _manifest(self.partition_path(table, key) / "current.json")

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
        return Version(self, table, key, manifest.version)


def _manifest(path: "AnyPath") -> Manifest | None:
    try:
        found = json.loads(_read_bytes(path))
    except FileNotFoundError:
        return None
    found["parts"] = {name: Part(**part) for name, part in found["parts"].items()}
    return Manifest(**found)


def default_lake() -> Lake:
    """The lake that the settings name."""
    return Lake(settings().lake)


def put_text(path: "AnyPath", text: str) -> None:
    """Write a small text file in one step: readers see the old one or the new one."""
    with atomic_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def read_text(path: "AnyPath") -> str:
    """A small text file's content."""
    return _read_bytes(path).decode()


def open_parquet(path: "AnyPath", read_dictionary: list[str] | None = None) -> "pq.ParquetFile":
    """Open a Parquet file of the lake, local or remote.

    Args:
        path: where it is.
        read_dictionary: text columns to read as codes and their distinct values.

    Raises:
        MissingData: there is no file.
        BadData: the file is empty, cut off, or no Parquet.
    """
    import pyarrow.parquet as pq

    try:
        # Else reading batch by batch keeps all that was read: the whole file, compressed.
        return pq.ParquetFile(
            path if isinstance(path, Path) else _open(path),
            pre_buffer=False,
            read_dictionary=read_dictionary,
        )
    except FileNotFoundError as error:
        raise MissingData(
            f"There is no file {path}. Nothing was published; once it is there, run this again."
        ) from error
    except Exception as error:
        if not is_damage(error):
            raise
        raise BadData(
            f"{path} cannot be read as Parquet ({first_line(error)}). It is empty, cut off or "
            "of another format. Nothing was published; replace the file and run this again."
        ) from error


def is_damage(error: Exception) -> bool:
    """Whether an error of reading Parquet is the file's fault, not the disk's or the network's.

    Arrow says so by its own errors, or by a plain `OSError` that no system call has numbered.
    """
    import pyarrow as pa

    ours = isinstance(error, pa.ArrowInvalid | pa.ArrowNotImplementedError | UnicodeDecodeError)
    return ours or (type(error) is OSError and error.errno is None)


@contextmanager
def write_parquet(path: "AnyPath", schema: "pa.Schema") -> Iterator["pq.ParquetWriter"]:
    """Write a Parquet file of the lake; it appears at `path` when the block ends without error."""
    import pyarrow.parquet as pq

    with atomic_file(path) as scratch, pq.ParquetWriter(scratch, schema) as writer:
        yield writer


def to_arrow(frame: "pl.DataFrame") -> "pa.Table":
    """A frame as an Arrow table with plain (not view) strings, which every reader knows."""
    import polars as pl

    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def first_line(error: BaseException) -> str:
    """An error's message without its details."""
    return (str(error).strip() or repr(error)).splitlines()[0].rstrip(".")


def _open(path: "AnyPath") -> Any:
    return path.open("rb") if isinstance(path, Path) else path.fs.open(path.path, "rb")


def _read_bytes(path: "AnyPath") -> bytes:
    return path.read_bytes() if isinstance(path, Path) else path.fs.cat_file(path.path)


def _put(scratch: Path, path: "ObjectStoragePath") -> None:
    try:
        path.fs.put_file(str(scratch), path.path)
    except (FileNotFoundError, PermissionError) as error:  # no such bucket, or no right to write
        raise PermissionError(errno.EACCES, str(error)) from error


def list_folder(folder: "AnyPath") -> list["AnyPath"]:
    """What is directly in a folder; nothing if there is no such folder."""
    if isinstance(folder, Path):
        return list(folder.iterdir()) if folder.is_dir() else []
    with suppress(FileNotFoundError):
        names = folder.fs.ls(folder.path, detail=False, refresh=True)
        return [folder / name.rstrip("/").rsplit("/", 1)[-1] for name in names]
    return []
