"""What every task of every DAG has: an owner, retries that follow the kind of failure, an alert."""

import functools
import logging
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

from airflow.sdk import RetryAction, RetryDecision, RetryPolicy, get_current_context, teardown
from airflow.sdk.exceptions import AirflowSkipException

from include.errors import BadData, ModelMissing, Overtaken, ServerDown, kind_of
from include.orchestration.alerting import parted, report_failure
from include.settings import settings
from include.usecase import UseCase
from include.wording import listed, quoted


def check_conf(conf: Mapping[str, Any] | None, params: Mapping[str, Any]) -> None:
    """Refuse a run that was started with keys that its DAG does not know.

    Airflow takes them without a word, so that `dryrun` instead of `dry_run` would run for real.

    Args:
        conf: of the run.
        params: of the DAG, as it declares them.

    Raises:
        BadData: naming the keys, and those that there are.
    """
    if unknown := sorted(set(conf or {}) - set(params)):
        raise BadData(
            f"This run was started with {listed(map(quoted, unknown))}, which its DAG does not "
            f"know: there are {', '.join(params)}. Nothing was done. Start a new run."
        )


log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

WHY = "why"
"""Key of the XCom in which a task that has failed for good says why, to those that go on."""


OWN_FAILURES = "own_failures"
"""Key of a task's state: numbers of the tries that ended by a failure of its model's own."""


class RetryByKind(RetryPolicy):
    """Bad data and bugs fail at once; what is down or missing is tried again, ever later.

    A task that waits for its next try holds no worker. A model server says when that is worth it,
    or has been asked again by the task itself.

    The n-th wait is drawn between half and all of `base * 2 ** (n - 1)`, at most the maximum
    ("equal jitter", Brooker, Exponential Backoff and Jitter, 2015). Airflow's own jitter is a hash
    of the task and the logical date, which is the same for all mapped tasks of a partitioned run:
    they would come back together. After a run was cleared, n begins at 1 again.

    Args:
        own_retries: retries after failures that are the model's own: its server asks for time, the
            model is missing, it takes too long. None: as many as after any other. Only such
            failures count: an outage of the lake, the registry or Airflow, a missing input, a
            killed process or a try that never started is not the model's own.
    """

    def __init__(self, own_retries: int | None = None):
        self.own_retries = own_retries

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Any = None
    ) -> RetryDecision:
        """Decide by the failure's kind."""
        if isinstance(exception, ServerDown) and exception.retry_after is None:
            return RetryDecision.fail(reason="the server was asked again for long enough")
        kind = kind_of(exception)
        if kind in ("bad data", "bug"):
            return RetryDecision.fail(reason=f"{kind}: another try would fail the same way")
        before = _tries_before_clear(max_tries, context)
        tries = try_number - before
        if (
            self.own_retries is not None
            and _is_own(exception)
            and _own_failures(try_number, before, context) > self.own_retries
        ):
            return RetryDecision.fail(reason=f"{kind}: the others do not wait longer for it")
        if isinstance(exception, ServerDown) and exception.retry_after is not None:
            wait = exception.retry_after * random.uniform(1, 1.1)
            return RetryDecision.retry(timedelta(seconds=wait), reason="the server has said when")
        longest = settings().retry_base_seconds * 2.0 ** min(tries - 1, 60)
        wait = min(longest, settings().retry_max_seconds) * random.uniform(0.5, 1)
        return RetryDecision.retry(timedelta(seconds=wait), reason=kind)


def _tries_before_clear(max_tries: int, context: Any) -> int:
    """Airflow goes on counting when a run is cleared, and adds the task's retries to the bound."""
    return max(max_tries - context["task"].retries, 0) if context else 0


def _is_own(error: BaseException) -> bool:
    """Whether a failure that may pass is a model's own, rather than one of what all models use."""
    ran_out_of_time = type(error).__name__ == "AirflowTaskTimeout"
    return isinstance(error, ServerDown | ModelMissing) or ran_out_of_time


def _own_failures(try_number: int, before: int, context: Any) -> int:
    """How many tries since the last clear have ended by a failure of the model's own.

    Airflow keeps their numbers with the task (its task state store), wherever the next try runs.
    If it cannot, the task has its other retries.

    Args:
        try_number: of this try, which has. It may be judged more than once.
        before: tries before the last clear.
    """
    tries = {try_number}
    try:
        store = context["task_state_store"]
        tries |= set(store.get(OWN_FAILURES, []))
        store.set(OWN_FAILURES, sorted(tries))
    except Exception as error:
        log.warning("This failure may not be counted with earlier ones: %r", error)
    return sum(number > before for number in tries)


TASK_DEFAULTS: dict[str, Any] = {
    "owner": settings().owner,
    "retries": settings().retries,
    "retry_policy": RetryByKind(),
    # For what leaves no exception to judge: a killed process, a lost machine.
    "retry_delay": timedelta(seconds=settings().retry_base_seconds),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(seconds=settings().retry_max_seconds),
    "execution_timeout": timedelta(hours=2),
    "on_failure_callback": report_failure,
}


def skips_if_overtaken(function: Callable[P, R]) -> Callable[P, R]:
    """Have Airflow skip a task that published nothing, as newer inputs were published before.

    A skipped task sends no asset event, so nothing downstream takes the day for published again.
    """

    @functools.wraps(function)
    def skipping(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Overtaken as error:
            log.warning("%s", error)  # Airflow's own line has the reason in a field of its own
            raise AirflowSkipException(str(error)) from error

    return skipping


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


def record_stages(case: UseCase, stages: dict[str, list[str]], output: str) -> Any:
    """A task that notes, however its run has ended, which stages were passed: the monitor counts.

    Args:
        stages: the tasks of each stage.
        output: table that the run publishes at last.
    """

    @teardown  # so that a run that has failed stays failed; made for each DAG, as that changes it
    def record_stages(
        *, partition_key: str | None = None, run_id: str | None = None, ti: Any = None
    ) -> None:
        """Note how the stages of this run have ended, whatever became of it."""
        from include.monitoring import stages as passed

        states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[run_id])[run_id]
        _, pipeline = parted(ti.dag_id)
        passed.record(case, pipeline, str(run_id), str(partition_key), states, stages, output)

    return record_stages()
