"""The assets that connect the DAGs of a use case, partitioned by date: an event has a day."""

from dataclasses import dataclass

from airflow.sdk import Asset

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
    """

    validated: Asset
    actuals: Asset
    predictions: Asset
    ensemble_predictions: Asset
    degraded: Asset
    champion: Asset


def assets_of(case: UseCase) -> Assets:
    """The assets of a use case, whose names begin with the use case's."""
    return Assets(*(Asset(f"{case.name}.{name}") for name in Assets.__annotations__))
