"""The kind of a failure decides whether a task is tried again, and when."""

import errno
import pickle
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.definitions.retry_policy import RetryAction
from airflow.sdk.exceptions import AirflowTaskTimeout
from hypothesis import given
from hypothesis import strategies as st

from include.errors import BadData, DependencyDown, MissingData, ModelMissing, ServerDown, kind_of
from include.orchestration.retries import RetryByKind
from tests.unit.airflow_parts import StateStore


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
def test_temporary_failures_are_retried_with_growing_waits_up_to_a_bound(
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
def test_without_a_bound_own_failures_are_retried_like_any_other(
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


def test_tasks_that_fail_together_are_retried_at_different_times() -> None:
    policy = RetryByKind()
    waits = {policy.evaluate(DependencyDown("x"), 3, 5).retry_delay for _ in range(50)}
    assert len(waits) > 40
