"""The only way to StatsD: every metric that the project's own code sends, in one table.

A metric is sent as `ml.<name>.<use case>.<value of each label>`, and
`prometheus/statsd_mapping.yml` turns it into `ml_<name>{usecase="…", label="value", …}`. Metrics
are sent from Airflow's tasks, so sending never fails a task and never blocks it: packets are UDP,
an unknown name is logged and dropped (in tests it is an error), and a host that is not found
within a second is not looked up again.

A gauge about a day is sent only if no later day is published (`send_of_day`), so that a backfill
of last month does not look like today. A counter with a label for the kind is sent for all kinds,
with 0 for the others (`count_one`), because Prometheus cannot see the first rise of a new series.
"""

import logging
import re
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from threading import Thread
from typing import TYPE_CHECKING, Literal, Protocol

from include.settings import settings

if TYPE_CHECKING:
    from statsd import StatsClient


PREFIX = "ml"
USECASE = "usecase"
"""The label that comes first on all metrics."""

FIND_SECONDS = 1.0
PACKET_BYTES = 1400
"""Fits into one Ethernet frame."""

LONGEST_VALUE = 100
REFUSE_UNKNOWN = False
"""Whether unknown names and labels are an error, as in tests."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Metric:
    """A metric of the table.

    Attributes:
        name: the name in Prometheus without the prefix; it ends with the unit or with `total`.
        kind: a counter goes up, a gauge is a current value, a timer becomes a histogram.
        labels: in the order in which they are sent, after the use case.
    """

    name: str
    kind: Literal["counter", "gauge", "timer"]
    unit: str
    labels: tuple[str, ...]
    meaning: str


@dataclass(frozen=True)
class Sample:
    """A value of a metric: an increase of a counter, a gauge's value, seconds of a timer."""

    name: str
    value: float
    labels: dict[str, str]


MODEL, FEATURE = ("model", "slice"), ("feature", "kind", "reference")
COLUMN, STAGE = ("table", "column"), ("dag", "stage")

