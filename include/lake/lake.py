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
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from include import metrics
from include.adapter import adapter
from include.errors import BadData, DependencyDown, MissingData, Overtaken
from include.metrics import Sample
from include.settings import settings
from include.wording import cut, quoted

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

PROFILE = ".profile"
"""How the name of a part ends that describes another one."""

TICK = timedelta(microseconds=1)
"""The least time between two versions, as their names tell it."""

VERSION_NAME = re.compile(r"(\d{8}T\d{6}\.\d{6})-[0-9a-f]{8}")

ORPHANED_AFTER = timedelta(days=7)
"""After so long without a change nobody writes any more what is not published. A run whose every
task needs all of its tries, at its time limit, lasts four days; the rest is for a person who clears
a failed task after a long weekend."""

SCRATCH = re.compile(r"\..+\.\d+\.[0-9a-f]{8}")
"""Names of the files that become another one when they are whole."""

ROOM = timedelta(days=3653)
"""Kept between every partition and both ends of the calendar: windows of days lie around each."""

READ_AHEAD_BYTES = 8 << 20
"""Fetched from an object store beyond what is read: by default it would be 50 MB a column."""

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """One Parquet file of a version.

    Attributes:
        etag: what an object store calls this content; empty in a folder.
    """

    rows: int
    bytes: int
    sha256: str
    columns: list[str]
    etag: str = field(default="", compare=False)


@dataclass(frozen=True)
class Manifest:
    """What `current.json` says of a published partition.

    Attributes:
        made_from: the version of the partition's inputs: what is made from an older one never
            replaces what is made from a newer one.
        parts: the Parquet files that belong to it, by name.
        profiles: the profiles that are kept beside them, likewise.
    """

    table: str
    key: str
    version: str
    published_at: str
    made_from: str
    parts: dict[str, Part]
    metadata: dict[str, Any] = field(default_factory=dict)
    profiles: dict[str, Part] = field(default_factory=dict)


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
            f"{quoted(key)} is no partition: a partition key is a date such as 2026-03-01. "
            "Nothing was read or written; start the run again with a date."
        )
    first, last = date.min + ROOM, date.max - ROOM
    if not first <= day <= last:
        raise BadData(
            f"{quoted(key)} is no partition: it must lie between {first} and {last}, so that there "
            "are days before and after it. Nothing was read or written; start the run again with "
            "another date."
        )
    return day


