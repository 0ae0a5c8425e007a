"""The datasets that a task reads and writes, by the names under which other tools know them.

The names follow OpenLineage: a namespace and a name, for a folder `file` and its path, on S3
`s3://bucket` and the key. The library notes what it reads and writes between `begin` and `end`,
which `orchestration.lineage` calls around a task; the process runs no other task meanwhile.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

CONNECTION = "connection:"
"""Beginning of the namespace of a database that only its Airflow connection knows."""


@dataclass(frozen=True)
class Dataset:
    """What was read of a dataset, or written to it.

    Attributes:
        rows: None if it has no rows, as a model.
        bytes: 0 if unknown.
        version: the version that was read or written; empty if there is none, or several.
    """

    namespace: str
    name: str
    columns: tuple[str, ...] = ()
    rows: int | None = None
    bytes: int = 0
    version: str = ""


@dataclass
class Notes:
    """What a task has read and written; a version that it reads twice counts once."""

    inputs: dict[Dataset, None]
    outputs: dict[Dataset, None]


_notes: Notes | None = None


def begin() -> None:
    """Note from now on what is read and written."""
    global _notes
    _notes = Notes({}, {})


def end() -> tuple[list[Dataset], list[Dataset]]:
    """What was read and what was written since `begin`: each dataset once, with all of its rows.

    What a task reads of its own output is not among what it has read.
    """
    global _notes
    notes, _notes = _notes or Notes({}, {}), None
    inputs = [one for one in notes.inputs if one not in notes.outputs]
    return _together(inputs), _together(notes.outputs)


def read(*found: Dataset) -> None:
    """Note what was read."""
    if _notes is not None:
        _notes.inputs.update(dict.fromkeys(found))


def wrote(*found: Dataset) -> None:
    """Note what was written."""
    if _notes is not None:
        _notes.outputs.update(dict.fromkeys(found))


def folder(
    place: object,
    columns: Iterable[str] = (),
    rows: int | None = None,
    size: int = 0,
    version: str = "",
) -> Dataset:
    """The dataset in a folder or at a URI, as `Asset` and OpenLineage's converters name it."""
    found = urlsplit(uri(str(place)))
    if found.scheme == "file":
        return Dataset("file", found.path, tuple(columns), rows, size, version)
    namespace, name = f"{found.scheme}://{found.netloc}", found.path.lstrip("/")
    return Dataset(namespace, name, tuple(columns), rows, size, version)


def uri(place: str) -> str:
    """The URI of a folder or of a place in an object store, without an Airflow connection."""
    scheme, separator, rest = place.partition("://")
    if not separator or scheme == "file":
        return Path(place.removeprefix("file://")).absolute().as_uri()
    bucket, slash, key = rest.partition("/")
    return f"{scheme}://{bucket.rpartition('@')[2]}{slash}{key}".rstrip("/")


def model(name: str, version: str) -> Dataset:
    """A registered model."""
    return Dataset("mlflow", name, version=version)


def _together(found: Iterable[Dataset]) -> list[Dataset]:
    """Several versions of a dataset as one."""
    merged: dict[tuple[str, str], Dataset] = {}
    for one in found:
        about = (one.namespace, one.name)
        if (other := merged.get(about)) is None:
            merged[about] = one
            continue
        rows = None if one.rows is None else one.rows + (other.rows or 0)
        columns = tuple(dict.fromkeys([*other.columns, *one.columns]))
        merged[about] = replace(
            one, columns=columns, rows=rows, bytes=one.bytes + other.bytes, version=""
        )
    return list(merged.values())
