"""The assets that join the DAGs of a use case, partitioned by date: an event carries its day."""

from dataclasses import dataclass

from airflow.sdk import Asset

from include.usecase import UseCase


@dataclass(frozen=True)
class Assets:
    """The assets of one use case.

    Attributes:
        validated: a day whose inputs may be scored.
        actuals: a day whose truth is known.
        predictions: a day that is scored.
        ensemble_predictions: a day that is scored by the ensemble, or by what stands in for it.
        degraded: a published day that members of the ensemble missed, to be scored again.
        champion: the model that scores has changed.
    """

    validated: Asset
    actuals: Asset
    predictions: Asset
    ensemble_predictions: Asset
    degraded: Asset
    champion: Asset


def assets_of(case: UseCase) -> Assets:
    """The assets of a use case: those of two never meet, as their names begin with its own."""
    return Assets(*(Asset(f"{case.name}.{name}") for name in Assets.__annotations__))
