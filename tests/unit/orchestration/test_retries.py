"""A failure's kind decides whether it is tried again, when, and what is told about it."""

import errno
import json
import logging
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from airflow.sdk.definitions.retry_policy import RetryAction
from airflow.sdk.exceptions import (
    AirflowRuntimeError,
    AirflowSkipException,
    AirflowTaskTimeout,
    ErrorType,
)
from airflow.sdk.execution_time.comms import ErrorResponse
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError
from hypothesis import given
from hypothesis import strategies as st

from include.errors import (
    BadData,
    DependencyDown,
    MissingData,
    ModelMissing,
    Overtaken,
    PipelineError,
    ServerDown,
    kind_of,
)
from include.orchestration import alerting, task_defaults
from include.orchestration.task_defaults import (
    TASK_DEFAULTS,
    RetryByKind,
    check_conf,
    skips_if_overtaken,
)
from tests.case import CASE


def airflow_says(status: int | None) -> AirflowRuntimeError:
    """What a task gets if Airflow's own API answers with a status, or not at all."""
    detail = {"status_code": status, "message": "no", "detail": {"reason": "unknown"}}
    return AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail=detail))


KINDS = [
    (BadData("x"), "bad data"),
    (MissingData("x"), "missing data"),
    (DependencyDown("x"), "dependency down"),
    (ConnectionError(), "dependency down"),
    (ConnectionResetError(), "dependency down"),
    (BrokenPipeError(), "dependency down"),
    (TimeoutError(), "dependency down"),
    (requests.ConnectionError(), "dependency down"),
    (requests.ReadTimeout(), "dependency down"),
    (EndpointConnectionError(endpoint_url="http://x"), "dependency down"),
    (ReadTimeoutError(endpoint_url="http://x"), "dependency down"),
    (OSError(errno.ENOSPC, "full"), "dependency down"),
    (OSError(errno.EROFS, "read-only"), "dependency down"),
    (OSError(errno.ESTALE, "stale"), "dependency down"),
    (OSError(errno.EBUSY, "slow down"), "dependency down"),
    (airflow_says(503), "dependency down"),
    (airflow_says(None), "dependency down"),
    (airflow_says(403), "dependency down"),
    (airflow_says(429), "dependency down"),
    (airflow_says(400), "bug"),
    (airflow_says(404), "bug"),
    (OSError("no number"), "bug"),
    (FileNotFoundError("x"), "bug"),
    (requests.HTTPError(), "bug"),
    (ValueError("x"), "bug"),
    (AssertionError(), "bug"),
    (KeyboardInterrupt(), "bug"),
]


@pytest.mark.parametrize(("error", "kind"), KINDS, ids=lambda value: repr(value))
def test_every_error_has_a_kind(error: BaseException, kind: str) -> None:
    assert kind_of(error) == kind


def test_every_error_of_ours_has_its_own_kind() -> None:
    kinds = [cls.kind for cls in PipelineError.__subclasses__()]
    assert len(kinds) == len(set(kinds)) == 3
    assert "bug" not in kinds


@pytest.mark.parametrize("error", [BadData("x"), ValueError("x"), KeyError("x")])
def test_bad_data_and_bugs_fail_at_once(error: Exception) -> None:
    decision = RetryByKind().evaluate(error, try_number=1, max_tries=5)
    assert decision.action == RetryAction.FAIL
    assert kind_of(error) in str(decision.reason)


@pytest.mark.parametrize("error", [DependencyDown("x"), MissingData("x"), ConnectionError()])
@given(
    tries=st.integers(1, 10_000),
    base=st.floats(0.001, 1000),
    longest=st.floats(0.001, 86_400),
)
def test_what_may_come_back_is_tried_again_ever_later_up_to_a_bound(
    error: Exception, tries: int, base: float, longest: float, configure: Callable[..., None]
) -> None:
    configure(retry_base_seconds=base, retry_max_seconds=longest)
    most = min(base * 2.0 ** min(tries - 1, 60), longest)
    bounds = timedelta(seconds=most / 2), timedelta(seconds=most)
    for _ in range(20):  # hypothesis gives every example the same random numbers
        decision = RetryByKind().evaluate(error, try_number=tries, max_tries=tries + 1)
        assert decision.action == RetryAction.RETRY
        assert decision.reason == kind_of(error)
        assert decision.retry_delay is not None
        microsecond = timedelta(microseconds=1)
        assert bounds[0] - microsecond <= decision.retry_delay <= bounds[1] + microsecond


AWAY = [
    DependencyDown("the lake"),
    ConnectionError(),
    OSError(errno.ENOSPC, "full"),
    MissingData("the features, which all models read"),
]
OWN = [ServerDown("asks for time", retry_after=5), ModelMissing("its file"), AirflowTaskTimeout()]


