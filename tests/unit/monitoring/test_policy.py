"""The decision: each rule at its bound, which is a setting, and what comes of all of them."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from include.messages import Action, Decision
from include.monitoring import policy
from include.monitoring.decision import ACTIONS
from include.monitoring.history import SCHEMA, Figure, append, current, read, to_frame
from include.monitoring.policy import decide, skill
from include.partitions import days_before
from include.usecases.flight_delays import features
from include.wording import counted
from tests.case import CASE, at

KEY = "2013-06-30"
DAYS = 30
RULES = ["age", "features", "outcomes", "published", "scores", "stages", "truth"]
STABLE = {"seats": 0.02, "plane_age": 0.02, "distance": 0.01}

Configure = Callable[..., None]


@pytest.fixture(autouse=True)
def bounds(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds that these tests are about, wherever the project's own have moved."""
    configure(
        decay_window_days=14,
        decay_min_days=7,
        decay_min_skill=0.08,
        decay_confidence=0.8,
        decay_hysteresis=0.01,
        score_drift_days=14,
        score_drift_retrain=0.25,
        max_model_age_days=28,
        retraining_cooldown_days=14,
        retraining_min_new_days=5,
        holdout_days=14,
        drift_watch=0.1,
        drift_page=0.2,
        drift_max_null_rise=0.3,
        drift_max_outside=0.5,
        stage_failed_watch=0.05,
        stage_failed_page=0.25,
        max_truth_delay_days=3,
    )
    monkeypatch.setattr(features, "DRIFT_BOUNDS", {"distance": 0.1})
    monkeypatch.setattr(features, "OFTEN_MISSING", ["wind_gust"])


# --- A history by hand ----------------------------------------------------------------------------


def rows(back: int, *figures: Figure) -> pl.DataFrame:
    """Figures about the day `back` days before `KEY`, or after it."""
    return to_frame(days_before(KEY, back), figures)


def known(*frames: pl.DataFrame) -> pl.DataFrame:
    """What the history says when these have been recorded, one after the other.

    Their order is that of the arguments, whatever the clock did while they were made.
    """
    recorded, last = [], datetime(2013, 7, 1, tzinfo=UTC)
    for frame in frames:
        order = pl.duration(seconds=pl.col("recorded_at").rank("dense"))
        recorded.append(frame.with_columns(recorded_at=last + order))
        last = recorded[-1]["recorded_at"].max() or last
    return current(pl.concat(recorded))


def worth(
    value: float, version: str = "1", n: int = 900, base: float = 0.5, model: str = "champion"
) -> list[Figure]:
    """The outcomes of a day on which a model had this skill."""
    about = {"model": model, "slice": "all"}
    losses = {"log_loss": base * (1 - value), "base_log_loss": base, "label_coverage": 0.98}
    return [Figure("outcomes", name, loss, n, version, about) for name, loss in losses.items()]


def drifted(value: float, feature: str = "seats", kind: str = "stable", **other: str) -> Figure:
    metric = other.pop("metric", "psi")
    about = {"feature": feature, "kind": kind, "reference": "trailing", "days": "1", **other}
    return Figure("drift", metric, value, 900, "", about)


def scored(psi: float, days: int = 14, version: str = "1") -> Figure:
    about = {"feature": "score", "kind": "score", "reference": "training", "days": str(days)}
    return Figure("drift", "psi", psi, 900 * days, version, about)


def published(table: str, there: float = 1) -> Figure:
    return Figure("state", "published", there, 900, "", {"table": table})


def aged(days: float, version: str = "1") -> Figure:
    return Figure("state", "model_age_days", days, 1, version)


def failed(value: float, what: str = "runs", stage: str = "infer") -> Figure:
    about = {"dag": "batch_inference", "stage": stage}
    return Figure("stages", f"failed_{what}", value, 10, "", about)


