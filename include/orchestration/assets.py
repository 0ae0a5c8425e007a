"""The assets that connect the DAGs of a use case, partitioned by date: an event has a day."""

from dataclasses import dataclass

from airflow.sdk import Asset

from include import datasets
from include.errors import BadData
from include.usecase import UseCase


@dataclass(frozen=True)
class Assets:
    """The assets of one use case.

    Attributes:
        validated: a day's inputs may be scored.
        actuals: a day's truth is known.
        predictions: a day is scored.
        ensemble_predictions: a day is scored by the ensemble or by a fallback.
        degraded: a published day that members of the ensemble missed is to be scored again.
        champion: another version is champion.
        arrived: a day's files are there before its schedule.
    """

    validated: Asset
    actuals: Asset
    predictions: Asset
    ensemble_predictions: Asset
    degraded: Asset
    champion: Asset
    arrived: Asset


def assets_of(case: UseCase) -> Assets:
    """The assets of a use case, whose names begin with the use case's.

    The URI of a table is that of its folder. MLflow has no scheme in Airflow, so the champion's
    begins with `x-`.
    """
    return Assets(
        validated=_table(case, "validated"),
        actuals=_table(case, "actuals"),
        predictions=_table(case, "predictions"),
        ensemble_predictions=_table(case, "ensemble_predictions"),
        degraded=Asset(f"{case.name}.degraded"),
        champion=Asset(f"{case.name}.champion", f"x-mlflow:///{case.name}@champion"),
        arrived=Asset(f"{case.name}.arrived"),
    )


def _table(case: UseCase, table: str) -> Asset:
    name = f"{case.name}.{table}"
    try:
        return Asset(name, datasets.uri(f"{case.settings.lake_of(case.name)}/{table}"))
    except BadData:  # no lake is set on MWAA or Astro: tasks fail with this message, DAGs stand
        return Asset(name)
