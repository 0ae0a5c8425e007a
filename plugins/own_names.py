"""Where everyone is admin, Airflow answers to its own names only.

A web site can make its own name lead to 127.0.0.1 (DNS rebinding). Without a login, a visitor's
browser would then let that site start DAGs and read every page. Its requests carry the site's name.
"""

from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin


def own_names() -> list[str]:
    """The names of this machine, and those by which Airflow's configuration calls it."""
    options = [("api", "base_url"), ("core", "execution_api_server_url")]  # neither has to be set
    configured = [urlsplit(conf.get(*option, fallback="")).hostname for option in options]
    return sorted({"127.0.0.1", "localhost", "*.localhost", *filter(None, configured)})


def only_own_names(app: Any) -> Any:
    """Refuse requests to other names, whichever page or API they ask for."""
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    return TrustedHostMiddleware(app, own_names(), www_redirect=False)


def everyone_is_admin() -> bool:
    """Whether Airflow asks for no login."""
    return "SimpleAuthManager" in conf.get("core", "auth_manager") and conf.getboolean(
        "core", "simple_auth_manager_all_admins"
    )


class OwnNames(AirflowPlugin):
    """Found by Airflow in `plugins/`."""

    name = "own_names"
    fastapi_root_middlewares = (
        [{"name": "own_names", "middleware": only_own_names}] if everyone_is_admin() else []
    )
