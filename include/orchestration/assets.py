"""The assets that join the DAGs, partitioned by date: an event carries the day it is for."""

from airflow.sdk import Asset

VALIDATED = Asset("validated")
"""A day whose inputs may be scored."""

ACTUALS = Asset("actuals")
"""A day whose truth is known."""

PREDICTIONS = Asset("predictions")
"""A day that is scored."""

ENSEMBLE_PREDICTIONS = Asset("ensemble_predictions")
"""A day that is scored by the ensemble, or by what stands in for it."""

DEGRADED = Asset("ensemble_degraded")
"""A published day that members of the ensemble have missed, and that is to be scored again."""

CHAMPION = Asset("champion")
"""The model that scores has changed."""
