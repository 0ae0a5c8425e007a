"""Every knob of the project, once: typed, with its default and unit, read from the environment.

A setting `chunk_rows` is changed by the environment variable `ML_CHUNK_ROWS`, and for one use case
by `ML_<USE CASE>__CHUNK_ROWS`; `make settings` prints them all, with what they are now. `make
reference` lists them in `docs/settings.md`, where a comment above a setting becomes the heading of
its group.
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
"""Where a build for MWAA or Astro notes the commit of the code: there is no git there."""


class Settings(BaseSettings):
    """All settings. Instances are frozen; `settings()` gives the installation's.

    Those of a use case are its `case.settings`.
    """

    model_config = SettingsConfigDict(
        env_prefix="ML_", frozen=True, populate_by_name=True, allow_inf_nan=False
    )

    # Where things are
    data_dir: Path = Field(
        PROJECT / "data", description="Folder of everything made locally. "
        "On MWAA and Astro there is none unless it is set, as tasks share no disk there."
    )  # fmt: skip
    usecases: str = Field(
        "", description="Use cases that are enabled, with commas between: names of folders in "
        "`include/usecases`, or paths of others from the project's folder. Empty: all in there."
    )  # fmt: skip
    lake_root: str = Field(
        "", description="Root of all tables: a folder or a URI such as `s3://conn@bucket/lake`. "
        "Each use case has a folder of its name there. Given for one use case, it is that folder. "
        "Empty: `lake` in the data folder."
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
        0.01, ge=0, le=1, description="Share of rows with a repeated key above which it fails."
    )
    volume_window_days: int = Field(
        28,
        ge=1,
        le=3650,
        description="Days before the partition whose row counts it is compared with.",
    )
    volume_min_days: int = Field(
        3, ge=1, description="Published days in that window below which volume is not judged."
    )
    min_volume_ratio: float = Field(
        0.5, ge=0, description="Least rows, as a ratio to the median of the recent days."
    )
    max_volume_ratio: float = Field(
        1.6, gt=0, description="Most rows, as a ratio to the median of the recent days."
    )
    max_text_bytes: int = Field(
        10_000, ge=1, description="Longest text in a landed file, in bytes, where the input has no "
        "bound of its own for the column (`max_text_bytes`). A file with a longer one fails."
    )  # fmt: skip
    max_input_mb: float = Field(
        4096, gt=0, description="Memory that all rows of a landed file may take, decoded, as "
        "features are built from whole days. A larger file fails."
    )  # fmt: skip

    # Scoring
    chunk_rows: int = Field(
        250_000, ge=1, description="Rows scored by one mapped task; rounded up to row groups."
    )
    batch_rows: int = Field(
        65_536, ge=1, description="Rows held in memory at once, and rows of a Parquet row group."
    )
    max_score_psi: float = Field(
        4.0, gt=0, description="Population stability index of a day's scores against the "
        "champion's reference above which they are not published. Rows of one day are alike, and "
        "honest days may reach 3.4: this finds scores that are constant or turned round, no less."
    )  # fmt: skip
    max_rejected_share: float = Field(
        0.05, ge=0, le=1, description="Share of rows without a score above which a day fails."
    )

    # Branching of batch_inference: which model scores which rows
    experiment: Literal["off", "shadow", "ab"] = Field(
        "off", description="What the version with the alias `challenger` does: nothing (off); it "
        "scores all rows, beside the champion, whose scores are published (shadow); its scores are "
        "published for a share of the rows (ab)."
    )  # fmt: skip
    ab_share: float = Field(
        0.1, gt=0, lt=1, description="Share of rows that is the challenger's, by a hash of the "
        "row's key. Raising it only adds rows: those that the challenger already has stay with it."
    )  # fmt: skip
    experiment_days: int = Field(
        28, ge=2, le=60, description="Days of outcomes on which champion and challenger are "
        "compared, all of them of the same two versions."
    )  # fmt: skip
    group_models: bool = Field(
        False, description="Whether rows that lack a whole group of inputs are scored by a model "
        "made for that. Such models, one for each group, are then trained with the champion."
    )  # fmt: skip

    # Ensemble
    ensemble_quorum: int = Field(
        2, ge=1, description="Members that must have answered; with fewer the champion scores "
        "alone, or the version before it, or else each segment's base rate."
    )  # fmt: skip
    ensemble_required: str = Field(
        "", description="Names, with commas between, of members without which there is no "
        "ensemble, beside those that the use case requires."
    )  # fmt: skip
    ensemble_min_agreement: float = Field(
        0.1, ge=-1, le=1, description="Correlation of a member's scores with those of the others, "
        "if there are two or more, below which it counts as down."
    )  # fmt: skip
    ensemble_heal_days: int = Field(
        3, ge=0, le=30, description="Days on which the monitor has a degraded day of the ensemble "
        "scored again: a day that members missed for a reason that may pass, such as a server that "
        "was down. If it is still degraded after that, an alert says so. 0: never."
    )  # fmt: skip
    remote_batch_rows: int = Field(
        5_000, ge=1, description="Rows sent to a model server in one request."
    )
    remote_in_flight: int = Field(
        4, ge=1, description="Requests of one task that a model server has at once."
    )
    remote_timeout_seconds: float = Field(
        10, gt=0, description="Seconds in which a model server has to answer a request, all of it."
    )
    remote_give_up_seconds: float = Field(
        15, gt=0, description="Seconds after which a request that keeps failing is not sent again."
    )
    remote_breaker_failures: int = Field(
        10, ge=1, description="Failures in a row, of all requests of a task, after which the "
        "server counts as down."
    )  # fmt: skip
    remote_max_wait_seconds: float = Field(
        5, gt=0, description="Longest wait within a task before a request is sent again. Who is "
        "told to wait longer ends its try, and leaves the worker to others."
    )  # fmt: skip
    remote_max_retry_after_seconds: float = Field(
        600, gt=0, description="Longest wait that a model server may ask for; with a longer one it "
        "counts as down."
    )  # fmt: skip

    # Training
    train_start: date | None = Field(
        None, description="First day of a training window, if the run names none. Its last day is "
        "then the newest whose truth is known. Empty: the first day of the use case's history."
    )  # fmt: skip
    max_missing_share: float = Field(
        0.05, ge=0, lt=1, description="Share of a training window's days that may be missing, of "
        "those for which the use case expects data; they are named in the snapshot."
    )  # fmt: skip
    holdout_days: int = Field(
        14, ge=5, le=3650, description="Days at the window's end kept for evaluation. With fewer "
        "than ten, days that only differ by chance look like inputs that have changed."
    )  # fmt: skip
    seed: int = Field(7, description="Seed of everything random in a training.")
    training_memory_mb: float = Field(
        4096, gt=0, description="Memory for the rows of one training. What needs more is trained "
        "from disk (XGBoost) or on a random sample (models that cannot)."
    )  # fmt: skip
    training_hours: float = Field(
        12, gt=0, le=8760, description="Hours after which the training of one model is given up."
    )
    refit: bool = Field(
        True, description="Whether a challenger that passed is fitted again, on the holdout too, "
        "but for a tenth of its rows."
    )  # fmt: skip
    git_commit: str = Field(
        "",
        description="Commit of the code, kept with every model. Empty: what a build for MWAA or "
        "Astro has noted, or else git is asked.",
    )

    # The gate between challenger and champion. Without a champion, a challenger is judged against a
    # forecast that knows nothing but the base rate of the training days.
    gate_min_gain: float = Field(
        0.001, description="Log-loss that a challenger must gain on the champion."
    )
    gate_confidence: float = Field(
        0.8, ge=0, le=1, description="Share of bootstrap samples, drawn by day, that must show it."
    )
    gate_min_days: int = Field(
        5, ge=2, description="Days of the holdout that the champion must not have been trained on."
    )
    gate_max_slice_loss: float = Field(
        0.02, description="Log-loss that it may lose to the champion on any slice of rows."
    )
    gate_min_slice_rows: int = Field(
        500, ge=1, description="Rows of the holdout below which a slice is not judged."
    )
    gate_max_calibration_error: float = Field(
        0.05, ge=0, le=1, description="Mean distance of its probabilities from the observed rates "
        "that passes; a greater one passes only if the champion's is no less."
    )  # fmt: skip
    gate_max_auc: float = Field(
        0.8, ge=0.5, le=1, description="AUC above which a challenger is too good to be true (a "
        "leak), where there is no champion."
    )  # fmt: skip
    gate_max_auc_gain: float = Field(
        0.1, ge=0, description="Gain of AUC on the champion above which it is too good to be true."
    )
    gate_max_shift_ratio: float = Field(
        2.5, gt=0, description="Shift of a feature from training to holdout, as a ratio to the "
        "largest between earlier windows of that length, above which the inputs are not the same."
    )  # fmt: skip
    gate_max_scoring_seconds: float = Field(
        60, gt=0, description="CPU-seconds that scoring a million rows may take."
    )
    gate_max_model_mb: float = Field(100, gt=0, description="Size of the model's file, in MB.")
    require_approval: bool = Field(
        False, description="Whether a person has to approve a promotion, if the run does not say."
    )
    approval_hours: float = Field(
        24, gt=0, le=8760, description="Hours to wait for that; no answer means no promotion."
    )

    # Monitoring: what is found
    outcome_lookback_days: int = Field(
        14, ge=1, le=60, description="Days back that are looked at again for truth that came late. "
        "For what comes later still, backfill the monitor."
    )  # fmt: skip
    drift_window_days: int = Field(
        28,
        ge=2,
        le=3650,
        description="Days before a day that its features and scores are compared with.",
    )
    # Monitoring: what is decided
    decay_window_days: int = Field(
        14,
        ge=2,
        le=60,
        description="Days of outcomes, all of them the champion's, that its skill is of.",
    )
    decay_min_days: int = Field(
        7, ge=2, description="Days of outcomes below which nothing is said about its skill."
    )
    decay_min_skill: float = Field(
        0.08, lt=1, description="Skill against the base rate (1 - log-loss / its log-loss) below "
        "which the champion has decayed."
    )  # fmt: skip
    decay_confidence: float = Field(
        0.8, ge=0, le=1, description="Share of bootstrap samples, drawn by day, that must show it."
    )
    decay_hysteresis: float = Field(
        0.01, ge=0, description="Skill above that bound which a decayed champion has to regain."
    )
    score_drift_days: int = Field(
        14, ge=1, le=3650, description="Days whose scores, together, are compared with those on "
        "the holdout."
    )  # fmt: skip
    score_drift_retrain: float = Field(
        1.0, gt=0, description="Population stability index of these above which the champion is "
        "trained anew, whatever is known of its outcomes. Half of it is watched."
    )  # fmt: skip
    max_model_age_days: int = Field(
        28, ge=1, description="Days since the last one that the champion was trained on, after "
        "which it is trained anew."
    )  # fmt: skip
    retraining_cooldown_days: int = Field(
        7, ge=1, le=60, description="Days after a retraining was asked for in which none is again."
    )
    retraining_min_new_days: int = Field(
        10, ge=1, description="Days that a challenger must have been trained on and the champion "
        "not: before that many have passed, beside those of the holdout, none is asked for."
    )  # fmt: skip
    drift_watch: float = Field(
        0.1, gt=0, description="Population stability index of a stable feature in a day, against "
        "the days before, above which it is watched."
    )  # fmt: skip
    drift_page: float = Field(
        0.2, gt=0, description="And above which a person is called, as the data are at fault, "
        "unless the use case has a bound of its own for the feature."
    )  # fmt: skip
    drift_max_null_rise: float = Field(
        0.3, gt=0, le=1, description="Rise of a feature's share of nulls, against the days before, "
        "above which a person is called."
    )  # fmt: skip
    drift_max_outside: float = Field(
        0.5, gt=0, le=1, description="Share of a feature's values outside the range of "
        "the days before (a quarter wider on each side) above which a person is called."
    )  # fmt: skip
    stage_failed_watch: float = Field(
        0.05, ge=0, le=1, description="Share of a stage's rows that failed in 24 hours above which "
        "it is watched."
    )  # fmt: skip
    stage_failed_page: float = Field(
        0.25, ge=0, le=1, description="Share of a stage's runs that failed in 24 hours above which "
        "a person is called; below it, it is watched."
    )  # fmt: skip
    max_truth_delay_days: int = Field(
        3, ge=1, le=20, description="Days that truth may be late before that is watched; after "
        "twice as many a person is called."
    )  # fmt: skip
    monitoring_acts: bool = Field(
        True, description="Whether what was decided is done, if the run does not say: without it "
        "nobody is called and nothing is trained, but the decisions are there to be judged."
    )  # fmt: skip
    notify_urls: SecretStr = Field(
        SecretStr(""), description="Who is called: Apprise URLs with spaces between, such as "
        "`mailto://user:password@example.com` or `slack://token/#channel`. Empty: only the log."
    )  # fmt: skip

    # Metrics
    statsd_host: str = Field(
        "", description="Host of the StatsD server that metrics are sent to. Empty: none are."
    )
    statsd_port: int = Field(8125, ge=1, le=65535, description="Its UDP port.")

    # Tasks
    owner: str = Field("ml-platform", description="Owner shown on every DAG and task.")
    retries: int = Field(
        7, ge=0, le=100, description="Times a task whose dependency is down is retried."
    )
    retry_base_seconds: float = Field(
        10, gt=0, le=86_400, description="Longest wait before the first retry."
    )
    retry_max_seconds: float = Field(
        600, gt=0, le=86_400, description="Longest wait before any retry."
    )

    _own: frozenset[str] = PrivateAttr(frozenset())
    """Settings that were given for the use case that these are of."""

    @field_validator("lake_root", "mlflow_tracking_uri")
    @classmethod
    def _is_a_place(cls, value: str) -> str:
        """Refuse `s3:/bucket` and `http:host`, which would become folders of those names."""
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
            raise ValueError("a folder on this machine; a lake elsewhere is named by ML_LAKE_ROOT")
        return value

    @property
    def branches(self) -> bool:
        """Whether anything but the champion may score rows in `batch_inference`."""
        return self.experiment != "off" or self.group_models

    @property
    def lake(self) -> str:
        """Root URI or folder of all lakes."""
        return self.lake_root or str(self._folder_instead_of("lake_root") / "lake")

    def lake_of(self, usecase: str) -> str:
        """Root URI or folder of the lake of one use case, whose settings these are."""
        if "lake_root" in self._own:
            return self.lake_root
        return f"{self.lake.rstrip('/')}/{usecase}"

    @property
    def registry(self) -> str:
        """Tracking and registry URI of MLflow."""
        if self.mlflow_tracking_uri:
            return self.mlflow_tracking_uri
        return f"sqlite:///{self._folder_instead_of('mlflow_tracking_uri') / 'mlflow/mlflow.db'}"

    def _folder_instead_of(self, name: str) -> Path:
        """The data folder, where a setting is empty.

        Raises:
            BadData: this is MWAA or Astro, and nobody has chosen that folder.
        """
        if BUILT_FROM.exists() and "data_dir" not in self.model_fields_set:
            raise BadData(
                f"{variable(name)} is not set. Every task would have a place of its own, on a disk "
                "that goes with its container, so nothing was read or written. Set it: on Astro in "
                "the Deployment's environment, on MWAA in startup.sh (docs/deploy.md). To try it "
                "on one machine, set ML_DATA_DIR. Then clear this run's failed tasks."
            )
        return self.data_dir.resolve()


INSTALLATION = {
    "data_dir", "usecases", "batch_rows", "mlflow_tracking_uri", "git_commit", "statsd_host",
    "statsd_port", "owner", "retries", "retry_base_seconds", "retry_max_seconds",
}  # fmt: skip
"""Settings of what all use cases share."""

PER_USECASE = [name for name in Settings.model_fields if name not in INSTALLATION]
"""Settings that a use case may have its own value of."""


def variable(name: str, usecase: str = "") -> str:
    """The environment variable that changes a setting, for all use cases or for one."""
    if usecase:
        return f"{Settings.model_config['env_prefix']}{usecase}__{name}".upper()
    alias = Settings.model_fields[name].validation_alias
    return str(alias or f"{Settings.model_config['env_prefix']}{name.upper()}")


@lru_cache
def settings(usecase: str = "", own: tuple[tuple[str, Any], ...] = ()) -> Settings:
    """The settings of this installation, or as they are for one use case, read once a process.

    For a use case a value comes from the first of these that has one: the variable
    `ML_<USE CASE>__<SETTING>`, the use case's folder, the variable `ML_<SETTING>`, the default.

    Args:
        usecase: name of the use case; empty for the installation.
        own: names and values of the settings that its folder changes.

    Raises:
        BadData: with a line for each value that is wrong, or whose name is nearly a setting's.
    """
    if usecase:
        settings()  # what is wrong there is wrong for all
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
    try:
        found = Settings(**given)
    except ValidationError as error:
        wrong += [
            _explained(str(one["loc"][0]), one["input"], one["msg"], written)
            for one in error.errors()
        ]
    if wrong:
        raise BadData("\n".join(wrong)) from None
    found._own = frozenset(given)
    return found


def _no_setting(name: str) -> str:
    if name in Settings.model_fields:
        return "which is the same for all use cases"
    return "which is not a setting"


def _misspelt(usecase: str) -> Iterator[str]:
    """A line for each variable that is none of ours and looks like one of ours.

    Its value is not shown, as it may be a secret. Others that begin with ML_ may be anybody's.
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
    """The variables of the environment that are settings of one use case, and its name in them.

    Others of that form may be anybody's.
    """
    known = [name.upper() for name in Settings.model_fields]
    prefix = str(Settings.model_config["env_prefix"])
    for name in os.environ:
        owner, parted, setting = name.upper().removeprefix(prefix).partition("__")
        if name.upper().startswith(prefix) and parted and _nearest(setting, known):
            yield name, owner


def _explained(name: str, value: Any, found: str, written: Mapping[str, str]) -> str:
    if name not in Settings.model_fields:  # one with a name of its own
        name = next(each for each in Settings.model_fields if variable(each) == name)
    allowed = found.removeprefix("Value error, ") if found.startswith("Value error") else ""
    place = written.get(name, variable(name))
    return f"{place}={shown(value)} is wrong: it must be {allowed or _allowed(name)}"


def _allowed(name: str) -> str:
    """What a setting may be, in words."""
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
    """The type of a setting's value, if it has one."""
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
    """A value as it may be printed: without the user and password of a URI."""
    return re.sub(r"(?<=[/:])[^/\s@]*:[^/\s@]*@", "***@", str(value))
