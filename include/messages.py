"""The dataclasses that tasks exchange: one task returns a message, the next takes it.

They hold references, counts and reasons, never rows. `orchestration.tasks.typed` converts them to
the JSON of an XCom and back. DAG files import this module, so it uses only the standard library.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

CHAMPION, CHALLENGER = "champion", "challenger"
"""Aliases of the registered model, and the paths of the rows that they score. The champion scores
every day. The challenger scores beside it only if the setting `experiment` enables it."""

Action = Literal["healthy", "watch", "retrain", "page"]
"""What the monitor decides about a day, the most severe last."""

DATA_RULES = ("features", "published")
"""Rules that page because the data is at fault: no model is trained on such data."""


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
    """A landed file whose columns match the contract.

    Attributes:
        version: reference to the day's version, which all its files share.
        file: identity of the file (inode, time and size; in an object store its etag).
        origin: where its rows come from, if the source said it: a query, or files.
    """

    input_name: str
    version: str
    file: str = ""
    origin: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RowCheck:
    """Result of the row checks of one input on one day.

    Attributes:
        version: reference to the version that has the valid rows as a part.
        rows: rows in the landed file; `valid + quarantined == rows`.
        duplicates: rows whose key occurs more than once.
        failures: reason → rows that it applies to (a row may have several reasons).
        null_rates: column → share of its values that are null.
        last_event: ISO time of the latest event among the valid rows.
        file: identity of the landed file that was checked.
        sha256: of that file; empty in an object store, where `file` has an etag.
        origin: where its rows come from, if the source said it.
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
    origin: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """Published rows of a day, by input."""

    rows: dict[str, int]


# --- Inference ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chunk:
    """A run of row groups of a day's features, scored by one task.

    Attributes:
        content: hash of the features.
        reasons: reasons that are stored with each prediction.
    """

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
    reasons: int = 0


@dataclass(frozen=True)
class Branches:
    """The models that score beside the champion, fixed for a run.

    Attributes:
        mode: mode of the experiment.
        share: the challenger's share of the rows, in mode `ab`.
        models: by path. A path's rows stay the same even if its model fails later.
        absent: path → why it has no scores. The champion's scores are used instead.
    """

    mode: Literal["off", "shadow", "ab"]
    share: float
    models: dict[str, ModelVersion]
    absent: dict[str, str]

    @property
    def salt(self) -> str:
        """Makes two experiments draw different rows: the challenger's version."""
        return str(self.models[CHALLENGER]) if CHALLENGER in self.models else ""

    def is_shadow(self, path: str) -> bool:
        """Whether a path's model scores rows whose published score is another model's."""
        return path == CHALLENGER and self.mode == "shadow"

    @property
    def answered(self) -> dict[str, ModelVersion]:
        """The models that have scored their rows, as far as known."""
        return {path: model for path, model in self.models.items() if path not in self.absent}


@dataclass(frozen=True)
class OutputCheck:
    """Result of checking a day's predictions: `rows == scored + rejected`.

    Attributes:
        mean: mean of the scores; None without rows.
        psi: PSI against the model's holdout; None if the scores are from several models.
    """

    rows: int
    scored: int
    rejected: int
    mean: float | None
    psi: float | None


@dataclass(frozen=True)
class Answer:
    """A member's checked answer for a day.

    Attributes:
        features: reference to the rows that it scored.
        model: the registered model, or its name on the server.
        chunks: the chunks in which it scored them.
        psi: population stability index (PSI) against its usual scores; None if those are unknown.
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
    """Which members answered.

    Attributes:
        champion: the champion that the ensemble belongs to, if the registry answered.
        answers: member → its answer.
        absent: member → why it is missing.
        lacking: why no ensemble is possible; empty if it is.
        awaited: members that are missing for a temporary reason, such as a server that is down:
            they may answer another run.
    """

    champion: ModelVersion | None
    answers: dict[str, Answer]
    absent: dict[str, str]
    lacking: str
    awaited: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Scored:
    """A day's scores, before they are published.

    Attributes:
        predictions: reference to the version that holds them.
        level: position in `ensemble.LEVELS` of the step that made them.
        failed: name of each earlier step in `LEVELS` → why it failed.
    """

    predictions: str
    level: int
    failed: dict[str, str]


@dataclass(frozen=True)
class Checked:
    """Scores that may be published, and the result of checking them."""

    scored: Scored
    check: OutputCheck


# --- Delivery -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Delivered:
    """A day's rows at a destination.

    Attributes:
        version: reference to the version that the rows are from.
        where: the table there.
    """

    version: str
    rows: int
    where: str


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
    """One rule's result for one model.

    Attributes:
        fault: whether breaking the rule means that the model is faulty. A model that is merely
            not good enough to replace the champion may still be a member of an ensemble.
    """

    name: str
    found: str
    bound: str
    passed: bool
    fault: bool = True


@dataclass(frozen=True)
class Verdict:
    """The gate's verdict about the candidates of one snapshot.

    Attributes:
        challenger: the best of the candidates that passed every rule; None if all were refused.
        members: every candidate without a fault, the challenger first: the possible members of
            an ensemble, and the models for rows that lack a group of features.
        champion: the version they were judged against; None for the baseline.
        champion_evaluation: reference to its evaluation.
        rules: candidate → results of the rules.
        markdown: the whole verdict as tables for people.
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
    """The version that is removed, and the one that becomes champion again."""

    model: ModelVersion
    to: ModelVersion


# --- Monitoring -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reason:
    """One rule's result for a day.

    Attributes:
        rule: its name.
        action: what it asks for; `healthy` if it passes.
        found: the figure that it found, in words.
        bound: the bound that it was compared with, in words.
    """

    rule: str
    action: Action
    found: str
    bound: str


@dataclass(frozen=True)
class Decision:
    """What to do about a day, and why.

    Attributes:
        key: the day.
        action: the most severe action of the rules.
        reasons: every rule's result, the most severe first.
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
        """Why the model should be retrained, in one line; empty if it should not.

        A day may page and retrain at once, unless it pages because the data is at fault.
        """
        faults = [one for one in self.reasons if one.action == "page" and one.rule in DATA_RULES]
        return "" if faults else self._told("retrain")

    @property
    def summary(self) -> str:
        """The decision in one sentence for people."""
        if not self.reasons:
            return "No rule had anything to judge."
        if self.action == "healthy":
            return f"All {len(self.reasons)} rules pass."
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


# --- Housekeeping ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tally:
    """How many things, and how large they are together."""

    things: int
    bytes: int


@dataclass(frozen=True)
class Housekept:
    """What housekeeping has deleted.

    Attributes:
        dry_run: whether it would only have been deleted.
        deleted: by kind.
        stays: why kinds were left out this time; empty if none was.
        report: path of the report, which names everything.
    """

    dry_run: bool
    deleted: dict[str, Tally]
    stays: list[str]
    report: str


@dataclass(frozen=True)
class Erased:
    """What an erasure erases.

    Attributes:
        record: path of the file that keeps this.
        state: `begun` until all is erased; `counted` by a dry run.
        columns: columns that the rows were found by.
        keys: number of the values, or combinations of values, that were given.
        rows: table → rows of all of its versions.
        delivered: destination → rows there; None if its columns do not tell which they are, so that
            a person has to delete them.
        models: registered versions that were trained on the rows.
        unreadable: damaged files, in which a person has to look for the rows.
    """

    record: str
    state: Literal["counted", "begun", "erased"]
    columns: list[str]
    keys: int
    rows: dict[str, int]
    delivered: dict[str, int | None]
    models: list[str]
    unreadable: list[str]
