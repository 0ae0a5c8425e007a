"""The steps of an ensemble as its DAG takes them, and what tells its model server to fail."""

import json
from typing import Any

import httpx
import polars as pl
import pytest

from include.inference import ensemble, fallback, scoring
from include.lake.tables import Lake
from include.messages import Answer, ModelVersion, RollCall, Scored
from include.usecase import Member
from tests.case import CASE, at
from tests.unit.conftest import OLD_DAY

BY_NAME = {member.name: member for member in CASE.members}
REMOTE = BY_NAME["remote"]


def connect_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = json.dumps({"conn_type": "http", "host": url})
    monkeypatch.setenv(f"AIRFLOW_CONN_{REMOTE.connection.upper()}", connection)


def tell(url: str, **faults: Any) -> None:
    httpx.put(f"{url}/faults", json=faults).raise_for_status()


def ask(lake: Lake, day: str, member: Member, champion: ModelVersion | None) -> Answer:
    """All steps of one member."""
    chunks = ensemble.plan(at(lake), day, member, champion)
    for chunk in chunks:
        ensemble.score(at(lake), member, chunk)
    return ensemble.check(at(lake), day, member, chunks)


def ask_all(lake: Lake, day: str, champion: ModelVersion | None) -> RollCall:
    """All members, as the DAG does it: what one of them raises is why it is missing."""
    answers: dict[str, dict[str, Any] | None] = {}
    why = {}
    for member in CASE.members:
        try:
            answers[member.name] = ask(lake, day, member, champion)
        except Exception as error:
            answers[member.name], why[member.name] = None, f"{type(error).__name__}: {error}"
    return ensemble.call_roll(at(lake), day, champion, answers, why)


def publish(lake: Lake, day: str, roll: RollCall) -> Scored:
    """All steps after the members."""
    if roll.lacking:
        scored = fallback.fall_back(at(lake), day, roll)
    else:
        scored = ensemble.combine_day(at(lake), day, roll)
    check = scoring.check_outputs(at(lake), scored.predictions, day, None)
    ensemble.publish(at(lake), scored, check, day, roll, "a test")
    return scored


def published(lake: Lake) -> tuple[pl.DataFrame, dict[str, Any]]:
    version = lake.current(ensemble.TABLE, OLD_DAY)
    return version.read("predictions"), version.manifest().metadata


ABSENT = {member.name: "it is down" for member in CASE.members}


def nobody(champion: ModelVersion) -> RollCall:
    return RollCall(champion, {}, ABSENT, "0 answered, 2 have to")
