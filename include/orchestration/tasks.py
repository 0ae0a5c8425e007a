"""What all tasks share: defaults, typed signatures, a skip when overtaken, a record of the run."""

import functools
import inspect
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar, get_type_hints

import msgspec
from airflow.sdk import teardown
from airflow.sdk.exceptions import AirflowSkipException

from include.errors import Overtaken
from include.orchestration import lineage
from include.orchestration.alerting import report_failure
from include.orchestration.retries import RetryByKind
from include.settings import settings
from include.usecase import UseCase, parted

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

TASK_DEFAULTS: dict[str, Any] = {
    "owner": settings().owner,
    "retries": settings().retries,
    "retry_policy": RetryByKind(),
    # For failures without an exception to judge: a killed process, a lost machine.
    "retry_delay": timedelta(seconds=settings().retry_base_seconds),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(seconds=settings().retry_max_seconds),
    "execution_timeout": timedelta(hours=2),
    "on_execute_callback": lineage.begin,
    "on_success_callback": lineage.report,
    "on_failure_callback": report_failure,
}


def typed(function: Callable[P, Any]) -> Callable[P, Any]:
    """Let a task take and return the dataclasses of `messages`; an XCom keeps their plain JSON.

    Annotations say how arguments are read and how the result is written. Templates, the UI and the
    API see dictionaries and lists.

    Airflow can store dataclasses itself, but reads only those that its configuration allows
    (`allowed_deserialization_classes`), and each platform sets that in a different place.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def typed_task(*args: P.args, **kwargs: P.kwargs) -> Any:
        kinds = _kinds(function)
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            if (kind := kinds.get(name, Any)) is not Any:
                bound.arguments[name] = msgspec.convert(_whole(value), kind)
        return msgspec.to_builtins(function(*bound.args, **bound.kwargs), enc_hook=_plain_number)

    # Airflow makes one XCom per key if the annotation says that a task returns a mapping.
    typed_task.__annotations__ = {**function.__annotations__, "return": Any}
    return typed_task


def _whole(value: Any) -> Any:
    """The results of mapped tasks as a list: Airflow passes a sequence that fetches each one."""
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _plain_number(value: Any) -> Any:
    """Python's own number instead of NumPy's.

    Raises:
        TypeError: it is something else, which has no place in an XCom.
    """
    import numpy as np

    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a task returns a {type(value).__name__}, which JSON cannot hold")


@functools.cache
def _kinds(function: Callable[..., Any]) -> dict[str, Any]:
    return get_type_hints(function)


def skips_if_overtaken(function: Callable[P, R]) -> Callable[P, R]:
    """Have Airflow skip a task that published nothing because newer inputs are published already.

    A skipped task sends no asset event, so nothing downstream runs as if the day had been published
    again.
    """

    @functools.wraps(function)
    def skipping(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Overtaken as error:
            log.warning("%s", error)  # Airflow logs the reason in a separate field
            raise AirflowSkipException(str(error)) from error

    return skipping


def record_stages(case: UseCase, stages: dict[str, list[str]], output: str) -> Any:
    """A task that records, however its run ended, which stages it passed, for the monitor.

    Args:
        stages: the tasks of each stage.
        output: table that the run publishes in the end.
    """

    @teardown  # so that a failed run stays failed; defined per DAG, as `teardown` changes the task
    def record_stages(
        *, partition_key: str | None = None, run_id: str | None = None, ti: Any = None
    ) -> None:
        """Record how the stages of this run ended, whether it failed or not."""
        from include.monitoring import stages as passed

        states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[run_id])[run_id]
        _, pipeline = parted(ti.dag_id)
        passed.record(case, pipeline, str(run_id), str(partition_key), states, stages, output)

    return record_stages()