def is_key(key: str) -> bool:
    """Whether a partition can have this key."""
    with suppress(BadData):
        return bool(parse_key(key))
    return False


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
def atomic_file(path: "AnyPath", replace: bool = True) -> Iterator[Path]:
    """A local file to write that appears at `path` whole, when the block ends without an error.

    Args:
        path: where it appears.
        replace: whether it takes the place of what is there by then. If not, what is there stays;
            an object store always replaces it.

    Raises:
        DependencyDown: the lake is full, read-only or away; what was at `path` is untouched.
    """
    scratch: Path
    try:
        ending = f".{os.getpid()}.{secrets.token_hex(4)}"
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_old_scratch(path.parent)
            scratch = path.parent / f".{path.name}{ending}"
        else:
            remove_old_scratch(Path(tempfile.gettempdir()), ".lake-")
            handle, name = tempfile.mkstemp(prefix=".lake-", suffix=ending)
            os.close(handle)
            scratch = Path(name)
        try:
            yield scratch
            if isinstance(path, Path):
                with scratch.open("rb") as written:
                    os.fsync(written.fileno())
                if replace:
                    scratch.replace(path)
                else:
                    with suppress(FileExistsError):
                        path.hardlink_to(scratch)
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

    def __init__(
        self, lake: "Lake", table: str, key: str, name: str, manifest: Manifest | None = None
    ):
        self.lake, self.table, self.key, self.name = lake, table, key, name
        self.path = lake.partition_path(table, key) / name
        self._manifest = manifest

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

    def parquet(self, part: str, verify: bool = True) -> "pq.ParquetFile":
        """Open a part for reading; only what is asked of it is read.

        Args:
            verify: compare the content of a published part with its manifest. In a folder that
                reads the whole file once; pages have checksums of their own besides.

        Raises:
            MissingData: there is no such part.
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
        """A whole part, or some columns of it, in memory; a published one is verified."""
        import polars as pl

        with self.parquet(part) as file, blames(self.part_path(part)):
            return pl.DataFrame(pl.from_arrow(file.read(columns=columns)))

    def describe(self, part: str) -> Part:
        """Rows, size, content hash and columns of a part, as they are now."""
        import pyarrow.parquet as pq

        path = self.part_path(part)
        try:
            with _open(path) as data, blames(path):
                digest, size = hashed(data)
                data.seek(0)
                with pq.ParquetFile(data, pre_buffer=False) as file:
                    rows, columns = file.metadata.num_rows, file.schema_arrow.names
                return Part(rows, size, digest, columns, _etag(data))
        except FileNotFoundError as error:
            raise self.gone(path) from error

    def gone(self, path: "AnyPath") -> MissingData:
        """What to say of a file of this version that is not there."""
        return MissingData(
            f"There is no file {path}. This task has published nothing. A version that is not "
            f"published within {ORPHANED_AFTER.days} days is removed: clear the whole run, so that "
            "it is made again, not this task alone."
        )

    def publish(
        self, parts: list[str], metadata: dict[str, Any] | None = None, made_from: str | None = None
    ) -> Manifest:
        """Make this version the partition's current one, in one step.

        Two that publish in the same moment may each miss the other: then the last is the current
        one. Replaced versions are kept: what was published can always be looked at again. A
        damaged `current.json` is replaced.

        Args:
            parts: the parts that belong to it.
            metadata: what else its manifest says.
            made_from: the version of its inputs, by default its own: what begins later is newer.

        Returns:
            What it was published with.

        Raises:
            Overtaken: what is published began later or has newer inputs, and stays. This version
                is whole, and may be read by its reference.
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
        current = self.check_is_newest(made_from)
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

    def check_is_newest(self, made_from: str | None = None) -> Manifest | None:
        """Make sure that what is published has no newer inputs.

        Returns:
            The manifest of what is published now, if anything is.

        Raises:
            Overtaken: it has.
        """
        current = self._standing()
        if current is not None and current.made_from > (made_from or self.name):
            raise Overtaken(
                f"{self} is not published: {current.version} is, and was made from newer inputs. "
                "The run that made it has done the day; there is nothing to do."
            )
        return current

    def _standing(self) -> Manifest | None:
        """What is published now; if `current.json` is damaged, the newest that ever was."""
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
        """What this version was published with, current or not.

        Raises:
            MissingData: it was never published.
            BadData: its manifest is damaged.
        """
        if self._manifest is None:
            self._manifest = _manifest(self.path / "manifest.json")
        if self._manifest is None:
            raise MissingData(f"Version {self} was never published. Run what publishes it again.")
        return self._manifest

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
        """A version no one else has; nothing is written yet.

        Its name is after those of all versions of the partition that are there, whatever the clock
        says: it may have been ahead, here or on another machine. Old ones that were never
        published are removed.
        """
        parse_key(key)
        folders = list_folder(self.partition_path(table, key))
        names = [folder.name for folder in folders]
        remove_orphans(folders)
        times = [datetime.now(UTC), *(time + TICK for name in names if (time := begun(name)))]
        return Version(self, table, key, version_name(max(times)))

    def published_keys(self, table: str) -> Iterator[str]:
        """Keys of the published partitions of a table, newest first, each looked up when asked.

        Folders whose name is no partition's are skipped, as are days whose manifest is damaged:
        the log names these.
        """
        names = (path.name for path in list_folder(self.root / table))
        keys = {name.removeprefix("date=") for name in names if name.startswith("date=")}
        found = sorted(filter(is_key, keys), reverse=True)
        return (key for key in found if self.readable_manifest(table, key) is not None)

    def is_newest(self, table: str, key: str) -> bool:
        """Whether no later day of a table is published."""
        return next(self.published_keys(table), key) <= key

    def version(self, reference: str) -> Version:
        """The version a reference (`str(version)`) names.

        Raises:
            BadData: it is no reference.
        """
        if reference.count("/") < 2:
            raise BadData(
                f"{reference!r} names no version of a table under {self.root}: such a name is "
                "table/partition/version. Nothing was read. Correct it where it was written down."
            )
        table, key, name = reference.rsplit("/", 2)
        return Version(self, table, key, name)

    def manifest(self, table: str, key: str) -> Manifest | None:
        """The manifest of a published partition, None if nothing was published.

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
                f"{error}. So it is not known what is published of {table} {key}. Its versions are "
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
    """A name that no other version has, of one that is begun at a time."""
    return f"{time.strftime(VERSION_TIME)}-{secrets.token_hex(4)}"


def begun(name: str) -> datetime | None:
    """When a version was begun, by its name; None for what is no version."""
    if not (found := VERSION_NAME.fullmatch(name)):
        return None
    try:
        time = datetime.strptime(found[1], VERSION_TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
    return time if time.year < datetime.max.year else None  # another one has to fit after it


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


def read_json(path: "AnyPath", kind: type[T]) -> T:
    """A JSON file of the lake as what it was written from: a dataclass, for example.

    Fields that only a newer release knows are ignored.

    Raises:
        FileNotFoundError: there is no such file.
        BadData: it is empty, cut off, or something else.
    """
    content = _read_bytes(path)
    try:
        found: T = adapter(kind).validate_json(content, strict=True)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        fault = f"{place}: {first['msg']}" if place else first["msg"]
        raise BadData(f"{path} is {'damaged' if content else 'empty'} ({fault})") from error
    return found


def open_parquet(
    path: "AnyPath",
    read_dictionary: list[str] | None = None,
    whole: bool = False,
    promised: Part | None = None,
) -> "pq.ParquetFile":
    """Open a Parquet file of the lake, local or remote.

    Args:
        path: where it is.
        read_dictionary: text columns to read as codes and their distinct values.
        whole: fetch all of a remote one at once: one request for a small file, not three.
        promised: what its manifest says of it, to be compared with it.

    Raises:
        MissingData: there is no file.
        BadData: the file is empty, cut off, or no Parquet. Reading raises Arrow's own errors, also
            for a page whose checksum is wrong.
    """
    import pyarrow.parquet as pq

    try:
        if isinstance(path, Path):
            source: Any = _regular(path)
            if promised is not None:
                _compare(path, _hash_of(path, identity(path)), promised)
        else:
            source = io.BytesIO(_read_bytes(path)) if whole else _open(path)
            # A store gives another content another tag; a copied lake has other tags.
            if promised is not None and not (promised.etag and promised.etag == _etag(source)):
                _compare(path, hashed(source), promised)
                source.seek(0)
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
            f"{path} cannot be read as Parquet ({cut(first_line(error), 400)}): {fault}. "
            "Nothing was made of it."
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
def passing_over(what: str) -> Iterator[None]:
    """Go on without one day of many if its files are damaged; the log names it, and the file."""
    try:
        yield
    except BadData as error:
        log.warning("%s is passed over: %s", what, error)


@contextmanager
def blames(path: "AnyPath") -> Iterator[None]:
    """Rows are read from a Parquet file within the block.

    Raises:
        BadData: naming the file, if what goes wrong is its fault.
    """
    try:
        yield
    except Exception as error:
        if (fault := fault_of_file(error)) is None:
            raise
        raise BadData(
            f"{path} cannot be read to its end ({first_line(error)}): {fault}. Nothing was made of "
            "it. Bring the file back from a copy, or run the pipeline that writes it again."
        ) from error


def identity(path: "AnyPath") -> str:
    """What tells a file from another one that takes its place, and from itself once it changes.

    Raises:
        FileNotFoundError: there is no file.
        BadData: what is there is no file.
    """
    if isinstance(path, Path):
        found = _regular(path).stat()
        return f"inode {found.st_ino}, {found.st_size} bytes, modified {found.st_mtime_ns} ns"
    with _asking(path):
        info = _store(path).info(path.path)
    etag = info.get("ETag") or info.get("etag") or info.get("LastModified")
    return f"etag {etag}, {info['size']} bytes"


def hashed(data: Any) -> tuple[str, int]:
    """SHA-256 and length of what is left in an open file."""
    digest, size = hashlib.sha256(), 0
    while block := data.read(1 << 20):
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size


@lru_cache(maxsize=1024)
def _hash_of(path: Path, _: str) -> tuple[str, int]:
    """As `hashed`; once for each identity of a file, as a task may open it often."""
    with path.open("rb") as data:
        return hashed(data)


def _compare(path: "AnyPath", found: tuple[str, int], promised: Part) -> None:
    """Make sure that a part is what was published.

    Raises:
        BadData: it is not.
    """
    if found != (promised.sha256, promised.bytes):
        what = "another length" if found[1] != promised.bytes else "another hash"
        raise BadData(
            f"{path} is not what was published: its content has {what} than its manifest says. "
            "Nothing was made of it. Bring the file back from a copy, or run the pipeline that "
            "publishes this day again."
        )


def _etag(data: Any) -> str:
    """What an object store calls the content of an open file; empty for any other file."""
    details = getattr(data, "details", None) or {}
    return str(details.get("ETag") or details.get("etag") or "")


@contextmanager
def write_parquet(
    path: "AnyPath", schema: "pa.Schema", replace: bool = True
) -> Iterator["pq.ParquetWriter"]:
    """Write a Parquet file of the lake; it appears at `path` when the block ends without error.

    Args:
        path: where it appears.
        schema: its columns.
        replace: whether it takes the place of a file that is there by then.
    """
    import pyarrow.parquet as pq

    with (
        atomic_file(path, replace) as scratch,
        pq.ParquetWriter(scratch, schema, write_page_checksum=True) as writer,
    ):
        yield writer


def to_arrow(frame: "pl.DataFrame") -> "pa.Table":
    """A frame as an Arrow table with plain (not view) strings, which every reader knows."""
    import polars as pl

    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def first_line(error: BaseException) -> str:
    """An error's message without its details."""
    return (str(error).strip() or repr(error)).splitlines()[0].rstrip(".")


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


