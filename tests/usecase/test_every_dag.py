"""Any use case, chosen by `ML_USECASE`, goes through every DAG of a real Airflow, and is measured.

Whether its models are any good is not what is tested: the gate's bounds are open.
"""

import html
import json
import re
import socket
from collections import defaultdict
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from threading import Thread

import httpx
import polars as pl
import pytest

from include.expected import expected_days, is_expected
from include.inference.ensemble import TABLE as ENSEMBLE
from include.lake.tables import Lake
from include.metrics import METRICS, Metric
from include.monitoring.outcomes import TABLE as OUTCOMES
from include.partitions import parse_key
from include.registry import registry
from include.settings import settings
from include.usecase import FIRST_WINDOW, features, source
from include.usecases.flight_delays.models import CANDIDATES
from include.usecases.flight_delays.schema import INPUTS, KEY, TRUTH
from local import embedded
from local.client import Airflow, poll
from local.environment import forget_settings
from local.seed import seed
from tests.case import CASE, at
from tests.e2e.conftest import Pages, free_port, is_ready, pages_server
from tests.integration.panels import panel_queries
from tests.unit.test_alert_rules import ALERTS, metric_of

__all__ = ["pages_server"]  # a fixture

START = date.fromisoformat(FIRST_WINDOW[0])
AFTER = date.fromisoformat(FIRST_WINDOW[1]) + timedelta(days=1)
DAY, NEXT, UNSCORED = (
    day.isoformat() for day in expected_days(CASE, AFTER, AFTER + timedelta(days=30))[:3]
)

SETTINGS = {
    "ML_CHUNK_ROWS": "250",
    "ML_EXPERIMENT": "shadow",
    "ML_RETRY_BASE_SECONDS": "1",
    "ML_RETRY_MAX_SECONDS": "2",
    "ML_HOLDOUT_DAYS": "5",
    "ML_GATE_CONFIDENCE": "0",
    "ML_GATE_MAX_AUC": "1",
    "ML_GATE_MAX_AUC_GAIN": "1",
    "ML_GATE_MAX_SLICE_LOSS": "10",
    "ML_GATE_MAX_CALIBRATION_ERROR": "1",
    "ML_GATE_MAX_SHIFT_RATIO": "1000",
    "ML_MAX_MODEL_AGE_DAYS": "1",
    "ML_RETRAINING_MIN_NEW_DAYS": "1",
    "ML_DRIFT_PAGE": "100",
    "ML_DRIFT_MAX_NULL_RISE": "1",
    "ML_DRIFT_MAX_OUTSIDE": "1",
    "ML_MONITORING_ACTS": "false",  # Airflow starts the monitor for yesterday, too
}


