"""What a use case declares of its inputs and its models, so that the same code runs any."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Literal

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
        retries: of each of its tasks, where another try can help.
        minutes: time limit of each of its tasks.
        slots: of its pool: tasks of all days that may score with it at once.
        connection: Airflow connection of the server.
        model: name of the model on the server.
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
