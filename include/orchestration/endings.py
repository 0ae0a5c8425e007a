"""How tasks have ended, for downstream tasks that run even if they failed."""

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
"""Key of the XCom with the message of a task that failed for good."""


def shares_failure(function: Callable[P, R]) -> Callable[P, R]:
    """Leave the message of a task's last failure in an XCom, for downstream tasks that run anyway.

    A try that will be retried leaves nothing: if the next try is killed or never starts, the
    message of an earlier failure would be wrong.
    """

    @functools.wraps(function)
    def telling(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except BaseException as error:  # Airflow's timeout is not an Exception
            with suppress(Exception):  # the failure itself matters more
                context = get_current_context()
                if _is_last(context, error):
                    told = {"kind": kind_of(error), "why": f"{type(error).__name__}: {error}"}
                    context["ti"].xcom_push(WHY, told)
            raise

    return telling


def _is_last(context: Any, error: BaseException) -> bool:
    """Whether a task is not retried after this failure."""
    instance, policy = context["ti"], context["task"].retry_policy
    if instance.try_number > instance.max_tries:
        return True
    decision = policy.evaluate(error, instance.try_number, instance.max_tries, context)
    return bool(decision.action == RetryAction.FAIL)


@dataclass(frozen=True)
class Ending:
    """How tasks of a run have ended.

    Attributes:
        succeeded: whether all of them succeeded.
        why: messages of those that failed (see `shares_failure`).
        may_pass: whether another run may succeed: no task failed because of bad data or a bug.
    """

    succeeded: bool
    why: str
    may_pass: bool


def ending(instance: Any, run_id: str | None, *task_ids: str) -> Ending:
    """How tasks of this run have ended, in this attempt.

    XComs alone do not say it: in a run that was cleared, a task that does not start keeps what it
    returned in the attempt before.

    Args:
        instance: the task instance that calls this.
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
