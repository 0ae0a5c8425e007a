"""If everyone is admin, Airflow only answers requests to its own host names.

A web site can make its own name resolve to 127.0.0.1 (DNS rebinding). Without a login, a visitor's
browser would then let that site start DAGs and read every page. Such requests have the site's name.
"""

from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin


def own_names() -> list[str]:
    """The names of this machine, and those in Airflow's configuration."""
    options = [("api", "base_url"), ("core", "execution_api_server_url")]  # neither has to be set
    configured = [urlsplit(conf.get(*option, fallback="")).hostname for option in options]
    return sorted({"127.0.0.1", "localhost", "*.localhost", *filter(None, configured)})


def only_own_names(app: Any) -> Any:
    """Refuse requests to other names, for every page and API."""
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    return TrustedHostMiddleware(app, own_names(), www_redirect=False)


def everyone_is_admin() -> bool:
    """Whether Airflow has no login."""
    return "SimpleAuthManager" in conf.get("core", "auth_manager") and conf.getboolean(
        "core", "simple_auth_manager_all_admins"
    )


class OwnNames(AirflowPlugin):
    """Found by Airflow in `plugins/`."""

    name = "own_names"
    fastapi_root_middlewares = (
        [{"name": "own_names", "middleware": only_own_names}] if everyone_is_admin() else []
    )
