"""Every setting of the project: typed, with its default and unit, read from the environment.

The environment variable `ML_CHUNK_ROWS` changes the setting `chunk_rows`, and
`ML_<USE CASE>__CHUNK_ROWS` changes it for one use case. `make settings` prints all settings with
their current values. `make reference` lists them in `docs/settings.md`, where a comment above a
setting becomes the heading of its group.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, PrivateAttr, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from include.errors import BadData

PROJECT = Path(__file__).resolve().parent.parent
BUILT_FROM = Path(__file__).parent / "COMMIT"
"""Where a build for MWAA or Astro records the commit of the code, because git is missing there."""


class Settings(BaseSettings):
    """All settings. Instances are frozen.

    `settings()` returns those of the installation, and `case.settings` those of a use case.
    """

    model_config = SettingsConfigDict(
        env_prefix="ML_", frozen=True, populate_by_name=True, allow_inf_nan=False
    )

    # Where things are
    data_dir: Path = Field(
        PROJECT / "data", description="Folder for everything made locally. MWAA and Astro have "
        "none unless it is set, because tasks share no disk there."
    )  # fmt: skip
    usecases: str = Field(
        "", description="Enabled use cases, separated by commas: names of folders in "
        "`include/usecases`, or paths relative to the project's folder. Empty: all folders in "
        "`include/usecases`."
    )  # fmt: skip
    lake_root: str = Field(
        "", description="Root of all tables: a folder or a URI such as `s3://conn@bucket/lake`. "
        "Each use case has a folder there, named after it. If set for one use case, this is that "
        "folder itself. Empty: `lake` in the data folder."
    )  # fmt: skip
    mlflow_tracking_uri: str = Field(
        "", validation_alias="MLFLOW_TRACKING_URI",
        description="MLflow server or store. Empty: a SQLite file in the data folder."
    )  # fmt: skip

    # Validation
    max_quarantine_share: float = Field(
        0.05, ge=0, le=1, description="Share of bad rows above which the whole partition fails."
    )
    max_duplicate_share: float = Field(
        0.01, ge=0, le=1, description="Share of rows with a duplicate key above which it fails."
    )
    volume_window_days: int = Field(
        28,
        ge=1,
        le=3650,
        description="Number of days before the partition whose row counts it is compared with.",
    )
    volume_min_days: int = Field(
        3, ge=1, description="Published days in that window below which volume is not checked."
    )
    min_volume_ratio: float = Field(
        0.5, ge=0, description="Minimum rows, as a ratio to the median of that window."
    )
    max_volume_ratio: float = Field(
        1.6, gt=0, description="Maximum rows, as a ratio to the median of that window."
    )
    max_text_bytes: int = Field(
        10_000, ge=1, description="Longest text in a landed file, in bytes, for columns without "
        "their own bound (`max_text_bytes` of the input). A file with a longer text fails."
    )  # fmt: skip
    max_input_mb: float = Field(
        4096, gt=0, description="Memory that the decoded rows of a landed file may take, because "
        "features are built from whole days. A larger file fails."
    )  # fmt: skip

    # Scoring
    chunk_rows: int = Field(
        250_000, ge=1, description="Rows scored by one mapped task, rounded up to whole row groups."
    )
    batch_rows: int = Field(
        65_536, ge=1, description="Rows held in memory at once, and rows per Parquet row group."
    )
    reason_codes: int = Field(
        0, ge=0, le=10, description="Features that are published with each prediction, those that "
        "moved it most. 0: none. Only XGBoost's trees and linear models say which."
    )  # fmt: skip
    max_score_psi: float = Field(
        4.0, gt=0, description="Population stability index (PSI) of a day's scores against the "
        "champion's reference above which they are not published. Rows of one day are alike, so "
        "normal days may reach 3.4: this only catches constant or inverted scores."
    )  # fmt: skip
    max_rejected_share: float = Field(
        0.05, ge=0, le=1, description="Share of rows without a score above which a day fails."
    )

    # Branching of batch_inference: which model scores which rows
    experiment: Literal["off", "shadow", "ab"] = Field(
        "off", description="What the version with the alias `challenger` does. `off`: nothing. "
        "`shadow`: it scores all rows too, but only the champion's scores are published. `ab`: its "
        "scores are published for a share of the rows."
    )  # fmt: skip
    ab_share: float = Field(
        0.1, gt=0, lt=1, description="Share of rows assigned to the challenger, by a hash of the "
        "row's key. Raising it only adds rows: those that the challenger already has stay with it."
    )  # fmt: skip
    experiment_days: int = Field(
        28, ge=2, le=60, description="Days of outcomes on which champion and challenger are "
        "compared, at most. All of them are from the same two versions."
    )  # fmt: skip
    group_models: bool = Field(
        False, description="Whether rows that lack a whole group of inputs are scored by a model "
        "trained without that group. One such model per group is then trained with the champion."
    )  # fmt: skip

    # Ensemble
    ensemble_quorum: int = Field(
        2, ge=1, description="Members that must answer. With fewer, the champion scores alone, or "
        "else the version before it, or else the baseline of the row's segment."
    )  # fmt: skip
    ensemble_required: str = Field(
        "", description="Members that must answer, separated by commas, in addition to those that "
        "the use case requires."
    )  # fmt: skip
    ensemble_min_agreement: float = Field(
        0.1, ge=-1, le=1, description="Correlation of a member's scores with those of the others "
        "below which it counts as down. Checked if there are two or more others."
    )  # fmt: skip
    ensemble_heal_days: int = Field(
        3, ge=0, le=30, description="For how many days the monitor has a degraded day of the "
        "ensemble scored again: one that members missed for a temporary reason, such as a server "
        "that was down. If it is still degraded after that, an alert fires. 0: never."
    )  # fmt: skip
    remote_batch_rows: int = Field(
        5_000, ge=1, description="Rows in one request to a model server."
    )
    remote_in_flight: int = Field(
        4, ge=1, description="Requests that one task has open at a model server at once."
    )
    remote_timeout_seconds: float = Field(
        10, gt=0, description="Seconds that a model server may take for its whole answer."
    )
    remote_give_up_seconds: float = Field(
        15, gt=0, description="Seconds after which a failing request is no longer retried."
    )
    remote_breaker_failures: int = Field(
        10, ge=1, description="Consecutive failures, over all requests of a task, after which the "
        "server counts as down."
    )  # fmt: skip
    remote_max_wait_seconds: float = Field(
        5, gt=0, description="Longest wait within a task before a request is sent again. If the "
        "server asks for a longer one, the task ends its try and frees the worker."
    )  # fmt: skip
    remote_max_retry_after_seconds: float = Field(
        600, gt=0, description="Longest wait that a model server may ask for. If it asks for a "
        "longer one, it counts as down."
    )  # fmt: skip

    # Training
    train_start: date | None = Field(
        None, description="First day of a training window, if the run names none. Empty: the first "
        "day of the use case's history. The last day is the newest day whose truth is known."
    )  # fmt: skip
    max_missing_share: float = Field(
        0.05, ge=0, lt=1, description="Share of a training window's days that may be missing, "
        "among those for which the use case expects data. The snapshot names them."
    )  # fmt: skip
    holdout_days: int = Field(
        14, ge=5, le=3650, description="Days at the end of the window that are kept for "
        "evaluation. With fewer than ten, chance differences look like inputs that have changed."
    )  # fmt: skip
    seed: int = Field(7, description="Seed for everything random in a training.")
    training_memory_mb: float = Field(
        4096, gt=0, description="Memory for the rows of one training. A training that needs more "
        "reads from disk (XGBoost) or uses a random sample (all other models)."
    )  # fmt: skip
    training_hours: float = Field(
        12, gt=0, le=8760, description="Hours after which the training of one model is stopped."
    )
    refit: bool = Field(
        True, description="Whether a challenger that passed the gate is fitted again with the "
        "holdout included, except for a tenth of its rows."
    )  # fmt: skip
    git_commit: str = Field(
        "",
        description="Commit of the code, recorded with every model. Empty: the commit that a build "
        "for MWAA or Astro recorded, or else git's current one.",
    )

    # The gate between challenger and champion. Skill is 1 - loss / loss of the baseline, a forecast
    # that knows only the labels of the training days: 0 is no better than it, 1 is perfect.
    # A challenger must beat the baseline, and the champion if there is one.
    gate_min_skill_gain: float = Field(
        0.002, description="By how much a challenger's skill must be higher than the champion's, "
        "and higher than 0."
    )  # fmt: skip
    gate_confidence: float = Field(
        0.8, ge=0, le=1, description="Share of bootstrap samples, drawn by day, that must show "
        "this gain."
    )  # fmt: skip
    gate_min_days: int = Field(
        5, ge=2, description="Minimum number of holdout days that the champion was not trained on."
    )
    gate_max_slice_skill_loss: float = Field(
        0.04, description="By how much skill it may be worse than the champion on any slice."
    )
    gate_min_slice_rows: int = Field(
        500, ge=1, description="Holdout rows below which a slice is not judged."
    )
    gate_max_calibration_error: float = Field(
        0.05, ge=0, le=1, description="Largest error of its calibration: how far probabilities are "
        "from observed rates, or the coverage of intervals from what they promise. A larger one "
        "passes only if the champion's is at least as large."
    )  # fmt: skip
    gate_max_skill: float = Field(
        0.25, gt=0, le=1, description="Skill above which a challenger is too good to be true (a "
        "leak), if there is no champion."
    )  # fmt: skip
    gate_max_skill_gain: float = Field(
        0.15,
        ge=0,
        description="Gain in skill over the champion above which it is too good to be true.",
    )
    gate_max_shift_ratio: float = Field(
        2.5, gt=0, description="Shift of a feature from training to holdout above which the inputs "
        "are not the same, as a ratio to the largest shift between earlier windows of that length."
    )  # fmt: skip
    gate_max_label_ratio: float = Field(
        5.0, gt=1, description="How many times more the labels of one period may vary than those "
        "of another: more is a changed unit. Periods are training days, holdout and the "
        "champion's training days."
    )  # fmt: skip
    gate_max_shift: float = Field(
        0.8, gt=0, le=1, description="Shift above which inputs are never the same, however large "
        "the earlier ones were. 1 is two distributions that have nothing in common."
    )  # fmt: skip
    gate_max_scoring_seconds: float = Field(
        60, gt=0, description="CPU-seconds that it may take to score a million rows."
    )
    gate_max_model_mb: float = Field(100, gt=0, description="Maximum size of its file, in MB.")
    require_approval: bool = Field(
        False, description="Whether a person must approve a promotion, by default."
    )
    approval_hours: float = Field(
        24, gt=0, le=8760, description="Hours to wait for approval. No answer means no promotion."
    )

    # Monitoring: outcomes and drift
    outcome_lookback_days: int = Field(
        14, ge=1, le=60, description="How many days back the monitor looks for late truth each "
        "morning, from the newest day whose truth may be known. For truth that is later still, "
        "backfill the monitor."
    )  # fmt: skip
    drift_window_days: int = Field(
        28,
        ge=2,
        le=3650,
        description="Number of days before a day that its features and scores are compared with.",
    )
    # Monitoring: decisions
    decay_window_days: int = Field(
        14,
        ge=2,
        le=60,
        description="Days of the champion's outcomes from which its skill is computed.",
    )
    decay_min_days: int = Field(
        7, ge=2, description="Days of outcomes below which its skill is not judged."
    )
    decay_min_skill: float = Field(
        0.08, lt=1, description="Skill (1 - loss / loss of the baseline) "
        "below which the champion has decayed."
    )  # fmt: skip
    decay_confidence: float = Field(
        0.8, ge=0, le=1, description="Share of bootstrap samples, drawn by day, that must show the "
        "decay."
    )  # fmt: skip
    decay_hysteresis: float = Field(
        0.01,
        ge=0,
        description="How far above that bound a decayed champion's skill must rise again.",
    )
    score_drift_days: int = Field(
        14, ge=1, le=3650, description="Days whose scores, taken together, are compared with those "
        "on the holdout."
    )  # fmt: skip
    score_drift_retrain: float = Field(
        1.0, gt=0, description="PSI of these scores above which the monitor asks for a retraining, "
        "whatever the outcomes are. Above half of it, the decision is *watch*."
    )  # fmt: skip
    max_model_age_days: int = Field(
        28, ge=1, description="Days since the champion's last training day after which the monitor "
        "asks for a retraining."
    )  # fmt: skip
    retraining_cooldown_days: int = Field(
        7, ge=1, le=60, description="Minimum number of days between two requests for a retraining."
    )
    retraining_min_new_days: int = Field(
        10, ge=1, description="New training days, not counting the holdout, that must have come "
        "since the champion's training before the monitor asks for a retraining."
    )  # fmt: skip
    drift_watch: float = Field(
        0.1, gt=0, description="PSI of a stable feature's day against the days before above which "
        "the decision is *watch*."
    )  # fmt: skip
    drift_page: float = Field(
        0.2, gt=0, description="PSI above which the data is at fault and a person is paged, unless "
        "the use case sets its own bound for the feature."
    )  # fmt: skip
    drift_max_null_rise: float = Field(
        0.3, gt=0, le=1, description="Rise of a feature's share of nulls over the days before "
        "above which a person is paged."
    )  # fmt: skip
    drift_max_outside: float = Field(
        0.5, gt=0, le=1, description="Share of a feature's values outside the range of "
        "the days before (a quarter wider on each side) above which a person is paged."
    )  # fmt: skip
    stage_failed_watch: float = Field(
        0.05, ge=0, le=1, description="Share of a stage's rows that failed in 24 hours above which "
        "the decision is *watch*."
    )  # fmt: skip
    stage_failed_page: float = Field(
        0.25, ge=0, le=1, description="Share of a stage's runs that failed in 24 hours above which "
        "a person is paged. Below it, any failed run makes the decision *watch*."
    )  # fmt: skip
    max_truth_delay_days: int = Field(
        3, ge=1, le=20, description="Days that truth may be late, counted from when it is due, "
        "before the decision is *watch*. After twice as many, a person is paged."
    )  # fmt: skip
    monitoring_acts: bool = Field(
        True, description="Whether the monitor acts on its decisions, by default. If not, it "
        "only reports: it notifies no one and starts no retraining."
    )  # fmt: skip
    notify_urls: SecretStr = Field(
        SecretStr(""), description="Whom to notify: Apprise URLs, separated by spaces, such as "
        "`mailto://user:password@example.com` or `slack://token/#channel`. Empty: only the log."
    )  # fmt: skip

    # Housekeeping: how long what nothing needs any more is kept (docs/housekeeping.md)
    housekeeping_dry_run: bool = Field(
        True, description="Whether `housekeeping` only reports what it would delete, by default."
    )
    keep_versions: int = Field(
        2, ge=1, le=1000, description="How many of the newest versions of a day are never deleted."
    )
    keep_replaced_days: int = Field(
        30, ge=7, le=36_500, description="Days after which a replaced version is deleted, and a "
        "replaced file of a delivered Delta table."
    )  # fmt: skip
    keep_quarantine_days: int = Field(
        90, ge=7, le=36_500, description="Days after which quarantined rows are deleted."
    )
    keep_scores_days: int = Field(
        30, ge=7, le=36_500, description="Days after which the scores of chunks are deleted. "
        "Published predictions have them, too."
    )  # fmt: skip
    keep_logs_days: int = Field(
        30, ge=7, le=36_500, description="Days after which the logs of a run are deleted."
    )
    keep_runs_days: int = Field(
        90, ge=7, le=36_500, description="Days after which an MLflow run is deleted that no "
        "registered version refers to."
    )  # fmt: skip

    # Metrics
    statsd_host: str = Field(
        "", description="Host of the StatsD server for metrics. Empty: no metrics are sent."
    )
    statsd_port: int = Field(8125, ge=1, le=65535, description="Its UDP port.")

    # Tasks
    owner: str = Field("ml-platform", description="Owner shown on every DAG and task.")
    retries: int = Field(
        7, ge=0, le=100, description="How often a task is retried when a dependency is down."
    )
    retry_base_seconds: float = Field(
        10, gt=0, le=86_400, description="Longest wait before the first retry."
    )
    retry_max_seconds: float = Field(
        600, gt=0, le=86_400, description="Longest wait before any retry."
    )

    _own: Mapping[str, str] = PrivateAttr(default_factory=dict)
    """Setting that was set for this use case alone → where."""

    @field_validator("lake_root", "mlflow_tracking_uri")
    @classmethod
    def _is_a_place(cls, value: str) -> str:
        """Refuse `s3:/bucket` and `http:host`, which would become folders with these names."""
        if re.match(r"(?!file:)[A-Za-z][\w+.-]*:(?!//[^/])(?!(?<!s3:)///.)", value):
            raise ValueError("a folder, or a URI with two slashes such as s3://bucket/lake")
        return value

    @field_validator("train_start", mode="before")
    @classmethod
    def _is_none_if_empty(cls, value: Any) -> Any:
        return value or None

    @field_validator("data_dir")
    @classmethod
    def _is_on_this_machine(cls, value: Path) -> Path:
        if re.match(r"[A-Za-z][\w+.-]*:/", str(value)):
            raise ValueError("a folder on this machine; use ML_LAKE_ROOT for a lake elsewhere")
        return value

    def where_set(self, name: str) -> str:
        """Where to change a setting so that it has an effect, for messages.

        Returns:
            Where the value in force was set for this use case: its variable, such as
            `ML_LATE_PAYMENTS__GATE_MAX_SKILL`, or `gate_max_skill in own_settings of
            late_payments`. Otherwise the installation's variable, `ML_GATE_MAX_SKILL`, which may
            not be set.
        """
        return self._own.get(name, variable(name))

    @property
    def branches(self) -> bool:
        """Whether anything but the champion may score rows in `batch_inference`."""
        return self.experiment != "off" or self.group_models

    @property
    def lake(self) -> str:
        """Root URI or folder of all lakes."""
        return self.lake_root or str(self._folder_instead_of("lake_root") / "lake")

    def lake_of(self, usecase: str) -> str:
        """Root URI or folder of a use case's lake, if these are its settings."""
        return self.own_lake_root or f"{self.lake.rstrip('/')}/{usecase}"

    @property
    def own_lake_root(self) -> str:
        """The lake's root that is set for one use case only; empty if none is."""
        return self.lake_root if "lake_root" in self._own else ""

    @property
    def registry(self) -> str:
        """Tracking and registry URI of MLflow."""
        if self.mlflow_tracking_uri:
            return self.mlflow_tracking_uri
        return f"sqlite:///{self._folder_instead_of('mlflow_tracking_uri') / 'mlflow/mlflow.db'}"

    def _folder_instead_of(self, name: str) -> Path:
        """The data folder, the default place of a setting that is empty.

        Raises:
            BadData: this is MWAA or Astro, and the data folder is not set either.
        """
        if BUILT_FROM.exists() and "data_dir" not in self.model_fields_set:
            raise BadData(
                f"{variable(name)} is not set. Each task would use the disk of its own container, "
                "which is deleted with it, so nothing was read or written. Set it: on Astro in the "
                "Deployment's environment, on MWAA in startup.sh (docs/deploy.md). To try it on "
                "one machine, set ML_DATA_DIR. Then clear this run's failed tasks."
            )
        return self.data_dir.resolve()


