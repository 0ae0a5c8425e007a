"""The link to a day's report in Airflow's UI, where `plugins/reports.py` shows it."""

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperator, BaseOperatorLink

from include.usecase import UseCase

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey


def report_link(case: UseCase, key: str) -> str:
    """Address of a day's report; without a host if `[api] base_url` is not set."""
    from airflow.sdk.configuration import conf

    return f"{conf.get('api', 'base_url', fallback='').rstrip('/')}/reports/{case.name}/{key}"


class ReportLink(BaseOperatorLink):
    """The button *Daily report* on the page of a task that returned a `report_link`.

    A task gets it by `task.operator.operator_extra_links = [ReportLink()]`.
    """

    name = "Daily report"

    def get_link(self, operator: BaseOperator, *, ti_key: "TaskInstanceKey") -> str:  # noqa: ARG002
        """The link that the task returned; empty, so without a button, if it failed."""
        from airflow.sdk.execution_time.xcom import XCom

        return XCom.get_value(ti_key=ti_key, key="return_value") or ""