def asked_for(action: Action, rule: str = "outcomes") -> Figure:
    """That a rule has asked for something."""
    return Figure("decision", "rule", ACTIONS.index(action), 1, "", {"rule": rule})


RETRAINING = Figure("decision", "retraining", 1)


@cache
def usual(days: int = DAYS) -> pl.DataFrame:
    """Days on which all is well, the last of them without truth as yet."""
    return known(*(rows(back, *usual_day(back)) for back in reversed(range(days))))


def usual_day(back: int) -> list[Figure]:
    return [
        *(worth(0.15) if back else []),
        *(drifted(psi, name) for name, psi in STABLE.items()),
        *(drifted(0.01, name, metric="psi_by_chance") for name in STABLE),
        *(drifted(0.0, name, metric="null_rise") for name in STABLE),
        drifted(2.0, "temp", "seasonal"),
        scored(0.05),
        *(published(name) for name in ("validated", "predictions", "ensemble_predictions")),
        Figure("state", "fallback_level", 0, 900),
        *(failed(0, what, stage) for what in ("runs", "rows") for stage in ("infer", "validate")),
        aged(DAYS - back - 5),
    ]


def today(*figures: Figure) -> Decision:
    """The decision about a day that differs from a usual one by these figures."""
    return decide(CASE, known(usual(), rows(0, *figures)), KEY)


def wish(decision: Decision, rule: str) -> Action:
    """The gravest thing that a rule asks for."""
    return max((one.action for one in decision.reasons if one.rule == rule), key=ACTIONS.index)


def told(decision: Decision, rule: str) -> str:
    """What a rule says, all of it."""
    return "; ".join(one.found for one in decision.reasons if one.rule == rule)


def outcomes(skills: list[float], version: str = "1", **more: float) -> pl.DataFrame:
    """The outcomes of days with these skills, up to the day before `KEY`."""
    last = len(skills)
    days = [rows(last - place, *worth(v, version, **more)) for place, v in enumerate(skills)]
    return known(*days)


# --- All rules together ---------------------------------------------------------------------------


def test_a_usual_day_is_healthy_and_every_rule_says_why() -> None:
    decision = decide(CASE, usual(), KEY)
    assert decision.action == "healthy"
    assert sorted(one.rule for one in decision.reasons) == RULES


def test_every_rule_passes_on_an_empty_history() -> None:
    decision = decide(CASE, SCHEMA.to_frame(), KEY)
    assert (decision.action, sorted(one.rule for one in decision.reasons)) == ("healthy", RULES)


PROBLEMS = {
    "watch": [drifted(0.15), failed(0.1), failed(0.2, "rows")],
    "retrain": [aged(60), scored(0.9)],
    "page": [drifted(0.9), published("predictions", 0), failed(0.9, stage="validate")],
}
problems = st.lists(st.sampled_from([p for kind in PROBLEMS.values() for p in kind]), unique_by=id)


@given(problems)
def test_the_gravest_wish_is_the_decision_and_stands_first(found: list[Figure]) -> None:
    decision = today(*found)
    levels = [ACTIONS.index(one.action) for one in decision.reasons]
    assert levels == sorted(levels, reverse=True)
    assert ACTIONS.index(decision.action) == levels[0]
    expected = {name for name, kind in PROBLEMS.items() for one in kind if one in found}
    assert decision.action == max({"healthy", *expected}, key=ACTIONS.index)


@given(problems, st.integers(1, 5))
def test_figures_of_later_days_are_ignored(later: list[Figure], days: int) -> None:
    after = [rows(-back, *later, *worth(-1, "2"), RETRAINING) for back in range(1, days + 1)]
    frame = known(usual(), rows(0, drifted(0.15)))
    assert decide(CASE, known(frame, *after), KEY) == decide(CASE, frame, KEY)


