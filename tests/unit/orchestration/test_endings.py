"""A task that has failed for good says why to those that go on without it."""

import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowTaskTimeout

from include.errors import BadData, DependencyDown, MissingData, ModelMissing
from include.orchestration import endings
from include.orchestration.retries import RetryByKind
from tests.unit.airflow_parts import StateStore


@dataclass
class Running:
    """What of Airflow's task instance `shares_failure` needs."""

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
def test_a_task_shares_failure_only_if_no_try_follows_that_could_die_of_something_else(
    error: BaseException, try_number: int, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = Running(try_number)
    task = SimpleNamespace(retries=7, retry_policy=RetryByKind(own_retries=2))
    store = StateStore({"own_failures": json.dumps([*range(1, try_number)])})
    context = {"ti": instance, "task": task, "task_state_store": store}
    monkeypatch.setattr(endings, "get_current_context", lambda: context)

    @endings.shares_failure
    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        fail()
    assert instance.told == told


def ended(states: dict[str, str], told: list[Any]) -> endings.Ending:
    """How tasks have ended, by what Airflow says of them."""
    instance = SimpleNamespace(
        dag_id="x", get_task_states=lambda **_: {"run": states}, xcom_pull=lambda *_, **__: told
    )
    return endings.ending(instance, "run", "a.plan", "a.score")


@pytest.mark.parametrize(
    ("told", "why", "may_pass"),
    [
        ([None], "", True),  # it was killed, or never started
        ([{"kind": "dependency down", "why": "away"}], "away", True),
        ([{"kind": "bad data", "why": "wrong"}, None], "wrong", False),
        ([{"kind": "bug", "why": "b"}, {"kind": "missing data", "why": "m"}], "b; m", False),
    ],
)
def test_a_failure_by_bad_data_or_a_bug_is_not_temporary(
    told: list[Any], why: str, may_pass: bool
) -> None:
    states = {"a.plan": "success", "a.score_0": "failed", "a.score_1": "failed"}
    assert ended(states, told) == endings.Ending(False, why, may_pass)
    assert ended({"a.plan": "success", "a.score_0": "success"}, told).succeeded
