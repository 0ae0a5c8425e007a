"""What a folder in `include/usecases/` declares, so that the same code can run any use case.

Its `__init__.py` defines a `UseCase`, which is all that DAG files need. Its modules `schema`,
`features`, `models` and `source` are imported on first use, because they import pandera and
scikit-learn. The protocols `Schema`, `Features`, `Models` and `Source` list their names.
"""

import ast
import re
import symtable
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, get_args

from include.destinations import DeltaTable, Destination
from include.errors import BadData
from include.file_events import FileEvent
from include.names import LONGEST_NAME, check_name
from include.settings import Settings, settings
from include.wording import listed

if TYPE_CHECKING:
    import polars as pl
    from pandera.polars import DataFrameSchema
    from sklearn.pipeline import Pipeline

    from include.lake.tables import Lake
    from include.targets import Target


OWN_COLUMNS = (
    "day", "ensemble_score", "fallback", "label", "members", "model", "model_version", "path",
    "score",
)  # fmt: skip
"""Columns that the library adds to the key and the features of a row."""

OWN_PATTERN = r"score_.*|(reason|contribution)_\d+"
"""Columns with other models' scores, before the model's name, and those with reasons."""

REASONS = "reasons"
"""Column that is added to quarantined rows."""

OWN_MODELS = ("all", "challenger", "champion", "ensemble")
"""Names of models and slices in the figures, in addition to the members'."""


OWN_TASKS = (
    "call_roll", "check_outputs", "choose", "combine", "fall_back", "preprocess", "publish",
    "record_stages", "resolve_champion",
)  # fmt: skip
"""Tasks of `ensemble_inference`, without those of its members."""

Kind = Literal["registry", "remote"]
KINDS = " or ".join(get_args(Kind))

BOUNDS = {"weight": (0, 1e6), "retries": (0, 100), "minutes": (0.1, 1440), "slots": (1, 1000)}
"""Minimum and maximum of a member's numbers."""

WHOLE = ("retries", "slots")
"""Those that must be whole numbers."""


def every_day(_: date) -> bool:
    """The default of `Input.expected`: data is expected every day."""
    return True


