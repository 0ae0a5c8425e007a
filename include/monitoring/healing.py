"""Degraded days of the ensemble, which are scored again once a day."""

from include import metrics
from include.inference.ensemble import TABLE
from include.lake.tables import Manifest
from include.metrics import Sample
from include.partitions import days_before
from include.usecase import UseCase

REMEMBERED_DAYS = 7
"""For how many days an unhealed day is counted."""


def days_to_heal(case: UseCase, key: str) -> list[str]:
    """The degraded days to score again; also sends the metric of unhealed days.

    A day is degraded if a member missed it for a temporary reason. It is scored again on each of
    `ensemble_heal_days` days; if it is still degraded then, it counts as unhealed.

    Args:
        key: the newest day to check.

    Returns:
        Partition keys, oldest first.
    """
    days = case.settings.ensemble_heal_days
    oldest = days_before(key, days + REMEMBERED_DAYS - 1)
    looked_at = [days_before(oldest, -n) for n in range(days + REMEMBERED_DAYS)]
    published = case.lake.manifests(TABLE, looked_at)
    degraded = [day for day in looked_at if day in published and _is_degraded(published[day])]
    first = days_before(key, days - 1)
    unhealed = sum(day < first for day in degraded)
    metrics.send_of_day(case.lake, TABLE, key, [Sample("ensemble_unhealed_days", unhealed, {})])
    return [day for day in degraded if day >= first]


def _is_degraded(published: Manifest) -> bool:
    return bool(published.metadata.get("awaited"))
