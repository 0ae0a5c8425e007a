"""What every task of every DAG has: an owner, retries that follow the kind of failure, an alert."""

import random
from datetime import timedelta
from typing import Any

from airflow.sdk import RetryDecision, RetryPolicy

from include.alerting import report_failure
from include.errors import kind_of
from include.settings import settings


class RetryByKind(RetryPolicy):
    """Bad data and bugs fail at once; what is down or missing is tried again, ever later.

    The n-th wait is drawn between half and all of `base * 2 ** (n - 1)`, at most the maximum
    ("equal jitter", Brooker, Exponential Backoff and Jitter, 2015). Airflow's own jitter is a hash
    of the task and the logical date, which is the same for all mapped tasks of a partitioned run:
    they would come back together.
    """

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Any = None
    ) -> RetryDecision:
        """Decide by the failure's kind."""
        kind = kind_of(exception)
        if kind in ("bad data", "bug"):
            return RetryDecision.fail(reason=f"{kind}: another try would fail the same way")
        longest = settings().retry_base_seconds * 2.0 ** min(try_number - 1, 60)
        wait = min(longest, settings().retry_max_seconds) * random.uniform(0.5, 1)
        return RetryDecision.retry(timedelta(seconds=wait), reason=kind)


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