TABLE = (
    # Runs, tasks, stages
    Metric("run_failed_timestamp_seconds", "gauge", "seconds since 1970", ("dag",),
           "The day for which a run failed, or the time it was due if it has no partition."),
    Metric("run_succeeded_timestamp_seconds", "gauge", "seconds since 1970", ("dag",),
           "The day for which a run succeeded, or the time it was due if it has no partition."),
    Metric("task_failures_total", "counter", "tasks", ("dag", "task", "kind"),
           "Tasks that failed after their last try, by kind of failure."),
    Metric("stage_runs_total", "counter", "runs", (*STAGE, "result"),
           "Runs that passed or failed a stage."),
    Metric("stage_rows_total", "counter", "rows", (*STAGE, "result"),
           "Rows that passed a stage, or were put aside or lost there."),
    Metric("pages_total", "counter", "pages", (), "Times that monitoring paged a person."),
    # Tables
    Metric("published_rows_total", "counter", "rows", ("table",),
           "Rows published, counted in the largest part; publishing again counts again."),
    Metric("last_published_timestamp_seconds", "gauge", "seconds since 1970", ("table",),
           "When the table's newest day was first published, or passed over if it had no data."),
    Metric("newest_day_timestamp_seconds", "gauge", "seconds since 1970", ("table",),
           "The newest published day of a table."),
    Metric("deleted_bytes_total", "counter", "bytes", ("kind",),
           "Bytes that housekeeping has deleted; none in a dry run."),
    # Validation and features
    Metric("validation_rows_total", "counter", "rows", ("input", "result"),
           "Rows of an input, valid or quarantined."),
    Metric("quarantined_rows_total", "counter", "rows", ("input", "reason"),
           "Rules broken by quarantined rows; a row may break several."),
    Metric("quarantined_share", "gauge", "ratio", ("input",),
           "Share of an input's newest day that was quarantined."),
    Metric("feature_rows_total", "counter", "rows", ("result",),
           "Rows of features: usable, or rejected because a required feature is missing."),
    # Inference
    Metric("inference_seconds", "timer", "seconds", ("model",),
           "Time to score a chunk, without loading the model."),
    Metric("inference_request_seconds", "timer", "seconds", ("model",),
           "Time until a model server's answer, including repeated requests."),
    Metric("scored_rows_total", "counter", "rows", ("model",), "Rows that a model scored."),
    Metric("delivered_rows_total", "counter", "rows", ("table", "destination"),
           "Rows that were delivered to a destination."),
    Metric("delivery_failing", "gauge", "0 or 1", ("table", "destination"),
           "Whether the last delivery to a destination failed."),
    Metric("delivered_day_timestamp_seconds", "gauge", "unix seconds", ("table", "destination"),
           "Newest day of a table that a destination has."),
    Metric("output_mean", "gauge", "see the label", ("table", "unit"),
           "Mean of the first number of the newest day's predictions."),
    Metric("output_psi", "gauge", "psi", ("table",),
           "PSI of the newest day's scores against those on the champion's holdout."),
    # Branching
    Metric("path_rows_total", "counter", "rows", ("path",),
           "Rows published by each path, if there are others than the champion's."),
    Metric("state_path_available", "gauge", "0 or 1", ("path",),
           "Whether the model of an enabled path scored its rows of the newest day."),
    Metric("experiment_gain", "gauge", "unit of the loss", (),
           "The champion's loss of a row minus the challenger's, on the days they share."),
    Metric("experiment_confidence", "gauge", "ratio", (),
           "Confidence that the challenger is better, from the variation between these days."),
    # Ensemble
    Metric("ensemble_member_available", "gauge", "0 or 1", ("member",),
           "Whether a member answered for the newest day."),
    Metric("ensemble_fallback_level", "gauge", "level", (),
           "What scored the newest day: 0 ensemble, 1 champion, 2 version before it, 3 baseline."),
    Metric("ensemble_runs_total", "counter", "runs", ("fallback",),
           "Days published by the ensemble or by one of its fallbacks."),
    Metric("ensemble_unhealed_days", "gauge", "days", (),
           "Days of the last week still without a member after `ML_ENSEMBLE_HEAL_DAYS` days."),
    # Training and registry
    Metric("training_seconds", "timer", "seconds", ("candidate",), "Time to fit a candidate."),
    Metric("registry_events_total", "counter", "events", ("event",),
           "Challengers refused or registered, champions promoted or rolled_back."),
    # Monitoring: the newest figures of its history
    Metric("champion_version", "gauge", "number", (), "Version of the champion in the registry."),
    Metric("state_model_age_days", "gauge", "days", (),
           "Days since the champion's last training day."),
    Metric("outcomes_skill", "gauge", "ratio", MODEL,
           "1 - loss / loss of the baseline, on the newest day with truth."),
    Metric("outcomes_calibration", "gauge", "share", MODEL,
           "How far predictions are from being right on average, by the target's own figure."),
    Metric("outcomes_figure", "gauge", "label `unit`", (*MODEL, "figure", "unit"),
           "A figure of the use case's target on the newest day with truth (docs/targets.md)."),
    Metric("estimate_loss", "gauge", "label `unit`", ("figure", "unit"),
           "The champion's loss that its predictions promise, before the truth is known."),
    Metric("outcomes_label_coverage", "gauge", "ratio", MODEL,
           "Share of predicted rows whose truth is known."),
    Metric("outcomes_unknown_truth_rows", "gauge", "rows", (),
           "Rows of the truth without a prediction."),
    Metric("drift_psi", "gauge", "psi", FEATURE, "Population stability index."),
    Metric("drift_psi_by_chance", "gauge", "psi", FEATURE,
           "PSI that this number of rows shows by chance."),
    Metric("drift_jensen_shannon", "gauge", "distance", FEATURE, "Jensen-Shannon distance."),
    Metric("drift_kolmogorov_smirnov", "gauge", "distance", FEATURE,
           "Kolmogorov-Smirnov distance."),
    Metric("drift_wasserstein", "gauge", "feature's own", FEATURE, "Wasserstein distance."),
    Metric("drift_chi_square", "gauge", "statistic", FEATURE, "Chi-square statistic."),
    Metric("drift_null_rise", "gauge", "ratio", FEATURE, "Rise of the share of nulls."),
    Metric("drift_outside_range", "gauge", "ratio", FEATURE,
           "Share of values outside the range of the reference, a quarter wider on each side."),
    Metric("profiles_null_rate", "gauge", "ratio", COLUMN, "Share of nulls."),
    Metric("profiles_mean", "gauge", "column's own", COLUMN, "Mean."),
    Metric("profiles_standard_deviation", "gauge", "column's own", COLUMN, "Standard deviation."),
    Metric("profiles_least", "gauge", "column's own", COLUMN, "Least value."),
    Metric("profiles_most", "gauge", "column's own", COLUMN, "Greatest value."),
    Metric("profiles_p01", "gauge", "column's own", COLUMN, "Quantile .01."),
    Metric("profiles_p50", "gauge", "column's own", COLUMN, "Median."),
    Metric("profiles_p99", "gauge", "column's own", COLUMN, "Quantile .99."),
    Metric("profiles_outlier_share", "gauge", "ratio", COLUMN,
           "Share of values that are outliers compared with the days before."),
    Metric("stages_failed_runs", "gauge", "ratio", STAGE,
           "Share of a stage's runs that failed in 24 hours."),
    Metric("stages_failed_rows", "gauge", "ratio", STAGE,
           "Share of a stage's rows that failed in 24 hours."),
    Metric("decision_decision", "gauge", "level", (),
           "What monitoring decided: 0 healthy, 1 watch, 2 retrain, 3 page."),
    Metric("decision_rule", "gauge", "level", ("rule",),
           "The level of each of its rules, on the same scale."),
)  # fmt: skip
METRICS = {metric.name: metric for metric in TABLE}