@given(problems)
def test_deciding_again_with_the_decision_in_the_history_is_the_same(found: list[Figure]) -> None:
    frame = known(usual(), outcomes([0.075, 0.08, 0.079] * 5), rows(0, *found))
    first = decide(CASE, frame, KEY)
    asked = [RETRAINING] if first.action == "retrain" else []
    assert decide(CASE, known(frame, rows(0, *policy.figures(first), *asked)), KEY) == first


def test_deciding_does_not_change_its_arguments() -> None:
    frame = usual().clone()
    decide(CASE, frame, KEY)
    assert_frame_equal(frame, usual())


def test_why_names_what_has_decided_and_nothing_else() -> None:
    decision = today(aged(60), scored(0.9), drifted(0.15))
    assert decision.action == "retrain"
    assert "60 days since" in decision.why
    assert "PSI 0.90 of the scores of 14 days" in decision.why
    assert "seats" not in decision.why


@given(problems)
def test_a_decision_travels_as_json(found: list[Figure]) -> None:
    decision = today(*found)
    assert msgspec.convert(json.loads(json.dumps(asdict(decision))), Decision) == decision


def test_the_figures_of_a_decision_are_its_level_and_the_worst_of_each_rule() -> None:
    decision = today(drifted(0.9), drifted(0.15, "plane_age"), aged(60))
    found = {(one.metric, one.labels.get("rule")): one for one in policy.figures(decision)}
    levels = {rule: ACTIONS[int(found["rule", rule].value)] for rule in RULES}
    grave = {"features": "page", "age": "retrain"}
    assert levels == {rule: grave.get(rule, "healthy") for rule in RULES}
    assert ACTIONS[int(found["decision", None].value)] == "page"
    assert found["decision", None].n == len(decision.reasons)


def test_the_table_has_a_line_for_every_reason() -> None:
    decision = today(drifted(0.9), aged(60))
    lines = policy.table(decision).splitlines()
    assert lines[0] == f"**page** on {KEY}"
    assert [line.split(" | ")[:2] for line in lines[4:]] == [
        [f"| {one.rule}", one.action] for one in decision.reasons
    ]


# --- Outcomes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [0.05, 0.12])
@pytest.mark.parametrize(("above", "action"), [(0.001, "healthy"), (-0.001, "retrain")])
def test_skill_below_its_bound_retrains(
    above: float, action: Action, bound: float, configure: Configure
) -> None:
    configure(decay_min_skill=bound)
    assert decide(CASE, outcomes([bound + above] * 14), KEY).action == action


def test_a_few_noisy_days_are_watched_and_do_not_retrain(configure: Configure) -> None:
    noisy = outcomes([0.4, -0.3, 0.35, -0.2, 0.3, -0.25, 0.2])
    assert 0 < skill(CASE, noisy, KEY, 14)[0][0] < 0.08
    assert decide(CASE, noisy, KEY).action == "watch"
    configure(decay_confidence=0.5)
    assert decide(CASE, noisy, KEY).action == "retrain", "the confidence is a setting"


def test_the_same_skill_on_steadier_days_is_enough() -> None:
    assert decide(CASE, outcomes([0.075, 0.07] * 7), KEY).action == "retrain"


@pytest.mark.parametrize(("days", "least"), [(6, 7), (2, 3)])
def test_nothing_is_reported_about_too_few_days(
    days: int, least: int, configure: Configure
) -> None:
    configure(decay_min_days=least)
    decision = decide(CASE, outcomes([-1.0] * days), KEY)
    assert decision.action == "healthy"
    assert f"outcomes of {counted(days, 'day')} are known" in told(decision, "outcomes")
    assert wish(decide(CASE, outcomes([-1.0] * (days + 1)), KEY), "outcomes") == "retrain"


def test_only_the_days_of_the_window_count(configure: Configure) -> None:
    frame = outcomes([-1.0] * 7 + [0.15] * 14)
    assert decide(CASE, frame, KEY).action == "healthy"
    configure(decay_window_days=15)
    assert "over 15 days" in told(decide(CASE, frame, KEY), "outcomes")
    configure(decay_window_days=21)
    assert decide(CASE, frame, KEY).action == "retrain"


