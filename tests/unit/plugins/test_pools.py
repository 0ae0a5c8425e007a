"""Every member of every use case has its pool once Airflow has started, whatever is broken."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from airflow import settings as airflow_settings
from airflow.jobs.job import Job
from airflow.models import import_all_models
from airflow.models.base import Base
from airflow.models.pool import Pool
from airflow.utils.session import create_session

from plugins.pools import PoolMaker
from tests.case import BOTH
from tests.conftest import FLIGHTS

POOLS = {
    "flight_delays-xgboost", "flight_delays-hist_gradient_boosting",
    "flight_delays-logistic_regression", "flight_delays-remote",
}  # fmt: skip
OTHER_POOLS = {
    "doctor_visits-shallow_trees", "doctor_visits-straight_line", "doctor_visits-champion_by_http"
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_pools() -> Iterator[None]:
    """Airflow's database, in which there is no pool."""
    import_all_models()
    Base.metadata.create_all(airflow_settings.engine)
    with create_session() as session:
        session.query(Pool).delete()
    yield
    with create_session() as session:
        session.query(Pool).delete()


def started() -> dict[str, int]:
    """The pools after a start of Airflow, and their slots."""
    PoolMaker().on_starting(Job())
    with create_session() as session:
        return {pool.pool: pool.slots for pool in session.query(Pool)}


def test_members_of_all_use_cases_get_a_pool_of_their_own(configure: Callable[..., None]) -> None:
    configure(usecases=BOTH)
    pools = started()
    assert set(pools) == POOLS | OTHER_POOLS
    assert (pools["flight_delays-remote"], pools["flight_delays-xgboost"]) == (2, 4)


def test_a_pool_that_somebody_has_changed_stays_so() -> None:
    with create_session() as session:
        session.add(Pool(pool="flight_delays-xgboost", slots=9, include_deferred=False))
    assert started()["flight_delays-xgboost"] == 9
    assert set(started()) == POOLS


def test_a_broken_use_case_keeps_neither_airflow_from_starting_nor_the_others_from_their_pools(
    configure: Callable[..., None], tmp_path: Path
) -> None:
    broken = tmp_path / "late_payments"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise SystemExit")
    configure(usecases=f"{FLIGHTS},{broken}")
    assert set(started()) == POOLS


def test_a_wrong_setting_does_not_keep_airflow_from_starting(
    configure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("ML_BATCH_ROWS", "many")
    configure()
    with caplog.at_level(logging.ERROR):
        assert started() == {}
    assert "No pools are made: ML_BATCH_ROWS=many is wrong" in caplog.text
