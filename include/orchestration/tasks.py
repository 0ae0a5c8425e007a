"""Tasks with true signatures, and DAGs of every use case that cannot forget their alert."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, get_type_hints

from airflow.sdk import DAG, Param, dag

from include.adapter import adapter
from include.orchestration.alerting import run_failed, run_succeeded
from include.orchestration.task_defaults import TASK_DEFAULTS
from include.usecase import UseCase

P = ParamSpec("P")


def pipeline(
    schedule: Callable[[UseCase], Any] | None,
    tags: Sequence[str],
    params: Callable[[UseCase], dict[str, Param]] | None = None,
    **options: Any,
) -> Callable[[Callable[[UseCase], None]], Callable[[UseCase], DAG]]:
    """Make a function that defines the tasks of a use case one that makes its DAG.

    It is called `<use case>.<name of the function>`, and has what every DAG here has: no run of
    the past, retries by kind of failure, and callbacks that no DAG can forget.

    Args:
        schedule: gives the use case's schedule; None if its runs are only triggered.
        tags: beside the use case's name.
        params: gives the parameters of a run.
        options: others of Airflow's `dag`.
    """

    def decorate(define: Callable[[UseCase], None]) -> Callable[[UseCase], DAG]:
        @functools.wraps(define)
        def make(case: UseCase) -> DAG:
            @dag(
                dag_id=case.dag_id(define.__name__),
                description=inspect.getdoc(define),
                schedule=schedule(case) if schedule else None,
                tags=[case.name, *tags],
                params=params(case) if params else None,
                catchup=False,
                default_args=TASK_DEFAULTS,
                on_failure_callback=run_failed,
                on_success_callback=run_succeeded,
                **options,
            )
            def tasks() -> None:
                define(case)

            made = tasks()
            made.fileloc = define.__code__.co_filename  # not this file, which only helps
            return made

        return make

    return decorate


def typed(function: Callable[P, Any]) -> Callable[P, Any]:
    """Let a task take and return the dataclasses of `messages`; an XCom keeps their plain JSON.

    Arguments are read by the annotations of the parameters, the result is written by its own.
    Templates, the UI and the API see dictionaries and lists.

    Airflow can store dataclasses itself, but reads only those that its configuration allows
    (`allowed_deserialization_classes`), which each platform sets in another place.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def typed_task(*args: P.args, **kwargs: P.kwargs) -> Any:
        kinds = _kinds(function)
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            if (kind := kinds.get(name, Any)) is not Any:
                bound.arguments[name] = adapter(kind).validate_python(_whole(value))
        result = function(*bound.args, **bound.kwargs)
        return adapter(kinds["return"]).dump_python(result, mode="json")

    # Airflow makes an XCom of each key where a task is annotated to return a mapping.
    typed_task.__annotations__ = {**function.__annotations__, "return": Any}
    return typed_task


def _whole(value: Any) -> Any:
    """The results of mapped tasks as a list: Airflow gives what fetches one after the other."""
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


@functools.cache
def _kinds(function: Callable[..., Any]) -> dict[str, Any]:
    return get_type_hints(function)