@given(st.lists(st.tuples(st.floats(-0.5, 0.9), st.integers(1, 2000)), min_size=1, max_size=13))
def test_skill_is_that_of_all_rows_of_the_window_together(days: list[tuple[float, int]]) -> None:
    frame = known(*(rows(back, *worth(v, n=n)) for back, (v, n) in enumerate(days, 1)))
    found, counted = skill(CASE, frame, KEY, 14)
    values, sizes = np.array(days).T
    assert found[0] == pytest.approx(np.average(values, weights=sizes))
    assert counted == len(days)
    assert min(values) - 1e-9 <= found.min()
    assert found.max() <= max(values) + 1e-9


def test_a_history_with_a_gap_is_judged_by_the_days_that_there_are() -> None:
    frame = known(*(rows(back, *worth(0.02)) for back in (1, 2, 3, 7, 8, 12, 13)))
    assert "over 7 days" in told(decide(CASE, frame, KEY), "outcomes")
    assert decide(CASE, frame, KEY).action == "retrain"


def test_the_days_of_the_champion_before_are_not_held_against_the_new_one() -> None:
    changed = known(outcomes([-1.0] * 14), outcomes([0.15] * 3, "2"))
    assert "outcomes of 3 days are" in told(decide(CASE, changed, KEY), "outcomes")


def test_neither_other_models_nor_slices_are_the_champion() -> None:
    ensemble = [rows(back, *worth(-1.0, model="ensemble")) for back in range(1, 15)]
    about = {"model": "champion", "slice": "origin = EWR"}
    sliced = [rows(back, Figure("outcomes", "log_loss", 9, 300, "1", about)) for back in range(9)]
    assert decide(CASE, known(outcomes([0.15] * 14), *ensemble, *sliced), KEY).action == "healthy"


def test_a_day_scored_again_by_another_version_counts_as_that_ones() -> None:
    again = known(outcomes([-1.0] * 10), outcomes([0.15] * 10, "2"))
    found, days = skill(CASE, again, KEY, 14)
    assert (found[0], days) == (pytest.approx(0.15), 10)


def test_a_day_scored_by_its_first_version_again_counts_as_that_ones(tmp_path: Path) -> None:
    lake = CASE.lake
    for version, value in (("1", 0.15), ("2", -1.0), ("1", 0.15)):  # promoted, and rolled back
        for back in range(1, 9):
            append(at(lake), days_before(KEY, back), worth(value, version))
    found, days = skill(CASE, read(at(lake), KEY, 14), KEY, 14)
    assert (found[0], days) == (pytest.approx(0.15), 8)


def test_a_decayed_champion_must_rise_a_little_above_the_bound(configure: Configure) -> None:
    just_above = outcomes([0.085] * 14)
    before = known(just_above, rows(3, asked_for("retrain")))  # nobody looked since
    assert decide(CASE, just_above, KEY).action == "healthy"
    assert decide(CASE, before, KEY).action == "retrain"
    recovered = known(before, rows(1, asked_for("healthy")))
    assert decide(CASE, recovered, KEY).action == "healthy"
    assert decide(
        CASE, known(outcomes([0.095] * 14), before.filter(metric="rule")), KEY
    ).action == ("healthy")
    configure(decay_hysteresis=0)
    assert decide(CASE, before, KEY).action == "healthy"


# --- Cooldown -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [aged(60), scored(0.9)])
@pytest.mark.parametrize(("days", "cooldown"), [(14, 14), (4, 4)])
def test_no_retraining_is_requested_again_before_the_cooldown_is_over(
    days: int, cooldown: int, reason: Figure, configure: Configure
) -> None:
    configure(retraining_cooldown_days=cooldown)
    frame = known(usual(), rows(0, reason))
    early = decide(CASE, known(frame, rows(days - 1, RETRAINING)), KEY)
    assert early.action == "watch"
    assert f"was requested {counted(days - 1, 'day')} ago" in early.why
    assert "the next can follow in 1 day" in early.why
    assert decide(CASE, known(frame, rows(days, RETRAINING)), KEY).action == "retrain"