@dataclass(frozen=True)
class Input:
    """The contract of one input: one Parquet file per day.

    Attributes:
        name: its name in paths, messages and reports.
        schema: columns, types and row checks. Columns must be exactly these, in this order.
        key: columns that together identify a row; no two rows may share them.
        belongs: for a partition's day, an expression that is true for the rows of that day.
        event_time: datetime column with a time zone, used to check freshness, if any.
        time_zone: where the partition's day begins and ends.
        max_event_age_hours: maximum hours from the last event to the end of the partition's day.
        max_null_rate: nullable column → maximum share of nulls; NaN counts as null.
        max_text_bytes: column → maximum bytes of a text, if it differs from the setting.
        required: whether a day without this input fails. A file that exists must always be valid.
        expected: whether data is expected on a day; false for weekends and holidays, for instance.
            Nothing is fetched for other days, but a file that lands is used.
        may_be_empty: whether a file without rows is valid and published.
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
                f"{dtype or 'not a column'} and must be a datetime with a time zone. Declare it as "
                'pl.Datetime("us", "UTC"), and have `fetch` return that type, for instance with '
                f'pl.col({self.event_time!r}).dt.replace_time_zone("UTC")'
            )


@dataclass(frozen=True)
class Group:
    """Features that come from one input, so that a row may lack all of them at once.

    Attributes:
        name: the name of what the row then lacks.
        features: names of the features.
    """

    name: str
    features: Sequence[str]

    def __post_init__(self) -> None:
        """Refuse what could never work."""
        check_name("group", self.name)

    @property
    def path(self) -> str:
        """The path of rows that lack the group, and the name of the candidate for them."""
        return f"without_{self.name}"


@dataclass(frozen=True)
class Member:
    """A model of the ensemble. Its tasks form a task group with its name.

    Attributes:
        name: for a registry member, the name of its candidate.
        kind: `registry` for a model of the registry, scored by Airflow's tasks; `remote` for a
            server that is asked over HTTP (Open Inference Protocol v2).
        weight: weight in the average, relative to the other members that answered.
        required: whether there is no ensemble without it.
        retries: retries of each of its tasks after the member's own temporary failures: its server
            asks for time, its model is missing, it takes too long. Other failures do not count: an
            outage of what all members use (lake, registry, Airflow) is retried as in every DAG.
        minutes: time limit of each of its tasks.
        slots: slots of its pool: how many tasks, of all days, may score with it at once.
        connection: Airflow connection of the server.
        model: name of the model on the server.
        output: name of the output with the predictions, if the server returns it only on request,
            as MLServer does; empty: the server's only output.
    """

    name: str
    kind: Kind
    weight: float = 1.0
    required: bool = False
    retries: int = 2
    minutes: float = 30.0
    slots: int = 4
    connection: str = ""
    model: str = ""
    output: str = ""

    def __post_init__(self) -> None:
        """Refuse impossible values when the DAGs are parsed."""
        check_name("member", self.name)
        if self.name in (*OWN_MODELS, *OWN_TASKS) or self.name.startswith("without_"):
            raise ValueError(
                f"a member cannot be called {self.name}: the library uses this name for figures, "
                "columns or tasks; rename it in __init__.py (and its candidate in models.py)"
            )
        if self.kind not in get_args(Kind):
            raise ValueError(f"member {self.name}: its kind is {self.kind!r}, not {KINDS}")
        for what, (least, most) in BOUNDS.items():
            value, whole = getattr(self, what), what in WHOLE
            if type(value) not in ((int,) if whole else (int, float)) or not least <= value <= most:
                raise ValueError(
                    f"member {self.name}: {what} is {value!r}, not a {'whole ' * whole}number from "
                    f"{least} to {most}"
                )
        if self.kind == "remote" and not (self.connection and self.model):
            raise ValueError(f"member {self.name} is remote: name its connection and its model")


@dataclass(frozen=True)
class Fetched:
    """The rows of an input for a day, some at a time, and where they come from.

    Attributes:
        frames: frames with the same columns; they are read once.
        origin: what the day's manifest says of them, as plain JSON. It is completed while the
            frames are read.
    """

    frames: "Iterable[pl.DataFrame]"
    origin: Mapping[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """`source.py`: where the raw data comes from.

    `fetch` returns a frame, an iterator of frames, or a `Fetched`; None if there is nothing yet.
    """

    fetch: Callable[[str, date], Any]


class Schema(Protocol):
    """`schema.py`: what the inputs of a day must look like."""

    KEY: list[str]
    INPUTS: list[Input]
    TRUTH: Input


class Features(Protocol):
    """`features.py`: from validated rows to features, from truth to labels, and what is asked."""

    NUMERIC: list[str]
    CATEGORICAL: list[str]
    FEATURES: list[str]
    REQUIRED: list[str]
    SLICES: list[str]
    SEGMENT: list[str]
    SEASONAL: list[str]
    OFTEN_MISSING: list[str]
    DRIFT_BOUNDS: dict[str, float]
    GROUPS: list[Group]
    TARGET: "Target"
    build_features: "Callable[[dict[str, pl.DataFrame]], pl.DataFrame]"
    build_labels: "Callable[[pl.DataFrame], pl.DataFrame]"


class Models(Protocol):
    """`models.py`: the models to train."""

    CANDIDATES: "dict[str, Callable[[int], Pipeline]]"
    WITHOUT: "dict[str, Callable[[int], Pipeline]]"
    TRUSTED_TYPES: list[str]


MODULES: dict[str, type] = {
    "source": Source,
    "schema": Schema,
    "features": Features,
    "models": Models,
}
"""The modules of every use case, by name; `docs/fork.md` explains their contents."""

USECASES = "include.usecases"
"""Package that every use case is imported from, wherever its folder is."""


@dataclass(frozen=True, eq=False)
class UseCase:
    """One thing to predict: its data, its models and its own settings.

    Attributes:
        name: name of its folder, also used for the DAGs, the registered model, the folder in the
            lake and the label of the metrics.
        first_window: first and last day of the history that the first champion is trained on.
        members: the models of its ensemble.
        destinations: where its predictions are delivered, beside the lake.
        own_settings: name → value of settings for this use case only. An environment variable
            such as `ML_LATE_PAYMENTS__GATE_MAX_SKILL` overrides them.
        validated_at: when the previous day's data is validated, every day: hour and minute in UTC.
        monitored_at: when the monitor looks at the previous day, which should be scored by then.
        truth_delay_days: how many days later than a day's inputs its truth is validated.
        file_events: files that start the validation of their day's inputs before `validated_at`.
    """

    name: str
    first_window: tuple[str, str]
    members: Sequence[Member]
    destinations: Sequence[Destination] = (DeltaTable(),)
    own_settings: Mapping[str, Any] = field(default_factory=dict, repr=False)  # may be secrets
    validated_at: str = "06:00"
    monitored_at: str = "08:00"
    truth_delay_days: int = 1
    file_events: Sequence[FileEvent] = ()

    def __post_init__(self) -> None:
        """Refuse what could never work."""
        check_usecase_name(self.name)
        if strange := [one for one in self.members if not isinstance(one, Member)]:
            raise ValueError(f"members has {strange[0]!r}, which is not a Member(...)")
        if not self.members:
            raise ValueError(f"{self.name} has no members: an ensemble needs at least one")
        names = [member.name for member in self.members]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"members has {listed(sorted(twice))} twice")
        if wrong := [one for one in self.destinations if not isinstance(one, Destination)]:
            raise ValueError(
                f"destinations has {wrong[0]!r}, which is not a DeltaTable(...) or SqlTable(...)"
            )
        names = [one.name for one in self.destinations]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"destinations has {listed(sorted(twice))} twice")
        _check_window(self.first_window)
        _check_time("validated_at", self.validated_at)
        _check_time("monitored_at", self.monitored_at)
        delay = self.truth_delay_days
        if type(delay) is not int or not 1 <= delay <= 60:
            raise ValueError(f"truth_delay_days is {delay!r}, not a whole number from 1 to 60")
        if others := [one for one in self.file_events if not isinstance(one, FileEvent)]:
            raise ValueError(f"file_events has {others[0]!r}, which is not a FileEvent(...)")
        queues = [one.queue for one in self.file_events if one.queue]
        if twice := {queue for queue in queues if queues.count(queue) > 1}:
            raise ValueError(
                f"two file_events read the queue {listed(twice)}, and each message reaches only "
                "one: give each a queue"
            )

    @property
    def package(self) -> str:
        """Dotted name of its folder."""
        return f"{USECASES}.{self.name}"

    @property
    def settings(self) -> Settings:
        """The settings of this use case.

        Raises:
            BadData: with a line for each wrong value, and where it is set.
        """
        for name, value in self.own_settings.items():
            if isinstance(value, list | tuple | set | dict):
                raise BadData(f"own_settings of {self.name} has {name} with more than one value")
        return settings(self.name, tuple(sorted(self.own_settings.items())))

    @property
    def lake(self) -> "Lake":
        """Its tables: the folder with its name in the lake, or its own `lake_root`."""
        from include.lake.tables import Lake

        return Lake(self.settings.lake_of(self.name), self.name)

    @cached_property
    def source(self) -> Source:
        """Its module `source`."""
        return cast(Source, import_module(f"{self.package}.source"))

    @cached_property
    def schema(self) -> Schema:
        """Its module `schema`."""
        return cast(Schema, import_module(f"{self.package}.schema"))

    @cached_property
    def features(self) -> Features:
        """Its module `features`.

        Raises:
            UsecaseInvalid: a column has a name that the library uses itself.
        """
        found = cast(Features, import_module(f"{self.package}.features"))
        target = getattr(found, "TARGET", None)
        own = [*target.columns, *target.other_columns] if target is not None else []
        check_columns(self.key, found.FEATURES, own)
        return found

    @cached_property
    def models(self) -> Models:
        """Its module `models`."""
        return cast(Models, import_module(f"{self.package}.models"))

    @property
    def key(self) -> list[str]:
        """Columns that together identify a row."""
        return self.schema.KEY

    @property
    def inputs(self) -> list[Input]:
        """The inputs from which a day is scored; the rows of the first are scored."""
        return self.schema.INPUTS

    @property
    def truth(self) -> Input:
        """The input that becomes known later, from which labels are built."""
        return self.schema.TRUTH

    @property
    def target(self) -> "Target":
        """What is asked of each row."""
        return self.features.TARGET

    @property
    def tables(self) -> dict[str, list[Input]]:
        """Table → the inputs that are validated and published in it together."""
        return {"validated": self.inputs, "actuals": [self.truth]}

    def input(self, name: str) -> Input:
        """The input, or the truth, with this name."""
        return next(one for one in (*self.inputs, self.truth) if one.name == name)

    @property
    def training_start(self) -> date:
        """First day of the training window if a run names none."""
        return self.settings.train_start or date.fromisoformat(self.first_window[0])

    def dag_id(self, pipeline: str) -> str:
        """The DAG of one of the pipelines, such as `batch_inference`."""
        return f"{self.name}.{pipeline}"

    def pool(self, member: Member) -> str:
        """Airflow pool of a member's tasks."""
        return f"{self.name}-{member.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Modules that are loaded already are not pickled with it."""
        given = (
            self.name, self.first_window, self.members, self.destinations, dict(self.own_settings)
        )  # fmt: skip
        times = self.validated_at, self.monitored_at, self.truth_delay_days
        return UseCase, (*given, *times, self.file_events)

    def __str__(self) -> str:
        return self.name


