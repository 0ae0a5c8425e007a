"""A challenger on a real Airflow: judged, approved by a person or not, promoted, rolled back."""

import time
from typing import Any

import httpx
import pytest

from include.lake.tables import Lake
from include.messages import ModelVersion
from include.registry import promotion, registry
from local import rollback
from local.client import Airflow, poll
from local.seed import seed
from tests.case import CASE
from tests.e2e.dag_ids import RETRAINING, ROLLBACK

WINDOW = {"start": "2013-01-01", "end": "2013-02-10", "holdout_days": 5}
"""Twenty days more than the champion has seen, on which it is honestly and clearly beaten."""


@pytest.fixture(scope="module", autouse=True)
def newer_days(lake: Lake, champion: ModelVersion) -> None:
    assert seed(CASE, "2013-01-22", "2013-02-10", say=lambda _: None) == 20


def ask(airflow: Airflow, **params: Any) -> str:
    return airflow.trigger(RETRAINING, {"reason": "a test", **WINDOW, **params})


def question(airflow: Airflow, run_id: str) -> dict[str, Any]:
    """Wait until a run asks a person."""

    def asked() -> list[dict[str, Any]]:
        [run] = [r for r in airflow.runs(RETRAINING) if r["dag_run_id"] == run_id]
        assert run["state"] in ("queued", "running"), f"the run is {run['state']} and has not asked"
        return airflow.waiting_approvals(RETRAINING, run_id)

    [found] = poll(asked, timeout=180)
    # An answer that comes before Airflow has seen the asking process end is lost: it asks again.
    time.sleep(3)
    return found


def states(airflow: Airflow, run_id: str) -> dict[str, str]:
    tasks = airflow.task_instances(RETRAINING, run_id)
    return {task["task_id"]: task["state"] for task in tasks}


def champion_events(airflow: Airflow) -> list[dict[str, Any]]:
    events = airflow.request("GET", "/assets/events", params={"limit": 100})["asset_events"]
    return [event for event in events if event["name"] == f"{CASE}.champion"]


@pytest.mark.exhaustive
def test_only_one_run_at_a_time_and_only_a_yes_in_time_promotes(airflow: Airflow) -> None:
    before, events = registry.champion(CASE), len(champion_events(airflow))
    reason = "{{ var.value.there_is_none }} ![x](http://evil.example/x.png)"
    rejected = ask(airflow, require_approval=True, reason=reason)
    ignored = ask(airflow, require_approval=True)

    asked = question(airflow, rejected)
    assert "better than the champion" in asked["body"]
    assert asked["body"].startswith(f"`{reason}`\n"), "no template, and no picture"
    assert f" of {CASE} to champion?" in asked["subject"]
    page = httpx.get(f"{airflow.url}/model-health/{CASE}", trust_env=False, timeout=60).text
    assert asked["subject"] in page
    assert "/tasks/approve/required_actions" in page
    [waiting] = [r for r in airflow.runs(RETRAINING) if r["dag_run_id"] == ignored]
    assert waiting["state"] == "queued", "recorded, not lost, and not at the same time"
    airflow.answer(RETRAINING, rejected, "approve", "Reject")
    assert airflow.wait(RETRAINING, rejected) == "success"
    assert states(airflow, rejected)["promote"] == "skipped"

    question(airflow, ignored)
    assert airflow.wait(RETRAINING, ignored) == "success"
    assert states(airflow, ignored)["promote"] == "skipped"

    assert registry.champion(CASE) == before
    assert len(champion_events(airflow)) == events


def test_an_approved_challenger_is_promoted_and_a_rollback_brings_the_old_one_back(
    airflow: Airflow, capsys: pytest.CaptureFixture[str]
) -> None:
    before, events = registry.champion(CASE), len(champion_events(airflow))
    run_id = ask(airflow, require_approval=True)
    question(airflow, run_id)
    airflow.answer(RETRAINING, run_id, "approve", "Approve")
    assert airflow.wait(RETRAINING, run_id) == "success"
    after = registry.champion(CASE)
    assert after.version == airflow.xcom(RETRAINING, run_id, "promote")
    assert promotion.previous(CASE, after) == before
    assert len(champion_events(airflow)) == events + 1

    back = airflow.trigger(ROLLBACK, {"reason": "a test"})
    assert airflow.wait(ROLLBACK, back) == "success"
    assert registry.champion(CASE) == before
    assert len(champion_events(airflow)) == events + 2

    capsys.readouterr()
    assert rollback.main(["--reason", "once more"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"The champion was not rolled back. Version {before.version} of ")
    assert f"The run: {airflow.url}/dags/{ROLLBACK}/runs/" in told
    assert registry.champion(CASE) == before


@pytest.mark.exhaustive
def test_a_dry_run_judges_and_changes_nothing(airflow: Airflow) -> None:
    before = registry.champion(CASE)
    run_id = ask(airflow, dry_run=True)
    assert airflow.wait(RETRAINING, run_id) == "success"
    assert airflow.xcom(RETRAINING, run_id, "judge")["challenger"] is not None
    found = states(airflow, run_id)
    assert [found[task] for task in ("refit", "register", "promote")] == ["skipped"] * 3
    assert registry.champion(CASE) == before
