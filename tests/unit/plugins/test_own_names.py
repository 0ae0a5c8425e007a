"""Which names Airflow answers to: its own where everyone is admin, all where there is a login."""

import importlib

import pytest

from plugins import own_names

SIMPLE = "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"


@pytest.mark.parametrize(
    ("manager", "all_admins", "guarded"),
    [(SIMPLE, "true", True), (SIMPLE, "false", False), (FAB, "true", False), (FAB, "false", False)],
)
def test_only_an_airflow_without_login_is_guarded(
    manager: str, all_admins: str, guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__AUTH_MANAGER", manager)
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", all_admins)
    found = importlib.reload(own_names).OwnNames.fastapi_root_middlewares
    assert [each["name"] for each in found] == (["own_names"] if guarded else [])


def test_the_names_in_its_configuration_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example/sub")
    monkeypatch.setenv(
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "http://api-server:8080/execution/"
    )
    names = own_names.own_names()
    assert {"airflow.example", "api-server", "localhost", "127.0.0.1"} <= set(names)
    assert "evil.example" not in names


def test_an_airflow_without_a_base_url_knows_the_names_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AIRFLOW__API__BASE_URL", "AIRFLOW__CORE__EXECUTION_API_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    assert own_names.own_names() == ["*.localhost", "127.0.0.1", "localhost"]