@dataclass
class StateStore:
    """Airflow's store of a task's state, which all tries of a run share."""

    values: dict[str, Any] = field(default_factory=dict)
    is_away: bool = False

    def get(self, key: str, default: Any = None) -> Any:
        if self.is_away:
            raise airflow_says(None)
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any) -> None:
        self.values[key] = json.dumps(value)


def context_of(store: StateStore | None = None) -> dict[str, Any]:
    """What Airflow gives a policy to judge by, of a task that has 7 retries."""
    return {"task": SimpleNamespace(retries=7), "task_state_store": store or StateStore()}


@pytest.mark.parametrize("error", [*AWAY, *OWN], ids=repr)
def test_only_what_is_the_models_own_ends_it_before_the_tasks_retries_do(
    error: BaseException,
) -> None:
    policy, context = RetryByKind(own_retries=2), context_of()
    actions = [policy.evaluate(error, number, 7, context).action for number in range(1, 8)]
    retry, fail = RetryAction.RETRY, RetryAction.FAIL
    assert actions == ([retry] * 7 if error in AWAY else [retry] * 2 + [fail] * 5)


@given(st.lists(st.sampled_from([*AWAY, None, *OWN]), max_size=7), st.integers(1, 3))
def test_only_failures_of_its_own_count_against_a_model_whatever_came_between(
    tries: list[BaseException | None], judged: int
) -> None:
    """None is a try that left no exception: it was killed, or never started."""
    policy, context, own = RetryByKind(own_retries=2), context_of(), 0
    for number, error in enumerate(tries, start=1):
        own += error in OWN
        for _ in range(judged if error else 0):  # each worker has its own policy
            policy = pickle.loads(pickle.dumps(policy))
            action = policy.evaluate(error, number, 7, context).action
            assert (action == RetryAction.FAIL) == (error in OWN and own > 2)


def test_a_failure_that_airflow_cannot_count_is_retried() -> None:
    store = StateStore(is_away=True)
    decision = RetryByKind(own_retries=1).evaluate(OWN[0], 6, 7, context_of(store))
    assert decision.action == RetryAction.RETRY


@pytest.mark.parametrize("error", OWN, ids=repr)
def test_where_no_bound_is_given_own_failures_are_retried_like_any_other(
    error: BaseException,
) -> None:
    assert RetryByKind().evaluate(error, 7, 7).action == RetryAction.RETRY


def test_a_cleared_task_begins_again_with_its_tries_and_its_waits(
    configure: Callable[..., None],
) -> None:
    """Airflow counts on: after five tries a task with 7 retries has try 6 of 12 + 1."""
    configure(retry_base_seconds=10, retry_max_seconds=600)
    policy, context = RetryByKind(own_retries=2), context_of()
    for number in (1, 2, 3, 4, 5):
        policy.evaluate(ModelMissing("x"), number, 7, context)
    cleared = [policy.evaluate(ModelMissing("x"), number, 12, context) for number in (6, 7, 8)]
    assert [one.action for one in cleared] == [
        RetryAction.RETRY,
        RetryAction.RETRY,
        RetryAction.FAIL,
    ]
    assert cleared[0].retry_delay is not None
    assert cleared[0].retry_delay <= timedelta(seconds=10)


@dataclass
class Running:
    """What of Airflow's task instance `tells_why` needs."""

    try_number: int
    max_tries: int = 7
    told: Any = None

    def xcom_push(self, key: str, value: Any) -> None:
        self.told = value


