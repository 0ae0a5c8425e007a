"""What a use case has to declare, so that the same code runs any: read before anything else."""

import symtable
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import polars as pl
    from pandera.polars import DataFrameSchema


@dataclass(frozen=True)
class Input:
    """The contract of one input: one Parquet file lands for each day.

    Attributes:
        name: its name in paths, messages and reports.
        schema: columns, types and row checks. Columns must be exactly these, in this order.
        key: columns that together name a row; no two rows may share them.
        belongs: given the partition's day, an expression that is true for the rows of that day.
        event_time: UTC datetime column from which freshness is judged, if there is one.
        time_zone: where the partition's day begins and ends.
        max_event_age_hours: most hours from the last event to the end of the partition's day.
        max_null_rate: the greatest share of nulls of a nullable column that is no fault.
        required: whether a day without this input fails. A file that is there must always be right.
    """

    name: str
    schema: "DataFrameSchema"
    key: list[str]
    belongs: Callable[[date], "pl.Expr"]
    event_time: str | None = None
    time_zone: str = "UTC"
    max_event_age_hours: float = 24.0
    max_null_rate: Mapping[str, float] = field(default_factory=dict)
    required: bool = True


@dataclass(frozen=True)
class Group:
    """Features that come from one input, so that a row may well lack all of them at once.

    Attributes:
        name: what the row then lacks.
        features: names of the features.
    """

    name: str
    features: Sequence[str]

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
        retries: of each of its tasks after a failure of its own that may pass: its server asks for
            time, its model is not there, it takes too long. An outage of what all members use (the
            lake, the registry, Airflow) is retried as in every DAG.
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
        if not 0 <= self.weight < float("inf"):
            raise ValueError(f"member {self.name}: its weight is {self.weight}, not 0 or more")
        if self.kind == "remote" and not (self.connection and self.model):
            raise ValueError(f"member {self.name} is remote: name its connection and its model")

    @property
    def pool(self) -> str:
        """Airflow pool of its tasks."""
        return f"ensemble_{self.name}"


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


class UsecaseIncomplete(ImportError):
    """A use case lacks something that every one must have."""


def check_pieces(folder: Path) -> None:
    """See that a use case has all pieces, by reading its files: none of them is run.

    Args:
        folder: of the use case.

    Raises:
        UsecaseIncomplete: naming every file and every name that is missing.
    """
    missing = []
    for module in dict.fromkeys(piece.module for piece in PIECES):
        file = folder / f"{module}.py"
        try:
            table = symtable.symtable(file.read_text(encoding="utf-8"), str(file), "exec")
        except FileNotFoundError:
            missing.append(f"the file {file.name}")
            continue
        there = {
            symbol.get_name()
            for symbol in table.get_symbols()
            if symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()
        }
        names = [piece.name for piece in PIECES if piece.module == module]
        missing += [f"{name} in {file.name}" for name in names if name not in there]
    if missing:
        raise UsecaseIncomplete(
            f"The use case in {folder} lacks {', '.join(missing)}. Nothing was run. Add what is "
            "missing (docs/fork.md says what each piece is), then run `make usecase`. If you meant "
            "another folder: the variable ML_USECASE names it."
        )