INSTALLATION = {
    "data_dir", "usecases", "batch_rows", "mlflow_tracking_uri", "git_commit", "statsd_host",
    "statsd_port", "owner", "retries", "retry_base_seconds", "retry_max_seconds",
}  # fmt: skip
"""Settings that all use cases share."""

PER_USECASE = [name for name in Settings.model_fields if name not in INSTALLATION]
"""Settings that may have a different value for each use case."""


def variable(name: str, usecase: str = "") -> str:
    """The environment variable that changes a setting, for all use cases or for one."""
    if usecase:
        return f"{Settings.model_config['env_prefix']}{usecase}__{name}".upper()
    alias = Settings.model_fields[name].validation_alias
    return str(alias or f"{Settings.model_config['env_prefix']}{name.upper()}")


@lru_cache
def settings(usecase: str = "", own: tuple[tuple[str, Any], ...] = ()) -> Settings:
    """The settings of this installation, or of one use case, read once per process.

    For a use case, a value comes from the first of these that has one: the variable
    `ML_<USE CASE>__<SETTING>`, the use case's folder, the variable `ML_<SETTING>`, the default.

    Args:
        usecase: name of the use case; empty for the installation.
        own: names and values of the settings that its folder changes.

    Raises:
        BadData: with a line for each wrong value and each misspelt name.
    """
    if usecase:
        settings()  # a wrong setting of the installation affects every use case
    wrong = list(_misspelt(usecase))
    given: dict[str, Any] = {}
    written: dict[str, str] = {}
    for name, value in own:
        if name in PER_USECASE:
            given[name], written[name] = value, f"{name} in own_settings of {usecase}"
        else:
            wrong.append(f"own_settings of {usecase} has {name!r}, {_no_setting(name)}")
    there = {name.upper(): value for name, value in os.environ.items()}
    for name in PER_USECASE if usecase else ():
        if (value := there.get(variable(name, usecase))) is not None:
            given[name], written[name] = value, variable(name, usecase)
    if usecase and not given and not wrong:
        return settings()
    try:
        found = Settings(**given)
    except ValidationError as error:
        wrong += [
            _explained(str(one["loc"][0]), one["input"], one["msg"], written)
            for one in error.errors()
        ]
    if wrong:
        raise BadData("\n".join(wrong)) from None
    found._own = written
    return found