def test_decay_is_watched_while_its_retraining_is_young() -> None:
    frame = known(outcomes([0.02] * 14), rows(5, RETRAINING))
    assert decide(CASE, frame, KEY).action == "watch"


@pytest.mark.parametrize("least", [1, 7, 12])
def test_a_challenger_that_would_have_seen_next_to_nothing_new_is_not_trained(
    least: int, configure: Configure
) -> None:
    configure(retraining_min_new_days=least, holdout_days=10)
    decayed = outcomes([0.02] * 14)
    early = decide(CASE, known(decayed, rows(0, aged(10 + least))), KEY)
    assert early.action == "watch"
    assert f"a challenger would have seen {counted(least - 1, 'new day')}" in early.why
    assert decide(CASE, known(decayed, rows(0, aged(11 + least))), KEY).action == "retrain"


def test_a_retraining_requested_today_does_not_block_today() -> None:
    assert today(aged(60), RETRAINING).action == "retrain"


def test_worse_than_nothing_after_a_retraining_pages() -> None:
    worthless = outcomes([-0.05] * 14)
    assert decide(CASE, worthless, KEY).action == "retrain", "that may still help"
    decision = decide(CASE, known(worthless, rows(10, RETRAINING)), KEY)
    assert decision.action == "page"
    assert "worse than the base rate after a retraining" in decision.why


def test_a_champion_worse_than_the_base_rate_pages_once_in_a_cooldown() -> None:
    worthless = known(outcomes([-0.05] * 14), rows(10, RETRAINING))
    paged = known(worthless, rows(2, asked_for("page")), rows(1, asked_for("watch")))
    assert decide(CASE, paged, KEY).action == "watch"
    assert decide(CASE, known(worthless, rows(14, asked_for("page"))), KEY).action == "page"


# --- Scores and age -------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [0.25, 1.0])
@pytest.mark.parametrize(
    ("ratio", "action"), [(0.49, "healthy"), (0.51, "watch"), (0.99, "watch"), (1.01, "retrain")]
)
def test_scores_that_have_drifted_are_watched_and_then_retrain(
    ratio: float, action: Action, bound: float, configure: Configure
) -> None:
    configure(score_drift_retrain=bound)
    assert today(scored(ratio * bound)).action == action


@pytest.mark.parametrize(("days", "action"), [(6, "healthy"), (7, "retrain")])
def test_the_scores_of_a_few_days_say_nothing(days: int, action: Action) -> None:
    assert decide(CASE, rows(0, scored(0.9, days)), KEY).action == action


def test_the_scores_of_the_newer_version_count_for_a_day_scored_by_two() -> None:
    again = known(usual(), rows(0, scored(0.9)), rows(0, scored(0.01, version="2")))
    assert wish(decide(CASE, again, KEY), "scores") == "healthy"


def test_scores_that_were_compared_again_with_more_days_count_as_they_are_now() -> None:
    more = known(usual(), rows(0, scored(0.9, 14)), rows(0, scored(0.01, 13)))
    assert wish(decide(CASE, more, KEY), "scores") == "healthy"


@pytest.mark.parametrize("bound", [28, 90])
def test_an_old_champion_is_retrained(bound: int, configure: Configure) -> None:
    configure(max_model_age_days=bound)
    assert today(aged(bound)).action == "healthy"
    assert today(aged(bound + 1)).action == "retrain"


def test_the_age_of_the_newer_version_counts_for_a_day_scored_by_two() -> None:
    again = known(usual(), rows(0, aged(60, "1")), rows(0, aged(3, "2")))
    assert wish(decide(CASE, again, KEY), "age") == "healthy"


