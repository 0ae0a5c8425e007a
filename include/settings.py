"""Every knob of the project, once: typed, with its default and unit, read from the environment.

A setting `chunk_rows` is changed by the environment variable `ML_CHUNK_ROWS`; `make settings`
prints them all, with what they are now.
"""

from datetime import date
from functools import lru_cache
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from include.usecase import FIRST_WINDOW

PROJECT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """All settings. Instances are frozen; use `settings()` for the one of this process."""

    model_config = SettingsConfigDict(env_prefix="ML_", frozen=True, populate_by_name=True)

    # Where things are
    data_dir: Path = Field(PROJECT / "data", description="Folder of everything made locally.")
    lake_root: str = Field(
        "", description="Root of all tables: a folder or a URI such as s3://conn@bucket/lake. "
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
        28, ge=1, description="Days before the partition whose row counts it is compared with."
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

    # Scoring
    chunk_rows: int = Field(
        250_000, ge=1, description="Rows scored by one mapped task; rounded up to row groups."
    )
    batch_rows: int = Field(
        65_536, ge=1, description="Rows held in memory at once, and rows of a Parquet row group."
    )
    max_score_psi: float = Field(
        4.0, gt=0, description="Population stability index of a day's scores against the "
        "champion's reference above which they are not published. Whole days share their weather "
        "and reach 3.4 honestly: this finds scores that are constant or turned round, no less."
    )  # fmt: skip
    max_rejected_share: float = Field(
        0.05, ge=0, le=1, description="Share of rows without a score above which a day fails."
    )

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
    train_start: date = Field(
        date.fromisoformat(FIRST_WINDOW[0]), description="First day of a training window, if the "
        "run names none. Its last day is then the newest whose truth is known."
    )  # fmt: skip
    holdout_days: int = Field(
        14, ge=5, description="Days at the window's end kept for evaluation. With fewer than ten, "
        "days as different as the weather makes them look like inputs that have changed."
    )  # fmt: skip
    seed: int = Field(7, description="Seed of everything random in a training.")
    training_memory_mb: float = Field(
        4096, gt=0, description="Memory for the rows of one training. What needs more is trained "
        "from disk (XGBoost) or on a random sample (models that cannot)."
    )  # fmt: skip
    training_hours: float = Field(
        12, gt=0, description="Hours after which the training of one model is given up."
    )
    refit: bool = Field(
        True, description="Whether a challenger that passed is fitted again, holdout included."
    )
    git_commit: str = Field(
        "", description="Commit of the code, kept with every model. Empty: git is asked."
    )

    # The gate between challenger and champion. Without a champion it is judged against a forecast
    # that knows nothing but the base rate of the training days.
    gate_min_gain: float = Field(
        0.001, description="Log-loss that a challenger must gain on the champion."
    )
    gate_confidence: float = Field(
        0.9, ge=0, le=1, description="Share of bootstrap samples, drawn by day, that must show it."
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
        24, gt=0, description="Hours to wait for that; no answer means no promotion."
    )

    # Tasks
    owner: str = Field("ml-platform", description="Owner shown on every DAG and task.")
    retries: int = Field(7, ge=0, description="Times a task whose dependency is down is retried.")
    retry_base_seconds: float = Field(10, gt=0, description="Longest wait before the first retry.")
    retry_max_seconds: float = Field(600, gt=0, description="Longest wait before any retry.")

    @property
    def lake(self) -> str:
        """Root URI or folder of the lake."""
        return self.lake_root or str(self.data_dir.resolve() / "lake")

    @property
    def registry(self) -> str:
        """Tracking and registry URI of MLflow."""
        store = self.data_dir.resolve() / "mlflow" / "mlflow.db"
        return self.mlflow_tracking_uri or f"sqlite:///{store}"


@lru_cache
def settings() -> Settings:
    """The settings of this process, read from its environment once."""
    return Settings()


def main() -> None:
    """Print every setting: its variable, its value now, and what it means."""
    for name, field in Settings.model_fields.items():
        variable = field.validation_alias or f"{Settings.model_config['env_prefix']}{name.upper()}"
        print(f"{variable}={getattr(settings(), name)}\n    {field.description}")


if __name__ == "__main__":
    main()
