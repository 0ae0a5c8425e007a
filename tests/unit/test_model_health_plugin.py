"""The page is for those who may see the monitoring, and tells nobody else anything."""

import re
import subprocess
import sys

from airflow import settings as airflow_settings
from airflow.models.hitl import HITLDetail
from fastapi.testclient import TestClient

from include.lake.tables import Lake
from plugins.model_health import ModelHealth
from tests.unit.helpers import log_in

PAGE = "/model-health/flight_delays"


def test_who_may_see_the_monitoring_sees_the_page(ana: TestClient, lake: Lake) -> None:
    answer = ana.get(PAGE)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "Version 1" in answer.text
    assert "The last partitions" in answer.text


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


def test_who_may_not_see_the_monitoring_is_told_nothing(visitor: TestClient, lake: Lake) -> None:
    answer = log_in(visitor, "bob", None).get(PAGE)
    assert answer.status_code == 403
    assert "Version" not in answer.text


def test_a_token_that_somebody_else_signed_opens_nothing(ana: TestClient, lake: Lake) -> None:
    signed = ana.cookies["_token"].rsplit(".", 1)[0]
    ana.cookies.set("_token", f"{signed}.{'A' * 86}")
    answer = ana.get(PAGE)
    assert answer.status_code == 403
    assert "Version" not in answer.text


def test_where_approvals_cannot_be_read_that_is_said_and_the_rest_is_shown(
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
    assert {ana.request(how, PAGE).status_code for how in ("POST", "PUT", "DELETE")} == {405}
    assert "<form" not in ana.get(PAGE).text


def test_it_has_a_place_in_the_navigation() -> None:
    [view], [app] = ModelHealth.external_views, ModelHealth.fastapi_apps
    assert (view["destination"], view["name"]) == ("nav", "Models")
    assert f"/{view['href']}" == f"{app['url_prefix']}/"


def test_a_process_that_serves_no_pages_imports_nothing_for_them() -> None:
    heavy = {"fastapi", "polars", "mlflow", "include.monitoring.page.health"}
    script = f"import sys, plugins.model_health; sys.exit(bool({heavy} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", script], check=True)
