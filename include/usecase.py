"""What a use case has to declare, so that the same code runs any: read before anything else."""

import ast
import re
import symtable
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from include.wording import listed

if TYPE_CHECKING:
    import polars as pl
    from pandera.polars import DataFrameSchema


OWN_COLUMNS = (
    "day", "ensemble_score", "fallback", "label", "members", "model", "model_version", "path",
    "score",
)  # fmt: skip
"""Columns that the library puts beside the key and the features of a row."""

OWN_PREFIX = "score_"
"""How the columns of other models' scores begin, before the model's name."""

REASONS = "reasons"
"""Column of a quarantined row, beside all that landed with it."""

OWN_MODELS = ("all", "challenger", "champion", "ensemble")
"""Names of models and slices that figures have beside those of the members."""


def every_day(day: date) -> bool:
    """Whether an input is expected on a day, where nothing else is declared: always."""
    return True


@dataclass(frozen=True)
class Input:
    """The contract of one input: one Parquet file lands for each day.

    Attributes:
        name: its name in paths, messages and reports.
        schema: columns, types and row checks. Columns must be exactly these, in this order.
        key: columns that together name a row; no two rows may share them.
        belongs: given the partition's day, an expression that is true for the rows of that day.
        event_time: datetime column with a time zone from which freshness is judged, if any.
        time_zone: where the partition's day begins and ends.
        max_event_age_hours: most hours from the last event to the end of the partition's day.
        max_null_rate: the greatest share of nulls of a nullable column that is no fault. A NaN is
            null.
        max_text_bytes: the longest text of a column, where it is not the setting's.
        required: whether a day without this input fails. A file that is there must always be right.
        expected: whether the input comes on a day: false for weekends and holidays, for instance.
            Nothing is fetched for a day on which it does not; a file that lands is used.
        may_be_empty: whether a file without rows is right, and published as such.
    """

    name: str
    schema: "DataFrameSchema"
    key: list[str]
    belongs: Callable[[date], "pl.Expr"]
    event_time: str | None = None
    time_zone: str = "UTC"
    max_event_age_hours: float = 24.0
    max_null_rate: Mapping[str, float] = field(default_factory=dict)
    max_text_bytes: Mapping[str, int] = field(default_factory=dict)
    required: bool = True
    expected: Callable[[date], bool] = every_day
    may_be_empty: bool = False

    def __post_init__(self) -> None:
        """Refuse what could never work."""
        check_name("input", self.name)
        if REASONS in self.schema.columns:
            raise ValueError(
                f"the input {self.name} has a column {REASONS!r}, which the library adds to "
                f"quarantined rows: rename it in schema.py and source.py"
            )
        self._check_columns()

    def _check_columns(self) -> None:
        columns = self.schema.columns
        named = {"max_null_rate": self.max_null_rate, "max_text_bytes": self.max_text_bytes}
        for what, names in named.items():
            if unknown := [name for name in names if name not in columns]:
                raise ValueError(
                    f"input {self.name}: {what} names {listed(unknown)}, and its columns are "
                    f"{listed(columns, 100)}"
                )
        if self.event_time is None:
            return
        dtype = getattr(columns.get(self.event_time), "dtype", None)
        if getattr(getattr(dtype, "type", None), "time_zone", None) is None:
            raise ValueError(
                f"input {self.name}: event_time names {self.event_time}, which is "
                f"{dtype or 'no column'} and has to be a time with a zone. Declare it as "
                'pl.Datetime("us", "UTC"), and let `fetch` return it so, for instance with '
                f'pl.col({self.event_time!r}).dt.replace_time_zone("UTC")'
            )


@dataclass(frozen=True)
class Group:
    """Features that come from one input, so that a row may well lack all of them at once.

    Attributes:
        name: what the row then lacks.
        features: names of the features.
    """

    name: str
    features: Sequence[str]

    def __post_init__(self) -> None:
        """Refuse what could never work."""
        check_name("group", self.name)

    @property
    def path(self) -> str:
        """The path of rows that lack the group, and the name of the candidate made for them."""
        return f"without_{self.name}"