def _no_setting(name: str) -> str:
    if name in Settings.model_fields:
        return "which is the same for all use cases"
    return "which is not a setting"


def _misspelt(usecase: str) -> Iterator[str]:
    """A line for each variable whose name is nearly, but not quite, a setting's.

    Its value is not shown, because it may be a secret. Other variables that begin with ML_ may
    belong to other programs.
    """
    prefix = str(Settings.model_config["env_prefix"])
    own = f"{prefix}{usecase.upper()}__"
    if usecase:
        known, start = {variable(name, usecase) for name in PER_USECASE}, own
    else:
        known, start = {variable(name) for name in Settings.model_fields}, prefix
    unknown = [
        name
        for name in os.environ
        if name.upper().startswith(start)
        and name.upper() not in known
        and (usecase or "__" not in name)
    ]
    meant = {name.removeprefix(start): name for name in known}
    for name in sorted(unknown):
        setting = name.upper().removeprefix(start)
        if usecase and setting.lower() in INSTALLATION:
            yield f"{name} names {setting.lower()!r}, {_no_setting(setting.lower())}"
        elif near := _nearest(setting, meant):
            yield f"{name} is not a setting: did you mean {meant[near]}?"
        elif usecase:
            yield f"{name} names {setting.lower()!r}, {_no_setting(setting.lower())}"


