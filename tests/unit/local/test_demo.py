"""The demo harms nothing that it finds: it begins again, or says in one line why it does not."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from include import usecases
from include.lake.tables import Lake
from include.messages import CHAMPION, ModelVersion
from include.registry import promotion, registry
from include.settings import settings
from include.usecases.flight_delays import features
from include.usecases.flight_delays.schema import TRUTH
from local import demo, demo_report, embedded
from local.client import Airflow, EmbeddedError
from local.demo_report import Day
from local.processes import Leader
from tests.case import CASE, at
from tests.unit.champions import challengers
from tests.unit.conftest import OLD_DAY, History
from tests.unit.local.conftest import Server

NO_AIRFLOW = Airflow("http://127.0.0.1:9", Path())
DAYS = demo_report.days_of(CASE)


@pytest.fixture
def versions(history: History, own_registry: Path) -> list[ModelVersion]:
    """The champions of an earlier demo: the first, and the one that replaced it."""
    first, [second] = history.champion, challengers(1)
    with registry.connection(CASE) as client:
        for model, run in ((first, demo.FIRST_TRAINING), (second, demo.second_training(CASE))):
            client.set_model_version_tag(model.name, model.version, "dag_run", run)
    promotion.promote(CASE, second, first, "the demo")
    return [first, second]


def test_the_demo_begins_again_with_its_first_champion(
    versions: list[ModelVersion], tmp_path: Path
) -> None:
    for _ in range(2):
        demo.check_start(CASE, tmp_path, None, demo.Progress())
        demo.crown_first_champion(at(Lake(str(tmp_path), CASE.name)), NO_AIRFLOW, demo.Progress())
        assert registry.champion(CASE) == versions[0]
        promotion.promote(CASE, versions[1], versions[0], "the demo, once more")


@pytest.mark.parametrize("end", [KeyboardInterrupt, EmbeddedError])
def test_a_demo_that_ends_early_gives_the_crown_back(
    end: type[BaseException], versions: list[ModelVersion], tmp_path: Path
) -> None:
    with suppress(end), demo.champion_kept(CASE):
        demo.crown_first_champion(at(Lake(str(tmp_path), CASE.name)), NO_AIRFLOW, demo.Progress())
        assert registry.champion(CASE) == versions[0]
        raise end
    assert registry.champion(CASE) == versions[1]


def test_a_champion_that_no_demo_has_made_is_not_replaced(
    versions: list[ModelVersion], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [own] = challengers(1)
    promotion.promote(CASE, own, versions[1], "my own")
    with pytest.raises(EmbeddedError, match=f"Version {own.version} .*not made by a demo.*ML_DATA"):
        demo.check_start(CASE, tmp_path, None, demo.Progress())
    assert registry.champion(CASE) == own


@pytest.mark.usefixtures("process_as_before")
def test_nothing_is_begun_when_the_port_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert demo.main(["--port", str(port)]) == 2
    assert capsys.readouterr().err.startswith(f"Port {port} cannot be used (it is taken): ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("state", ["running", "queued"])
def test_it_does_not_begin_while_a_training_is_active(
    state: str, server: tuple[Server, Airflow]
) -> None:
    found, airflow = server
    none = {"dag_runs": [], "total_entries": 0}
    one = {"dag_runs": [{"dag_run_id": "mine", "state": state}], "total_entries": 1}
    found.answers = [(200, none)] * (state == "queued") + [(200, one)]
    retraining = CASE.dag_id("model_retraining")
    with pytest.raises(EmbeddedError, match=f"mine of {retraining} is {state}.*/runs/mine$"):
        demo.check_trainings(CASE, airflow)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A process that looks like an Airflow on the data folder; gives its variables, to change."""
    variables = {"ML_DATA_DIR": str(tmp_path), **demo.SETTINGS}
    yield variables
    state = json.loads((tmp_path / "airflow" / "state.json").read_text())
    os.kill(state["leaders"]["scheduler"]["pid"], 9)


