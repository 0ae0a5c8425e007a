"""Pages of our own in Airflow's UI, behind its login: what the plugins that show some share.

Airflow loads a plugin in every process, tasks included: what is needed to serve pages is imported
when the first one is asked for.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlencode

if TYPE_CHECKING:
    from fastapi import FastAPI

LAKE_SECONDS = 15.0
"""How long a page waits for the lake: a client of S3 tries for minutes."""

LAKE_READERS = ThreadPoolExecutor(4, "lake")
"""Read the lake for all pages: of those that wait for a lake that hangs, four hang with it and no
more, and of several people who look at once, none waits for the others."""


def application(dag_id: str) -> "FastAPI":
    """An application for those who may see a DAG. Who is not logged in is led to the login."""
    from airflow.api_fastapi.app import API_ROOT_PATH
    from airflow.api_fastapi.core_api.security import requires_access_dag
    from fastapi import Depends, FastAPI, HTTPException, Request
    from fastapi.responses import PlainTextResponse, RedirectResponse, Response

    from include.errors import PipelineError

    may_see = Depends(requires_access_dag("GET", param_dag_id=dag_id))
    made = FastAPI(openapi_url=None, dependencies=[may_see])

    @made.exception_handler(HTTPException)
    def refuse(request: Request, refusal: HTTPException) -> Response:
        if refusal.status_code == 401:  # whoever came by a link in a message
            there = urlencode({"next": request.url.path})
            return RedirectResponse(f"{API_ROOT_PATH}api/v2/auth/login?{there}")
        return PlainTextResponse(refusal.detail, refusal.status_code)

    @made.exception_handler(PipelineError)
    def explain(request: Request, failure: PipelineError) -> Response:
        return PlainTextResponse(str(failure), 503)

    return made
