"""Erases rows, a person's for instance, wherever a use case keeps or delivers them.

They are erased from landed files, from every version of every table (quarantine, snapshots and
replaced versions, too), from the scores of chunks, and from delivered tables. A version keeps its
name, so that what refers to it stays valid; nothing else ever changes a version. If an erasure is
killed, readers refuse the version that it was changing as damaged, until the next one finishes it.

Not erased are counts (reports, figures, metrics), logs and models. The record of an erasure names
the models that were trained on the rows.
"""

import json
import logging
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import chain, groupby
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa

from include.destinations import DeltaTable, Destination
from include.errors import BadData, DependencyDown, MissingData
from include.inference import delta_table, sql_table
from include.lake.files import (
    blames,
    exists,
    first_line,
    list_folder,
    open_parquet,
    path_of,
    put_text,
    read_text,
    remove_file,
    to_arrow,
    walk,
    write_parquet,
)
from include.lake.tables import PROFILE, Version, begun
from include.messages import Erased
from include.registry import registry
from include.sources.declared import column, types_of
from include.statistics.profile import Profiler, from_frame, to_frame
from include.usecase import UseCase
from include.validation.land import ORIGIN, origin_of
from include.wording import listed

if TYPE_CHECKING:
    from include.lake.files import AnyPath

MARK = "erasing"
"""File in the folder of a version while its parts are being changed."""

log = logging.getLogger(__name__)


def erase(case: UseCase, file: str, open_dags: Sequence[str], dry_run: bool) -> Erased:
    """Erase the rows that a file names, or only count them.

    Args:
        file: path or URI of a file with a JSON object a line, such as `{"person": "P-12"}`: columns
            of the use case's inputs, and their values in the rows to erase.
        open_dags: other DAGs of the use case with a run that is not over: it may be reading what
            would be changed.
        dry_run: only count.

    Returns:
        What was erased, and where its record is.

    Raises:
        BadData: the file cannot be read, or names a column that no input has.
        MissingData: there is no such file.
        DependencyDown: another run is open, or the lake, the registry or a destination does not
            answer. What was erased stays erased; the retry goes on.
    """
    if open_dags and not dry_run:
        raise DependencyDown(
            f"Runs of {listed(open_dags)} are not over, and may be reading what would be changed. "
            "Nothing was erased; the retry looks again. Pause these DAGs if they are never idle."
        )
    given = read_keys(case, file)
    folders = [list(group) for _, group in groupby(_files(case), lambda path: path.parent)]
    keys = [given, _keys_of_rows(case, given, chain.from_iterable(folders))]
    found, unreadable = _counts(chain(*folders), keys)
    versions = {files[0].parent: _version_of(case, files[0].parent) for files in folders}
    rows: Counter[str] = Counter()
    for path, number in found.items():
        version = versions[path.parent]
        rows[version.table if version else _place(case, path)] += number
    snapshots = {
        str(version)
        for path in found
        if (version := versions[path.parent]) is not None and version.table == "training"
    }
    there = {one.name: _keys_there(case, one, keys) for one in case.destinations}
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}.json"
    erased = Erased(
        record=str(case.lake.root / "erasures" / name),
        state="counted" if dry_run else "begun",
        columns=given.columns,
        keys=len(given),
        rows=dict(rows),
        delivered={
            one.name: _erase_there(case, one, there[one.name], dry_run=True)
            for one in case.destinations
        },
        models=sorted(str(model) for model in registry.trained_on(case, snapshots)),
        unreadable=unreadable,
    )
    _record(erased)
    if dry_run:
        return erased
    # What tells which rows they are goes last, so that a retry still finds them.
    for one in case.destinations:
        _erase_there(case, one, there[one.name], dry_run=False)
    for files in sorted(folders, key=lambda files: any(_has(path, given) for path in files)):
        folder = files[0].parent
        _erase(folder, versions[folder], [path for path in files if path in found], keys)
    if back := _counts(_files(case), keys)[0]:
        raise DependencyDown(
            f"Rows were written again while they were erased: {listed(back)}. A run has begun "
            "meanwhile. The retry erases them, too."
        )
    done = replace(erased, state="erased")
    _record(done)
    return done


