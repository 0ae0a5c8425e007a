"""Reading and writing files of the lake, in a folder or an object store, atomically.

A new file appears in one step: by a rename in a folder, by one PUT in a store.
"""

import errno
import fcntl
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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from include.errors import BadData, DependencyDown, MissingData
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

ORPHANED_AFTER = timedelta(days=7)
"""After this time without a change, an unpublished version is abandoned. A run whose tasks all use
all their tries up to the time limit lasts four days; the rest is for a person who clears a failed
task after a long weekend."""

SCRATCH = re.compile(r"\..+\.\d+\.[0-9a-f]{8}")
"""Prefix of temporary files, which are renamed when they are complete."""

LOCK_SECONDS = 60
"""Maximum wait for another writer to publish, which takes it milliseconds."""

CONFLICTS = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "404", "409", "412"}
"""S3's answers to a conditional request if the file is another one now."""

READ_AHEAD_BYTES = 8 << 20
"""Read-ahead from an object store; the default would be 50 MB per column."""

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """One Parquet file of a version.

    Attributes:
        etag: the object store's tag of this content; empty in a folder.
    """

    rows: int
    bytes: int
    sha256: str
    columns: list[str]
    etag: str = field(default="", compare=False)


@dataclass(frozen=True)
class Stored:
    """A file as a listing has it.

    Attributes:
        changed: when it was last changed.
    """

    path: "AnyPath"
    bytes: int
    changed: datetime


def path_of(uri: str) -> "AnyPath":
    """A path in a folder, or in a store that Airflow's `ObjectStoragePath` opens."""
    if "://" in uri and not uri.startswith("file://"):
        from airflow.sdk import ObjectStoragePath

        return ObjectStoragePath(uri)
    return Path(uri.removeprefix("file://")).absolute()


@contextmanager
def atomic_file(path: "AnyPath", replace: bool = True) -> Iterator[Path]:
    """A local file to write; it appears at `path` as a whole when the block ends without an error.

    Args:
        path: where it appears.
        replace: whether it replaces a file that exists by then. If not, the existing file stays;
            an object store always replaces it.

    Raises:
        DependencyDown: the lake is full, read-only or unreachable; `path` is unchanged.
    """
    with _writing(path):
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


@contextmanager
def _writing(path: "AnyPath") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        raise DependencyDown(
            f"The lake cannot be written: {error.strerror or error} at {path}. What was published "
            "before is untouched. Free space or give write access; the retry continues from here."
        ) from error


def put_text(path: "AnyPath", text: str) -> None:
    """Write a small text file atomically: readers see the old content or the new one."""
    with atomic_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """A block that only one process or thread is in at a time, for each lock file.

    The system ends the lock with its process, however that dies.

    Raises:
        DependencyDown: another writer has held the lock for `LOCK_SECONDS`.
    """
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise DependencyDown(
                        f"Another process has been publishing for {LOCK_SECONDS} seconds: it holds "
                        f"the lock {path}. Nothing was published by this one; the retry goes on "
                        "from here. If it never ends, look for a process that hangs, and end it."
                    ) from error
                time.sleep(0.02)
            except OSError as error:
                raise DependencyDown(
                    f"The lake's folder cannot lock files ({error.strerror}): {path}. Nothing was "
                    "published. Put the lake on a file system with flock, or on an object store."
                ) from error
        yield
    finally:
        os.close(handle)


def tag_of(path: "ObjectStoragePath") -> str:
    """An object store's tag of a file's present content; empty if there is no file."""
    with suppress(FileNotFoundError), asking(path):
        info = store_of(path).info(path.path)
        return str(info.get("ETag") or "")
    return ""


def put_if_unchanged(path: "ObjectStoragePath", text: str, tag: str) -> bool:
    """Write a small text file to an object store, unless another writer has replaced it.

    Only S3 can tell; in another store the file is always written.

    Args:
        tag: what `tag_of` returned.

    Returns:
        Whether it was written.
    """
    if path.protocol not in ("s3", "s3a"):
        put_text(path, text)
        return True
    condition = {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}
    try:
        store_of(path).pipe_file(path.path, text.encode(), **condition)
    except Exception as error:
        if _code_of(error) in CONFLICTS:
            return False
        raise _away(path, error) from error
    return True


def _code_of(error: BaseException | None) -> str:
    """The code of S3's answer that an error comes from; empty if there is none."""
    while error is not None:
        if answer := getattr(error, "response", None):
            return str(answer.get("Error", {}).get("Code", ""))
        error = error.__cause__ or error.__context__
    return ""


