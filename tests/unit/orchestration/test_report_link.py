"""The button of a day’s report leads to it, below the address of Airflow."""

import pytest
from airflow.sdk import DAG, task
from airflow.serialization.serialized_objects import DagSerialization

from include.orchestration.report_link import ReportLink, report_link
from tests.case import CASE

KEY = "2013-03-01"


def test_a_link_leads_to_the_report_below_the_address_of_airflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.com/airflow/")
    assert report_link(CASE, KEY) == f"https://example.com/airflow/reports/flight_delays/{KEY}"
    monkeypatch.delenv("AIRFLOW__API__BASE_URL")
    assert report_link(CASE, KEY) == f"/reports/flight_delays/{KEY}"


def test_the_button_is_kept_for_its_task_alone() -> None:
    with DAG("model_monitoring", schedule=None) as dag:

        @task
        def decide() -> str:
            return KEY

        @task
        def write_report(key: str) -> str:
            return report_link(CASE, key)

        link = write_report(decide())
        link.operator.operator_extra_links = [ReportLink()]
    kept = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert [each.name for each in kept.get_task("write_report").operator_extra_links] == [
        "Daily report"
    ]
    assert not kept.get_task("decide").operator_extra_links
