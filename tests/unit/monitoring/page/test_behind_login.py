"""What an address of our pages leads to: a use case that is there, by its name alone."""

from collections.abc import Callable

import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient

from include.lake.tables import Lake
from include.monitoring.page import behind_login
from tests.case import BOTH

PAGE = "/model-health/flight_delays"


@pytest.mark.usefixtures("deployed")
@pytest.mark.parametrize(
    "page", ["/reports/flight_delays/2013-03-01", "/model-health/flight_delays"]
)
def test_a_lake_that_is_not_set_is_reported(ana: TestClient, page: str) -> None:
    answer = ana.get(page)
    assert answer.status_code == 503
    assert answer.text.startswith("ML_LAKE_ROOT is not set.")


@pytest.mark.parametrize("place", ["/reports/no_such/2013-03-01", "/reports/2013-03-01"])
def test_a_missing_use_case_is_refused_with_the_existing_ones(ana: TestClient, place: str) -> None:
    answer = ana.get(place)
    assert answer.status_code == 404
    assert "enabled is flight_delays" in answer.text


def test_for_an_unknown_name_the_existing_use_cases_are_named(
    ana: TestClient, configure: Callable[..., None]
) -> None:
    configure(usecases=BOTH)
    answer = ana.get("/model-health/flight-delays")
    assert answer.status_code == 404
    assert answer.text.startswith("There is no use case 'flight-delays': enabled are flight_delays")
    assert "doctor_visits" in answer.text


def test_a_wrong_setting_is_shown_on_the_page(
    ana: TestClient, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_BATCH_ROWS", "many")
    configure()
    for page in ("/model-health/", PAGE):
        answer = ana.get(page)
        assert answer.status_code == 503
        assert answer.text.startswith("ML_BATCH_ROWS=many is wrong")


def test_a_token_that_somebody_else_signed_opens_nothing(ana: TestClient, lake: Lake) -> None:
    signed = ana.cookies["_token"].rsplit(".", 1)[0]
    ana.cookies.set("_token", f"{signed}.{'A' * 86}")
    answer = ana.get(PAGE)
    assert answer.status_code == 403
    assert "Version" not in answer.text


def test_a_path_to_a_use_case_is_not_an_address_of_its_page(configure: Callable[..., None]) -> None:
    """Whether one may see a use case is asked by its name."""
    configure(usecases=BOTH)
    assert behind_login.case_of("doctor_visits").name == "doctor_visits"
    with pytest.raises(HTTPException) as refused:
        behind_login.case_of("tests/usecases/doctor_visits")
    assert refused.value.status_code == 404
