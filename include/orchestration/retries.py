"""When a failed task is retried, if at all: the kind of its failure decides."""

import logging
import random
from datetime import timedelta
from typing import Any

from airflow.sdk import RetryDecision, RetryPolicy

from include.errors import ModelMissing, ServerDown, kind_of
from include.settings import settings

log = logging.getLogger(__name__)

OWN_FAILURES = "own_failures"
"""Key of a task's state: numbers of the tries that ended with a failure of its own model."""


class RetryByKind(RetryPolicy):
    """Fail at once on bad data and bugs; retry what is down or missing, with growing waits.

    A task that waits for its next try occupies no worker. A model server that is down is retried
    only if it says when; otherwise the task itself has already retried its requests.

    The n-th wait is random, between half of `base * 2 ** (n - 1)` and all of it, up to a maximum
    ("equal jitter", Brooker, Exponential Backoff and Jitter, 2015). Airflow's own jitter is a hash
    of the task and the logical date, which all mapped tasks of a partitioned run share: they would
    come back together. When a run is cleared, n starts at 1 again.

    Args:
        own_retries: retries after failures of the model itself: its server asks for time, the model
            is missing, or it takes too long. None: as many as after any other failure. Nothing
            else counts: no outage of the lake, the registry or Airflow, no missing input, no killed
            process and no try that never started.
    """

    def __init__(self, own_retries: int | None = None):
        self.own_retries = own_retries

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Any = None
    ) -> RetryDecision:
        """Decide by the kind of the failure."""
        if isinstance(exception, ServerDown) and exception.retry_after is None:
            return RetryDecision.fail(reason="the task has retried its requests long enough")
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
            return RetryDecision.fail(reason=f"{kind}: the other models wait no longer for it")
        if isinstance(exception, ServerDown) and exception.retry_after is not None:
            wait = exception.retry_after * random.uniform(1, 1.1)  # noqa: S311
            return RetryDecision.retry(timedelta(seconds=wait), reason="the model server said when")
        longest = settings().retry_base_seconds * 2.0 ** min(tries - 1, 60)
        wait = min(longest, settings().retry_max_seconds) * random.uniform(0.5, 1)  # noqa: S311
        return RetryDecision.retry(timedelta(seconds=wait), reason=kind)


def _tries_before_clear(max_tries: int, context: Any) -> int:
    """Tries before the run was cleared: Airflow counts on, and raises the bound by the retries."""
    return max(max_tries - context["task"].retries, 0) if context else 0


def _is_own(error: BaseException) -> bool:
    """Whether the model itself failed, rather than something that all models use."""
    ran_out_of_time = type(error).__name__ == "AirflowTaskTimeout"
    return isinstance(error, ServerDown | ModelMissing) or ran_out_of_time


def _own_failures(try_number: int, before: int, context: Any) -> int:
    """How many tries since the last clear ended with a failure of the model itself.

    Airflow keeps their numbers in the task state store, wherever the next try runs. If the store
    is not available, earlier failures do not count, and the task has more retries.

    Args:
        try_number: of this try, which is one of them. It may be judged more than once.
        before: tries before the last clear.
    """
    tries = {try_number}
    try:
        store = context["task_state_store"]
        tries |= set(store.get(OWN_FAILURES, []))
        store.set(OWN_FAILURES, sorted(tries))
    except Exception as error:
        log.warning("Cannot count failures across tries; the task may get more retries: %r", error)
    return sum(number > before for number in tries)
