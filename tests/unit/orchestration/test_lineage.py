"""What is added to a task's events is what it noted, and nothing fails where nobody listens."""

from types import SimpleNamespace
from typing import Any

import pytest

from include import datasets
from include.datasets import CONNECTION, Dataset
from include.orchestration import lineage

ROWS = Dataset("s3://bucket", "lake/predictions", ("id", "score"), 3, 1200, "predictions/day/v1")


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What would be sent to a lineage server."""
    api = pytest.importorskip("airflow.providers.openlineage.api")
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(api, "emit_dataset_lineage", lambda **given: found.append(given))
    return found


def test_a_task_reports_columns_rows_and_version_of_what_it_noted(
    emitted: list[dict[str, Any]],
) -> None:
    datasets.begin()
    datasets.read(ROWS)
    datasets.wrote(datasets.model("churn", "7"))
    lineage.report({"ti": SimpleNamespace(task_id="publish")})
    [event] = emitted
    [read], [written] = event["inputs"], event["outputs"]
    assert (read.namespace, read.name) == ("s3://bucket", "lake/predictions")
    assert [field.name for field in read.facets["schema"].fields] == ["id", "score"]
    assert read.facets["version"].datasetVersion == "predictions/day/v1"
    assert read.inputFacets["inputStatistics"].rowCount == 3
    assert (written.namespace, written.name, written.outputFacets) == ("mlflow", "churn", {})


def test_a_table_of_a_database_is_named_by_its_server(
    emitted: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", "postgres://u:p@db.example:5433/analytics")
    datasets.begin()
    datasets.wrote(Dataset(f"{CONNECTION}warehouse", "analytics.public.scores", ("id",), 2))
    lineage.report({"ti": None})
    [written] = emitted[0]["outputs"]
    assert written.namespace == "postgres://db.example:5433"


def test_a_task_that_noted_nothing_reports_nothing(emitted: list[dict[str, Any]]) -> None:
    lineage.report({"ti": None})
    datasets.begin()
    lineage.report({"ti": None})
    assert emitted == []


def test_nothing_is_noted_while_lineage_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__DISABLED", "True")
    pytest.importorskip("airflow.providers.openlineage.conf")
    lineage.begin({})
    datasets.read(ROWS)
    assert datasets.end() == ([], [])
