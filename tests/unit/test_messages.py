"""What a message says of itself: who draws which rows, and why a day is to be acted on."""

import pytest

from include.messages import (
    CHALLENGER,
    Action,
    Branches,
    Decided,
    Decision,
    ModelVersion,
    Reason,
)

MODEL = ModelVersion("late", "7", "run")
OLD = Reason("age", "retrain", "63 days old", "at most 60 days")
DRIFT = Reason("features", "page", "PSI of seats is 0.9", "at most 0.2")
FAILED = Reason("stages", "page", "", "")
CONTENT = Reason("truth", "healthy", "no day late", "")


def decision(action: Action, *reasons: Reason) -> Decision:
    return Decision("2013-03-01", action, list(reasons))


def test_a_model_is_addressed_by_its_name_and_version() -> None:
    assert str(MODEL) == "late version 7"


def test_two_challengers_draw_different_rows_and_without_one_nothing_is_drawn() -> None:
    salts = {
        Branches("ab", 0.1, {CHALLENGER: ModelVersion("late", number, "run")}, {}).salt
        for number in ("7", "8")
    }
    assert len(salts) == 2
    assert Branches("off", 0, {}, {}).salt == ""


@pytest.mark.parametrize("mode", ["off", "shadow", "ab"])
def test_only_the_challenger_of_a_shadow_scores_rows_that_are_not_its_own(mode: str) -> None:
    branches = Branches(mode, 0.1, {CHALLENGER: MODEL, "without_weather": MODEL}, {})
    assert branches.is_shadow(CHALLENGER) == (mode == "shadow")
    assert not branches.is_shadow("without_weather")


def test_a_path_that_failed_has_not_answered() -> None:
    branches = Branches("ab", 0.1, {CHALLENGER: MODEL, "other": MODEL}, {"other": "it is down"})
    assert branches.answered == {CHALLENGER: MODEL}


def test_why_a_day_is_acted_on_are_the_rules_that_ask_for_just_that() -> None:
    found = decision("page", DRIFT, FAILED, OLD, CONTENT)
    assert found.why == "features: PSI of seats is 0.9; stages"
    assert found.summary == f"{found.why}."


def test_a_fault_of_the_data_trains_nothing_and_any_other_page_does() -> None:
    assert decision("page", DRIFT, OLD).retrain_for == ""
    assert decision("page", FAILED, OLD).retrain_for == "age: 63 days old"
    assert decision("healthy", CONTENT).retrain_for == ""


def test_a_day_without_a_fault_differs_from_a_day_without_a_rule() -> None:
    assert decision("healthy", CONTENT, CONTENT).summary == "All 2 rules pass."
    assert decision("healthy").summary == "No rule had anything to judge."


def test_what_tasks_are_passed_holds_the_decision_itself() -> None:
    found = decision("retrain", OLD)
    passed = Decided(
        found.key, found.action, found.reasons, found.why, found.retrain_for, "2013-02-28", "|"
    )
    assert passed.decision == found
