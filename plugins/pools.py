"""Makes the pools of the ensemble's members when Airflow starts, wherever it runs.

A task whose pool does not exist is never scheduled, and only a line in a log says so. Existing
pools are not changed, because their slots may have been changed in the UI.

The DAG processor does not do this: if it loaded the library, it would keep parsing DAG files with
the old one after a new one is uploaded.
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
        """Make the missing pools."""
        if not isinstance(
            component, Job
        ):  # a task is starting, which has no access to the database
            return
        if sys.argv[1:2] == ["dag-processor"]:  # a starting job does not know its type yet
            return
        from include import usecases
        from include.errors import BadData

        try:
            enabled = usecases.enabled()
        except BadData as error:  # Airflow must start anyway, and its DAGs show the error, too
            log.error("No pools are made: %s", error)
            return
        for case in enabled:
            for member in case.members:
                self._make(case.pool(member), member.slots, f"Tasks that score with {member.name}")

    def _make(self, name: str, slots: int, description: str) -> None:
        with suppress(IntegrityError), create_session() as session:  # another process was first
            if Pool.get_pool(name, session=session) is None:
                pool = Pool(pool=name, slots=slots, description=description, include_deferred=False)
                session.add(pool)


class EnsemblePools(AirflowPlugin):
    """Registers the listener."""

    name = "ensemble_pools"
    listeners = [PoolMaker()]  # noqa: RUF012  Airflow reads it from the class