def _record(erased: Erased) -> None:
    put_text(path_of(erased.record), json.dumps(asdict(erased), indent=1))
    log.info("%s", erased)


def read_keys(case: UseCase, file: str) -> pl.DataFrame:
    """The rows of a file of keys, with the types that the use case declares.

    Raises:
        BadData: it has no rows, a column that no input has, or a value of another type.
        MissingData: there is no such file.
    """
    advice = "Nothing was erased. Correct the file, then start a new run."
    try:
        lines = [json.loads(line) for line in read_text(path_of(file)).splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise MissingData(f"There is no file {file}. Nothing was erased.") from error
    except ValueError as error:
        raise BadData(f"{file} is not JSON lines ({first_line(error)}). {advice}") from error
    names = list(lines[0]) if lines and isinstance(lines[0], dict) else []
    if not names or any(not isinstance(one, dict) or list(one) != names for one in lines):
        raise BadData(f"{file} has no rows, or rows with different columns. {advice}")
    inputs = [one for table in case.tables.values() for one in table]
    types = {name: kind for one in inputs for name, kind in types_of(one).items()}
    if unknown := [name for name in names if name not in types]:
        raise BadData(f"No input of {case.name} has the columns {listed(unknown)}. {advice}")
    if any(value is None for one in lines for value in one.values()):
        raise BadData(f"{file} has a row with a null, which would match nothing. {advice}")
    try:
        values = [column(name, [one[name] for one in lines], types[name]) for name in names]
    except BadData as error:
        raise BadData(f"{file}: {error}. {advice}") from error
    return pl.DataFrame(values).unique()


def _files(case: UseCase) -> "Iterator[AnyPath]":
    """The Parquet files of the lake, without the Delta tables: those of a folder together."""
    for folder in sorted(list_folder(case.lake.root)):
        if folder.name != "delta":
            names = (one.path for one in walk(folder) if one.path.name.endswith(".parquet"))
            yield from sorted(path for path in names if path.name[0] != ".")


def _keys_of_rows(case: UseCase, given: pl.DataFrame, files: "Iterable[AnyPath]") -> pl.DataFrame:
    """The use case's keys of the rows that were given, as files with the columns of both say."""
    if set(given.columns) <= set(case.key):
        return given
    types = types_of(case.inputs[0])
    keys = [pl.col(name).cast(types[name], strict=False) for name in case.key]
    found = []
    for path in files:
        with suppress(BadData):  # it is named among the unreadable ones
            found += [
                rows.filter(_is_in(rows, given)).select(keys).drop_nulls()
                for rows in _row_groups(path, [*given.columns, *case.key])
            ]
    return pl.concat([pl.DataFrame(schema={n: types[n] for n in case.key}), *found]).unique()


def _row_groups(path: "AnyPath", names: Iterable[str]) -> Iterator[pl.DataFrame]:
    """Some columns of a file, a row group at a time; nothing if it lacks one of them."""
    wanted = list(dict.fromkeys(names))
    with open_parquet(path) as file, blames(path):
        if set(wanted) <= set(file.schema_arrow.names):
            for group in range(file.num_row_groups):
                yield pl.DataFrame(pl.from_arrow(file.read_row_group(group, wanted)))


def _is_in(rows: pl.DataFrame, keys: pl.DataFrame) -> np.ndarray:
    """Which rows equal a row of the keys in all of its columns."""
    wanted = keys.schema.items()
    same = rows.select(pl.col(name).cast(kind, strict=False) for name, kind in wanted)
    places = same.with_row_index("place").join(keys, on=keys.columns, how="semi")["place"]
    found: np.ndarray = np.isin(np.arange(len(rows)), places.to_numpy())
    return found


def _among(keys: list[pl.DataFrame], names: Iterable[str]) -> pl.DataFrame | None:
    """The first of several keys whose columns are all among the names; None if there is none."""
    known = set(names)
    return next((one for one in keys if set(one.columns) <= known), None)


def _has(path: "AnyPath", given: pl.DataFrame) -> bool:
    """Whether a file has the columns of what was given."""
    with suppress(BadData), open_parquet(path) as file:
        return set(given.columns) <= set(file.schema_arrow.names)
    return False


def _counts(
    files: "Iterable[AnyPath]", keys: list[pl.DataFrame]
) -> "tuple[dict[AnyPath, int], list[str]]":
    """The rows to erase of each file that has some, and the files that cannot be read."""
    found, unreadable = {}, []
    for path in files:
        try:
            if number := _count(path, keys):
                found[path] = number
        except BadData as error:
            log.warning("%s", error)
            unreadable.append(str(path))
    return found, unreadable


def _count(path: "AnyPath", keys: list[pl.DataFrame]) -> int:
    """Rows of a file that are to be erased."""
    with open_parquet(path) as file:
        wanted = _among(keys, file.schema_arrow.names)
    if wanted is None:
        return 0
    return sum(int(_is_in(rows, wanted).sum()) for rows in _row_groups(path, wanted.columns))


def _version_of(case: UseCase, folder: "AnyPath") -> Version | None:
    """The published version in a folder; None if it is another folder."""
    if begun(folder.name) is None or not exists(folder / "manifest.json"):
        return None
    table = folder.parent.parent
    names = [table.name]
    if table.parent != case.lake.root:
        names.insert(0, table.parent.name)
    return Version(
        case.lake, "/".join(names), folder.parent.name.removeprefix("date="), folder.name
    )


def _place(case: UseCase, path: "AnyPath") -> str:
    """What a file that belongs to no version is, by its folders: `landing/<input>` or `scores`."""
    folder = path.parent
    while folder.parent not in (case.lake.root, case.lake.root / "landing"):
        folder = folder.parent
    return folder.name if folder.parent == case.lake.root else f"landing/{folder.name}"


def _erase(
    folder: "AnyPath", version: Version | None, paths: "list[AnyPath]", keys: list[pl.DataFrame]
) -> None:
    """Erase rows from files of a folder, and finish what a killed erasure began there."""
    mark = folder / MARK
    if paths and version is not None:
        put_text(mark, "")
    for path in paths:
        _rewrite(path, keys)
    if version is not None and (paths or exists(mark)):
        for part in version.manifest().profiles:
            _profile_again(version, part)
        version.amend()
        remove_file(mark)


def _rewrite(path: "AnyPath", keys: list[pl.DataFrame]) -> None:
    """Write a file again without the rows to erase, with the same columns and row groups."""
    with open_parquet(path) as file, blames(path):
        schema = file.schema_arrow
        wanted = _among(keys, schema.names)
        assert wanted is not None
        with write_parquet(path, schema) as writer:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group)
                gone = _is_in(pl.DataFrame(pl.from_arrow(rows.select(wanted.columns))), wanted)
                writer.write_table(rows.filter(pa.array(~gone)))
            if origin := origin_of(file.metadata.metadata):
                writer.add_key_value_metadata({ORIGIN: json.dumps(origin).encode()})


