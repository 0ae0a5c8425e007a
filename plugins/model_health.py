"""Shows the read-only page *Model health*, *Models* in the navigation of Airflow's UI."""

from functools import cache
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from fastapi import FastAPI

    from include.monitoring.page.health_page import Approval

RETRAINING = "model_retraining"
"""The pipeline whose runs ask for approval."""

RULES = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""Only the page's own script may run, whatever is in the lake or the registry."""


async def model_health(scope: Any, receive: Any, send: Any) -> None:
    """The ASGI application, made with the first request."""
    await _application()(scope, receive, send)


@cache
def _application() -> "FastAPI":
    from airflow.api_fastapi.app import API_ROOT_PATH
    from airflow.api_fastapi.core_api.security import GetUserDep
    from fastapi import HTTPException
    from fastapi.responses import HTMLResponse, RedirectResponse

    from include import usecases
    from include.monitoring.page import behind_login
    from include.usecase import UsecaseInvalid

    pages = behind_login.application()

    def visible(user: Any) -> list[str]:
        """Names of the use cases that a user may see."""
        return behind_login.visible((case.name for case in usecases.enabled()), user)

    @pages.get("/")
    def first_page(user: GetUserDep) -> RedirectResponse:
        if names := visible(user):
            return RedirectResponse(f"{API_ROOT_PATH}model-health/{names[0]}")
        if wrong := behind_login.broken(user):
            raise UsecaseInvalid("\n".join(wrong.values()))
        raise HTTPException(403, "There is no use case whose monitoring you may see.")

    @pages.get("/{usecase}")
    def page(
        usecase: str, user: GetUserDep
    ) -> HTMLResponse:  # not a coroutine, because it may take long
        from include.monitoring.page import health, health_page

        case = behind_login.case_of(usecase)
        nonce = token_urlsafe(16)
        found, approvals = health.look(case), None
        with health.named("What waits for a person's approval", found.problems):
            approvals = _approvals(case.dag_id(RETRAINING), user, API_ROOT_PATH)
        others, broken = visible(user), behind_login.broken(user)
        html = health_page.render(
            case, found, approvals, API_ROOT_PATH, nonce, others=others, broken=broken
        )
        headers = {
            "Content-Security-Policy": RULES.format(nonce=nonce),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }
        return HTMLResponse(html, headers=headers)

    return pages


def _approvals(retraining: str, user: Any, root: str) -> "list[Approval] | None":
    """Unanswered questions of retraining runs; None if the user may not see them.

    Airflow's API has the same list, but using it here would need a token and a request to itself.
    """
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import (
        DagAccessEntity,
        DagDetails,
    )
    from airflow.models.hitl import HITLDetail
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import select

    from include.monitoring.page.health_page import Approval

    if not get_auth_manager().is_authorized_dag(
        method="GET",
        access_entity=DagAccessEntity.HITL_DETAIL,
        details=DagDetails(id=retraining),
        user=user,
    ):
        return None
    waiting = (
        select(HITLDetail.subject, HITLDetail.created_at, TaskInstance.run_id, TaskInstance.task_id)
        .join(TaskInstance, TaskInstance.id == HITLDetail.ti_id)
        .where(
            TaskInstance.dag_id == retraining,
            TaskInstance.state.in_([TaskInstanceState.AWAITING_INPUT, TaskInstanceState.DEFERRED]),
            HITLDetail.responded_at.is_(None),
        )
        .order_by(HITLDetail.created_at)
    )
    with create_session() as session:
        found = session.execute(waiting).all()
    place = f"{root}dags/{retraining}/runs/{{run}}/tasks/{{task}}/required_actions"
    return [
        Approval(subject, asked_at, place.format(run=quote(run, safe=""), task=task))
        for subject, asked_at, run, task in found
    ]


class ModelHealth(AirflowPlugin):
    """Registers the application and its place in the navigation."""

    name = "model_health"
    fastapi_apps = [  # noqa: RUF012
        {"app": model_health, "url_prefix": "/model-health", "name": "Model health"}
    ]
    # Without a leading slash, it also works if Airflow is served under a path.
    external_views = [  # noqa: RUF012
        {
            "name": "Models",  # a longer name is cut off there
            "href": "model-health/",
            "url_route": "model-health",
            "destination": "nav",
        }
    ]
