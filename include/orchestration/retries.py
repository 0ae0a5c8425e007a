"""Whether a task that has failed is tried again, and when: its failure's kind decides."""

import logging
import random
from datetime import timedelta
from typing import Any

from airflow.sdk import RetryDecision, RetryPolicy

from include.errors import ModelMissing, ServerDown, kind_of
from include.settings import settings

log = logging.getLogger(__name__)

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
