"""The rules of our alerts, and the metrics of the table that they query."""

import re
from pathlib import Path

import yaml

from include import metrics

REPO = Path(__file__).resolve().parents[1]
RULES = yaml.safe_load((REPO / "prometheus/rules/alerts.yml").read_text())
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}


def metric_of(name: str) -> metrics.Metric | None:
    """A metric of the table by its name in Prometheus, where a timer is three series."""
    timer = metrics.METRICS.get(re.sub(r"_(bucket|sum|count)$", "", name))
    if timer is not None and timer.kind == "timer":
        return timer if timer.name != name else None
    return metrics.METRICS.get(name)
