"""A command is about one use case, and says which there are if it is not said which."""

from collections.abc import Callable
from pathlib import Path

import pytest

from include.usecase import UsecaseInvalid
from local.choose import chosen
from tests.case import BOTH, CASE, SECOND
from tests.conftest import FLIGHTS
from tests.unit.helpers import run_python


def test_a_command_is_about_the_only_one_or_about_the_one_it_names(
    enable: Callable[..., None],
) -> None:
    enable(SECOND)
    assert chosen(None).name == chosen("").name == "doctor_visits"
    with pytest.raises(UsecaseInvalid, match=r"no use case 'churn': enabled is doctor_visits"):
        chosen("churn")
    enable(FLIGHTS, SECOND)
    assert chosen("flight_delays") is CASE
    assert chosen("doctor_visits").name == "doctor_visits"
    with pytest.raises(UsecaseInvalid, match=r"enabled: flight_delays, doctor_visits\. Choose one"):
        chosen(None)


@pytest.mark.parametrize("module", ["seed", "days", "usecase", "rollback --reason x"])
def test_a_command_that_needs_one_of_several_says_which_there_are(
    module: str, tmp_path: Path
) -> None:
    done = run_python(BOTH, tmp_path / "data", "-m", *f"local.{module}".split())
    assert done.returncode == 2
    assert done.stderr.startswith("Several use cases are enabled: flight_delays, doctor_visits. ")
    assert not (tmp_path / "data").exists()
