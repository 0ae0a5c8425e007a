"""How often each task of a day asks S3, where every request takes its tens of milliseconds."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pytest
import s3fs

from include.inference import scoring
from include.lake.tables import Lake
from include.monitoring import daily, stages
from include.monitoring import history as records
from include.monitoring.page import health
from include.statistics import profiles
from include.validation import contract, land, partition, rows
from tests.case import at
from tests.unit.conftest import NEW_DAY, History

LIMITS = {
    "land": 10,
    "check_contract": 8,  # of them two for the files' identities, one for the versions there are
    "check_rows": 15,
    "check_partition": 55,  # the row counts of the 28 days before
    "publish validated": 17,  # of them two to see whether another one publishes
    "preprocess": 25,
    "plan_chunks": 6,
    "score": 6,
    "assemble": 9,  # of them two for the versions there are and the manifest of the features
    "check_outputs": 9,
    "publish predictions": 14,
    "record_stages": 4,
    "observe": 350,  # the manifests and profiles of 28 days, most of them eight at a time
    "decide": 20,
    "write_report": 80,
    "the health page": 95,
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests that this process sends to S3."""
    found: list[str] = []
    real = s3fs.S3FileSystem._call_s3

    async def call(store: Any, method: str, *arguments: Any, **options: Any) -> Any:
        found.append(f"{method} {options.get('Key') or options.get('Prefix')}")
        return await real(store, method, *arguments, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", call)
    return found


def test_no_task_of_a_day_sends_more_requests_than_needed(
    s3_root: str, history: History, configure: Callable[..., None], asked: list[str]
) -> None:
    configure(mlflow_tracking_uri=history.registry)
    lake, key, model = Lake(s3_root), NEW_DAY, history.champion
    lake.root.fs.put(str(history.lake.root), lake.root.path, recursive=True)
    requests: dict[str, list[str]] = {}

    def task(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        forget()
        asked.clear()
        found = function(at(lake), *arguments)
        requests[name] = list(asked)
        return found

    task("land", land.land, "validated", key)
    files = task("check_contract", contract.check_contract, "validated", key)
    checks = [task("check_rows", rows.check_rows, file) for file in files]
    valid = task("check_partition", partition.check_partition, checks)
    task("publish validated", partition.publish, valid)
    features = task("preprocess", scoring.preprocess, key)
    [chunk] = task("plan_chunks", scoring.plan_chunks, features, model)
    chunk = chunk
    task("score", scoring.score_chunk, chunk)
    scored = task("assemble", scoring.assemble, features, [chunk])
    check = task("check_outputs", scoring.check_outputs, scored, features, model)
    lineage = {"features": features, "model": asdict(model)}
    task("publish predictions", scoring.publish, scored, check, lineage)
    states, tasks = {"score": "success"}, {"infer": ["score"]}
    task("record_stages", stages.record, "dag", "run", key, states, tasks, "predictions")
    task("observe", daily.observe, key, datetime.now(UTC))
    decision = task("decide", daily.decide, key)
    task("write_report", daily.write_report, key, decision)
    task("the health page", health.look)

    assert requests.keys() == LIMITS.keys()
    assert {name: found for name, found in requests.items() if len(found) > LIMITS[name]} == {}


def forget() -> None:
    """Every task is a process of its own, which remembers nothing."""
    records._read.cache_clear()
    profiles._read.cache_clear()
