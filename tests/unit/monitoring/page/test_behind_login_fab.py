"""The pages obey the rights of FAB, the stack's auth manager, in an environment of its own.

Roles name the DAGs that they may read; the pages of a use case belong to its `model_monitoring`.
"""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.case import BOTH

pytestmark = pytest.mark.exhaustive

REPO = Path(__file__).resolve().parents[4]

ASK = """
import json
from datetime import UTC, datetime

from airflow.api_fastapi.app import create_app
from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
from fastapi.testclient import TestClient

READS = {
    "all": ["DAGs"],
    "another": ["DAG:flight_delays.batch_inference"],
    "of another": ["DAG:doctor_visits.model_monitoring"],
    "none": [],
    "monitoring": ["DAG:flight_delays.model_monitoring"],
}
app, found, led = create_app(), {}, {}
with get_application_builder() as builder:
    rights = builder.sm
    for name, resources in READS.items():
        role = rights.add_role(name)
        for resource in resources:
            right = rights.create_permission("can_read", resource)
            rights.add_permission_to_role(role, right)
        rights.add_user(name, name, name, f"{name}@example.com", role, password="secret")
with TestClient(app, follow_redirects=False) as client:
    for name in READS:
        login = client.post("/auth/token", json={"username": name, "password": "secret"})
        headers = {"Authorization": "Bearer " + login.json()["access_token"]}
        client.cookies.clear()
        places = "/model-health/flight_delays", "/reports/flight_delays/2013-01-01"
        pages = [client.get(place, headers=headers) for place in places]
        found[name] = [(page.status_code, page.text) for page in pages]
        front = client.get("/model-health/", headers=headers)
        led[name] = front.headers.get("Location", front.status_code)
    client.cookies.clear()
    found["visitor"] = [(page.status_code, page.text) for page in [client.get("/model-health/")]]
print(json.dumps([found, led]))
"""


@pytest.fixture(scope="module")
def python(request: pytest.FixtureRequest) -> Path:
    """A Python with FAB beside what the pages need. The environment is kept for the next run."""
    airflow = version("apache-airflow")
    folder: Path = request.config.cache.mkdir("fab") / airflow  # type: ignore[union-attr]
    found, installed = folder / "bin" / "python", folder / "installed"
    if not installed.exists():
        uv = [sys.executable, "-m", "uv"]
        subprocess.run(
            [*uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True
        )
        subprocess.run(
            [*uv, "pip", "install", "--quiet", "--python", found, f"apache-airflow=={airflow}",
             "apache-airflow-providers-fab", "apache-airflow-providers-amazon",
             "--requirements", REPO / "requirements.txt"],
            check=True,
        )  # fmt: skip
        installed.touch()
    return found


@pytest.fixture(scope="module")
def asked(python: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each user is answered by both pages, and where *Models* leads each."""
    home = tmp_path_factory.mktemp("fab")
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__AUTH_MANAGER": (
            "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
        ),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPO / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPO / "plugins"),
        "AIRFLOW__API_AUTH__JWT_SECRET": "x" * 64,
        "AIRFLOW__API__SECRET_KEY": "x" * 32,
        "ML_DATA_DIR": str(home / "data"),
        "ML_USECASES": BOTH,
        "PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "config")]),
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
    }
    for arguments in (["-m", "airflow", "db", "migrate"], ["-c", ASK]):
        done = subprocess.run(
            [python, *arguments],
            env=settings,
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def answers(asked: list[dict]) -> dict[str, list[list]]:
    """What each user is answered by both pages."""
    found: dict[str, list[list]] = asked[0]
    return found


@pytest.mark.parametrize("user", ["all", "monitoring"])
def test_a_user_who_may_see_the_monitoring_sees_both_pages(answers: dict, user: str) -> None:
    (health, page), (report, reason) = answers[user]
    assert health == 200
    assert "There is nothing to show yet" in page
    assert report == 404
    assert "There is no report of 2013-01-01" in reason


@pytest.mark.parametrize("user", ["another", "of another", "none"])
def test_a_user_without_permission_sees_nothing(answers: dict, user: str) -> None:
    assert answers[user] == [[403, "You may not see flight_delays.model_monitoring."]] * 2


def test_the_navigation_leads_to_the_first_use_case_that_one_may_read(asked: list[dict]) -> None:
    first, other = "/model-health/flight_delays", "/model-health/doctor_visits"
    assert asked[1] == {
        "all": first, "another": 403, "of another": other, "none": 403, "monitoring": first
    }  # fmt: skip


def test_a_user_who_is_not_logged_in_is_redirected_to_the_login(answers: dict) -> None:
    assert answers["visitor"] == [[307, ""]]
