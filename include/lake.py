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
import io
import json
import logging
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include import metrics
from include.errors import BadData, DependencyDown, MissingData
from include.metrics import Sample
from include.settings import settings
from include.wording import cut

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa
    import pyarrow.parquet as pq
    from airflow.sdk import ObjectStoragePath

    AnyPath = Path | ObjectStoragePath

NOT_WRITABLE = {
    errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.ENOSPC, errno.EPERM, errno.EROFS
}  # fmt: skip
NO_FILES = {
    stat.S_IFDIR: "a directory", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device", stat.S_IFBLK: "a block device",
}  # fmt: skip
VERSION_TIME = "%Y%m%dT%H%M%S.%f"
"""How a version's name begins, so that names are in the order in which versions were begun."""

ROOM = timedelta(days=3653)
"""Kept between every partition and both ends of the calendar: windows of days lie around each."""

READ_AHEAD_BYTES = 8 << 20
"""Fetched from an object store beyond what is asked for: by default it would be 50 MB a column."""

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
        BadData: the key is no ISO date, or lies at an end of the calendar: no partition has it.
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
    first, last = date.min + ROOM, date.max - ROOM
    if not first <= day <= last:
        raise BadData(
            f"{key!r} is no partition: it must lie between {first} and {last}, so that there are "
            "days before and after it. Nothing was read or written; start the run again with "
            "another date."
        )
    return day


def midnight(key: str | None) -> datetime:
    """When the day of a partition begins, in UTC."""
    day = parse_key(key)
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


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
        DependencyDown: the lake is full, read-only or away; what was at `path` is untouched.
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

        A run that was overtaken, by one that began later or has newer inputs, changes nothing. Two
        that publish in the same moment may both not see that: then the last is the current one.
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
        about = {"table": self.table}
        day = midnight(self.key).timestamp()
        samples = [Sample("newest_day_timestamp_seconds", day, about)]
        if current is None:  # a day that is published again is no sign that days still come
            samples.append(Sample("last_published_timestamp_seconds", time.time(), about))
        metrics.send_of_day(self.lake, self.table, self.key, samples)
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

    def manifests(self, table: str, keys: Iterable[str]) -> dict[str, Manifest]:
        """The manifests of those of several partitions that are published, by key."""
        with ThreadPoolExecutor(8) as readers:  # on an object store it is the waiting that counts
            found = readers.map(lambda key: (key, self.manifest(table, key)), keys)
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


def open_parquet(
    path: "AnyPath", read_dictionary: list[str] | None = None, whole: bool = False
) -> "pq.ParquetFile":
    """Open a Parquet file of the lake, local or remote.

    Args:
        path: where it is.
        read_dictionary: text columns to read as codes and their distinct values.
        whole: fetch all of a remote one at once: one request for a small file, not three.

    Raises:
        MissingData: there is no file.
        BadData: the file is empty, cut off, or no Parquet. Reading raises Arrow's own errors, also
            for a page whose checksum is wrong.
    """
    import pyarrow.parquet as pq

    try:
        if isinstance(path, Path):
            source: Any = _regular(path)
        else:
            source = io.BytesIO(_read_bytes(path)) if whole else _open(path)
        # Else reading batch by batch keeps all that was read: the whole file, compressed.
        return pq.ParquetFile(
            source,
            pre_buffer=False,
            read_dictionary=read_dictionary,
            page_checksum_verification=True,
        )
    except FileNotFoundError as error:
        raise MissingData(
            f"There is no file {path}. Nothing was published; once it is there, run this again."
        ) from error
    except Exception as error:
        if (fault := fault_of_file(error)) is None:
            raise
        raise BadData(
            f"{path} cannot be read as Parquet ({first_line(error)}): {fault}. Nothing was "
            "published; replace the file and run this again."
        ) from error


def fault_of_file(error: BaseException) -> str | None:
    """What is wrong with a file, given the error that reading its Parquet has raised.

    Arrow blames the file by errors of its own, or by a plain `OSError` that no system call has
    numbered. Polars blames it by its errors, or by a Rust panic, which is no `Exception`.

    Returns:
        The fault in words; None if the disk, the network or a bug raised the error.
    """
    import polars as pl
    import pyarrow as pa

    from_arrow = pa.ArrowInvalid | pa.ArrowNotImplementedError | pa.ArrowTypeError
    if isinstance(error, pl.exceptions.PolarsError | pl.exceptions.PanicException):
        return "it has types or values that cannot be read here"
    if not isinstance(error, from_arrow | UnicodeDecodeError) and not (
        type(error) is OSError and error.errno is None
    ):
        return None
    said = str(error).lower()
    if "crypt" in said:
        return "it is encrypted, and there is no key for it here; land it without encryption"
    if "support" in said and ("codec" in said or "compression" in said):
        return "its compression cannot be read here; write it with zstd, snappy or gzip"
    if isinstance(error, pa.ArrowNotImplementedError) or "not yet implemented" in said:
        return "it uses a part of the Parquet format that cannot be read here"
    return "it is damaged, cut off or of another format"


