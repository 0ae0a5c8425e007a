"""A use case says which days have data: a weekend is no fault, and an empty day may be right."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from include import expected
from include.errors import MissingData
from include.inference import ensemble, fallback, scoring
from include.lake.tables import Lake
from include.metrics import Sample
from include.monitoring import daily, outcomes
from include.monitoring.page import health
from include.registry import registry
from include.training import snapshot
from include.usecase import Input
from include.usecases.flight_delays import source
from include.usecases.flight_delays.schema import INPUTS, TRUTH
from include.validation import contract, land
from local.in_process import batch_inference, validate_day
from local.seed import seed
from tests.case import CASE, at
from tests.unit.helpers import refused, replace

FRIDAY, SATURDAY, SUNDAY, MONDAY = "2013-03-01", "2013-03-02", "2013-03-03", "2013-03-04"
FLIGHTS, WEATHER = INPUTS


@pytest.fixture
def declare() -> Iterator[Callable[..., None]]:
    """Has an input declare something else for one test."""
    before = {id(one): (one, dict(vars(one))) for one in (*INPUTS, TRUTH)}

    def change(*inputs: Input, **declared: Any) -> None:
        for one in inputs:
            for name, value in declared.items():
                object.__setattr__(one, name, value)

    yield change
    for one, was in before.values():
        for name, value in was.items():
            object.__setattr__(one, name, value)


@pytest.fixture
def weekdays(declare: Callable[..., None]) -> None:
    """Nothing comes on Saturdays and Sundays."""
    declare(FLIGHTS, WEATHER, TRUTH, expected=lambda day: day.weekday() < 5)


@pytest.fixture
def refuses_weekends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that must not be asked for a day that is not expected."""
    fetch = source.fetch

    def asked(input_name: str, day: date) -> pl.DataFrame | None:
        assert day.weekday() < 5, f"the source was asked for {day}"
        return fetch(input_name, day)

    monkeypatch.setattr(source, "fetch", asked)


def land_empty(lake: Lake, one: Input, key: str) -> None:
    """Land a file of an input that has its columns, and no rows."""
    rows = source.fetch(one.name, date.fromisoformat(key))
    assert rows is not None
    path = lake.landing_path(one.name, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, rows.clear())  # type: ignore[arg-type]


def test_a_day_that_is_not_expected_is_passed_over_and_its_source_is_not_asked(
    weekdays: None, refuses_weekends: None, lake: Lake
) -> None:
    assert not land.is_due(CASE, "validated", SATURDAY)
    assert land.is_due(CASE, "validated", MONDAY)
    for table in CASE.tables:
        assert validate_day(CASE, table, SATURDAY) == {}
        assert lake.manifest(table, SATURDAY) is None
    said: list[str] = []
    assert seed(CASE, FRIDAY, MONDAY, said.append) == 2
    assert said == ["Seeded 2 of 2 days"]


def test_a_day_that_lands_although_it_was_not_expected_is_a_day_like_any_other(
    lake: Lake, declare: Callable[..., None]
) -> None:
    land.land(CASE, "validated", SATURDAY)
    declare(*INPUTS, expected=lambda day: day.weekday() < 5)
    assert land.is_due(CASE, "validated", SATURDAY)
    assert validate_day(CASE, "validated", SATURDAY)["flights"] > 500
    path = lake.landing_path("flights", SUNDAY)
    replace(path, b"no Parquet")  # type: ignore[arg-type]
    with refused(lake, "validated", SUNDAY, str(path)):
        validate_day(CASE, "validated", SUNDAY)


def test_an_input_that_is_not_expected_on_a_day_is_neither_missing_nor_warned_of(
    declare: Callable[..., None], lake: Lake
) -> None:
    declare(WEATHER, required=True, expected=lambda day: day.weekday() < 5)
    assert list(validate_day(CASE, "validated", SATURDAY)) == ["flights"]
    report = lake.current("validated", SATURDAY).manifest().metadata["report"]
    assert report["warnings"] == []
    declare(WEATHER, expected=lambda day: True)
    lake.landing_path("flights", SUNDAY).parent.mkdir(parents=True, exist_ok=True)
    rows = source.fetch("flights", date.fromisoformat(SUNDAY))
    assert rows is not None
    replace(lake.landing_path("flights", SUNDAY), rows)  # type: ignore[arg-type]
    with pytest.raises(MissingData, match="weather"):
        contract.check_contract(CASE, "validated", SUNDAY)


def test_an_empty_file_is_refused_unless_its_input_may_be_empty(
    declare: Callable[..., None], lake: Lake
) -> None:
    for one in INPUTS:
        land_empty(lake, one, FRIDAY)
    with refused(lake, "validated", FRIDAY, "the file has no rows: ", "flights/2013-03-01.parquet"):
        validate_day(CASE, "validated", FRIDAY)
    declare(*INPUTS, may_be_empty=True)
    assert validate_day(CASE, "validated", FRIDAY) == {"flights": 0, "weather": 0}
    # Empty days say nothing of how many rows a day has: the next one is not too large.
    assert validate_day(CASE, "validated", MONDAY)["flights"] > 500


