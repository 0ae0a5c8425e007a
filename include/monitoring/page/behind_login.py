"""Shared by the plugins' pages: Airflow's login, and a bounded wait for the lake.

Airflow loads plugins in every process, tasks included, so everything that serves pages is imported
with the first request.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

if TYPE_CHECKING:
    from fastapi import FastAPI

    from include.usecase import UseCase

LAKE_SECONDS = 15.0
"""How long a page waits for the lake; a client of S3 would retry for minutes."""

LAKE_READERS = ThreadPoolExecutor(4, "lake")
"""Shared by all pages: a hanging lake blocks at most four threads, and several people can look at
the same time."""

MONITORING = "model_monitoring"
"""The pipeline that the pages belong to: users who may see it may see the pages."""


def may_see(usecase: str, user: Any) -> bool:
    """Whether a user may see the monitoring of a use case."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails
    from airflow.models.dag import DagModel

    dag_id = f"{usecase}.{MONITORING}"
    details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
    return get_auth_manager().is_authorized_dag(method="GET", details=details, user=user)


def visible(names: Iterable[str], user: Any) -> list[str]:
    """The use cases whose monitoring a user may see."""
    return [name for name in names if may_see(name, user)]


def broken(user: Any) -> dict[str, str]:
    """Name of each enabled use case that cannot be loaded → the reason, if the user may see it."""
    from include import usecases

    found = {folder.name: str(error) for folder, error in usecases.broken().items()}
    return {name: found[name] for name in visible(found, user)}


def case_of(name: str) -> "UseCase":
    """The use case of a page's address.

    Raises:
        HTTPException: it does not exist.
        UsecaseInvalid: it cannot be loaded.
    """
    from fastapi import HTTPException

    from include import usecases
    from include.usecase import UsecaseInvalid

    try:
        found = usecases.find(name)
    except UsecaseInvalid as error:
        if name in {folder.name for folder in usecases.broken()}:
            raise
        raise HTTPException(404, str(error)) from None
    if found.name != name:  # a path, for which no permission was checked
        raise HTTPException(404, f"There is no use case {name!r}.")
    return found


def application() -> "FastAPI":
    """An application with pages of use cases, for users who may see their monitoring.

    The paths of a use case's pages have the parameter `usecase`. Users who are not logged in are
    redirected to the login.
    """
    from airflow.api_fastapi.app import API_ROOT_PATH
    from airflow.api_fastapi.core_api.security import GetUserDep
    from fastapi import Depends, FastAPI, HTTPException, Request
    from fastapi.responses import PlainTextResponse, RedirectResponse, Response

    from include.errors import PipelineError
    from include.usecase import UsecaseInvalid

    def check(request: Request, user: GetUserDep) -> None:
        usecase = request.path_params.get("usecase")
        if usecase is not None and not may_see(usecase, user):
            raise HTTPException(403, f"You may not see {usecase}.{MONITORING}.")

    made = FastAPI(openapi_url=None, dependencies=[Depends(check)])

    @made.exception_handler(HTTPException)
    def refuse(request: Request, refusal: HTTPException) -> Response:
        if refusal.status_code == 401:  # the user followed a link in a message
            there = urlencode({"next": request.url.path})
            return RedirectResponse(f"{API_ROOT_PATH}api/v2/auth/login?{there}")
        return PlainTextResponse(refusal.detail, refusal.status_code)

    @made.exception_handler(UsecaseInvalid)
    @made.exception_handler(PipelineError)
    def explain(_: Request, failure: Exception) -> Response:
        return PlainTextResponse(str(failure), 503)

    return made
