"""The page shows what is known, names what cannot be read, and says what to do first."""

import re
from pathlib import Path
from threading import Event

import polars as pl
import pytest
from mlflow import MlflowClient

from include.lake.files import put_text
from include.lake.tables import Lake
from include.messages import ModelVersion
from include.monitoring import history
from include.monitoring.page import health
from include.monitoring.page.health import Health, look
from include.registry import registry
from include.registry.registry import Overview
from tests.case import CASE, at
from tests.unit.conftest import NEW_DAY, OLD_DAY, History
from tests.unit.health_pages import days, decide, page, remember
from tests.unit.helpers import infer

SECRET = "user:password@"


# --- what is known --------------------------------------------------------------------------------


def test_an_empty_lake_shows_what_to_do_first_and_makes_no_registry(
    empty: Lake, tmp_path: Path
) -> None:
    found = look(at(empty))
    assert found.is_empty
    html = page(found)
    assert "There is nothing to show yet" in html
    assert '<a href="/dags/flight_delays.data_validation">' in html
    assert not (tmp_path / "mlflow.db").exists()


def test_the_champion_is_shown_with_what_it_knows(lake: Lake, history: History) -> None:
    found = look(CASE).champion
    assert found is not None
    assert (found.version, found.how) == (history.champion.version, "promoted")
    assert (found.reason, found.replaced) == ("the tests", "")
    assert found.last_day == "2013-02-11"
    assert f"Promoted on {found.since[:10]}" in page(look(CASE))


def test_a_champion_that_was_rolled_back_to_is_one_since_then() -> None:
    tags = {
        "3": {"promoted_at": "2013-03-01T08:00:00+00:00"},
        "4": {"replaced": "3", "rolled_back_at": "2013-04-01T08:00:00+00:00",
              "rollback_reason": "it was worse"},
    }  # fmt: skip
    found = health._champion(Overview(ModelVersion("m", "3", "r"), "2013-02-01", tags))
    assert found is not None
    assert (found.how, found.since[:10]) == ("rolled back to", "2013-04-01")
    assert found.reason == "it was worse"
    assert "Rolled back to on 2013-04-01 08:00 UTC." in page(Health(champion=found))


def test_rows_are_counted_at_each_stage(lake: Lake, history: History) -> None:
    predicted = len(infer(lake, OLD_DAY, history.champion))
    newest, before = look(CASE).partitions[:2]
    assert newest.key == OLD_DAY
    assert newest.predicted == newest.features == predicted
    assert newest.validated == predicted + (newest.rejected or 0)
    assert (newest.quarantined, newest.version) == (0, history.champion.version)
    assert (before.predicted, before.version, before.fallback) == (None, "", "")


def test_a_refused_day_is_listed_with_the_others(lake: Lake) -> None:
    put_text(lake.landing_path("flights", NEW_DAY), "no Parquet")
    refused = look(CASE).partitions[0]
    assert (refused.key, refused.validated, refused.predicted) == (NEW_DAY, None, None)
    assert '<span class="bad">none</span>' in page(look(CASE))


def test_the_newest_decision_is_shown_in_its_words(empty: Lake) -> None:
    decide(empty, "2013-02-18")
    decided = decide(empty)
    found = look(at(empty))
    assert (found.decision, found.has_report) == (decided, False)
    html = page(found)
    assert "age: 63 days old." in html
    assert "Report of" not in html
    put_text(empty.partition_path("reports", OLD_DAY) / "report.html", "<h1>")
    assert f'<a href="/reports/flight_delays/{OLD_DAY}">' in page(look(at(empty)))


def test_a_decision_with_only_its_figures_is_shown_too(empty: Lake) -> None:
    decide(empty, words=False)
    found = look(at(empty)).decision
    assert found is not None
    assert (found.action, found.why) == ("retrain", "age")
    assert [reason.action for reason in found.reasons] == ["retrain", "healthy"]


