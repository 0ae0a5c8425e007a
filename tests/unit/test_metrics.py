"""What leaves for StatsD, as a UDP server receives it; and that table, code and files agree."""

import ast
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from include import metrics
from include.lake.tables import Lake
from include.metrics import METRICS, Sample
from include.monitoring import daily
from include.monitoring import history as monitoring_history
from include.orchestration import alerting
from include.registry import promotion
from local import reference
from local.in_process import batch_inference
from tests.case import CASE
from tests.unit.champions import challengers
from tests.unit.conftest import OLD_DAY, History
from tests.unit.helpers import infer

REPO = Path(__file__).resolve().parents[2]
LATER = datetime(2013, 1, 4, 6, tzinfo=UTC)
SENDERS = {"send": 1, "timed": 1, "count_one": 1, "Sample": 0}
"""What sends, and the place of the metric's name among its arguments."""


class Server:
    """A StatsD server that keeps what it gets."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(2)
        self.port = self.socket.getsockname()[1]

    def packets(self) -> list[str]:
        """Everything that was sent until now."""
        metrics.send(CASE.name, "pages_total", 77)
        found = []
        while not (packet := self.socket.recv(65536).decode()).endswith(
            "ml.pages_total.flight_delays:77|c"
        ):
            found.append(packet)
        return found

    def lines(self) -> list[str]:
        return [line for packet in self.packets() for line in packet.split("\n")]


@pytest.fixture
def server(configure: Callable[..., None]) -> Iterator[Server]:
    server = Server()
    configure(statsd_host="127.0.0.1", statsd_port=server.port)
    metrics._client.cache_clear()
    yield server
    server.socket.close()
    metrics._client.cache_clear()


@pytest.fixture
def nobody(configure: Callable[..., None]) -> Iterator[None]:
    configure(statsd_host="no-such-host.invalid")
    metrics._client.cache_clear()
    yield
    metrics._client.cache_clear()


def test_each_kind_arrives_with_its_labels_in_the_order_of_the_table(server: Server) -> None:
    metrics.send(CASE.name, "task_failures_total", kind="bug", task="score", dag="batch_inference")
    metrics.send(CASE.name, "quarantined_share", 0.25, input="flights")
    metrics.send(CASE.name, "inference_seconds", 1.5, model="late")
    assert server.lines() == [
        "ml.task_failures_total.flight_delays.batch_inference.score.bug:1|c",
        "ml.quarantined_share.flight_delays.flights:0.25|g",
        "ml.inference_seconds.flight_delays.late:1500.000000|ms",
    ]


def test_equal_names_in_two_use_cases_are_two_series(server: Server) -> None:
    for name in ("flight_delays", "doctor_visits"):
        metrics.send(name, "quarantined_share", 0.5, input="flights")
    context = {"dag": SimpleNamespace(dag_id="doctor_visits.batch_inference")}
    alerting.run_failed(context)
    assert [line.partition(":")[0] for line in server.lines()] == [
        "ml.quarantined_share.flight_delays.flights",
        "ml.quarantined_share.doctor_visits.flights",
        "ml.run_failed_timestamp_seconds.doctor_visits.batch_inference",
    ]


def test_a_negative_gauge_is_not_a_decrement(server: Server) -> None:
    metrics.send(CASE.name, "outcomes_skill", -0.02, model="champion", slice="all")
    assert server.packets() == [
        "ml.outcomes_skill.flight_delays.champion.all:0|g\n"
        "ml.outcomes_skill.flight_delays.champion.all:-0.02|g"
    ]


def test_many_values_share_packets_that_fit_into_a_frame(server: Server) -> None:
    samples = [Sample("quarantined_share", n, {"input": f"input_{n}"}) for n in range(200)]
    metrics.send_all(CASE.name, samples)
    packets = server.packets()
    assert sum(packet.count("\n") + 1 for packet in packets) == 200
    assert len(packets) < 10
    assert max(map(len, packets)) <= metrics.PACKET_BYTES


def test_what_statsd_does_not_allow_in_a_name_becomes_an_underscore(server: Server) -> None:
    metrics.send(
        CASE.name, "quarantined_rows_total", 3, input="flights", reason="distance: in_range(0, 9.5)"
    )
    metrics.send(CASE.name, "quarantined_rows_total", 1, input="flights", reason="")
    assert server.lines() == [
        "ml.quarantined_rows_total.flight_delays.flights.distance_in_range_0_9_5_:3|c",
        "ml.quarantined_rows_total.flight_delays.flights.none:1|c",
    ]


@given(st.text())
def test_any_value_of_a_label_is_one_part_of_a_name(value: str) -> None:
    part = metrics._clean(value)
    assert part.isascii()
    assert 0 < len(part) <= metrics.LONGEST_VALUE
    assert not set(part) & set(".:|@#,;\n ")


def test_counting_one_kind_sends_zero_for_the_others(server: Server) -> None:
    metrics.count_one(
        CASE.name, "ensemble_runs_total", "fallback", "champion", ["ensemble", "champion"]
    )
    assert server.lines() == [
        "ml.ensemble_runs_total.flight_delays.ensemble:0|c",
        "ml.ensemble_runs_total.flight_delays.champion:1|c",
    ]


def test_a_block_that_fails_has_no_time(server: Server) -> None:
    with (
        pytest.raises(OSError, match="down"),
        metrics.timed(CASE.name, "inference_seconds", model="late"),
    ):
        raise OSError("down")
    assert server.lines() == []


def test_the_rows_of_every_path_are_counted_and_unused_paths_are_zero(
    server: Server, lake: Lake, history: History, configure: Callable[..., None]
) -> None:
    rows = len(infer(lake, OLD_DAY, history.champion))
    assert [line for line in server.lines() if "path_" in line] == [], "there is but one path"
    configure(group_models=True)
    infer(lake, OLD_DAY, history.champion)
    assert [line for line in server.lines() if "path_" in line] == [
        f"ml.path_rows_total.flight_delays.champion:{rows}|c",
        "ml.path_rows_total.flight_delays.without_weather:0|c",
        "ml.path_rows_total.flight_delays.without_plane:0|c",
    ]


def test_a_day_before_the_newest_moves_no_gauge(server: Server, lake: Lake) -> None:
    about = {"input": "flights"}
    newest = next(lake.published_keys("validated"))
    metrics.send_of_day(lake, "validated", "2013-02-02", [Sample("quarantined_share", 1, about)])
    metrics.send_of_day(lake, "validated", newest, [Sample("quarantined_share", 0.5, about)])
    metrics.send_of_day(lake, "validated", "2013-03-09", [Sample("quarantined_share", 0, about)])
    assert server.lines() == [
        "ml.quarantined_share.flight_delays.flights:0.5|g",
        "ml.quarantined_share.flight_delays.flights:0|g",
    ]


def test_a_lake_that_is_down_fails_no_task_for_its_metrics(
    server: Server, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(table: str) -> Iterator[str]:
        raise OSError("the lake is gone")

    monkeypatch.setattr(lake, "published_keys", down)
    sample = Sample("quarantined_share", 1, {"input": "flights"})
    metrics.send_of_day(lake, "validated", "2013-02-02", [sample])
    assert server.lines() == []


def test_a_bad_name_is_refused_in_tests_and_only_logged_in_production(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(metrics.UnknownMetric, match="no metric pages with"):
        metrics.send(CASE.name, "pages")
    with pytest.raises(metrics.UnknownMetric, match=r"inference_seconds with the labels \['who'\]"):
        metrics.send(CASE.name, "inference_seconds", 1, who="late")
    monkeypatch.setattr(metrics, "REFUSE_UNKNOWN", False)
    metrics.send(CASE.name, "pages")
    assert server.lines() == []
    assert "There is no metric pages" in caplog.text


def test_a_host_that_is_not_found_is_logged_once(
    nobody: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        metrics.send(CASE.name, "pages_total")
        metrics.send(CASE.name, "pages_total")
    assert caplog.text.count("no-such-host.invalid was not found") == 1


def test_a_name_server_that_is_silent_keeps_no_task_waiting(
    nobody: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up = threading.Event()

    def ask(*_: object) -> None:
        given_up.wait(60)
        raise OSError("no name server answers")

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    metrics.send(CASE.name, "pages_total")  # comes back
    assert not given_up.is_set()
    given_up.set()


def test_without_a_listener_nothing_is_sent_and_nothing_fails(server: Server) -> None:
    server.socket.close()
    for _ in range(3):  # the second one meets the "port unreachable" of the first
        metrics.send(CASE.name, "pages_total")


@pytest.mark.parametrize(
    ("run", "due"),
    [
        (SimpleNamespace(partition_key="2013-01-02", run_after=LATER), 1357084800),
        (SimpleNamespace(partition_key="yesterday", run_after=LATER), LATER.timestamp()),
        (SimpleNamespace(partition_key=None, run_after=LATER), LATER.timestamp()),
    ],
)
def test_the_end_of_a_run_is_reported_with_its_day(
    server: Server, run: SimpleNamespace, due: float
) -> None:
    context = {"dag": SimpleNamespace(dag_id="flight_delays.batch_inference"), "dag_run": run}
    alerting.run_failed(context)
    alerting.run_succeeded(context)
    assert server.lines() == [
        f"ml.run_failed_timestamp_seconds.flight_delays.batch_inference:{float(due)}|g",
        f"ml.run_succeeded_timestamp_seconds.flight_delays.batch_inference:{float(due)}|g",
    ]


def test_the_end_of_a_run_with_an_incomplete_context_is_reported_too(server: Server) -> None:
    alerting.run_failed(
        {"dag": SimpleNamespace(dag_id="flight_delays.batch_inference"), "run_id": "lost"}
    )
    [line] = server.lines()
    assert line.startswith("ml.run_failed_timestamp_seconds.flight_delays.batch_inference:1")


def test_publishing_a_day_again_does_not_count_as_a_new_day(server: Server, lake: Lake) -> None:
    frame = pl.DataFrame({"number": [1, 2]})
    for key in ("2013-01-02", "2013-01-02", "2013-01-01"):
        version = lake.new_version("numbers", key)
        version.write_frame("numbers", frame)
        version.publish(["numbers"])
    names = [line.partition(":")[0] for line in server.lines()]
    assert names.count("ml.published_rows_total.flight_delays.numbers") == 3
    assert names.count("ml.last_published_timestamp_seconds.flight_delays.numbers") == 1
    assert names.count("ml.newest_day_timestamp_seconds.flight_delays.numbers") == 2


def test_a_promotion_requested_twice_is_counted_once(
    server: Server, history: History, own_registry: Path
) -> None:
    [second] = challengers(1)
    for _ in range(2):
        promotion.promote(CASE, second, history.champion, "it is better")
    found = server.lines()
    assert found.count("ml.registry_events_total.flight_delays.promoted:1|c") == 1
    assert found.count(f"ml.champion_version.flight_delays:{second.version}|g") == 1


def test_what_monitoring_finds_of_a_day_is_sent_but_for_what_is_for_itself_alone(
    server: Server, lake: Lake, history: History
) -> None:
    for key in ("2013-02-19", "2013-02-20"):
        batch_inference(CASE, key, history.champion)
        server.packets()
        daily.observe(CASE, key, datetime(2013, 2, 21, 8, tzinfo=UTC))
        daily.decide(CASE, key)
    sent = {line.split(".")[1].partition(":")[0] for line in server.lines()}
    rows = monitoring_history.read(CASE, "2013-02-20", 2).select("pipeline", "metric").unique()
    figures = {f"{pipeline}_{metric}" for pipeline, metric in rows.iter_rows()}
    assert figures & set(METRICS) == sent & figures
    assert "outcomes_figure" in sent, "the target's own figures"
    of_target = {f"outcomes_{name}" for name in CASE.target.measures}
    kept = {
        "outcomes_days_after_training", "outcomes_base_log_loss", "outcomes_rate",
        "outcomes_mean_score", "profiles_category_share", "state_published",
    }  # fmt: skip
    assert figures - sent - of_target == kept


def calls() -> Iterator[tuple[str, str, set[str] | None]]:
    """Every place that sends: where, the metric's name, and its labels where they are literal."""
    for path in [*REPO.glob("include/**/*.py"), *REPO.glob("dags/*.py"), *REPO.glob("config/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name not in SENDERS or len(node.args) <= SENDERS[name]:
                continue
            metric = node.args[SENDERS[name]]
            if not isinstance(metric, ast.Constant):
                continue
            labels = {keyword.arg for keyword in node.keywords}
            whole = name in ("send", "timed") and None not in labels
            yield f"{path.name}:{node.lineno}", metric.value, labels if whole else None


def test_every_place_that_sends_names_a_metric_of_the_table_and_its_labels() -> None:
    found = list(calls())
    assert len(found) > 20
    for where, name, labels in found:
        assert name in METRICS, where
        assert labels is None or labels == set(METRICS[name].labels), where


def test_every_metric_of_the_table_is_sent_somewhere() -> None:
    figures = (
        "outcomes_", "drift_", "profiles_", "stages_", "decision_", "state_", "experiment_",
        "estimate_",
    )  # fmt: skip
    sent = {name for _, name, _ in calls() if not name.startswith(figures)}
    assert {name for name in METRICS if not name.startswith(figures)} == sent


def test_a_name_ends_with_its_unit_or_says_that_it_counts() -> None:
    for metric in METRICS.values():
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.name.endswith("_seconds") or metric.kind != "timer", metric.name
        assert metric.meaning.endswith("."), metric.name


def test_the_reference_and_the_mapping_are_what_the_table_says() -> None:
    assert reference.METRICS.read_text() == reference.metrics_page(), "run `make reference`"
    assert reference.MAPPING.read_text() == reference.mapping(), "run `make reference`"


def test_a_series_has_the_use_case_before_its_own_labels() -> None:
    rules = {rule["match"]: rule for rule in yaml.safe_load(reference.mapping())["mappings"]}
    for metric in METRICS.values():
        labels = ("usecase", *metric.labels)
        rule = rules[".".join(["ml", metric.name, *"*" * len(labels)])]
        numbered = {name: f"${n}" for n, name in enumerate(labels, start=1)}
        assert (rule["name"], rule["labels"]) == (f"ml_{metric.name}", numbered)
