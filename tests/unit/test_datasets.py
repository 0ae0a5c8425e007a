"""What the stages of a day note of their datasets is what their manifests say."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import deltalake
import pytest

from include import datasets
from include.datasets import Dataset
from include.destinations import DeltaTable, SqlTable
from include.inference import delivery, scoring
from include.lake.tables import Lake, Version
from include.monitoring import outcomes
from include.training import snapshot
from local.in_process import batch_inference, validate_day
from tests.case import CASE
from tests.unit.conftest import NEW_DAY, OLD_DAY, History
from tests.unit.deliveries import FIRST, case_of, publish, rows_of


@pytest.fixture(autouse=True)
def noting() -> Iterator[None]:
    datasets.begin()
    yield
    datasets.end()


def noted() -> tuple[dict[str, Dataset], dict[str, Dataset]]:
    """What was read and written since the last time, by name."""
    inputs, outputs = datasets.end()
    datasets.begin()
    return {one.name: one for one in inputs}, {one.name: one for one in outputs}


def of(version: Version) -> dict[str, tuple[tuple[str, ...], int, int, str]]:
    """The datasets of a version, as its manifest describes them."""
    table = str(version.lake.root / version.table)
    parts = version.manifest().parts
    return {
        f"{table}/{name}" if number else table: (
            tuple(part.columns), part.rows, part.bytes, str(version),
        )
        for number, (name, part) in enumerate(parts.items())
    }  # fmt: skip


def facts(found: dict[str, Dataset]) -> dict[str, tuple[tuple[str, ...], int | None, int, str]]:
    return {name: (one.columns, one.rows, one.bytes, one.version) for name, one in found.items()}


def test_a_validated_day_comes_from_its_landed_files(lake: Lake) -> None:
    validate_day(CASE, "validated", NEW_DAY)
    inputs, outputs = noted()
    validated = lake.current("validated", NEW_DAY)
    assert of(validated).items() <= facts(outputs).items()
    checks = validated.manifest().metadata["report"]["inputs"]
    landed = {str(lake.root / "landing" / check["input"]): check["rows"] for check in checks}
    assert {name: inputs[name].rows for name in landed} == landed
    flights = inputs[str(lake.root / "landing" / CASE.inputs[0].name)]
    assert set(validated.manifest().parts[CASE.inputs[0].name].columns) == set(flights.columns)


def test_predictions_come_from_features_and_a_model(lake: Lake, history: History) -> None:
    scoring.preprocess(CASE, OLD_DAY)
    inputs, outputs = noted()
    assert facts(inputs) == of(lake.current("validated", OLD_DAY))
    assert facts(outputs) == of(lake.current("features", OLD_DAY))
    batch_inference(CASE, OLD_DAY, history.champion)
    noted()
    check = scoring.OutputCheck(1, 1, 0, None, None)
    features, scored = (lake.current(table, OLD_DAY) for table in ("features", "predictions"))
    lineage = {"features": str(features), "model": asdict(history.champion)}
    scoring.publish(CASE, str(scored), check, lineage)
    inputs, outputs = noted()
    assert inputs.pop(CASE.name) == datasets.model(CASE.name, history.champion.version)
    assert facts(inputs) == of(features)
    assert facts(outputs) == of(scored)


def test_outcomes_come_from_predictions_and_truth(lake: Lake, history: History) -> None:
    batch_inference(CASE, OLD_DAY, history.champion)
    noted()
    outcomes.update(CASE, OLD_DAY)
    inputs, outputs = noted()
    sources = {str(lake.root / table) for table in ("predictions", "actuals")}
    assert sources <= inputs.keys()
    assert facts(outputs) == of(lake.current("outcomes", OLD_DAY))


def test_a_snapshot_has_read_the_rows_of_all_of_its_days(lake: Lake) -> None:
    taken = snapshot.take(CASE, "2013-02-01", "2013-02-12", 5)
    inputs, outputs = noted()
    assert facts(outputs) == of(lake.version(taken))
    days = [f"2013-02-{number:02}" for number in range(1, 13)]
    rows = sum(
        one.parts[CASE.inputs[0].name].rows for one in lake.manifests("validated", days).values()
    )
    assert inputs[str(lake.root / "validated")].rows == rows
    assert inputs[str(lake.root / "validated")].version == ""


def test_a_delivered_day_leads_from_the_lake_to_a_delta_table(tmp_path: Path) -> None:
    case = case_of(tmp_path, DeltaTable())
    version = publish(case.lake, FIRST, rows_of(FIRST, [0.1, 0.2]))
    noted()
    delivery.deliver(case, "delta", FIRST)
    inputs, outputs = noted()
    assert facts(inputs) == of(version)
    [there] = outputs.values()
    assert (there.namespace, there.name) == ("file", str(tmp_path / "delta" / "predictions"))
    table = deltalake.DeltaTable(there.name)
    assert list(there.columns) == [field.name for field in table.schema().fields]
    assert (there.rows, there.version) == (2, str(table.version()))


@pytest.mark.parametrize(
    ("table", "full"), [("scores", "postgres.public.scores"), ("public.s", "postgres.public.s")]
)
def test_a_delivered_day_leads_to_a_table_of_a_database(
    table: str, full: str, tmp_path: Path, postgres: str
) -> None:
    case = case_of(tmp_path, SqlTable("warehouse", connection=postgres, table=table))
    publish(case.lake, FIRST, rows_of(FIRST, [0.1, 0.2]))
    noted()
    delivery.deliver(case, "warehouse", FIRST)
    [there] = noted()[1].values()
    assert (there.namespace, there.name, there.rows) == (f"connection:{postgres}", full, 2)
    assert "score" in there.columns


@pytest.mark.parametrize(
    ("place", "namespace", "name"),
    [
        ("/data/lake/flights", "file", "/data/lake/flights"),
        ("file:///data/a b#c", "file", "/data/a%20b%23c"),
        ("s3://lake_conn@bucket/lake/flights/", "s3://bucket", "lake/flights"),
        ("s3://bucket/a@b/flights", "s3://bucket", "a@b/flights"),
    ],
)
def test_a_place_has_the_name_that_openlineage_gives_it(
    place: str, namespace: str, name: str
) -> None:
    found = datasets.folder(place)
    assert (found.namespace, found.name) == (namespace, name)


def test_what_is_read_twice_counts_once_and_own_output_is_no_input() -> None:
    day = Dataset("file", "/t", ("a",), 3, 10, "t/1")
    datasets.read(day, day, Dataset("file", "/t", ("a", "b"), 4, 10, "t/2"))
    made = Dataset("file", "/made", rows=1)
    datasets.wrote(made)
    datasets.read(made)
    assert datasets.end() == ([Dataset("file", "/t", ("a", "b"), 7, 20)], [made])


def test_nothing_is_noted_unless_somebody_asked_for_it() -> None:
    datasets.end()
    datasets.read(Dataset("file", "/t"))
    assert datasets.end() == ([], [])