def remove_orphans(folders: list["AnyPath"]) -> list[str]:
    """Remove the versions of a partition that nobody publishes any more.

    What cannot be removed stays, and the log says why: the writer that finds it has other work.

    Args:
        folders: all that is in the partition's folder.

    Returns:
        What was removed.
    """
    removed = []
    before = datetime.now(UTC) - ORPHANED_AFTER
    for folder in folders:
        time = begun(folder.name)
        if time is None or time > before:
            continue
        try:
            if _is_orphan(folder, before):
                _remove_folder(folder)
                removed.append(str(folder))
        except Exception as error:
            log.warning("%s was begun %s and never published. It stays: %r", folder, time, error)
    return removed


def _is_orphan(folder: "AnyPath", before: datetime) -> bool:
    """Whether a version was never published, is not the current one, and did not change since."""
    if exists(folder / "manifest.json"):
        return False
    current = _manifest(folder.parent / "current.json")
    if current is not None and current.version == folder.name:
        return False
    if isinstance(folder, Path):
        times = [path.stat().st_mtime for path in (folder, *folder.iterdir())]
        return max(times) < before.timestamp() and not folder.is_symlink()
    with _asking(folder):
        files = _store(folder).ls(folder.path, detail=True)
    return all(file.get("LastModified", before) <= before for file in files)


def _remove_folder(folder: "AnyPath") -> None:
    if isinstance(folder, Path):
        shutil.rmtree(folder)
        return
    with _asking(folder):
        _store(folder).rm(folder.path, recursive=True)


def remove_old_scratch(folder: Path, prefix: str = ".") -> list[str]:
    """Remove what killed writers have left half done in a folder. Returns what was removed."""
    removed = []
    before = time.time() - ORPHANED_AFTER.total_seconds()
    with suppress(OSError):  # another writer removes it, or nobody may
        for file in os.scandir(folder):
            if not (file.name.startswith(prefix) and SCRATCH.fullmatch(file.name)):
                continue
            if file.is_file(follow_symlinks=False) and file.stat().st_mtime < before:
                Path(file.path).unlink()
                removed.append(file.path)
    return removed


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
