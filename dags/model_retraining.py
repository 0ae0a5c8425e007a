"""Landed history → a trained, evaluated and registered champion.

The window's last days are the holdout: later than any day the model is trained on.
"""

from typing import Any

from airflow.sdk import Param, dag, task

from include.assets import CHAMPION
from include.settings import settings
from include.task_defaults import TASK_DEFAULTS


@dag(
    schedule=None,
    max_active_runs=1,
    default_args=TASK_DEFAULTS,
    doc_md=__doc__,
    tags=["training"],
    params={
        "reason": Param("first champion", type="string", description="Why it is trained now."),
        "start": Param(
            str(settings().train_start), type="string", format="date", description="First day."
        ),
        "end": Param(
            str(settings().train_end), type="string", format="date", description="Last day."
        ),
        "holdout_days": Param(
            settings().holdout_days, type="integer", minimum=1,
            description="Days at the end of the window that are kept for the evaluation.",
        ),
    },
)  # fmt: skip
def model_retraining() -> None:
    """Build the training set, train, evaluate on the holdout, register."""

    @task
    def build_training_set(*, params: Any = None) -> str:
        """Join the features of every day with its truth. Returns a reference to the table."""
        from include import lake, training

        return training.build_training_set(
            lake.default_lake(), params["start"], params["end"], params["holdout_days"]
        )

    @task
    def train(training_set: str, *, params: Any = None) -> str:
        """Fit the model on the days before the holdout. Returns the MLflow run."""
        from include import lake, training

        return training.train(lake.default_lake(), training_set, params["reason"])

    @task(multiple_outputs=False)
    def evaluate(training_set: str, run: str) -> dict[str, float]:
        """Judge the model on the holdout. Returns the metrics."""
        from include import lake, training

        return training.evaluate(lake.default_lake(), training_set, run)

    @task(outlets=[CHAMPION], multiple_outputs=False)
    def register_champion(run: str, *, outlet_events: Any = None) -> dict[str, str]:
        """Register the model and make it champion. Returns the version."""
        from dataclasses import asdict

        from include import training

        model = asdict(training.register_champion(run))
        outlet_events[CHAMPION].extra = model
        return model

    training_set = build_training_set()
    run = train(training_set)
    evaluate(training_set, run) >> register_champion(run)


model_retraining()
