"""What travels between tasks. A task returns one of these, and the next one takes it.

They hold references, counts and reasons, never rows. `orchestration.tasks.typed` turns them into
the JSON of an XCom and back. DAG files import this module, so it needs the standard library only.
"""

from dataclasses import dataclass, field
from typing import Literal

CHAMPION, CHALLENGER = "champion", "challenger"
"""Aliases of the registered model, and the paths of the rows that they score. The champion scores
every day. The challenger scores beside it only if the setting `experiment` says so."""

Action = Literal["healthy", "watch", "retrain", "page"]
"""What the monitor decides about a day, the gravest last."""

DATA_RULES = ("features", "published")
"""Rules whose page means that the data are at fault: no model is trained on such data."""


@dataclass(frozen=True)
class ModelVersion:
    """A registered version of a model."""

    name: str
    version: str
    run_id: str

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"


# --- Validation -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class LandedFile:
    """A landed file whose columns are right.

    Attributes:
        version: reference to the version of the day that all its files share.
        file: identity of the file (inode, time and size; in an object store its etag).
    """

    input_name: str
    version: str
    file: str = ""


@dataclass(frozen=True)
class RowCheck:
    """What the row checks found in one input of one day.

    Attributes:
        version: reference to the version whose part the valid rows are.
        rows: rows in the landed file; `valid + quarantined == rows`.
        duplicates: rows whose key another row has too.
        failures: reason → rows it applies to (a row may have several reasons).
        null_rates: column → share of its values that are null.
        last_event: ISO time of the latest event among the valid rows.
        file: identity of the landed file that was checked.
        sha256: of that file; empty in an object store, where `file` has an etag.
    """

    version: str
    input: str
    rows: int
    valid: int
    quarantined: int
    duplicates: int
    failures: dict[str, int]
    null_rates: dict[str, float]
    last_event: str | None
    file: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Published:
    """Rows that a day's inputs were published with, by input."""

    rows: dict[str, int]


# --- Inference ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chunk:
    """A run of row groups of a day's features, scored by one task."""

    features: str
    model: str
    version: str
    run_id: str
    first_row: int
    rows: int
    first_group: int
    last_group: int
    label: str
    content: str


@dataclass(frozen=True)
class Branches:
    """Who scores beside the champion, fixed for a run.

    Attributes:
        mode: of the experiment.
        share: of the rows that are the challenger's, in mode `ab`.
        models: by path. Their rows are fixed by it, whoever fails later.
        absent: why a path has no scores, by path. The champion's stand in for them.
    """

    mode: Literal["off", "shadow", "ab"]
    share: float
    models: dict[str, ModelVersion]
    absent: dict[str, str]

    @property
    def salt(self) -> str:
        """What makes two experiments draw other rows: the challenger's version."""
        return str(self.models[CHALLENGER]) if CHALLENGER in self.models else ""

    def is_shadow(self, path: str) -> bool:
        """Whether a path's model scores rows that are not its own."""
        return path == CHALLENGER and self.mode == "shadow"

    @property
    def answered(self) -> dict[str, ModelVersion]:
        """The models that have scored their rows, as far as is known."""
        return {path: model for path, model in self.models.items() if path not in self.absent}


@dataclass(frozen=True)
class OutputCheck:
    """What was found in a day's predictions: `rows == scored + rejected`.

    Attributes:
        mean: of the scores; None without rows.
        psi: against the model's holdout; None if they are not those of one model.
    """

    rows: int
    scored: int
    rejected: int
    mean: float | None
    psi: float | None


@dataclass(frozen=True)
class Answer:
    """What a member has given for a day, once it was checked.

    Attributes:
        features: reference to the rows that it has scored.
        model: the registered model, or its name on the server.
        chunks: in which it has scored them.
        psi: population stability index against what its scores usually look like; None if that
            is not known.
    """

    features: str
    model: str
    version: str
    chunks: list[Chunk]
    rows: int
    mean: float | None
    psi: float | None


@dataclass(frozen=True)
class RollCall:
    """Who has answered.

    Attributes:
        champion: whose ensemble it is, if the registry said so.
        answers: by member.
        absent: why each of the others is missing, by member.
        lacking: why there can be no ensemble; empty if there can.
        awaited: those that are missing for a reason that may pass, such as a server that is down:
            they may answer another run.
    """

    champion: ModelVersion | None
    answers: dict[str, Answer]
    absent: dict[str, str]
    lacking: str
    awaited: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Scored:
    """A day's scores that are not published yet.

    Attributes:
        predictions: reference to the version that holds them.
        level: position in `ensemble.LEVELS` of what has made them.
        failed: why each step before that one failed, by its name in `LEVELS`.
    """

    predictions: str
    level: int
    failed: dict[str, str]


