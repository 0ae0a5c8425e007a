"""Kinds of failure, and what follows from them: retries and the record of an alert."""

import errno
import json
import logging
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import requests
from airflow.sdk import RetryAction
from botocore.exceptions import EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from include.alerting import failure_record, report_failure
from include.errors import BadData, DependencyDown, MissingData, kind_of
from include.settings import settings
from include.task_defaults import TASK_DEFAULTS, RetryByKind

LASTING = [BadData("a column is missing"), ValueError("a bug"), KeyError("a bug"), MemoryError()]
PASSING = [
    MissingData("no file yet"),
    DependencyDown("the registry is down"),
    ConnectionRefusedError(),
    TimeoutError(),
    requests.exceptions.ConnectionError(),
    httpx.ConnectError("refused"),
    EndpointConnectionError(endpoint_url="http://127.0.0.1:1"),
    OSError(errno.ENOSPC, "No space left on device"),
]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BadData("x"), "bad data"),
        (MissingData("x"), "missing data"),
        (DependencyDown("x"), "dependency down"),
        (ConnectionResetError(), "dependency down"),
        (OSError(errno.EROFS, "Read-only file system"), "dependency down"),
        (FileNotFoundError(errno.ENOENT, "No such file"), "bug"),
        (ZeroDivisionError(), "bug"),
    ],
)
def test_every_exception_has_a_kind(error: Exception, kind: str) -> None:
    assert kind_of(error) == kind


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_bad_data_and_bugs_fail_at_once(error: Exception) -> None:
    assert RetryByKind().evaluate(error, 1, 4).action == RetryAction.FAIL


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_is_down_or_missing_is_tried_again(error: Exception) -> None:
    assert RetryByKind().evaluate(error, 1, 4).action == RetryAction.RETRY


@given(st.integers(min_value=1, max_value=1_000))
def test_waits_grow_twofold_up_to_a_bound_and_at_most_half_of_each_is_chance(tries: int) -> None:
    decision = RetryByKind().evaluate(DependencyDown("down"), tries, 4)
    assert decision.retry_delay is not None
    limits = settings()
    longest = min(limits.retry_base_seconds * 2.0 ** (tries - 1), limits.retry_max_seconds)
    assert longest / 2 <= decision.retry_delay.total_seconds() <= longest


def test_tasks_that_fail_together_do_not_come_back_together() -> None:
    policy = RetryByKind()
    waits = {policy.evaluate(DependencyDown("down"), 3, 4).retry_delay for _ in range(20)}
    assert len(waits) > 10


def test_a_killed_task_which_leaves_no_exception_is_retried_with_the_same_bounds() -> None:
    assert TASK_DEFAULTS["retries"] == settings().retries > 0
    assert TASK_DEFAULTS["retry_delay"].total_seconds() == settings().retry_base_seconds
    assert TASK_DEFAULTS["max_retry_delay"].total_seconds() == settings().retry_max_seconds
    assert TASK_DEFAULTS["retry_exponential_backoff"] == 2


def context(error: Any) -> dict[str, Any]:
    """The part of Airflow's context that an alert is made from."""
    instance = SimpleNamespace(
        dag_id="batch_inference",
        run_id="manual__1",
        task_id="score",
        map_index=3,
        try_number=2,
        log_url="http://127.0.0.1/log",
    )
    return {"task_instance": instance, "exception": error, "partition_key": "2013-03-01"}


def test_an_alert_says_what_failed_where_and_of_what_kind() -> None:
    assert failure_record(context(DependencyDown("the registry is down"))) == {
        "dag_id": "batch_inference",
        "run_id": "manual__1",
        "task_id": "score",
        "map_index": 3,
        "try_number": 2,
        "partition": "2013-03-01",
        "kind": "dependency down",
        "error": "DependencyDown",
        "message": "the registry is down",
        "log_url": "http://127.0.0.1/log",
    }


@pytest.mark.parametrize("error", [None, "killed from outside"])
def test_an_alert_is_made_even_if_airflow_passes_no_exception(error: Any) -> None:
    record = failure_record(context(error))
    assert record["kind"] == "bug"
    assert record["message"]


def test_an_alert_is_one_line_of_json_whatever_the_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        report_failure(context(BadData("two breaches:\n  - Zürich\n  - NaN")))
    [line] = caplog.messages
    assert "\n" not in line
    assert json.loads(line.removeprefix("task_failed "))["message"].endswith("- NaN")