# --- Features -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "action"), [(0.09, "healthy"), (0.11, "watch"), (0.19, "watch"), (0.21, "page")]
)
def test_a_stable_feature_that_drifts_is_watched_and_then_pages(
    value: float, action: Action
) -> None:
    assert today(drifted(value)).action == action


def test_the_bounds_of_drift_are_settings(configure: Configure) -> None:
    configure(drift_watch=0.3, drift_page=0.5)
    assert [today(drifted(value)).action for value in (0.29, 0.31, 0.51)] == [
        "healthy", "watch", "page"
    ]  # fmt: skip


def test_a_feature_may_have_a_bound_of_its_own() -> None:
    assert today(drifted(0.12, "distance")).action == "page"
    assert today(drifted(0.12, "plane_age")).action == "watch"


def test_seasonal_changes_of_features_page_no_one() -> None:
    assert today(drifted(9.0, "temp", "seasonal")).action == "healthy"


def test_what_chance_alone_gives_to_ten_rows_is_not_drift() -> None:
    assert today(drifted(1.5), drifted(2.2, metric="psi_by_chance")).action == "healthy"
    assert today(drifted(2.3), drifted(2.2, metric="psi_by_chance")).action == "page"


def test_drift_is_watched_only_if_it_is_rare_as_a_days_largest() -> None:
    lively = [rows(back, drifted(0.16, "plane_age")) for back in (4, 9)]
    assert today(drifted(0.15)).action == "watch"
    assert decide(CASE, known(usual(), *lively, rows(0, drifted(0.15))), KEY).action == "healthy"
    assert decide(CASE, known(usual(), *lively, rows(0, drifted(0.17))), KEY).action == "watch"


def test_rarity_is_judged_in_units_of_each_features_own_bound() -> None:
    lively = [rows(back, drifted(0.09, "distance")) for back in (4, 9)]  # .9 of its bound
    assert decide(CASE, known(usual(), *lively, rows(0, drifted(0.15))), KEY).action == "healthy"
    assert decide(CASE, known(usual(), *lively, rows(0, drifted(0.19))), KEY).action == "watch"


def test_a_page_needs_no_rarity() -> None:
    stormy = [rows(back, drifted(0.9)) for back in range(1, DAYS)]
    assert decide(CASE, known(usual(), *stormy, rows(0, drifted(0.25))), KEY).action == "page"


@pytest.mark.parametrize(("days", "action"), [(19, "watch"), (29, "healthy")])
def test_before_twenty_days_are_known_any_drift_is_watched(days: int, action: Action) -> None:
    well = usual(days + 1)
    lively = [rows(back, drifted(0.16)) for back in (4, 9)]
    assert decide(CASE, known(well, *lively, rows(0, drifted(0.15))), KEY).action == action


def test_a_rise_of_nulls_pages_unless_any_share_may_be_null(configure: Configure) -> None:
    assert today(drifted(0.29, metric="null_rise")).action == "healthy"
    assert today(drifted(0.31, metric="null_rise")).action == "page"
    gusts = drifted(1.0, "wind_gust", "seasonal", metric="null_rise")
    assert today(gusts).action == "healthy"
    configure(drift_max_null_rise=0.1)
    assert today(drifted(0.11, "temp", "seasonal", metric="null_rise")).action == "page"


def test_values_outside_the_usual_range_page_in_a_seasonal_feature_too(
    configure: Configure,
) -> None:
    def beyond(share: float) -> Figure:
        return drifted(share, "temp", "seasonal", metric="outside_range")

    assert [today(beyond(share)).action for share in (0.49, 0.51)] == ["healthy", "page"]
    configure(drift_max_outside=0.1)
    assert today(beyond(0.11)).action == "page"


