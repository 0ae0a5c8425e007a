"""The client of Airflow's API rides out faults of its server, and does nothing twice."""

from pathlib import Path

import pytest

from local import client
from local.client import Airflow, EmbeddedError
from tests.unit.local.conftest import Server

LOCKED = {"detail": {"reason": "Database error", "statement": "hidden"}}
RUN = "/dags/d/dagRuns"
TOKEN, PASSWORD = "tok3n-of-airflow", "s3cr3t-of-ann"  # pragma: allowlist secret


@pytest.mark.parametrize("fault", [(500, LOCKED), (502, "down"), (503, "down"), (0, None)])
@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_a_server_error_is_retried(
    method: str, fault: tuple[int, object], server: tuple[Server, Airflow]
) -> None:
    found, airflow = server
    found.answers = [fault, fault, (200, {"is": "here"})]
    assert airflow.request(method, "/dags/d", json={}) == {"is": "here"}
    assert len(found.asked) == 3


def test_an_answer_that_takes_too_long_is_requested_again(
    server: tuple[Server, Airflow], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, airflow = server
    monkeypatch.setattr(client, "REPEAT_SECONDS", 0)
    airflow._http.timeout = 0.2
    found.seconds = [1, 1, 0]
    found.answers = [(200, {"is": "here"})]
    assert airflow.request("GET", "/dags") == {"is": "here"}
    found.seconds, found.asked = [1], []
    with pytest.raises(EmbeddedError, match="does not answer: ReadTimeout"):
        airflow.request("GET", "/dags")
    assert len(found.asked) == client.REPEATS


@pytest.mark.parametrize("status", [400, 404, 409, 422])
def test_a_fault_of_the_request_is_not_asked_again(
    status: int, server: tuple[Server, Airflow]
) -> None:
    found, airflow = server
    found.answers = [(status, "no")]
    with pytest.raises(EmbeddedError, match=f"GET /dags: {status}"):
        airflow.request("GET", "/dags")
    assert len(found.asked) == 1


def test_a_server_that_stays_broken_is_given_up(
    server: tuple[Server, Airflow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "REPEAT_SECONDS", 0.5)
    found, airflow = server
    found.answers = [(500, "broken")]
    with pytest.raises(EmbeddedError, match=r"GET /dags: 500.*broken"):
        airflow.request("GET", "/dags")
    assert len(found.asked) > 1


@pytest.mark.parametrize("before", [0, 470, 490, 499])
def test_a_secret_that_airflow_repeats_is_masked_wherever_it_is_cut(
    before: int, server: tuple[Server, Airflow]
) -> None:
    found, open_airflow = server
    found.answers = [(200, {"access_token": TOKEN}), (400, f"{'z' * before} {TOKEN} {PASSWORD}")]
    airflow = Airflow(open_airflow.url, Path(), ("ann", PASSWORD))
    with pytest.raises(EmbeddedError) as failure:
        airflow.request("GET", "/dags")
    assert not any(part in str(failure.value) for part in (TOKEN[:3], PASSWORD[:3]))


def test_a_run_is_requested_again_only_if_the_database_was_locked(
    server: tuple[Server, Airflow],
) -> None:
    found, airflow = server
    found.answers = [(500, LOCKED), (200, {})]
    run_id = airflow.trigger("d")
    assert [body["dag_run_id"] for _, body in found.asked] == [run_id, run_id]
    found.asked.clear()
    found.answers = [(500, "who knows"), (200, {"dag_runs": [], "total_entries": 0})]
    with pytest.raises(EmbeddedError, match=r"500.*who knows"):
        airflow.trigger("d")
    assert [method for method, _ in found.asked] == ["POST", "GET"]


def test_a_run_whose_answer_was_lost_is_found(
    server: tuple[Server, Airflow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "token_hex", lambda _: "0")
    monkeypatch.setattr(client, "_now", lambda: "now")
    found, airflow = server
    there = {"dag_runs": [{"dag_run_id": "manual__now_0"}], "total_entries": 1}
    found.answers = [(0, None), (200, there)]
    assert airflow.trigger("d") == "manual__now_0"


def test_why_a_run_failed_is_what_its_failed_task_says(server: tuple[Server, Airflow]) -> None:
    found, airflow = server
    tasks = [
        {"task_id": "first", "state": "success", "try_number": 1, "map_index": -1},
        {"task_id": "second", "state": "failed", "try_number": 3, "map_index": -1},
    ]
    log = [{"event": "begun"}, {"event": 'task_failed {"message": "the champion stays"}'}]
    found.answers = [(200, {"task_instances": tasks, "total_entries": 2}), (200, {"content": log})]
    assert airflow.why_failed("d", "r") == "the champion stays"
    found.asked.clear()
    found.answers = [(200, {"task_instances": tasks[:1], "total_entries": 1})]
    assert airflow.why_failed("d", "r") == ""