def read_text(path: "AnyPath") -> str:
    """A small text file's content."""
    return _read_bytes(path).decode()


def read_json(path: "AnyPath", kind: type[T]) -> T:
    """A JSON file of the lake as the type that it was written from, such as a dataclass.

    Unknown fields from a newer release are ignored.

    Raises:
        FileNotFoundError: there is no such file.
        BadData: it is empty, cut off, or something else.
    """
    content = _read_bytes(path)
    try:
        return msgspec.convert(json.loads(content), kind)  # msgspec's own reader refuses NaN
    except (ValueError, RecursionError) as error:
        raise BadData(f"{path} is {'damaged' if content else 'empty'} ({error})") from error


def open_parquet(
    path: "AnyPath",
    read_dictionary: list[str] | None = None,
    whole: bool = False,
    promised: Part | None = None,
) -> "pq.ParquetFile":
    """Open a Parquet file of the lake, local or remote.

    Args:
        path: the file.
        read_dictionary: text columns to read as codes and their distinct values.
        whole: fetch a remote file at once: one request for a small file instead of three.
        promised: the file's entry in its manifest, to compare it with.

    Raises:
        MissingData: the file does not exist.
        BadData: the file is empty, cut off, or not Parquet. Reading raises Arrow's own errors, also
            for a page with a wrong checksum.
    """
    import pyarrow.parquet as pq

    try:
        if isinstance(path, Path):
            source: Any = _regular(path)
            if promised is not None:
                _compare(path, _hash_of(path, identity(path)), promised)
        else:
            source = io.BytesIO(_read_bytes(path)) if whole else open_file(path)
            # Another content has another tag, but so has the same content in a copied lake.
            if promised is not None and not (promised.etag and promised.etag == etag_of(source)):
                _compare(path, hashed(source), promised)
                source.seek(0)
        # Otherwise reading batch by batch would keep the whole compressed file in memory.
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
    """What is wrong with a Parquet file, given the error raised while reading it.

    If the file is at fault, Arrow raises its own errors or an `OSError` without an error number,
    and Polars raises its own errors or a Rust panic, which is not an `Exception`.

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
    """Skip one day of many if its files are damaged, and log the day and the file."""
    try:
        yield
    except BadData as error:
        log.warning("%s is passed over: %s", what, error)


@contextmanager
def blames(path: "AnyPath") -> Iterator[None]:
    """A block that reads rows from a Parquet file.

    Raises:
        BadData: the file is at fault; the message names it.
        MissingData: it was removed from the object store while it was read.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise MissingData(
            f"{path} was removed while it was read. Nothing was made of it. Clear the whole run: "
            "it then begins with what is current."
        ) from error
    except Exception as error:
        if (fault := fault_of_file(error)) is None:
            raise
        raise BadData(
            f"{path} cannot be read to its end ({first_line(error)}): {fault}. Nothing was made of "
            "it. Bring the file back from a copy, or run the pipeline that writes it again."
        ) from error


def identity(path: "AnyPath") -> str:
    """Identifies a file's content: another file in its place, or a change, gives another identity.

    Raises:
        FileNotFoundError: the file does not exist.
        BadData: the path is not a file.
    """
    if isinstance(path, Path):
        found = _regular(path).stat()
        return f"inode {found.st_ino}, {found.st_size} bytes, modified {found.st_mtime_ns} ns"
    with asking(path):
        info = store_of(path).info(path.path)
    etag = info.get("ETag") or info.get("etag") or info.get("LastModified")
    return f"etag {etag}, {info['size']} bytes"


def hashed(data: Any) -> tuple[str, int]:
    """SHA-256 and length of the rest of an open file."""
    digest, size = hashlib.sha256(), 0
    while block := data.read(1 << 20):
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size


@lru_cache(maxsize=1024)
def _hash_of(path: Path, _: str) -> tuple[str, int]:
    """As `hashed`, cached by the file's identity, because a task may open it often."""
    with path.open("rb") as data:
        return hashed(data)