@pytest.mark.parametrize("metric", ["outside_range", "null_rise"])
def test_a_use_case_whose_features_are_all_seasonal_is_warned_too(metric: str) -> None:
    found = [drifted(1.0, "temp", "seasonal", metric=name) for name in ("psi", metric)]
    assert decide(CASE, rows(0, *found), KEY).action == "page"


def test_a_day_first_compared_with_the_training_counts_with_its_newest_figures() -> None:
    later = known(
        usual(), rows(0, drifted(0.9, reference="training")), rows(0, drifted(0.01))
    )  # what was missing before it has been published since
    assert wish(decide(CASE, later, KEY), "features") == "healthy"


@pytest.mark.parametrize(
    ("reference", "words"),
    [("trailing", "the days before"), ("training", "the champion's training data")],
)
def test_a_drift_says_what_the_day_was_compared_with(reference: str, words: str) -> None:
    figures = [
        drifted(0.9, metric=metric, reference=reference)
        for metric in ("psi", "null_rise", "outside_range")
    ]
    found = [one.found for one in today(*figures).reasons if one.rule == "features"]
    assert len(found) == 3
    assert all(text.endswith(words) for text in found)


def test_a_fault_of_the_data_pages_and_never_retrains_even_a_decayed_champion() -> None:
    decayed = [outcomes([0.02] * 14), rows(0, aged(60), scored(0.9))]
    assert decide(CASE, known(usual(), *decayed), KEY).action == "retrain"
    assert decide(CASE, known(usual(), *decayed, rows(0, drifted(0.9))), KEY).action == "page"


# --- Whether the day is there ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (["validated"], "no validated:"),
        (["predictions"], "no predictions:"),
        (["validated", "predictions"], "no validated and no predictions:"),
    ],
)
def test_a_day_that_is_not_there_pages(missing: list[str], words: str) -> None:
    decision = today(*(published(name, 0) for name in missing))
    assert (decision.action, words in decision.why) == ("page", True)


def test_an_ensemble_is_missed_only_where_there_was_one() -> None:
    without = today(published("ensemble_predictions", 0))
    assert (without.action, "no ensemble_predictions" in without.why) == ("watch", True)
    never = [rows(back, published("ensemble_predictions", 0)) for back in range(DAYS)]
    assert decide(CASE, known(usual(), *never), KEY).action == "healthy"


def test_a_fallback_of_the_ensemble_is_watched() -> None:
    decision = today(Figure("state", "fallback_level", 2, 900))
    assert (decision.action, "fell back to level 2" in decision.why) == ("watch", True)


# --- Stages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figure", "action"),
    [
        (failed(0.01), "watch"), (failed(0.25), "watch"), (failed(0.26), "page"),
        (failed(0.05, "rows"), "healthy"), (failed(0.06, "rows"), "watch"),
        (failed(1.0, "rows"), "watch"),
    ],
)  # fmt: skip
def test_failed_runs_are_watched_and_then_page_and_failed_rows_are_watched(
    figure: Figure, action: Action
) -> None:
    assert today(figure).action == action


def test_the_bounds_of_stages_are_settings(configure: Configure) -> None:
    configure(stage_failed_watch=0.5, stage_failed_page=0.9)
    found = (failed(0.4, "rows"), failed(0.6, "rows"), failed(0.8), failed(0.95))
    assert [today(one).action for one in found] == ["healthy", "watch", "watch", "page"]


def test_each_stage_that_failed_is_named() -> None:
    decision = today(failed(0.3), failed(0.2, "rows", "validate"))
    assert "3 of 10 runs failed at infer of batch_inference (30%)" in told(decision, "stages")
    assert "2 of 10 rows failed at validate of batch_inference (20%)" in told(decision, "stages")


def test_yesterdays_failures_are_not_reported_again() -> None:
    assert decide(CASE, known(usual(), rows(1, failed(1.0))), KEY).action == "healthy"