SELECTOR = re.compile(r"\bml_(\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
"""How a query of Prometheus chooses among our series, and by which labels."""


class StatsD:
    """Takes what is sent, and knows each metric by its name, with its labels' values."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.taken: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        Thread(target=self.listen, daemon=True).start()

    def listen(self) -> None:
        while True:
            for line in self.socket.recv(65_536).decode().splitlines():
                _, name, *values = line.partition(":")[0].split(".")
                self.taken[name].add(tuple(values))

    def values(self, label: str) -> set[str]:
        """All values that a label had, in any metric."""
        return {
            values[METRICS[name].labels.index(label)]
            for name, taken in self.taken.items()
            for values in taken
            if label in METRICS[name].labels
        }

    def has(self, metric: Metric, matchers: str) -> bool:
        """Whether a metric came with such labels as a query chooses."""
        chosen = [one for one in MATCHER.findall(matchers) if one[0] in metric.labels]
        return any(
            all(
                is_chosen(values[metric.labels.index(label)], sign, wanted)
                for label, sign, wanted in chosen
            )
            for values in self.taken[metric.name]
        )


def is_chosen(value: str, sign: str, wanted: str) -> bool:
    """Whether Prometheus chooses a label's value."""
    pattern = wanted if "~" in sign else re.escape(wanted)
    return (re.fullmatch(pattern, value) is not None) != sign.startswith("!")


@pytest.fixture(scope="module")
def statsd() -> StatsD:
    return StatsD()


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """An empty registry, and the history of the first window."""
    folder = tmp_path_factory.mktemp("data")
    forget_settings()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ML_DATA_DIR", str(folder))
        settings.cache_clear()
        registry.create_store(CASE)
        found = Lake(CASE.settings.lake)
        days = expected_days(CASE, START, date.fromisoformat(FIRST_WINDOW[1]))
        assert seed(at(found), *FIRST_WINDOW, say=lambda _: None) == len(days)
        yield found
    settings.cache_clear()


@pytest.fixture(scope="module")
def airflow(lake: Lake, statsd: StatsD, pages_server: tuple[Pages, int]) -> Iterator[Airflow]:
    data = Path(CASE.settings.data_dir)
    told = {
        "ML_NOTIFY_URLS": f"json://127.0.0.1:{pages_server[1]}/hook",
        "ML_STATSD_HOST": "127.0.0.1",
        "ML_STATSD_PORT": str(statsd.port),
    }
    yield embedded.start(data, free_port(), extra=SETTINGS | told)
    embedded.stop(data)


def run(airflow: Airflow, dag_id: str, conf: dict | None = None, key: str | None = None) -> str:
    """Have a DAG run, and see that it ends well. Returns the run."""
    airflow.unpause(dag_id)
    run_id = airflow.trigger(dag_id, conf, partition_key=key)
    assert airflow.wait(dag_id, run_id) == "success", why_failed(airflow, dag_id, run_id)
    return run_id


def why_failed(airflow: Airflow, dag_id: str, run_id: str) -> str:
    """The failed tasks of a run, each with its error as the task has reported it."""
    told = [f"{run_id} of {dag_id} has failed:"]
    for task in airflow.task_instances(dag_id, run_id):
        if task["state"] == "failed":
            about = task["task_id"], task["try_number"], task["map_index"]
            log = airflow.log(dag_id, run_id, *about).splitlines()
            records = [line for line in log if line.startswith("task_failed ")]
            found = json.loads(records[-1].partition(" ")[2]) if records else {}
            why = [f"{found['error']}: {found['message']}"] if found else log[-3:]
            told.append("\n    ".join([f"  {task['task_id']}", *why]))
    return "\n".join(told)


def days_after(key: str, last: str) -> list[str]:
    """The days after one up to another, be they expected or not."""
    first, days = parse_key(key), (parse_key(last) - parse_key(key)).days
    return [(first + timedelta(days=n)).isoformat() for n in range(1, days + 1)]


def land_with_a_bad_row(lake: Lake, key: str) -> None:
    """Land a day of whose rows one lacks a value that it must have."""
    rows = source.fetch(INPUTS[0].name, parse_key(key))
    assert rows is not None
    required = [name for name, column in INPUTS[0].schema.columns.items() if not column.nullable]
    column = min(required, key=KEY.__contains__)
    landed = lake.landing_path(INPUTS[0].name, key)
    landed.parent.mkdir(parents=True, exist_ok=True)
    rows.with_columns(pl.when(pl.int_range(pl.len()) > 0).then(column).alias(column)).write_parquet(
        landed
    )


def test_a_first_champion_is_trained_judged_and_promoted(airflow: Airflow) -> None:
    window = {"start": FIRST_WINDOW[0], "end": (START + timedelta(days=15)).isoformat()}
    run_id = run(airflow, "model_retraining", {"reason": "a test", **window})
    verdict = airflow.xcom("model_retraining", run_id, "judge")
    assert verdict["challenger"]["candidate"] in CANDIDATES
    champion = registry.champion(CASE)
    assert champion.version == "1"
    trained = {one.run_id for one in registry.members(CASE, champion).values()}
    registry.register(CASE, (trained - {champion.run_id}).pop())  # a shadow, from now on


def test_a_day_is_validated_and_scored_by_the_champion_and_by_the_whole_ensemble(
    airflow: Airflow, lake: Lake
) -> None:
    for dag_id in ("batch_inference", "ensemble_inference"):
        airflow.unpause(dag_id)
    embedded.stop_model_server(airflow.data)  # a new one looks for the champion at once
    url = embedded.start_model_server(airflow.data)
    poll(lambda: is_ready(url), timeout=120)
    run(airflow, "data_validation", key=DAY)
    rows = len(lake.current("validated", DAY).read(INPUTS[0].name))
    for dag_id, table in (("batch_inference", "predictions"), ("ensemble_inference", ENSEMBLE)):
        scored = airflow.wait_partition(dag_id, DAY)
        assert scored["state"] == "success", why_failed(airflow, dag_id, scored["dag_run_id"])
        predictions = lake.current(table, DAY).read("predictions")
        assert len(predictions) == rows
        assert predictions["score"].is_between(0, 1).all()
        assert not predictions.select(KEY).is_duplicated().any()
    facts = lake.current(ENSEMBLE, DAY).manifest().metadata
    assert facts["fallback"] == "ensemble"
    assert sorted(facts["answers"]) == sorted(member.name for member in CASE.members)


def test_the_monitor_judges_a_day_by_its_truth_and_its_retraining_can_be_undone(
    airflow: Airflow, lake: Lake
) -> None:
    airflow.pause("ensemble_inference")
    land_with_a_bad_row(lake, NEXT)
    for key in days_after(DAY, NEXT):  # the first of them brings the truth of the day before
        run_id = run(airflow, "data_validation", key=key)
        if not is_expected(CASE, "validated", key):
            tasks = airflow.task_instances("data_validation", run_id)
            states = {one["state"] for one in tasks if one["task_id"].startswith("inputs.")}
            assert states == {"skipped"}
            assert airflow.runs("batch_inference", partition_key_pattern=key) == []
    scored = airflow.wait_partition("batch_inference", NEXT)["dag_run_id"]
    assert airflow.wait("batch_inference", scored) == "success", why_failed(
        airflow, "batch_inference", scored
    )
    run_id = run(airflow, "model_monitoring", {"act": True}, NEXT)
    decision = airflow.xcom("model_monitoring", run_id, "decide")
    assert decision["action"] == "retrain", decision
    predictions = lake.current("predictions", DAY).read("predictions")
    truth = features.build_labels(lake.current("actuals", DAY).read(TRUTH.name))
    outcomes = lake.current(OUTCOMES, DAY).read("outcomes")
    assert len(outcomes) == len(predictions.join(truth, on=KEY)) > 0
    report = httpx.get(f"{airflow.url}/reports/{NEXT}", trust_env=False, timeout=60)
    assert decision["why"] in html.unescape(report.text)

    retraining = "model_retraining", f"monitoring__{NEXT}"
    assert airflow.wait(*retraining) == "success", why_failed(airflow, *retraining)
    assert registry.champion(CASE).version == "3"
    health = httpx.get(f"{airflow.url}/model-health/", trust_env=False, timeout=60)
    assert "Version 3" in health.text
    assert any(candidate in health.text for candidate in CANDIDATES)
    run(airflow, "model_rollback", {"reason": "a test"})
    assert registry.champion(CASE).version == "1"


def test_a_day_whose_file_is_broken_is_refused_and_a_person_is_called(
    airflow: Airflow, lake: Lake, pages_server: tuple[Pages, int]
) -> None:
    broken = lake.landing_path(INPUTS[0].name, UNSCORED)
    broken.parent.mkdir(parents=True, exist_ok=True)
    broken.write_bytes(b"no Parquet")
    run_id = airflow.trigger("data_validation", partition_key=UNSCORED)
    assert airflow.wait("data_validation", run_id) == "failed"
    run(airflow, "model_monitoring", {"act": True}, UNSCORED)
    assert any(UNSCORED in page["title"] for page in pages_server[0].taken)


def test_every_metric_that_boards_and_alerts_ask_for_was_sent_and_is_about_this_use_case(
    airflow: Airflow, statsd: StatsD
) -> None:
    assert set(statsd.taken) == set(METRICS)
    for name, taken in statsd.taken.items():
        assert {len(values) for values in taken} == {len(METRICS[name].labels)}, name
    assert statsd.values("input") == {one.name for one in [*INPUTS, TRUTH]}
    assert statsd.values("member") == {member.name for member in CASE.members}
    assert statsd.values("candidate") == set(CANDIDATES)
    assert statsd.values("feature") == {*features.FEATURES, "score"}
    columns = {name for one in [*INPUTS, TRUTH] for name in one.schema.columns}
    assert statsd.values("column") <= columns | set(features.FEATURES) | {"score"}
    slices = tuple(f"{name}_=_" for name in features.SLICES)
    assert all(one == "all" or one.startswith(slices) for one in statsd.values("slice"))


def test_every_query_of_boards_and_alerts_finds_what_it_asks_for(statsd: StatsD) -> None:
    queries = [query for *_, query in panel_queries()] + [rule["expr"] for rule in ALERTS.values()]
    asked = {series for query in queries for series in SELECTOR.findall(query)}
    assert len(asked) > len(METRICS)
    missing = {series for series in asked if not statsd.has(metric_of(series[0]), series[1])}
    # Of the DAGs only the validation has failed here.
    assert {name for name, _ in missing} == {"run_failed_timestamp_seconds"}