def _compare(path: "AnyPath", found: tuple[str, int], promised: Part) -> None:
    """Check that a part is what was published.

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


def etag_of(data: Any) -> str:
    """An object store's tag of an open file's content; empty for any other file."""
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
        replace: whether it replaces a file that exists by then.
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
    with suppress(FileNotFoundError), asking(path):
        store_of(path).info(path.path)
        return True
    return False


def list_folder(folder: "AnyPath") -> list["AnyPath"]:
    """The direct contents of a folder; empty if it does not exist."""
    if isinstance(folder, Path):
        return list(folder.iterdir()) if folder.is_dir() else []
    with suppress(FileNotFoundError), asking(folder):
        names = store_of(folder).ls(folder.path, detail=False)
        return [folder / name.rstrip("/").rsplit("/", 1)[-1] for name in names]
    return []


def walk(folder: "AnyPath") -> Iterator[Stored]:
    """All files below a folder, and in a file system its folders, too. What vanishes is skipped."""
    if isinstance(folder, Path):
        for parent, folders, files in os.walk(folder):
            for name in (*folders, *files):
                with suppress(FileNotFoundError):
                    found = (path := Path(parent, name)).lstat()
                    size = found.st_size if stat.S_ISREG(found.st_mode) else 0
                    yield Stored(path, size, datetime.fromtimestamp(found.st_mtime, UTC))
        return
    with asking(folder):
        listed = store_of(folder).find(folder.path, detail=True)
    for name, about in listed.items():
        path = folder / name.removeprefix(folder.path).lstrip("/")
        yield Stored(path, about["size"], about.get("LastModified") or datetime.now(UTC))


def remove_file(path: "AnyPath") -> None:
    """Remove a file, if it is there."""
    if isinstance(path, Path):
        path.unlink(missing_ok=True)
        return
    with suppress(FileNotFoundError), asking(path):
        store_of(path).rm_file(path.path)


def remove_folder(folder: "AnyPath") -> None:
    """Remove a folder and all that is in it, if it is there."""
    with suppress(FileNotFoundError):
        if isinstance(folder, Path):
            shutil.rmtree(folder)
            return
        with asking(folder):
            store_of(folder).rm(folder.path, recursive=True)


def remove_old_scratch(folder: Path, prefix: str = ".") -> list[str]:
    """Remove the leftovers of killed writers in a folder. Returns what was removed."""
    removed = []
    with suppress(OSError):  # another writer removes it, or there is no permission
        for file in os.scandir(folder):
            if not (file.name.startswith(prefix) and file.is_file(follow_symlinks=False)):
                continue
            if is_old_scratch(file.name, datetime.fromtimestamp(file.stat().st_mtime, UTC)):
                Path(file.path).unlink()
                removed.append(file.path)
    return removed


def is_old_scratch(name: str, changed: datetime) -> bool:
    """Whether a file is the leftover of a killed writer, by its name and its last change."""
    is_old = changed < datetime.now(UTC) - ORPHANED_AFTER
    return is_old and SCRATCH.fullmatch(name) is not None


def _regular(path: Path) -> Path:
    """The path, if it is a regular file: opening a named pipe or a device could block forever.

    Raises:
        FileNotFoundError: it does not exist.
        BadData: it is something else.
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
    with asking(path):  # one request; by default it first asks for the size, to read in parts
        content: bytes = store_of(path).cat_file(path.path, max_concurrency=1)
    return content


def open_file(path: "AnyPath") -> Any:
    """Open a file for reading bytes; a remote one is read ahead in large pieces."""
    if isinstance(path, Path):
        return _regular(path).open("rb")
    with asking(path):
        return _RemoteFile(path)


def _put(scratch: Path, path: "ObjectStoragePath") -> None:
    try:
        store_of(path).put_file(str(scratch), path.path)
    except Exception as error:
        raise _away(path, error) from error


class _RemoteFile:
    """An open file of an object store, which may become unreachable before it is read."""

    def __init__(self, path: "ObjectStoragePath"):
        self._path, self._file = path, store_of(path).open(path.path, "rb", READ_AHEAD_BYTES)

    def read(self, size: int = -1) -> bytes:
        with asking(self._path):
            content: bytes = self._file.read(size)
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_RemoteFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def store_of(path: "ObjectStoragePath") -> Any:
    """The client of a path's store, without caching: other processes write, too."""
    store = path.fs
    store.dircache.use_listings_cache = False
    return store


@contextmanager
def asking(path: "ObjectStoragePath") -> Iterator[None]:
    """Distinguish a store that does not answer from one that does not have the file.

    Raises:
        FileNotFoundError: the file does not exist.
        DependencyDown: the store is unreachable, lacks the bucket, or refuses.
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
        "untouched. Check that the bucket exists, that its server answers and that this user may "
        "read, write and list it; the retry continues from here."
    )
