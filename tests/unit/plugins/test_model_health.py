"""The page is for those who may see the monitoring, and shows nothing to anyone else."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow import settings as airflow_settings
from airflow.api_fastapi.app import get_auth_manager
from airflow.models.hitl import HITLDetail
from fastapi.testclient import TestClient

from include.lake.tables import Lake
from plugins.model_health import ModelHealth
from tests.case import BOTH
from tests.conftest import FLIGHTS
from tests.unit.helpers import log_in

FRONT = "/model-health/"
PAGE = "/model-health/flight_delays"
OTHER = "/model-health/doctor_visits"


@pytest.fixture
def two(configure: Callable[..., None]) -> None:
    """Two use cases are enabled."""
    configure(usecases=BOTH)


@pytest.fixture
def broken(configure: Callable[..., None], tmp_path: Path) -> None:
    """One beside the other is broken."""
    (tmp_path / "late_payments").mkdir()
    (tmp_path / "late_payments" / "__init__.py").write_text("")
    configure(usecases=f"{FLIGHTS},{tmp_path}/late_payments")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let everybody see some DAGs and no others."""

    def only(*dags: str) -> None:
        def is_authorized(*, details: Any, **_: Any) -> bool:
            return details.id in dags

        monkeypatch.setattr(get_auth_manager(), "is_authorized_dag", is_authorized)

    return only


def test_a_user_who_may_see_the_monitoring_sees_the_page(ana: TestClient, lake: Lake) -> None:
    answer = ana.get(PAGE)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "Version 1" in answer.text
    assert "The last partitions" in answer.text


def test_the_navigation_leads_to_the_first_use_case_that_one_may_see(
    ana: TestClient, two: None, seen: Callable[..., None]
) -> None:
    answer = ana.get(FRONT)
    assert (answer.status_code, answer.headers["location"]) == (307, PAGE)
    seen("doctor_visits.model_monitoring", "flight_delays.batch_inference")
    assert ana.get(FRONT).headers["location"] == OTHER
    seen("flight_delays.batch_inference")
    answer = ana.get(FRONT)
    assert answer.status_code == 403
    assert answer.text == "There is no use case whose monitoring you may see."


def test_a_use_case_is_shown_to_users_who_may_see_its_monitoring(
    ana: TestClient, two: None, lake: Lake, seen: Callable[..., None]
) -> None:
    seen("doctor_visits.model_monitoring", "flight_delays.model_retraining")
    answer = ana.get(PAGE)
    assert answer.status_code == 403
    assert "Version" not in answer.text
    answer = ana.get(OTHER)
    assert answer.status_code == 200
    assert "flight_delays" not in answer.text


def test_use_cases_lead_to_each_other_if_there_are_several(
    ana: TestClient, configure: Callable[..., None], lake: Lake
) -> None:
    assert "<nav" not in ana.get(PAGE).text
    configure(usecases=BOTH)
    page, other = ana.get(PAGE).text, ana.get(OTHER).text
    assert f'<a href="{OTHER}"' in page
    assert f'<a href="{PAGE}"' in other
    assert f'<a href="{PAGE}"' not in page
    assert "/dags/doctor_visits.data_validation" in other
    assert "There is nothing to show yet" in other, "it is another lake"


def test_a_use_case_that_cannot_be_loaded_is_named_beside_the_others(
    ana: TestClient, lake: Lake, broken: None, seen: Callable[..., None]
) -> None:
    assert ana.get(FRONT).headers["location"] == PAGE
    answer = ana.get(PAGE)
    assert answer.status_code == 200
    assert "late_payments cannot be loaded: The use case in " in answer.text
    assert "lacks USECASE in __init__.py" in answer.text
    assert "The last partitions" in answer.text
    answer = ana.get("/model-health/late_payments")
    assert answer.status_code == 503
    assert "lacks USECASE in __init__.py" in answer.text
    seen("flight_delays.model_monitoring")
    assert "late_payments" not in ana.get(PAGE).text
    assert ana.get("/model-health/late_payments").status_code == 403


def test_where_none_can_be_loaded_that_is_all_there_is_to_say(
    ana: TestClient, broken: None, configure: Callable[..., None], tmp_path: Path
) -> None:
    configure(usecases=f"{tmp_path}/late_payments")
    answer = ana.get(FRONT)
    assert answer.status_code == 503
    assert "lacks USECASE in __init__.py" in answer.text


def test_only_the_page_s_own_script_runs_and_no_other_site_frames_it(ana: TestClient) -> None:
    first, second = ana.get(PAGE), ana.get(PAGE)
    rules = first.headers["content-security-policy"]
    [nonce] = re.findall("script-src 'nonce-([^']+)';", rules)
    assert first.text.count("<script") == first.text.count(f'<script nonce="{nonce}">') == 1
    assert nonce not in second.text
    assert rules.startswith("default-src 'none';")
    assert rules.endswith("frame-ancestors 'self'")


def test_without_a_login_it_shows_nothing(visitor: TestClient, lake: Lake) -> None:
    answer = visitor.get(PAGE)
    assert answer.status_code == 307
    assert answer.headers["location"] == "/api/v2/auth/login?next=%2Fmodel-health%2Fflight_delays"
    assert answer.text == ""
    for page, there in ((FRONT, ""), ("/model-health/no_such", "no_such")):
        answer = visitor.get(page)
        assert answer.headers["location"] == f"/api/v2/auth/login?next=%2Fmodel-health%2F{there}"
        assert answer.text == ""


def test_a_user_who_may_not_see_the_monitoring_sees_nothing(
    visitor: TestClient, lake: Lake
) -> None:
    answer = log_in(visitor, "bob", None).get(PAGE)
    assert answer.status_code == 403
    assert "Version" not in answer.text


def test_unreadable_approvals_are_reported_and_the_rest_is_shown(
    ana: TestClient, lake: Lake
) -> None:
    HITLDetail.__table__.drop(airflow_settings.engine)
    try:
        answer = ana.get(PAGE)
    finally:
        HITLDetail.__table__.create(airflow_settings.engine)
    assert answer.status_code == 200
    assert "approval cannot be read: (sqlite3.OperationalError) no such table" in answer.text
    assert "Version 1" in answer.text
    assert "approval cannot be read" not in ana.get(PAGE).text


def test_it_can_only_be_read(ana: TestClient) -> None:
    for page in (FRONT, PAGE):
        assert {ana.request(how, page).status_code for how in ("POST", "PUT", "DELETE")} == {405}
    assert "<form" not in ana.get(PAGE).text


def test_it_has_a_place_in_the_navigation() -> None:
    [view], [app] = ModelHealth.external_views, ModelHealth.fastapi_apps
    assert (view["destination"], view["name"]) == ("nav", "Models")
    assert f"/{view['href']}" == f"{app['url_prefix']}/"


def test_a_process_that_serves_no_pages_imports_nothing_for_them() -> None:
    heavy = {"fastapi", "polars", "mlflow", "include.monitoring.page.health"}
    script = f"import sys, plugins.model_health; sys.exit(bool({heavy} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", script], check=True)
