"""Makes the pools of the ensemble's members when Airflow starts, wherever it runs.

A task whose pool does not exist is never scheduled, and nothing but a line in a log says so. A pool
that is there already is left as it is: its slots may have been changed in the UI.

The DAG processor leaves it to the others: with the library in its memory, it would go on parsing
DAG files with it after a new one has been uploaded.
"""

import logging
import sys
from contextlib import suppress
from typing import Any

from airflow.jobs.job import Job
from airflow.listeners import hookimpl
from airflow.models.pool import Pool
from airflow.plugins_manager import AirflowPlugin
from airflow.utils.session import create_session
from sqlalchemy.exc import IntegrityError

log = logging.getLogger(__name__)


class PoolMaker:
    """Listens for the start of a scheduler or a triggerer, which are jobs."""

    @hookimpl
    def on_starting(self, component: Any) -> None:
        """Make the pools that are not there yet."""
        if not isinstance(component, Job):  # a task starts: it has no access to the database
            return
        if sys.argv[1:2] == ["dag-processor"]:  # a job that starts does not know yet which it is
            return
        from include import usecases
        from include.errors import BadData

        try:
            enabled = usecases.enabled()
        except BadData as error:  # Airflow starts all the same: its DAGs say so as well
            log.error("No pools are made: %s", error)
            return
        for case in enabled:
            for member in case.members:
                self._make(case.pool(member), member.slots, f"Tasks that score with {member.name}")

    def _make(self, name: str, slots: int, description: str) -> None:
        with suppress(IntegrityError), create_session() as session:  # another one was first
            if Pool.get_pool(name, session=session) is None:
                pool = Pool(pool=name, slots=slots, description=description, include_deferred=False)
                session.add(pool)


class EnsemblePools(AirflowPlugin):
    """Registers the listener."""

    name = "ensemble_pools"
    listeners = [PoolMaker()]  # noqa: RUF012  Airflow reads it from the class
