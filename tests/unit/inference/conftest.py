"""Fixtures of the tests of inference."""

from collections.abc import Callable, Iterator

import pytest

from include.inference import scoring
from include.lake.tables import Lake
from tests.case import CASE
from tests.unit import model_servers
from tests.unit.conftest import OLD_DAY
from tests.unit.model_servers import FAILURES, IN_FLIGHT, Server


@pytest.fixture
def impatient(configure: Callable[..., None]) -> None:
    """Remote members are asked in small batches, and given up soon."""
    configure(
        remote_batch_rows=50,
        remote_in_flight=IN_FLIGHT,
        remote_timeout_seconds=0.3,
        remote_give_up_seconds=1,
        remote_breaker_failures=FAILURES,
        remote_max_wait_seconds=0.1,
    )


@pytest.fixture
def server() -> Iterator[Server]:
    """A model server that does what a test wants."""
    with model_servers.running() as running:
        yield running


@pytest.fixture
def day(lake: Lake) -> str:
    """A reference to the features of a real day."""
    return scoring.preprocess(CASE, OLD_DAY)
