"""Shows the daily reports of monitoring in Airflow's UI: at `/reports/<use case>/<day>`.

They are read from the lake and are behind Airflow's login. Airflow loads plugins in every process,
tasks included, so everything that serves pages is imported with the first request. This includes
the library: a DAG processor that had loaded it would keep parsing DAG files with the old one after
a new one is uploaded.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from fastapi import FastAPI

SAFE = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "sandbox allow-top-navigation-by-user-activation",
    "Cache-Control": "no-store",
}
"""No script from the lake may run with the user's rights."""


async def reports(scope: Any, receive: Any, send: Any) -> None:
    """The ASGI application, made with the first request."""
    await _application()(scope, receive, send)


@cache
def _application() -> "FastAPI":
    from fastapi import HTTPException
    from fastapi.responses import HTMLResponse

    from include.errors import BadData
    from include.lake.files import read_text
    from include.monitoring.page import behind_login
    from include.partitions import parse_key

    pages = behind_login.application()

    @pages.get("/{usecase}")
    @pages.get("/{usecase}/{key:path}")
    def report(usecase: str, key: str = "") -> HTMLResponse:
        case = behind_login.case_of(usecase)
        try:
            parse_key(key)
        except BadData:
            raise HTTPException(
                400,
                f"{key!r} is not a day. A report's address ends with a date: "
                f"/reports/{case}/2026-03-01",
            ) from None
        lake = case.lake
        path = lake.partition_path("reports", key) / "report.html"
        read = behind_login.LAKE_READERS.submit(read_text, path)
        try:
            page = read.result(behind_login.LAKE_SECONDS)
        except TimeoutError:
            read.cancel()
            raise HTTPException(
                503,
                f"The lake at {lake.root} has not answered in {behind_login.LAKE_SECONDS:g} s, so "
                f"the report of {key} is not shown. Check that its server answers, then load this "
                "page again.",
            ) from None
        except FileNotFoundError:
            raise HTTPException(
                404,
                f"There is no report of {key}. The task write_report of the DAG "
                f"{case.dag_id(behind_login.MONITORING)} writes it: see its run for this day.",
            ) from None
        except BadData as error:  # not a file, for example
            raise HTTPException(500, str(error)) from None
        return HTMLResponse(page, headers=SAFE)

    return pages


class DailyReports(AirflowPlugin):
    """Registers the application."""

    name = "daily_reports"
    fastapi_apps = [{"app": reports, "url_prefix": "/reports", "name": "Daily reports"}]  # noqa: RUF012
