"""Shows *Model health*, *Models* in the navigation of Airflow's UI: it only reads."""

from functools import cache
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from fastapi import FastAPI

    from include.monitoring.page.health_page import Approval

RETRAINING = "model_retraining"
"""The DAG that asks a person for approval."""

RULES = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""Whatever is in the lake or the registry, only the page's own script runs."""


async def model_health(scope: Any, receive: Any, send: Any) -> None:
    """The ASGI application, made when it is first asked."""
    await _application()(scope, receive, send)


@cache
def _application() -> "FastAPI":
    from airflow.api_fastapi.app import API_ROOT_PATH
    from airflow.api_fastapi.core_api.security import GetUserDep
    from fastapi.responses import HTMLResponse

    from include.monitoring.page.behind_login import application
    from include.orchestration.report_link import MONITORING

    pages = application(MONITORING)

    @pages.get("/")
    def page(user: GetUserDep) -> HTMLResponse:  # no coroutine: the server goes on meanwhile
        from include.monitoring.page import health, health_page

        nonce = token_urlsafe(16)
        found, approvals = health.look(case), None
        with health.named("What waits for a person's approval", found.problems):
            approvals = _approvals(user, API_ROOT_PATH)
        html = health_page.render(case, found, approvals, API_ROOT_PATH, nonce)
        headers = {
            "Content-Security-Policy": RULES.format(nonce=nonce),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }
        return HTMLResponse(html, headers=headers)

    return pages


def _approvals(user: Any, root: str) -> "list[Approval] | None":
    """What retraining asks and nobody has answered; None for who may not see it.

    Airflow's API has the same list, but asking it from here takes a token and a request to itself.
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
        details=DagDetails(id=RETRAINING),
        user=user,
    ):
        return None
    waiting = (
        select(HITLDetail.subject, HITLDetail.created_at, TaskInstance.run_id, TaskInstance.task_id)
        .join(TaskInstance, TaskInstance.id == HITLDetail.ti_id)
        .where(
            TaskInstance.dag_id == RETRAINING,
            TaskInstance.state.in_([TaskInstanceState.AWAITING_INPUT, TaskInstanceState.DEFERRED]),
            HITLDetail.responded_at.is_(None),
        )
        .order_by(HITLDetail.created_at)
    )
    with create_session() as session:
        found = session.execute(waiting).all()
    place = f"{root}dags/{RETRAINING}/runs/{{run}}/tasks/{{task}}/required_actions"
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
    # Without a slash at the beginning it is found below a path of Airflow's own, too.
    external_views = [  # noqa: RUF012
        {
            "name": "Models",  # a longer one is cut off there
            "href": "model-health/",
            "url_route": "model-health",
            "destination": "nav",
        }
    ]