@pytest.mark.parametrize(
    ("error", "try_number", "told"),
    [
        (BadData("x"), 1, {"kind": "bad data", "why": "BadData: x"}),
        (DependencyDown("x"), 7, None),
        (DependencyDown("x"), 8, {"kind": "dependency down", "why": "DependencyDown: x"}),
        (ModelMissing("x"), 3, {"kind": "missing data", "why": "ModelMissing: x"}),
        (AirflowTaskTimeout("x"), 2, None),
        (MissingData("x"), 3, None),
    ],
)
def test_a_task_tells_why_only_if_no_try_follows_that_could_die_of_something_else(
    error: BaseException, try_number: int, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = Running(try_number)
    task = SimpleNamespace(retries=7, retry_policy=RetryByKind(own_retries=2))
    store = StateStore({"own_failures": json.dumps([*range(1, try_number)])})
    context = {"ti": instance, "task": task, "task_state_store": store}
    monkeypatch.setattr(task_defaults, "get_current_context", lambda: context)

    @task_defaults.tells_why
    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        fail()
    assert instance.told == told


def ended(states: dict[str, str], told: list[Any]) -> task_defaults.Ending:
    """How tasks have ended, by what Airflow says of them."""
    instance = SimpleNamespace(
        dag_id="x", get_task_states=lambda **_: {"run": states}, xcom_pull=lambda *_, **__: told
    )
    return task_defaults.ending(instance, "run", "a.plan", "a.score")


@pytest.mark.parametrize(
    ("told", "why", "may_pass"),
    [
        ([None], "", True),  # it was killed, or never started
        ([{"kind": "dependency down", "why": "away"}], "away", True),
        ([{"kind": "bad data", "why": "wrong"}, None], "wrong", False),
        ([{"kind": "bug", "why": "b"}, {"kind": "missing data", "why": "m"}], "b; m", False),
    ],
)
def test_what_has_failed_by_bad_data_or_a_bug_will_not_pass_by_itself(
    told: list[Any], why: str, may_pass: bool
) -> None:
    states = {"a.plan": "success", "a.score_0": "failed", "a.score_1": "failed"}
    assert ended(states, told) == task_defaults.Ending(False, why, may_pass)
    assert ended({"a.plan": "success", "a.score_0": "success"}, told).succeeded


def test_tasks_that_fail_together_come_back_apart() -> None:
    policy = RetryByKind()
    waits = {policy.evaluate(DependencyDown("x"), 3, 5).retry_delay for _ in range(50)}
    assert len(waits) > 40


def test_every_task_has_an_owner_retries_by_kind_and_an_alert() -> None:
    assert TASK_DEFAULTS["owner"] == CASE.settings.owner
    assert TASK_DEFAULTS["retries"] == CASE.settings.retries
    assert isinstance(TASK_DEFAULTS["retry_policy"], RetryByKind)
    assert TASK_DEFAULTS["on_failure_callback"] is alerting.report_failure
    assert TASK_DEFAULTS["execution_timeout"] > timedelta(0)
    assert task_defaults.settings().retries > 0


@dataclass
class Instance:
    """What of Airflow's task instance a record needs."""

    dag_id: str = "batch_inference"
    run_id: str = "run-1"
    task_id: str = "score"
    map_index: int = 3
    try_number: int = 5
    log_url: str = "http://airflow/log"


def test_a_record_says_what_failed_for_which_day_and_of_what_kind() -> None:
    record = alerting.failure_record(
        {
            "task_instance": Instance(),
            "partition_key": "2013-03-01",
            "exception": BadData("Partition 2013-03-01 is not published: größe"),
        }
    )
    assert record == {
        "dag_id": "batch_inference",
        "run_id": "run-1",
        "task_id": "score",
        "map_index": 3,
        "try_number": 5,
        "partition": "2013-03-01",
        "kind": "bad data",
        "error": "BadData",
        "message": "Partition 2013-03-01 is not published: größe",
        "log_url": "http://airflow/log",
    }


@pytest.mark.parametrize(
    ("context", "kind", "message"),
    [
        ({}, "killed", "None"),
        ({"exception": None, "reason": "heartbeat timeout"}, "killed", "heartbeat timeout"),
        ({"exception": "killed externally"}, "killed", "killed externally"),
        ({"exception": KeyError("x")}, "bug", "'x'"),
        ({"exception": AssertionError()}, "bug", "AssertionError()"),
    ],
)
def test_a_record_is_made_of_whatever_airflow_passes_on(
    context: dict[str, object], kind: str, message: str
) -> None:
    record = alerting.failure_record({"task_instance": Instance(), **context})
    assert (record["kind"], record["message"]) == (kind, message)
    assert record["partition"] is None


def test_a_failure_is_logged_as_one_line_of_json(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        alerting.report_failure(
            {"task_instance": Instance(), "exception": BadData("one\ntwo"), "partition_key": "x"}
        )
    (line,) = [record.getMessage() for record in caplog.records]
    name, _, text = line.partition(" ")
    assert name == "task_failed"
    assert "\n" not in line
    assert json.loads(text)["message"] == "one\ntwo"


def test_a_task_that_was_overtaken_is_skipped_and_says_why() -> None:
    @skips_if_overtaken
    def publish(rows: int) -> int:
        if rows:
            return rows
        raise Overtaken("2013-03-01 is not published")

    assert publish(3) == 3
    with pytest.raises(AirflowSkipException, match="2013-03-01 is not published"):
        publish(0)


def test_a_run_started_with_a_mistyped_key_is_refused() -> None:
    check_conf({"reason": "x"}, {"reason": "", "dry_run": False})
    check_conf(None, {})
    with pytest.raises(BadData, match="'dryrun', which its DAG does not know: there are reason"):
        check_conf({"reason": "x", "dryrun": True}, {"reason": "", "dry_run": False})