class UnknownMetric(ValueError):
    """A name or labels that are not in the table."""


def send(usecase: str, name: str, value: float = 1, **labels: str) -> None:
    """Send one value.

    Args:
        usecase: the name of the use case, sent as the label `usecase`.
        name: a metric of the table.
        value: the increase of a counter, seconds of a timer, or the value of a gauge.
        labels: all other labels of the metric.
    """
    send_all(usecase, [Sample(name, value, labels)])


@contextmanager
def timed(usecase: str, name: str, **labels: str) -> Iterator[None]:
    """Send the seconds that a block takes, unless it fails."""
    began = time.perf_counter()
    yield
    send(usecase, name, time.perf_counter() - began, **labels)


def count_one(
    usecase: str, name: str, label: str, value: str, among: Iterable[str], **labels: str
) -> None:
    """Count one thing of a kind.

    Args:
        name: a counter of the table.
        label: the label for the kind.
        value: the kind.
        among: all kinds.
        labels: all other labels of the metric.
    """
    kinds = {**dict.fromkeys(among, 0), value: 1}
    samples = [Sample(name, count, {**labels, label: kind}) for kind, count in kinds.items()]
    send_all(usecase, samples)


class PublishedDays(Protocol):
    """What is known of the days of a use case's tables; `Lake` knows it."""

    usecase: str

    def is_newest(self, table: str, key: str) -> bool:
        """Whether no later day of a table is published."""


def send_of_day(lake: PublishedDays, table: str, key: str, samples: Iterable[Sample]) -> None:
    """Send gauges about a day, unless a later day of the table is published.

    Args:
        samples: consumed only if they are sent; an error while doing so is logged.
    """
    if _client() is None and not REFUSE_UNKNOWN:
        return
    try:
        if lake.is_newest(table, key):
            send_all(lake.usecase, samples)
    except UnknownMetric:
        raise
    except Exception as error:  # the task has done its work
        log.warning("Metrics of %s of %s are not sent: %r", table, key, error)


def send_all(usecase: str, samples: Iterable[Sample]) -> None:
    """Send values, as many in a packet as fit."""
    known = [(METRICS[sample.name], sample) for sample in samples if _is_known(sample)]
    client = _client()
    if client is None or not known:
        return
    with client.pipeline() as packets:
        for metric, sample in known:
            values = [_clean(usecase), *(_clean(sample.labels[label]) for label in metric.labels)]
            name = ".".join([metric.name, *values])
            if metric.kind == "counter":
                packets.incr(name, sample.value)
            elif metric.kind == "timer":
                packets.timing(name, 1000 * sample.value)
            else:
                packets.gauge(name, sample.value)


def _is_known(sample: Sample) -> bool:
    metric = METRICS.get(sample.name)
    if metric is not None and sorted(metric.labels) == sorted(sample.labels):
        return True
    said = f"There is no metric {sample.name} with the labels {sorted(sample.labels)}"
    if REFUSE_UNKNOWN:
        raise UnknownMetric(f"{said}: see TABLE in include/metrics.py")
    log.warning("%s: it is not sent", said)
    return False


def _clean(value: str) -> str:
    """A label's value as part of a StatsD name: ASCII, without dots, which separate its parts."""
    return re.sub(r"[^A-Za-z0-9_=-]+", "_", value)[:LONGEST_VALUE] or "none"


@lru_cache
def _client() -> "StatsClient | None":
    """The client of this process; None if no host is set, or the host is not found."""
    host, port = settings().statsd_host, settings().statsd_port
    if not host:
        return None
    from statsd import StatsClient

    found: list[str] = []

    def find() -> None:
        with suppress(OSError):
            found.append(socket.getaddrinfo(host, port, socket.AF_INET)[0][4][0])  # type: ignore[arg-type]

    search = Thread(target=find, daemon=True)  # a silent name server takes half a minute
    search.start()
    search.join(FIND_SECONDS)
    if not found:
        log.warning("StatsD's host %s was not found: this process sends no metrics", host)
        return None
    client = StatsClient(found[0], port, PREFIX, PACKET_BYTES)
    client._sock.setblocking(False)  # a full buffer drops the packet instead of blocking the task
    return client
