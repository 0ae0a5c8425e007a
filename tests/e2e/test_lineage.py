"""A day goes through every DAG of a real Airflow that reports its lineage: what the events say."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deltalake
import pytest

from include.lake.tables import Lake, Manifest
from include.registry import registry
from local.client import Airflow
from local.seed import seed
from tests.case import CASE
from tests.e2e.dag_ids import INFERENCE, MONITORING, RETRAINING, VALIDATION
from tests.e2e.own_airflow import own_airflow, own_data

pytestmark = pytest.mark.exhaustive  # an Airflow of its own
pytest.importorskip("airflow.providers.openlineage")

SEEDED = ("2013-01-01", "2013-01-21")
DAY, TRUTH_DAY = "2013-01-22", "2013-01-21"
DELIVERY = CASE.dag_id("delivery")

Seen = dict[str, dict[str, dict[str, Any]]]
"""Job → dataset → its facets."""


@dataclass(frozen=True)
class Lineage:
    """What the events of all runs say together."""

    lake: Lake
    inputs: Seen
    outputs: Seen

    def of(self, table: str) -> str:
        """The name of a table's dataset."""
        return f"file {self.lake.root / table}"


@pytest.fixture(scope="module")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lineage]:
    data = tmp_path_factory.mktemp("lineage")
    events = data / "events.jsonl"
    transport = {"type": "file", "log_file_path": str(events), "append": True}
    switched_on = {"AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport)}
    with own_data(data) as lake:
        registry.create_store(CASE)
        assert seed(CASE, *SEEDED, say=lambda _: None) == 21
        with own_airflow(data, switched_on) as airflow:
            run_everything(airflow)
        yield Lineage(lake, seen(events, "inputs"), seen(events, "outputs"))


def run_everything(airflow: Airflow) -> None:
    def run(dag_id: str, conf: dict[str, Any] | None = None, key: str | None = None) -> None:
        airflow.unpause(dag_id)
        run_id = airflow.trigger(dag_id, conf, partition_key=key)
        assert airflow.wait(dag_id, run_id) == "success"

    window = {"start": SEEDED[0], "end": SEEDED[1], "holdout_days": 5}
    run(RETRAINING, {"reason": "whose lineage is read", **window})
    airflow.unpause(INFERENCE)
    airflow.unpause(DELIVERY)
    for key in (TRUTH_DAY, DAY):
        run(VALIDATION, key=key)
        assert airflow.wait_partition(INFERENCE, key)["state"] == "success"
        assert airflow.wait_partition(DELIVERY, key)["state"] == "success"
    run(MONITORING, {"act": False}, DAY)


def seen(events: Path, side: str) -> Seen:
    """The datasets of each job; of several runs, the last one counts."""
    found: Seen = defaultdict(dict)
    for line in events.read_text().splitlines():
        event = json.loads(line)
        for one in event.get(side) or []:
            name = f"{one['namespace']} {one['name']}"
            known = found[event["job"]["name"]].setdefault(name, {})
            known |= one.get("facets", {}) | one.get(f"{side[:-1]}Facets", {})
    return found


def columns(facets: dict[str, Any]) -> list[str]:
    return [one["name"] for one in facets["schema"]["fields"]]


STAGES = {
    f"{VALIDATION}.inputs.publish": ("validated", ["landing/flights", "landing/weather"]),
    f"{VALIDATION}.truth.publish": ("actuals", ["landing/actuals"]),
    f"{INFERENCE}.preprocess": ("features", ["validated"]),
    f"{INFERENCE}.publish": ("predictions", ["features"]),
    f"{MONITORING}.observe": ("outcomes", ["predictions", "actuals", "features"]),
    f"{RETRAINING}.take_snapshot": ("training", ["validated", "actuals"]),
}
"""Task → the table that it publishes, and those that it is made of."""


@pytest.mark.parametrize("job", STAGES)
def test_a_stage_names_what_it_reads_and_publishes_as_its_manifest(
    lineage: Lineage, job: str
) -> None:
    table, sources = STAGES[job]
    assert {lineage.of(source) for source in sources} <= lineage.inputs[job].keys()
    manifest = published(lineage.lake, table)
    for number, (part, promised) in enumerate(manifest.parts.items()):
        facets = lineage.outputs[job][lineage.of(f"{table}/{part}" if number else table)]
        assert columns(facets) == promised.columns
        assert facets["outputStatistics"]["rowCount"] == promised.rows
        assert facets["outputStatistics"]["size"] == promised.bytes
        assert facets["version"]["datasetVersion"] == f"{table}/{manifest.key}/{manifest.version}"


def published(lake: Lake, table: str) -> Manifest:
    return lake.current(table, next(lake.published_keys(table))).manifest()


def test_a_stage_has_read_the_rows_of_the_one_before(lineage: Lineage) -> None:
    for job, sources in (
        (f"{INFERENCE}.preprocess", ["validated"]),
        (f"{INFERENCE}.publish", ["features"]),
        (f"{DELIVERY}.delta", ["predictions"]),
    ):
        for table in sources:
            promised = next(iter(published(lineage.lake, table).parts.values()))
            facets = lineage.inputs[job][lineage.of(table)]
            assert facets["inputStatistics"]["rowCount"] == promised.rows
            assert columns(facets) == promised.columns


def test_the_landed_rows_are_those_that_were_checked(lineage: Lineage) -> None:
    report = published(lineage.lake, "validated").metadata["report"]
    for check in report["inputs"]:
        facets = lineage.inputs[f"{VALIDATION}.inputs.publish"][
            lineage.of(f"landing/{check['input']}")
        ]
        assert facets["inputStatistics"]["rowCount"] == check["rows"]


def test_a_delivered_table_has_the_columns_and_rows_that_are_there(lineage: Lineage) -> None:
    place = lineage.lake.root / "delta" / "predictions"
    facets = lineage.outputs[f"{DELIVERY}.delta"][f"file {place}"]
    table = deltalake.DeltaTable(str(place))
    assert columns(facets) == [field.name for field in table.schema().fields]
    rows = published(lineage.lake, "predictions").parts["predictions"].rows
    assert facets["outputStatistics"]["rowCount"] == rows


def test_the_model_leads_from_its_snapshot_to_its_predictions(lineage: Lineage) -> None:
    model, version = f"mlflow {CASE}", registry.champion(CASE).version
    made = lineage.outputs[f"{RETRAINING}.register"][model]
    assert made["version"]["datasetVersion"] == version
    assert lineage.of("training") in lineage.inputs[f"{RETRAINING}.register"]
    assert model in lineage.inputs[f"{INFERENCE}.publish"]