@pytest.mark.exhaustive
def test_days_that_are_not_expected_are_no_missing_days_of_a_training(
    weekdays: None, configure: Callable[..., None], tmp_path: Any
) -> None:
    configure(max_missing_share=0)
    lake = Lake(str(tmp_path / "weekdays"))
    assert seed(at(lake), "2013-02-04", "2013-02-24", lambda _: None) == 15
    taken = lake.version(snapshot.take(at(lake), "2013-02-04", "2013-02-24", 7))
    assert taken.manifest().metadata["missing"] == []
    assert sorted(taken.manifest().metadata["sources"])[4:6] == ["2013-02-08", "2013-02-11"]
    assert snapshot.input_shifts(CASE, taken)["shift"].null_count() == 0
    with pytest.raises(MissingData, match=r"2 partitions.*validated 2013-02-25, actuals"):
        snapshot.take(at(lake), "2013-02-04", "2013-02-25", 7)


def test_the_monitor_pages_no_one_for_a_weekend_and_judges_fridays_truth_on_it(
    weekdays: None, lake: Lake, own_registry: Any
) -> None:
    champion = registry.champion(CASE)
    actions = {}
    for key in (FRIDAY, SATURDAY, SUNDAY, MONDAY):
        if validate_day(CASE, "validated", key):
            batch_inference(CASE, key, champion)
        validate_day(CASE, "actuals", expected.days_before(key, 1))
        daily.observe(CASE, key, datetime.now(UTC))
        decision = daily.decide(CASE, key)
        actions[key] = {reason.rule: (reason.action, reason.found) for reason in decision.reasons}
        daily.write_report(CASE, key, decision)
    said = "the use case expects no data for this day"
    assert actions[SATURDAY]["published"] == actions[SUNDAY]["published"] == ("healthy", said)
    assert actions[MONDAY]["published"] == ("healthy", "the day is there")
    assert lake.manifest(outcomes.TABLE, FRIDAY) is not None
    assert actions[MONDAY]["truth"] == ("healthy", "the truth of 0 days is late")
    shown = [one.key for one in health.look(CASE).partitions]
    assert [key for key in shown if key > "2013-02-28"] == [MONDAY, FRIDAY]


def test_an_empty_day_goes_through_the_whole_loop(
    declare: Callable[..., None],
    configure: Callable[..., None],
    lake: Lake,
    own_registry: Any,
) -> None:
    declare(*INPUTS, TRUTH, may_be_empty=True)
    champion = registry.champion(CASE)
    for one in (*INPUTS, TRUTH):
        land_empty(lake, one, FRIDAY)
    for table in CASE.tables:
        validate_day(CASE, table, FRIDAY)
    assert batch_inference(CASE, FRIDAY, champion) == 0
    rows = str(lake.current("features", FRIDAY))
    [chunk] = scoring.plan_chunks(CASE, rows, champion)  # no chunk: Airflow would skip the rest
    assert chunk.label == "no rows"

    local = [member for member in CASE.members if member.kind == "registry"]
    answers = {}
    for member in local:
        chunks = ensemble.plan(CASE, rows, member, champion)
        ensemble.score(CASE, member, chunks[0])
        answers[member.name] = ensemble.check(CASE, rows, member, chunks)
    roll = ensemble.call_roll(CASE, rows, champion, answers, {})
    for scored in (fallback.fall_back(CASE, rows, roll), ensemble.combine_day(CASE, rows, roll)):
        check = scoring.check_outputs(CASE, scored.predictions, rows, None)
        assert (check.rows, check.scored, check.mean) == (0, 0, None)
        ensemble.publish(CASE, scored, check, rows, roll, None)
    assert len(fallback.baselines(CASE, rows)) == 0

    daily.observe(CASE, FRIDAY, datetime.now(UTC))
    decision = daily.decide(CASE, FRIDAY)
    assert {reason.rule for reason in decision.reasons if reason.action == "page"} == set()
    daily.write_report(CASE, FRIDAY, decision)
    for table in CASE.tables:
        validate_day(CASE, table, MONDAY)
    batch_inference(CASE, MONDAY, champion)
    daily.observe(CASE, MONDAY, datetime.now(UTC))
    [truth] = [one for one in daily.decide(CASE, MONDAY).reasons if one.rule == "truth"]
    assert "of 0 days" in truth.found
    configure(max_missing_share=0.5)  # of the week before there is nothing
    taken = lake.version(snapshot.take(CASE, "2013-02-01", FRIDAY, 12))
    assert max(taken.read("holdout", ["day"])["day"]) == date(2013, 2, 20)
    assert FRIDAY in taken.manifest().metadata["sources"]
    [day] = [one for one in health.look(CASE).partitions if one.key == FRIDAY]
    assert (day.validated, day.predicted, day.ensemble, day.outcomes) == (0, 0, 0, 0)


def test_predictions_are_stale_after_a_weekend_only_if_friday_was_not_scored(
    weekdays: None, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Sample] = []
    monkeypatch.setattr("include.metrics.send_all", lambda _, samples: sent.extend(samples))
    validate_day(CASE, "validated", FRIDAY)
    sent.clear()
    land.pass_over(CASE, "validated", SATURDAY)
    assert [(one.name, one.labels) for one in sent] == [
        ("last_published_timestamp_seconds", {"table": "validated"})
    ]
    batch_inference(CASE, FRIDAY, registry.champion(CASE))
    sent.clear()
    land.pass_over(CASE, "validated", SUNDAY)
    assert [one.labels["table"] for one in sent] == ["validated", "predictions"]
    validate_day(CASE, "validated", MONDAY)
    sent.clear()
    land.pass_over(CASE, "validated", SUNDAY)  # a backfill says nothing of now
    assert sent == []