# --- Truth ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [3, 5])
def test_truth_that_is_late_is_watched_and_then_pages(bound: int, configure: Configure) -> None:
    configure(max_truth_delay_days=bound)

    def late(days: int) -> Action:
        young = (pl.col("pipeline") == "outcomes") & (
            pl.col("time") > pl.lit(days_before(KEY, days + 1)).str.to_date()
        )
        return wish(decide(CASE, usual().filter(~young), KEY), "truth")

    assert [late(days) for days in (0, bound, bound + 1, 2 * bound, 2 * bound + 1)] == [
        "healthy", "healthy", "watch", "watch", "page"
    ]  # fmt: skip


@pytest.mark.parametrize("delay", [1, 2, 30])
def test_truth_that_comes_weeks_later_is_judged_like_the_next_days(delay: int) -> None:
    case = replace(CASE, truth_delay_days=delay)

    def looked_at(overdue: int = 0, value: float = 0.15, age: float = 25) -> Decision:
        days = []
        for back in reversed(range(60)):
            others = [one for one in usual_day(back) if one.pipeline != "outcomes"]
            truth = worth(value) if back >= delay + overdue else []
            days.append(rows(back, *others, *truth))
        return decide(case, known(*days, rows(0, aged(age + delay - 1))), KEY)

    late = [wish(looked_at(overdue), "truth") for overdue in (0, 3, 4, 6, 7)]
    assert late == ["healthy", "healthy", "watch", "watch", "page"]
    assert told(looked_at(), "outcomes").startswith("skill 0.150")
    assert "over 14 days" in told(looked_at(), "outcomes")
    assert [wish(looked_at(age=age), "age") for age in (28, 29)] == ["healthy", "retrain"]
    assert [wish(looked_at(value=0.02, age=age), "outcomes") for age in (19, 20)] == [
        "watch", "retrain"
    ]  # fmt: skip


@pytest.mark.parametrize(("days", "action"), [(1, "healthy"), (3, "healthy"), (5, "watch")])
def test_truth_that_never_came_is_late_since_the_first_predictions(
    days: int, action: Action
) -> None:
    decision = decide(CASE, usual(days).filter(pl.col("pipeline") != "outcomes"), KEY)
    assert wish(decision, "truth") == action
    assert told(decision, "truth") == "no truth is known yet"


def test_without_predictions_no_truth_is_waited_for() -> None:
    frame = known(*(rows(back, published("predictions", 0)) for back in range(DAYS)))
    assert wish(decide(CASE, frame, KEY), "truth") == "healthy"


def test_a_gap_in_scoring_is_not_late_truth() -> None:
    gap = [rows(back, *usual_day(back)) for back in (12, 11)]
    frame = known(*gap, rows(0, *usual_day(0)))
    assert wish(decide(CASE, frame, KEY), "truth") == "healthy"


def test_truth_that_covers_no_prediction_does_not_count() -> None:
    nothing = Figure("outcomes", "label_coverage", 0.0, 900, "1", {"model": "champion"})
    frame = usual(8).filter(pl.col("metric") != "label_coverage")
    frame = known(frame, *(rows(back, nothing) for back in range(1, 8)))
    assert wish(decide(CASE, frame, KEY), "truth") == "page"


def test_days_that_the_champion_was_trained_on_say_nothing_of_its_skill() -> None:
    flattered = [
        rows(back, Figure("outcomes", "days_after_training", -1.0, 900, "1"))
        for back in range(3, DAYS)
    ]
    assert "2 days" in told(decide(CASE, known(usual(), *flattered), KEY), "outcomes")


def test_an_old_champion_is_retrained_while_a_person_is_paged_but_not_for_faulty_data() -> None:
    old = aged(60)
    assert today(old, failed(1.0)).action == "page"
    assert "age" in today(old, failed(1.0)).retrain_for
    assert today(old, drifted(0.9, "distance")).retrain_for == ""
    assert today(old, published("predictions", 0)).retrain_for == ""
    assert today(failed(1.0)).retrain_for == ""
