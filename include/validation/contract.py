"""The first gate: each landed file is readable Parquet with the contract's columns and types."""

import difflib
from collections import Counter

import pandera.errors
import pandera.polars
import polars as pl
import pyarrow as pa
from pandera.errors import SchemaErrorReason

from include.errors import BadData, MissingData
from include.lake.files import identity, open_parquet
from include.landed import foreign_data
from include.messages import LandedFile
from include.partitions import parse_key
from include.usecase import Input, UseCase
from include.validation.land import origin_of
from include.validation.report import LAND, failure_message, in_file, write_report
from include.wording import cut, few, listed, quoted


def check_contract(case: UseCase, table: str, key: str) -> list[LandedFile]:
    """Check that each landed file of a day is readable Parquet with the contract's columns.

    Returns:
        The files that have landed, for `check_rows`.

    Raises:
        BadData: a file breaks its contract; the message lists every breach in every file.
        MissingData: a required file has not landed, and no other file breaks its contract.
    """
    day = parse_key(key)
    version = case.lake.new_version(table, key)
    breaches: list[str] = []
    missing: list[str] = []
    files: list[LandedFile] = []
    for table_input in case.tables[table]:
        path = case.lake.landing_path(table_input.name, key)
        try:
            looked_at = identity(path)
            with foreign_data("the columns cannot be read"), open_parquet(path) as file:
                columns, rows = file.schema_arrow, file.metadata.num_rows
                origin = origin_of(file.metadata.metadata)
        except (FileNotFoundError, MissingData):
            if table_input.required and table_input.expected(day):
                missing.append(f"{table_input.name} has not landed: there is no file {path}")
            continue
        except BadData as error:
            breaches.append(in_file(str(error), path))
            continue
        files.append(LandedFile(table_input.name, str(version), looked_at, origin))
        breaches += [in_file(breach, path) for breach in contract_breaches(table_input, columns)]
        if rows == 0 and not table_input.may_be_empty:
            breaches.append(f"the file has no rows: {path}")
    if breaches or missing:
        page = write_report(version, breaches + missing, [], [])
        if breaches:
            raise BadData(failure_message(version, breaches + missing, page))
        raise MissingData(failure_message(version, missing, page, LAND))
    return files


def contract_breaches(table_input: Input, found: pa.Schema) -> list[str]:
    """Every difference between a file's columns and the contract, in words."""
    expected, counts = list(table_input.schema.columns), Counter(found.names)
    common, extra = [n for n in counts if n in expected], [n for n in counts if n not in expected]
    in_order = [name for name in expected if name in counts]
    missing = []
    for name in expected:
        if name not in counts:
            short = [other for other in extra[:1000] if len(other) < 100]
            similar = difflib.get_close_matches(name, short, 1)
            renamed = f" (is it {similar[0]!r} now?)" if similar else ""
            missing.append(f"column {name!r} is missing{renamed}")
    breaches = [
        *few([f"column {quoted(name)} appears {n} times" for name, n in counts.items() if n > 1]),
        *missing,
        *few([f"column {quoted(name)} is not in the contract" for name in extra]),
    ]
    if common != in_order:
        breaches.append(
            f"columns are in another order: {listed(common, 50)}; must be {listed(in_order, 50)}"
        )
    types = {name: found.field(found.names.index(name)).type for name in in_order}
    return breaches + _type_breaches(table_input, types)


def _type_breaches(table_input: Input, types: dict[str, pa.DataType]) -> list[str]:
    """Every column whose type is not the contract's, or cannot be read here."""
    there, unreadable = {}, {}
    for name, dtype in types.items():
        try:
            with foreign_data(name):
                there[name] = pl.Series(pa.array([], dtype))
        except BadData:
            unreadable[name] = f"{cut(str(dtype))}, which cannot be read here"
    columns = {name: table_input.schema.columns[name] for name in there}
    wrong = dict(unreadable)
    try:
        with foreign_data("the columns' types cannot be read"):
            pandera.polars.DataFrameSchema(columns).validate(pl.DataFrame(there), lazy=True)
    except pandera.errors.SchemaErrors as errors:
        for error in errors.schema_errors:
            if error.reason_code == SchemaErrorReason.WRONG_DATATYPE:
                name = error.schema.name
                wrong[name] = cut(str(there[name].dtype), 1000)
    return [
        f"column {name!r} is {wrong[name]}, must be {table_input.schema.columns[name].dtype}"
        for name in types
        if name in wrong
    ]