def _nearest(name: str, known: Iterable[str]) -> str | None:
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, known, 1, 0.75)), None)


def owned_variables() -> Iterator[tuple[str, str]]:
    """Environment variables that set one use case's settings, each with that use case's name.

    Other variables of this form may belong to other programs.
    """
    known = [name.upper() for name in Settings.model_fields]
    prefix = str(Settings.model_config["env_prefix"])
    for name in os.environ:
        owner, parted, setting = name.upper().removeprefix(prefix).partition("__")
        if name.upper().startswith(prefix) and parted and _nearest(setting, known):
            yield name, owner


def _explained(name: str, value: Any, found: str, written: Mapping[str, str]) -> str:
    if name not in Settings.model_fields:  # a setting with an alias
        name = next(each for each in Settings.model_fields if variable(each) == name)
    allowed = found.removeprefix("Value error, ") if found.startswith("Value error") else ""
    place = written.get(name, variable(name))
    return f"{place}={shown(value)} is wrong: it must be {allowed or _allowed(name)}"


def _allowed(name: str) -> str:
    """The values that a setting may have, in words."""
    kind = type_of(name)
    kinds = {
        bool: "true or false",
        date: "a date such as 2026-01-31",
        float: "a number",
        int: "a whole number",
    }
    words = kinds.get(kind) or f"one of {', '.join(get_args(kind))}"
    return f"{words} {' and '.join(bounds(name))}".strip()


def type_of(name: str) -> Any:
    """The type of a setting's value; `date` for an optional date."""
    kind: Any = Settings.model_fields[name].annotation
    return date if kind == date | None else kind


def bounds(name: str) -> list[str]:
    """The bounds of a number, such as `≥ 1`."""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return [
        f"{sign} {getattr(bound, attribute)}"
        for bound in Settings.model_fields[name].metadata
        for attribute, sign in signs.items()
        if hasattr(bound, attribute)
    ]


def shown(value: Any) -> str:
    """A value for printing: without the user and password of a URI."""
    return re.sub(r"(?<=[/:])[^/\s@]*:[^/\s@]*@", "***@", str(value))