def parted(dag_id: str) -> tuple[str, str]:
    """The use case and the pipeline of a DAG."""
    usecase, _, pipeline = dag_id.rpartition(".")
    return usecase, pipeline


def check_usecase_name(name: str) -> None:
    """Refuse a name that a use case and its folder cannot have.

    Raises:
        ValueError: says which names are allowed.
    """
    allowed = r"[a-z][a-z0-9]*(_[a-z0-9]+)*"
    if not isinstance(name, str) or not re.fullmatch(allowed, name) or len(name) > LONGEST_NAME:
        raise ValueError(
            f"a use case cannot be called {name!r}: its name becomes part of DAGs, paths, metrics "
            "and variables, and must be lower-case letters, digits and single underscores, such "
            f"as late_payments, {LONGEST_NAME} at most"
        )


def _check_window(window: Any) -> None:
    try:
        first, last = map(date.fromisoformat, window)
    except (TypeError, ValueError):
        raise ValueError(
            f"first_window is {window!r} and must be two dates, such as "
            '("2026-01-01", "2026-02-28")'
        ) from None
    if not first < last:
        raise ValueError(f"first_window ends on {last}, before it begins")


def _check_time(what: str, value: Any) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value):
        raise ValueError(f'{what} is {value!r} and must be hour and minute in UTC, such as "06:00"')