@dataclass(frozen=True)
class Member:
    """A model of the ensemble. Its tasks form a group of this name, apart from all others.

    Attributes:
        name: for a registry member, that of the candidate that is trained for it.
        kind: a model of the registry, scored by our own tasks; or a server that is asked over HTTP
            (Open Inference Protocol v2).
        weight: in the average, relative to the others that answered.
        required: whether there is no ensemble without it.
        retries: of each of its tasks after failures of its own that may pass: its server asks for
            time, its model is not there, it takes too long. Other failures do not count: an outage
            of what all members use (the lake, the registry, Airflow) is retried as in every DAG.
        minutes: time limit of each of its tasks.
        slots: of its pool: tasks of all days that may score with it at once.
        connection: Airflow connection of the server.
        model: name of the model on the server.
        output: name of the output with the scores, for a server that answers something else unless
            it is requested by name, as MLServer does with `predict_proba`; empty: its only one.
    """

    name: str
    kind: Literal["registry", "remote"]
    weight: float = 1.0
    required: bool = False
    retries: int = 2
    minutes: float = 30.0
    slots: int = 4
    connection: str = ""
    model: str = ""
    output: str = ""

    def __post_init__(self) -> None:
        """Refuse what could never work, when the DAGs are parsed."""
        check_name("member", self.name)
        if self.name in OWN_MODELS or self.name.startswith("without_"):
            raise ValueError(
                f"no member can be called {self.name}: figures and columns of the library are "
                "called so; rename it in members.py (and its candidate in models.py)"
            )
        if not 0 <= self.weight < float("inf"):
            raise ValueError(f"member {self.name}: its weight is {self.weight}, not 0 or more")
        if self.kind == "remote" and not (self.connection and self.model):
            raise ValueError(f"member {self.name} is remote: name its connection and its model")

    @property
    def pool(self) -> str:
        """Airflow pool of its tasks."""
        return f"ensemble_{self.name}"


def check_name(what: str, name: str) -> None:
    """Refuse a name that cannot be part of a path, a task, a column and a metric."""
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
        raise ValueError(
            f"{what} {name!r}: its name becomes part of paths, columns and metrics, and has to be "
            "letters, digits and underscores, beginning with a letter"
        )


class Piece(NamedTuple):
    """A name that a module of every use case has.

    Attributes:
        module: file of the use case's folder, without `.py`.
        kind: type of what it names.
    """

    module: str
    name: str
    kind: Any


PIECES = [
    Piece("__init__", "NAME", str),
    Piece("__init__", "FIRST_WINDOW", tuple[str, ...]),
    Piece("source", "fetch", Callable),
    Piece("schema", "KEY", list[str]),
    Piece("schema", "INPUTS", list[Input]),
    Piece("schema", "TRUTH", Input),
    Piece("features", "NUMERIC", list[str]),
    Piece("features", "CATEGORICAL", list[str]),
    Piece("features", "FEATURES", list[str]),
    Piece("features", "REQUIRED", list[str]),
    Piece("features", "SLICES", list[str]),
    Piece("features", "SEGMENT", list[str]),
    Piece("features", "SEASONAL", list[str]),
    Piece("features", "OFTEN_MISSING", list[str]),
    Piece("features", "DRIFT_BOUNDS", dict[str, float]),
    Piece("features", "GROUPS", list[Group]),
    Piece("features", "build_features", Callable),
    Piece("features", "build_labels", Callable),
    Piece("models", "CANDIDATES", dict[str, Callable]),
    Piece("models", "WITHOUT", dict[str, Callable]),
    Piece("models", "TRUSTED_TYPES", list[str]),
    Piece("members", "MEMBERS", list[Member]),
]
"""All that the library asks a use case for; `docs/fork.md` says what each is."""


class UsecaseInvalid(ImportError):
    """A use case lacks what every one must have, or declares what cannot work."""