def test_the_last_verdicts_are_listed_by_training(lake: Lake, own_registry: Path) -> None:
    client = MlflowClient(f"sqlite:///{own_registry}")
    experiment = client.get_experiment_by_name(CASE.name)
    assert experiment is not None
    answers = {"xgboost": ("passed", ""), "logistic_regression": ("refused", "calibrated")}
    for run in client.search_runs([experiment.experiment_id]):
        verdict, refused_by = answers.get(run.data.params["candidate"], ("passed", ""))
        chosen = str(run.data.params["candidate"] == "xgboost").lower()
        tags = {"verdict": verdict, "refused_by": refused_by, "chosen": chosen}
        for name, value in tags.items():
            client.set_tag(run.info.run_id, name, value)
    [gate] = look(CASE).gates
    assert gate.reason == "the tests"
    assert [one.candidate for one in gate.judged][::2] == ["xgboost", "logistic_regression"]
    html = page(look(CASE))
    assert "✓ passed, and chosen" in html
    assert re.search(r"✗ refused:</span> calibrated", html)


# --- what cannot be read --------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"PAR1 no Parquet", "cut off", "another table"], ids=repr)
def test_a_broken_history_file_is_named_and_the_rest_is_shown(
    content: bytes | str, empty: Lake
) -> None:
    remember(empty)
    decided = decide(empty)
    folder = empty.partition_path(history.TABLE, days(OLD_DAY, 10)[0])
    assert isinstance(folder, Path)
    [file] = folder.glob("*.parquet")
    if content == "another table":
        pl.DataFrame({"x": [1]}).write_parquet(file)
    else:
        whole = file.read_bytes()
        file.write_bytes(content if isinstance(content, bytes) else whole[: len(whole) // 2])
    found = look(at(empty))
    [problem] = found.problems
    assert str(file) in problem
    assert found.decision == decided
    html = page(found)
    assert str(file) in html
    assert html.count("<svg") == 2


def test_a_broken_manifest_is_named_and_the_other_days_are_shown(lake: Lake) -> None:
    put_text(lake.partition_path("validated", OLD_DAY) / "current.json", "{")
    found = look(CASE)
    [problem] = found.problems
    assert problem.startswith(f"The manifest of validated of {OLD_DAY} cannot be read")
    assert [day.validated is None for day in found.partitions[:2]] == [True, False]


def test_a_broken_decision_is_named(empty: Lake) -> None:
    decide(empty)
    put_text(empty.partition_path("reports", OLD_DAY) / "decision.json", "[]")
    found = look(at(empty))
    assert found.decision is None
    [problem] = found.problems
    assert problem.startswith("The decision cannot be read")


def test_without_the_registry_the_rest_is_shown(lake: Lake, configure, unused_port: int) -> None:
    configure(mlflow_tracking_uri=f"http://{SECRET}127.0.0.1:{unused_port}")
    remember(lake)
    found = look(CASE, seconds=60)
    [problem] = found.problems
    assert problem.startswith(f"The model registry at http://127.0.0.1:{unused_port} does not ans")
    html = page(found)
    assert SECRET not in html
    assert "Not known: see above" in html
    assert html.count("<svg") == 2
    assert len(found.partitions) == health.PARTITIONS


def test_a_registry_that_hangs_is_not_waited_for(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = Event()
    monkeypatch.setattr(registry, "overview", lambda case: done.wait(60))
    try:
        for _ in range(2):  # the second one waits behind the first, and no longer
            [problem] = look(CASE, seconds=0.1).problems
            assert "has not answered in 0.1 s" in problem
    finally:
        done.set()


def test_a_lake_that_cannot_be_listed_is_reported(
    empty: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: object) -> list[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(health, "list_folder", refuse)
    found = look(at(empty))
    assert any(problem.startswith("The lake cannot be read") for problem in found.problems)
    assert "Permission denied" in page(found)


# --- its cost -------------------------------------------------------------------------------------


def test_only_the_shown_ones_of_ten_thousand_partitions_are_read(
    empty: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for table in ("validated", history.TABLE):
        folder = empty.root / table
        assert isinstance(folder, Path)
        (folder / "empty").mkdir(parents=True)
        for key in days("2040-05-18", 10_000):
            (folder / f"date={key}").symlink_to("empty")
    read, listed = [], []
    manifest, files = Lake.manifest, history._files
    monkeypatch.setattr(Lake, "manifest", lambda *place: (read.append(place), manifest(*place))[1])
    monkeypatch.setattr(history, "_files", lambda day: (listed.append(day), files(day))[1])
    assert [day.key for day in look(at(empty)).partitions] == days("2040-05-18", 14)[::-1]
    assert len(read) == health.PARTITIONS * len(health.TABLES)
    assert len(listed) == health.DAYS