@contextmanager
def write_parquet(path: "AnyPath", schema: "pa.Schema") -> Iterator["pq.ParquetWriter"]:
    """Write a Parquet file of the lake; it appears at `path` when the block ends without error."""
    import pyarrow.parquet as pq

    with (
        atomic_file(path) as scratch,
        pq.ParquetWriter(scratch, schema, write_page_checksum=True) as writer,
    ):
        yield writer


def to_arrow(frame: "pl.DataFrame") -> "pa.Table":
    """A frame as an Arrow table with plain (not view) strings, which every reader knows."""
    import polars as pl

    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def first_line(error: BaseException) -> str:
    """An error's message without its details."""
    return cut((str(error).strip() or repr(error)).splitlines()[0].rstrip("."), 400)


def exists(path: "AnyPath") -> bool:
    """Whether there is a file."""
    if isinstance(path, Path):
        return path.exists()
    with suppress(FileNotFoundError), _asking(path):
        _store(path).info(path.path)
        return True
    return False


def list_folder(folder: "AnyPath") -> list["AnyPath"]:
    """What is directly in a folder; nothing if there is no such folder."""
    if isinstance(folder, Path):
        return list(folder.iterdir()) if folder.is_dir() else []
    with suppress(FileNotFoundError), _asking(folder):
        names = _store(folder).ls(folder.path, detail=False)
        return [folder / name.rstrip("/").rsplit("/", 1)[-1] for name in names]
    return []


def _regular(path: Path) -> Path:
    """The path, if a file is there: to open a named pipe or a device could take for ever.

    Raises:
        FileNotFoundError: there is nothing.
        BadData: there is something else.
    """
    if kind := NO_FILES.get(stat.S_IFMT(path.stat().st_mode)):
        raise BadData(
            f"{path} is {kind}, not a file. Nothing was read or published; put a regular file in "
            "its place and run this again."
        )
    return path


def _read_bytes(path: "AnyPath") -> bytes:
    if isinstance(path, Path):
        return _regular(path).read_bytes()
    with _asking(path):  # one request: by default it asks for the size first, to read in parts
        content: bytes = _store(path).cat_file(path.path, max_concurrency=1)
    return content


def _open(path: "AnyPath") -> Any:
    if isinstance(path, Path):
        return _regular(path).open("rb")
    with _asking(path):
        return _RemoteFile(path)


def _put(scratch: Path, path: "ObjectStoragePath") -> None:
    try:
        _store(path).put_file(str(scratch), path.path)
    except Exception as error:
        raise _away(path, error) from error


# --- an object store ------------------------------------------------------------------------------


class _RemoteFile:
    """An open file of an object store, which may be away by the time that it is read."""

    def __init__(self, path: "ObjectStoragePath"):
        self._path, self._file = path, _store(path).open(path.path, "rb", READ_AHEAD_BYTES)

    def read(self, size: int = -1) -> bytes:
        with _asking(self._path):
            content: bytes = self._file.read(size)
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_RemoteFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _store(path: "ObjectStoragePath") -> Any:
    """The client of a path's store. It never answers from memory: other processes write, too."""
    store = path.fs
    store.dircache.use_listings_cache = False
    return store


@contextmanager
def _asking(path: "ObjectStoragePath") -> Iterator[None]:
    """Tell a store that does not serve from one that has no such file.

    Raises:
        FileNotFoundError: there is no such file.
        DependencyDown: nobody knows: the store is away, lacks the bucket, or refuses.
    """
    try:
        yield
    except FileNotFoundError as error:
        answer = getattr(error.__cause__, "response", {})
        if answer.get("Error", {}).get("Code") == "NoSuchBucket":
            raise _away(path, error) from error
        raise
    except Exception as error:
        raise _away(path, error) from error


def _away(path: "ObjectStoragePath", error: Exception) -> DependencyDown:
    return DependencyDown(
        f"The lake cannot be used: {first_line(error)}, at {path}. What was published before is "
        "untouched. See that the bucket is there, that its server answers and that this user may "
        "read, write and list it; the retry continues from here."
    )
