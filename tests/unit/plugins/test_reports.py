"""Reports are shown to those who may see their DAG in Airflow, and nothing else of the lake is."""

import subprocess
import sys

import pytest
from airflow.api_fastapi.app import get_auth_manager
from fastapi.testclient import TestClient

from include.lake.files import put_text
from include.lake.tables import Lake
from tests.case import BOTH, CASE
from tests.unit.helpers import log_in

KEY = "2013-03-01"


def write_report(root: str, text: str) -> None:
    put_text(Lake(root).partition_path("reports", KEY) / "report.html", text)


def test_a_report_is_shown_from_wherever_the_lake_is(ana: TestClient, root: str, configure) -> None:
    configure(lake_root=root)
    write_report(f"{root}/{CASE.name}", "<h1>größe</h1>")
    answer = ana.get(f"/reports/flight_delays/{KEY}")
    assert (answer.status_code, answer.text) == (200, "<h1>größe</h1>")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


def test_content_of_the_lake_cannot_run_scripts(ana: TestClient, tmp_path) -> None:
    write_report(str(tmp_path / "lake" / CASE.name), "<script>alert(1)</script>")
    rules = ana.get(f"/reports/flight_delays/{KEY}").headers["content-security-policy"]
    assert "default-src 'none'" in rules
    assert "sandbox" in rules
    assert "script" not in rules


def test_a_day_without_a_report_says_so(ana: TestClient) -> None:
    answer = ana.get(f"/reports/flight_delays/{KEY}")
    assert answer.status_code == 404
    assert answer.text.startswith(f"There is no report of {KEY}. The task write_report of the DAG")


@pytest.mark.usefixtures("s3_root")
def test_a_lake_that_cannot_be_read_is_reported(ana: TestClient, configure) -> None:
    configure(lake_root="s3://lake_test@no-such-bucket/lake")
    answer = ana.get(f"/reports/flight_delays/{KEY}")
    assert answer.status_code == 503
    place = "s3://lake_test@no-such-bucket/lake/flight_delays/reports"
    assert f"bucket does not exist, at {place}" in answer.text


@pytest.mark.usefixtures("s3_root")
def test_a_lake_that_hangs_is_not_waited_for(
    ana: TestClient, configure, silent_lake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(lake_root=silent_lake)
    monkeypatch.setattr("include.monitoring.page.behind_login.LAKE_SECONDS", 0.1)
    answer = ana.get(f"/reports/flight_delays/{KEY}")
    assert answer.status_code == 503
    root = f"{silent_lake}/{CASE.name}"
    assert answer.text.startswith(f"The lake at {root} has not answered in 0.1 s")


@pytest.mark.parametrize(
    "key",
    ["today", "2013-3-1", "2013-02-30", "", f"{KEY}/", "..%2F..%2Fx", f"{KEY}%2F..%2Fx", "%00"],
)
def test_a_key_that_is_not_a_day_is_refused(key: str, ana: TestClient) -> None:
    answer = ana.get(f"/reports/flight_delays/{key}")
    assert answer.status_code == 400
    assert "is not a day" in answer.text


def test_a_user_who_is_not_logged_in_is_redirected_to_the_login_and_back(
    visitor: TestClient, tmp_path
) -> None:
    write_report(str(tmp_path / "lake" / CASE.name), "secret")
    for key in (KEY, "today"):
        answer = visitor.get(f"/reports/flight_delays/{key}")
        assert answer.status_code == 307
        assert (
            answer.headers["location"]
            == f"/api/v2/auth/login?next=%2Freports%2Fflight_delays%2F{key}"
        )
        assert answer.text == ""


def test_a_user_who_may_not_see_the_dag_may_not_see_its_reports(
    visitor: TestClient, tmp_path
) -> None:
    write_report(str(tmp_path / "lake" / CASE.name), "secret")
    answer = log_in(visitor, "bob", None).get(f"/reports/flight_delays/{KEY}")
    assert answer.status_code == 403
    assert "secret" not in answer.text


def test_a_report_is_only_for_users_who_may_see_its_use_cases_monitoring(
    ana: TestClient, configure, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(usecases=BOTH)
    for name in ("flight_delays", "doctor_visits"):
        write_report(str(tmp_path / "lake" / name), f"of {name}")
        assert ana.get(f"/reports/{name}/{KEY}").text == f"of {name}"
    monkeypatch.setattr(
        get_auth_manager(),
        "is_authorized_dag",
        lambda *, details, **_: details.id == "doctor_visits.model_monitoring",
    )
    assert ana.get(f"/reports/doctor_visits/{KEY}").status_code == 200
    answer = ana.get(f"/reports/flight_delays/{KEY}")
    assert answer.status_code == 403
    assert f"of {CASE.name}" not in answer.text


def test_a_process_that_serves_no_pages_does_not_import_what_serves_them() -> None:
    serving = "airflow.api_fastapi.core_api.security"
    script = f"import sys, plugins.reports; sys.exit('{serving}' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
