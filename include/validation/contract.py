"""The first gate: every landed file is readable Parquet with the contract's columns and types."""

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
from include.validation.land import names_of
from include.validation.report import failure_message, write_report
from include.wording import cut, few, listed, quoted


def check_contract(case: UseCase, table: str, key: str) -> list[LandedFile]:
    """Check that every landed file of a day is readable Parquet with the contract's columns.

    Returns:
        Each file that is there, for `check_rows`.

    Raises:
        BadData: naming every breach in every file.
        MissingData: a required file has not landed.
    """
    day = parse_key(key)
    version = case.lake.new_version(table, key)
    breaches: list[str] = []
    missing: list[str] = []
    present: dict[str, str] = {}
    for name in names_of(case, table):
        path = case.lake.landing_path(name, key)
        try:
            looked_at = identity(path)
            with foreign_data(f"{path}: its columns cannot be read"), open_parquet(path) as file:
                found, rows = file.schema_arrow, file.metadata.num_rows
        except FileNotFoundError:
            if case.input(name).required and case.input(name).expected(day):
                missing.append(f"There is no file {path}")
            continue
        except MissingData as error:
            if case.input(name).required and case.input(name).expected(day):
                missing.append(str(error))
            continue
        except BadData as error:
            breaches.append(str(error))
            continue
        present[name] = looked_at
        breaches += [
            f"{breach}, in {path}" for breach in contract_breaches(case.input(name), found)
        ]
        if rows == 0 and not case.input(name).may_be_empty:
            breaches.append(f"the file has no rows: {path}")
    if breaches or missing:
        page = write_report(version, breaches + missing, [], [])
        message = failure_message(version, breaches + missing, page)
        raise BadData(message) if breaches else MissingData(message)
    return [LandedFile(name, str(version), looked_at) for name, looked_at in present.items()]


def contract_breaches(table_input: Input, found: pa.Schema) -> list[str]:
    """Every way in which a file's columns differ from the contract, in words."""
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
        *few([f"column {quoted(name)} is there {n} times" for name, n in counts.items() if n > 1]),
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
    """Every column whose type is not the contract's, or is none that can be read."""
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
