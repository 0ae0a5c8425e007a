"""Prometheus and Alertmanager themselves accept our rules and routes, and the rules' cases hold."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.integration.conftest import why_not

REPO = Path(__file__).resolve().parents[2]
SERVICES = yaml.safe_load((REPO / "docker-compose.yaml").read_text())["services"]


def run(tool: str, service: str, *arguments: str) -> str:
    """Run a tool of a service's image in the folder of Prometheus, and say what it said."""
    command = ["docker", "run", "--rm", "--network", "none", "--entrypoint", tool]
    mounted = ["--volume", f"{REPO / 'prometheus'}:/etc/prometheus:ro", "--workdir"]
    command += [*mounted, "/etc/prometheus", SERVICES[service]["image"], *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def docker() -> None:
    if reason := why_not():
        pytest.skip(f"promtool and amtool are run by Docker: {reason}")


def test_prometheus_accepts_its_configuration_and_rules() -> None:
    assert "rules found" in run("promtool", "prometheus", "check", "config", "prometheus.yml")


def test_every_alert_fires_when_it_must_and_not_otherwise() -> None:
    run("promtool", "prometheus", "test", "rules", "tests/alerts_test.yml")


def test_alertmanager_accepts_its_configuration() -> None:
    run("amtool", "alertmanager", "check-config", "alertmanager.yml")


@pytest.mark.parametrize("severity", ["page", "warning"])
def test_an_alert_is_routed_by_its_severity(severity: str) -> None:
    asked = ["config", "routes", "test", "--config.file=alertmanager.yml", f"severity={severity}"]
    assert run("amtool", "alertmanager", *asked).split() == [severity]