@pytest.mark.parametrize(
    ("different", "named"),
    [
        ({}, ""),
        ({"ML_LAKE_ROOT": "s3://real/lake"}, "ML_LAKE_ROOT"),
        ({"ML_CHUNK_ROWS": "100"}, "ML_CHUNK_ROWS"),
        ({"ML_USECASES": "elsewhere"}, "ML_USECASES"),
    ],
)
def test_an_airflow_with_other_settings_is_left_alone(
    different: dict[str, str],
    named: str,
    running: dict[str, str],
    tmp_path: Path,
    own_registry: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ML_USECASES", raising=False)
    with registry.connection(CASE) as client:
        client.delete_registered_model_alias(registry.champion(CASE).name, CHAMPION)
    process = subprocess.Popen(["sleep", "60"], env=running | different, start_new_session=True)
    leaders = {name: asdict(Leader.of(process.pid)) for name in embedded.COMPONENTS}
    (tmp_path / "airflow").mkdir()
    state = {"port": 8099, "server_port": 8098, "leaders": leaders}
    (tmp_path / "airflow" / "state.json").write_text(json.dumps(state))
    if not named:
        assert demo.check_start(CASE, tmp_path, None, demo.Progress()) == 8099
        edited = tmp_path / "usecase" / "schema.py"
        edited.parent.mkdir()
        edited.touch()
        monkeypatch.setattr(usecases, "folders", lambda: [edited.parent])
        with pytest.raises(EmbeddedError, match=r"code has changed.*make stop"):
            demo.check_start(CASE, tmp_path, None, demo.Progress())
        return
    with pytest.raises(EmbeddedError, match=rf"other settings.*\({named}\).*make stop"):
        demo.check_start(CASE, tmp_path, None, demo.Progress())
    assert process.poll() is None


def week(skill: float | None) -> list[Day]:
    """A week that went as it should."""
    days = []
    for day in DAYS.week:
        bad = 20 if day == DAYS.bad_rows else 0
        days.append(Day(day.isoformat(), 900, bad, 900 - bad, "scored", 0.7, skill))
    refused = Day(DAYS.broken.isoformat(), None, None, None, "refused", None, None)
    days[DAYS.week.index(DAYS.broken)] = refused
    return days


@pytest.mark.parametrize("skill", [0.01, 0.5, 1.0, None])
def test_a_models_quality_is_not_a_fault(skill: float | None) -> None:
    assert demo_report.faults(CASE, week(skill)) == []


def test_a_week_no_better_than_the_baseline_is_a_fault() -> None:
    [fault] = demo_report.faults(CASE, week(0.0))
    assert "no better than the baseline" in fault


def test_what_went_wrong_with_a_day_is_a_fault() -> None:
    days = week(0.1)
    days[0] = Day(days[0].key, 900, 3, 897, "scored", 0.7, 0.1)
    days[1] = Day(days[1].key, 900, 0, 899, "scored", 0.7, 0.1)
    days[5] = Day(days[5].key, None, None, None, "refused", None, None)
    assert len(demo_report.faults(CASE, days)) == 3


def test_a_day_on_which_all_turned_out_alike_has_no_figures(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = date.fromisoformat(OLD_DAY).isoformat()
    labels = features.build_labels(lake.current("actuals", day).read(TRUTH.name))
    scored = labels.drop("label").with_columns(score=pl.lit(0.5))
    assert demo_report.worth(CASE, day, scored)["roc_auc"] == 0.5
    monkeypatch.setattr(
        features, "build_labels", lambda _: labels.with_columns(label=pl.lit(1, pl.Int8))
    )
    assert demo_report.worth(CASE, day, scored) == {}


def test_the_demo_keeps_away_from_the_lake_and_the_people_that_the_use_case_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {"lake_root": "s3://real/lake", "notify_urls": "json://real", "chunk_rows": 9}
    case = replace(CASE, own_settings=named)
    assert case.settings.lake_of(case.name) == "s3://real/lake"
    for name, value in demo.settings_for(case, tmp_path).items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    assert case.settings.lake_of(case.name) == str(tmp_path / "lake" / case.name)
    assert case.settings.notify_urls.get_secret_value() == ""
    assert case.settings.chunk_rows == 250