def _profile_again(version: Version, profile: str) -> None:
    """Replace the profile of a part, or of all parts together, after rows were erased."""
    with version.parquet(profile, verify=False) as file:
        known = from_frame(pl.DataFrame(pl.from_arrow(file.read())))
    parts, profiler = version.manifest().parts, Profiler()
    part = profile.removesuffix(PROFILE)
    profiled = [part] if part in parts else list(parts)
    names = [name for name in known if all(name in parts[one].columns for one in profiled)]
    for one in profiled:
        for rows in _row_groups(version.part_path(one), names):
            profiler.add(rows)
    version.write_frame(profile, to_frame(known | profiler.result()))


def _keys_there(
    case: UseCase, destination: Destination, keys: list[pl.DataFrame]
) -> pa.Table | None:
    """The keys as a destination names their columns; None if it lacks one of them."""
    names = {here: there for there, here in destination.columns.items()}
    names = names or {name: name for name in case.key}
    wanted = _among(keys, names)
    return None if wanted is None else to_arrow(wanted.rename(names, strict=False))


def _erase_there(
    case: UseCase, destination: Destination, keys: pa.Table | None, dry_run: bool
) -> int | None:
    """Erase rows from a delivered table. Returns how many; None if it does not tell which."""
    if keys is None:
        return None
    if isinstance(destination, DeltaTable):
        return delta_table.delete_rows(case, destination, keys, dry_run)
    return sql_table.delete_rows(destination, keys, dry_run)