def check_pieces(folder: Path) -> None:
    """See that a use case has all pieces, by reading its files: none of them is run.

    What is written as a literal is looked at, too: `NAME`, `FIRST_WINDOW`, names of columns.

    Args:
        folder: of the use case.

    Raises:
        UsecaseInvalid: naming every file and every name that is missing, or that cannot work.
    """
    missing, wrong = [], []
    for module in dict.fromkeys(piece.module for piece in PIECES):
        file = folder / f"{module}.py"
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            missing.append(f"the file {file.name}")
            continue
        try:
            table, tree = symtable.symtable(text, str(file), "exec"), ast.parse(text)
        except SyntaxError as error:
            wrong.append(f"line {error.lineno} of {file.name} is no Python: {error.msg}")
            continue
        there = {
            symbol.get_name()
            for symbol in table.get_symbols()
            if symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()
        }
        names = [piece.name for piece in PIECES if piece.module == module]
        missing += [f"{name} in {file.name}" for name in names if name not in there]
        wrong += _wrong_literals(module, tree)
    if missing:
        raise UsecaseInvalid(
            f"The use case in {folder} lacks {', '.join(missing)}. Nothing was run. Add what is "
            "missing (docs/fork.md says what each piece is), then run `make usecase`. If you meant "
            "another folder: the variable ML_USECASE names it."
        )
    if wrong:
        raise UsecaseInvalid(
            f"The use case in {folder} cannot work: {'; '.join(wrong)}. Nothing was run. Change "
            "it, then run `make usecase`."
        )


def check_columns(key: Iterable[str], features: Iterable[str]) -> None:
    """Refuse names of columns that the library's own would meet, however they were made.

    Raises:
        UsecaseInvalid: naming each, where it is declared and what to rename.
    """
    wrong = [*_taken("KEY", "schema", key), *_taken("FEATURES", "features", features)]
    if wrong:
        raise UsecaseInvalid(f"{'; '.join(wrong)}. Nothing was run.")


def _taken(piece: str, module: str, columns: Iterable[str]) -> list[str]:
    return [
        f"{piece} in {module}.py names the column {name!r}, and the library adds one of that name "
        f"to your rows: rename it, to 'input_{name}' for instance"
        for name in columns
        if name in OWN_COLUMNS or name.startswith(OWN_PREFIX)
    ]


def _wrong_literals(module: str, tree: ast.Module) -> list[str]:
    found = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name, value = node.targets[0].id, node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            name, value = node.target.id, node.value
        else:
            continue
        if (module, name) == ("__init__", "NAME") and isinstance(value, ast.Constant):
            found += _wrong_name(value.value)
        elif (module, name) == ("__init__", "FIRST_WINDOW"):
            found += _wrong_window(value)
        elif (module, name) in COLUMN_LISTS and isinstance(value, ast.List):
            texts = [one.value for one in value.elts if isinstance(one, ast.Constant)]
            found += _taken(name, module, [text for text in texts if isinstance(text, str)])
    return found


COLUMN_LISTS = {("schema", "KEY"), ("features", "NUMERIC"), ("features", "CATEGORICAL")}


def _wrong_name(name: Any) -> list[str]:
    if isinstance(name, str) and re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        return []
    return [
        f"NAME in __init__.py is {name!r}: it names the registered model, folders and metrics, so "
        "it has to be lower-case letters and digits with hyphens between, such as 'late-payments'"
    ]


def _wrong_window(value: ast.expr) -> list[str]:
    try:
        window = ast.literal_eval(value)
    except ValueError:  # it is calculated
        return []
    try:
        first, last = map(date.fromisoformat, window)
    except (TypeError, ValueError):
        return [
            f"FIRST_WINDOW in __init__.py is {window!r}, and has to be two dates, such as "
            '("2026-01-01", "2026-02-28")'
        ]
    return [] if first < last else [f"FIRST_WINDOW in __init__.py ends on {last}, before it begins"]
