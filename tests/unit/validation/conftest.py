"""What several tests of validation take."""

import pytest

from tests.unit.conftest import NEW_DAY, OLD_DAY


@pytest.fixture(params=[NEW_DAY, OLD_DAY], ids=["new day", "published day"])
def key(request: pytest.FixtureRequest) -> str:
    return str(request.param)