class UsecaseInvalid(ImportError):
    """A use case lacks a required piece, or declares something that cannot work."""


def check_pieces(folder: Path) -> None:
    """Check that a use case has all pieces, by reading its files without running them.

    Column names that are written as literals are checked, too.

    Args:
        folder: the folder of the use case.

    Raises:
        UsecaseInvalid: names every missing file and name, and every name that cannot work.
    """
    missing, wrong = [], []
    for module, names in {"__init__": ["USECASE"], **_names()}.items():
        file = folder / f"{module}.py"
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            missing.append(f"the file {file.name}")
            continue
        try:
            table, tree = symtable.symtable(text, str(file), "exec"), ast.parse(text)
        except SyntaxError as error:
            wrong.append(f"line {error.lineno} of {file.name} is not valid Python: {error.msg}")
            continue
        there = {
            symbol.get_name()
            for symbol in table.get_symbols()
            if symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()
        }
        missing += [f"{name} in {file.name}" for name in names if name not in there]
        wrong += _wrong_literals(module, tree)
    if missing:
        raise UsecaseInvalid(
            f"The use case in {folder} lacks {', '.join(missing)}. It has no DAGs until this is "
            "fixed. Add what is missing (docs/fork.md explains each piece), then run `make "
            "usecase`. If you meant another folder, name it in the variable ML_USECASES."
        )
    if wrong:
        raise UsecaseInvalid(
            f"The use case in {folder} cannot work: {'; '.join(wrong)}. It has no DAGs until this "
            "is fixed. Change it, then run `make usecase`."
        )


def _names() -> dict[str, list[str]]:
    return {module: list(protocol.__annotations__) for module, protocol in MODULES.items()}


def check_columns(key: Iterable[str], features: Iterable[str], target: Iterable[str] = ()) -> None:
    """Refuse column names that the library uses itself, however they were made.

    Args:
        key: names of the key's columns.
        features: names of the features.
        target: columns of the target's predictions.

    Raises:
        UsecaseInvalid: names each, where it is declared and how to rename it.
    """
    wrong = [
        *_taken("KEY", "schema", key, target), *_taken("FEATURES", "features", features, target)
    ]  # fmt: skip
    if wrong:
        raise UsecaseInvalid(f"{'; '.join(wrong)}. Nothing was run.")


def _taken(
    piece: str, module: str, columns: Iterable[str], target: Iterable[str] = ()
) -> list[str]:
    own = {*OWN_COLUMNS, *target}
    return [
        f"{piece} in {module}.py names the column {name!r}, but the library adds a column with "
        f"this name to your rows: rename it, for instance to 'input_{name}'"
        for name in columns
        if name in own or re.fullmatch(OWN_PATTERN, name)
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
        if (module, name) in COLUMN_LISTS and isinstance(value, ast.List):
            texts = [one.value for one in value.elts if isinstance(one, ast.Constant)]
            found += _taken(name, module, [text for text in texts if isinstance(text, str)])
    return found


COLUMN_LISTS = {("schema", "KEY"), ("features", "NUMERIC"), ("features", "CATEGORICAL")}