@dataclass(frozen=True)
class Checked:
    """Scores that may be published, and what was found in them."""

    scored: Scored
    check: OutputCheck


# --- Training -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rival:
    """The champion that challengers are judged against, and the last day that it was trained on."""

    model: ModelVersion
    last_day: str | None


@dataclass(frozen=True)
class Trained:
    """A candidate of the use case, and the MLflow run that keeps its model."""

    candidate: str
    run_id: str


@dataclass(frozen=True)
class Evaluated(Trained):
    """A trained candidate, and a reference to its evaluation on the holdout."""

    evaluation: str


@dataclass(frozen=True)
class Rule:
    """One rule's answer to one model.

    Attributes:
        fault: whether breaking it says that something is wrong with the model. A model that is
            only not good enough to replace the champion may still be a member of an ensemble.
    """

    name: str
    found: str
    bound: str
    passed: bool
    fault: bool = True


@dataclass(frozen=True)
class Verdict:
    """What became of the candidates of one snapshot.

    Attributes:
        challenger: the best of the candidates that passed every rule; None if all were refused.
        members: every candidate without a fault, the challenger first: what an ensemble may be
            made of, and what scores rows that lack a group of features.
        champion: the version they were judged against; None for the base rate.
        champion_evaluation: reference to its evaluation.
        rules: the rules' answers by candidate.
        markdown: all of it as tables for a person.
    """

    snapshot: str
    challenger: Evaluated | None
    members: list[Evaluated]
    champion: ModelVersion | None
    champion_evaluation: str | None
    rules: dict[str, list[Rule]]
    markdown: str


@dataclass(frozen=True)
class Rollback:
    """The version that goes, and the one that comes back."""

    model: ModelVersion
    to: ModelVersion


# --- Monitoring -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reason:
    """One rule's answer about a day.

    Attributes:
        rule: its name.
        action: what it asks for; `healthy` if it is content.
        found: the figure, in words.
        bound: what it was held to, in words.
    """

    rule: str
    action: Action
    found: str
    bound: str


@dataclass(frozen=True)
class Decision:
    """What is to be done about a day, and why.

    Attributes:
        key: the day.
        action: the gravest of what the rules ask for.
        reasons: every rule's answer, the gravest first.
    """

    key: str
    action: Action
    reasons: list[Reason]

    @property
    def why(self) -> str:
        """The reasons of the decision in one line."""
        return self._told(self.action)

    @property
    def retrain_for(self) -> str:
        """Why the model is to be trained again, in one line; empty if it is not.

        A day may page and retrain at once, unless it pages for a fault of the data.
        """
        faults = [one for one in self.reasons if one.action == "page" and one.rule in DATA_RULES]
        return "" if faults else self._told("retrain")

    @property
    def in_a_sentence(self) -> str:
        """The same for a person, who may have nothing to do."""
        if not self.reasons:
            return "No rule had anything to judge."
        if self.action == "healthy":
            return f"All {len(self.reasons)} rules are content."
        return f"{self.why}."

    def _told(self, action: Action) -> str:
        asking = [one for one in self.reasons if one.action == action]
        return "; ".join(f"{one.rule}: {one.found}" if one.found else one.rule for one in asking)


@dataclass(frozen=True)
class Decided:
    """A decision as the tasks that follow it read it, templates among them.

    Attributes:
        why: the reasons of the decision in one line.
        retrain_for: why the model is to be trained again; empty if it is not.
        train_until: last day of that training.
        table: every rule's answer as a Markdown table.
    """

    key: str
    action: Action
    reasons: list[Reason]
    why: str
    retrain_for: str
    train_until: str
    table: str

    @property
    def decision(self) -> Decision:
        """The decision itself."""
        return Decision(self.key, self.action, self.reasons)


@dataclass(frozen=True)
class Page:
    """What one notifier sends to a person.

    Attributes:
        place: of the notifier in the setting `notify_urls`.
        title: one line.
        body: Markdown.
        link: address of a page with more.
    """

    place: int
    title: str
    body: str
    link: str | None = None
