"""How tasks have ended, for those that go on without them."""

import functools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from airflow.sdk import RetryAction, get_current_context

from include.errors import kind_of

P = ParamSpec("P")
R = TypeVar("R")

WHY = "why"
"""Key of the XCom in which a task that has failed for good says why, to those that go on."""


def tells_why(function: Callable[P, R]) -> Callable[P, R]:
    """Have a task leave the message of its last failure to tasks that go on without it.

    A try that another one follows leaves nothing: if that never starts or is killed, what it died
    of is not what an earlier one says.
    """

    @functools.wraps(function)
    def telling(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except BaseException as error:  # a timeout is no Exception in Airflow
            with suppress(Exception):  # the failure itself matters more
                context = get_current_context()
                if _is_last(context, error):
                    told = {"kind": kind_of(error), "why": f"{type(error).__name__}: {error}"}
                    context["ti"].xcom_push(WHY, told)
            raise

    return telling


def _is_last(context: Any, error: BaseException) -> bool:
    """Whether a task that fails so is not tried again."""
    instance, policy = context["ti"], context["task"].retry_policy
    if instance.try_number > instance.max_tries:
        return True
    decision = policy.evaluate(error, instance.try_number, instance.max_tries, context)
    return bool(decision.action == RetryAction.FAIL)


@dataclass(frozen=True)
class Ending:
    """How tasks of a run have ended.

    Attributes:
        succeeded: whether all of them have.
        why: what those that failed have told (see `tells_why`).
        may_pass: whether the tasks may well succeed in another run: none has failed by bad data
            or a bug.
    """

    succeeded: bool
    why: str
    may_pass: bool


def ending(instance: Any, run_id: str | None, *task_ids: str) -> Ending:
    """How tasks of this run have ended, in this attempt.

    What an XCom says is not enough: after a run was cleared, a task that is not even started keeps
    what it returned in the attempt before.

    Args:
        instance: the task instance that asks.
        task_ids: tasks that have ended, mapped ones without their index.
    """
    states = instance.get_task_states(
        dag_id=instance.dag_id, task_ids=[*task_ids], run_ids=[run_id]
    )[run_id]
    states = {name: state for name, state in states.items() if state != "removed"}
    failed = [
        one
        for one in task_ids
        if any(
            state == "failed" and (name == one or name.startswith(f"{one}_"))  # one_0: mapped
            for name, state in states.items()
        )
    ]
    told = [one for one in (instance.xcom_pull(failed, key=WHY) if failed else []) if one]
    return Ending(
        succeeded=bool(states) and all(state == "success" for state in states.values()),
        why="; ".join(dict.fromkeys(one["why"] for one in told)),
        may_pass=all(one["kind"] not in ("bad data", "bug") for one in told),
    )
