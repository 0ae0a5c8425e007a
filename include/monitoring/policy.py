"""Decides what to do about a day: a pure function of the history, with its reasons.

Each rule looks at the figures of a day, or of a window that ends with it, and asks for one of four
actions. The most severe of them is the decision:

- `page`: a person is notified. Faulty data pages and never retrains, because a model trained on
  faulty days learns the fault.
- `retrain`: the champion has decayed, or is old.
- `watch`: worth a look, but no one is notified.
- `healthy`.

Every bound is a setting. Outcomes decide first, because the seasons change the features of a
healthy model every day. Drift is judged by its size, because on a thousand rows of one day every
test is significant.
"""

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import polars as pl

from include import expected
from include.messages import Action, Decision, Reason
from include.monitoring import experiment, history, measure
from include.monitoring.decision import ACTIONS, PAGE
from include.monitoring.history import Figure
from include.partitions import parse_key
from include.statistics import drift
from include.training import evaluation
from include.usecase import UseCase
from include.wording import counted, cut, literal

PIPELINE = "decision"
DECAY = "outcomes"
DAYS = 90
"""Days of history read for a decision: more than any window or cooldown."""

FAMILY_WISE = 0.05
HOLES_DAYS = 14
"""For how many days a day without truth is mentioned."""


def decide(case: UseCase, rows: pl.DataFrame, key: str, unreadable: Sequence[str] = ()) -> Decision:
    """Decide about a day.

    Args:
        rows: the history up to that day, from `history.read`; later days in it are ignored.
        key: the day.
        unreadable: unreadable files of the history, each with the reason.
    """
    day = parse_key(key)
    rows = rows.filter(pl.col("time") <= day)
    rules = (_outcomes, _scores, _features, _published, _stages, _age, _truth, _experiment)
    reasons = [
        _held_back(case, reason, rows, key) for rule in rules for reason in rule(case, rows, key)
    ]
    if unreadable:
        found = f"{counted(len(unreadable), 'file')} skipped: {cut(unreadable[0], 400)}"
        reasons.append(Reason("history", "watch", found, "every file can be read"))
    reasons.sort(key=lambda reason: -ACTIONS.index(reason.action))
    return Decision(key, reasons[0].action, reasons)


def figures(decision: Decision) -> list[Figure]:
    """A decision as figures of the history."""
    found = [Figure(PIPELINE, "decision", ACTIONS.index(decision.action), len(decision.reasons))]
    worst: dict[str, int] = {}
    for reason in decision.reasons:
        level = ACTIONS.index(reason.action)
        worst[reason.rule] = max(level, worst.get(reason.rule, 0))
    found += [
        Figure(PIPELINE, "rule", level, 1, "", {"rule": rule}) for rule, level in worst.items()
    ]
    return found


def table(decision: Decision) -> str:
    """A decision as a Markdown table."""
    lines = [f"**{decision.action}** on {decision.key}", "", "| rule | asks for | found | bound |"]
    lines.append("| --- | --- | --- | --- |")
    for reason in decision.reasons:
        cells = (reason.rule, reason.action, literal(reason.found), literal(reason.bound))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# --- the rules ------------------------------------------------------------------------------------


def skill(case: UseCase, rows: pl.DataFrame, key: str, days: int) -> tuple[np.ndarray, int]:
    """Skill of the champion on its newest outcomes, in bootstrap samples of whole days.

    Skill is 1 - loss / loss of the baseline, over all rows of the days that were scored by the
    same version as the newest day. The first sample is the days themselves.

    Returns:
        Skills of shape (1 + `evaluation.RESAMPLES`,), and the number of days; empty and 0 without
        outcomes.
    """
    since = parse_key(key) - timedelta(days=days + case.truth_delay_days)  # newer days lack truth
    loss = case.target.loss
    whole = history.select(rows, loss, model="champion", slice="all")
    base = history.select(rows, history.base(loss), model="champion", slice="all")
    seen = history.select(rows, "days_after_training").filter(pl.col("value") <= 0)
    both = whole.join(base, on=["time", "model_version"], suffix="_base")
    both = both.join(seen, on=["time", "model_version"], how="anti")  # days that it was trained on
    both = both.filter(pl.col("time") > since, pl.col("value_base") > 0).sort("recorded_at")
    # The day may have been scored again, and its own truth may already be known.
    both = both.unique("time", keep="last").sort("time").tail(days)
    if both.is_empty():
        return np.array([]), 0
    both = both.filter(pl.col("model_version") == both["model_version"][-1])
    losses, expected = ((both[name] * both["n"]).to_numpy() for name in ("value", "value_base"))
    samples = evaluation.draw_days(len(both), case.settings.seed)
    drawn = np.vstack([np.arange(len(both)), samples])
    return 1 - losses[drawn].sum(axis=1) / expected[drawn].sum(axis=1), len(both)


def _outcomes(case: UseCase, rows: pl.DataFrame, key: str) -> list[Reason]:
    """Has the champion decayed? Once decayed, it must rise a little above the bound to recover."""
    limits = case.settings
    skills, days = skill(case, rows, key, limits.decay_window_days)
    if days < limits.decay_min_days:
        found = f"the outcomes of {counted(days, 'day')} are known for this champion"
        return [Reason(DECAY, "healthy", found, f"{limits.decay_min_days} or more are needed")]
    floor = limits.decay_min_skill
    if _last_level(rows, key, DECAY) > 0:
        floor += limits.decay_hysteresis
    share = float((skills < floor).mean())
    action: Action = "healthy"
    if share >= limits.decay_confidence:
        action = "retrain"
    elif skills[0] < floor:
        action = "watch"
    low, high = np.quantile(skills[1:], [0.05, 0.95])
    worthless = float((skills < 0).mean()) >= limits.decay_confidence
    retrained = (_days_since_retraining(case, rows, key) or 0) > 1  # enough time for it to finish
    if worthless and retrained and not _was_paged(case, rows, key, DECAY):
        action = "page"
    worse = f", worse than the {case.target.baseline_name} after a retraining"
    return [
        Reason(
            DECAY,
            action,
            f"skill {skills[0]:.3f} ({low:.3f} to {high:.3f} in 90 %) over {days} days, "
            f"below {floor:g} in {share:.0%} of samples" + (worse if action == "page" else ""),
            f"below {floor:g} in less than {limits.decay_confidence:.0%}",
        )
    ]


def _scores(case: UseCase, rows: pl.DataFrame, key: str) -> list[Reason]:
    """Have the scores of a window moved away from those on the champion's holdout?"""
    today = rows.filter(pl.col("time") == parse_key(key))
    about = {"kind": measure.SCORE, "reference": measure.TRAINING}
    found = history.select(today, "psi", **about)
    bound = case.settings.score_drift_retrain
    if found.is_empty():
        return [Reason("scores", "healthy", "nothing to compare", f"PSI ≤ {bound:g}")]
    # The day may have been scored again: of each column the newest counts, and the worst column.
    found = found.sort("recorded_at").with_columns(feature=history.label("feature"))
    worst = found.unique("feature", keep="last").sort("value").tail(1)
    days = int(worst.select(history.label("days")).item())
    psi = worst["value"][0]
    by_chance = history.select(today, "psi_by_chance", **about).sort("recorded_at")
    own = by_chance.filter(history.label("feature") == worst["feature"].item()).tail(1)
    chance = own["value"].sum()  # 0 if it is unknown
    retrain, watch = max(bound, chance), max(bound / 2, chance)
    enough = days >= min(case.settings.score_drift_days, case.settings.decay_min_days)
    action: Action = "healthy"
    if psi > retrain and enough:
        action = "retrain"
    elif psi > watch and enough:
        action = "watch"
    text = f"PSI {psi:.2f} of the scores of {counted(days, 'day')} against the champion's holdout"
    return [Reason("scores", action, text, f"PSI ≤ {retrain:.3g}, watched from {watch:.3g}")]


def _features(case: UseCase, rows: pl.DataFrame, key: str) -> list[Reason]:
    """Are the day's inputs as before? If not, the data is at fault, and a person must look."""
    limits, day = case.settings, parse_key(key)
    stable = history.select(rows, "psi", kind="stable", days="1")
    drifted = {
        time: _by_feature(part, "psi")
        for (time,), part in stable.partition_by("time", as_dict=True).items()
    }
    found = drifted.pop(day, {})
    today = rows.filter(pl.col("time") == day)
    chance = _by_feature(today, "psi_by_chance")
    rare = drift.family_wise(
        _in_bounds(case, found), [_in_bounds(case, earlier) for earlier in drifted.values()]
    )
    if len(drifted) < 1 / FAMILY_WISE:  # too few days to tell what is rare
        rare = dict.fromkeys(rare, 0.0)
    reasons, usual = [], _usual(today)
    for name, psi in sorted(found.items(), key=lambda item: -item[1]):
        page = max(_bound(case, name), chance.get(name, 0))
        watch = max(limits.drift_watch, chance.get(name, 0))
        text = f"{name}: PSI {psi:.2f} against {usual}"
        if psi > page:
            reasons.append(Reason("features", "page", text, f"PSI ≤ {page:.2g}"))
        elif psi > watch and rare[name] <= FAMILY_WISE:
            reasons.append(Reason("features", "watch", text, f"PSI ≤ {watch:.2g}"))
    for name, rise in _by_feature(today, "null_rise").items():
        if rise > limits.drift_max_null_rise and name not in case.features.OFTEN_MISSING:
            text = f"{name}: nulls rose by {100 * rise:.0f} points against {usual}"
            bound = f"≤ {100 * limits.drift_max_null_rise:.0f} points"
            reasons.append(Reason("features", "page", text, bound))
    for name, outside in _by_feature(today, "outside_range").items():
        if outside > limits.drift_max_outside:
            text = f"{name}: {outside:.0%} outside the range of {usual}"
            reasons.append(Reason("features", "page", text, f"≤ {limits.drift_max_outside:.0%}"))
    largest = max(found, key=found.__getitem__, default=None)
    calm = f"largest PSI {found[largest]:.3f} ({largest})" if largest else "nothing to compare"
    return reasons or [Reason("features", "healthy", calm, "")]


def _bound(case: UseCase, feature: str) -> float:
    return case.features.DRIFT_BOUNDS.get(feature, case.settings.drift_page)


def _in_bounds(case: UseCase, drifted: dict[str, float]) -> dict[str, float]:
    """Feature → its drift, in units of its bound."""
    return {name: psi / _bound(case, name) for name, psi in drifted.items()}


def _by_feature(rows: pl.DataFrame, metric: str) -> dict[str, float]:
    """Feature → a metric of the day against the usual; the newest if it was measured twice."""
    found = history.select(rows, metric, days="1").sort("recorded_at")
    return dict(found.select(history.label("feature"), "value").iter_rows())


def _usual(today: pl.DataFrame) -> str:
    """What a day was compared with: the training data if there are too few days before it."""
    features = history.select(today, "psi", days="1").filter(history.label("kind") != measure.SCORE)
    newest = features.sort("recorded_at").tail(1)
    with_training = newest.select(history.label("reference") == measure.TRAINING)
    return "the champion's training data" if with_training.to_series().any() else "the days before"


def _published(case: UseCase, rows: pl.DataFrame, key: str) -> list[Reason]:
    """Is the day published?"""
    day = parse_key(key)
    there = history.select(rows, "published").with_columns(table=history.label("table"))
    today = dict(there.filter(pl.col("time") == day).select("table", "value").iter_rows())
    earlier = there.filter(pl.col("time") < day, pl.col("value") > 0)["table"].unique()
    if not today:
        return [Reason("published", "healthy", "nothing is known about this day", "")]
    missing = [name for name in ("validated", "predictions") if not today.get(name)]
    if len(missing) == 2 and not expected.is_expected(case, "validated", key):
        return [Reason("published", "healthy", "the use case expects no data for this day", "")]
    if missing:
        text = (
            f"no {' and no '.join(missing)}: see this day's runs; once it is there, clear this one"
        )
        return [Reason("published", "page", text, "each day has both")]
    if not today.get("ensemble_predictions", 1) and "ensemble_predictions" in earlier:
        return [Reason("published", "watch", "no ensemble_predictions", "each day has them")]
    level = history.select(rows.filter(pl.col("time") == day), "fallback_level")["value"]
    if len(level) and level[0] > 0:
        return [
            Reason("published", "watch", f"the ensemble fell back to level {level[0]:.0f}", "0")
        ]
    return [Reason("published", "healthy", "the day is there", "")]


def _stages(case: UseCase, rows: pl.DataFrame, key: str) -> list[Reason]:
    """What share of runs and rows failed at each stage in 24 hours?"""
    limits = case.settings
    today = rows.filter(pl.col("time") == parse_key(key), pl.col("pipeline") == "stages")
    where = pl.format("{} of {}", history.label("stage"), history.label("dag"))
    reasons = []
    for metric, value, n, name in today.select("metric", "value", "n", where).iter_rows():
        action: Action = "healthy"
        if metric == "failed_runs" and value > 0:
            action = "page" if value > limits.stage_failed_page else "watch"
        elif metric == "failed_rows" and value > limits.stage_failed_watch:
            action = "watch"
        if action != "healthy":
            what = metric.removeprefix("failed_")
            bound = limits.stage_failed_page if what == "runs" else limits.stage_failed_watch
            lost = round(value * n)
            text = f"{lost:,} of {counted(n, what[:-1])} failed at {name} ({value:.0%})"
            reasons.append(Reason("stages", action, text, f"≤ {bound:.0%}"))
    stages = len(history.select(today, "failed_runs"))
    return reasons or [Reason("stages", "healthy", f"no failure at {counted(stages, 'stage')}", "")]


def _age(case: UseCase, rows: pl.DataFrame, key: str) -> list[Reason]:
    """Is the champion too old?"""
    age, bound = _model_age(rows, key), case.settings.max_model_age_days
    bound += case.truth_delay_days - 1  # a new champion cannot be younger
    if age is None:
        return [Reason("age", "healthy", "the age of the champion is unknown", "")]
    text = f"{age:.0f} days since the champion's last training day"
    return [Reason("age", "retrain" if age > bound else "healthy", text, f"≤ {bound}")]


def _truth(case: UseCase, rows: pl.DataFrame, key: str) -> list[Reason]:
    """Has truth stopped arriving? Without it decay goes unnoticed."""
    day, bound = parse_key(key), case.settings.max_truth_delay_days
    scored = history.select(rows, "published", table="predictions")
    # Newer days cannot have truth yet, and a day without rows never will.
    newest_due = day - timedelta(days=case.truth_delay_days)
    scored = scored.filter(pl.col("value") > 0, pl.col("n") > 0, pl.col("time") <= newest_due)
    due = [expected.is_expected(case, "actuals", str(time)) for time in scored["time"]]
    scored = scored.filter(pl.Series(due, dtype=pl.Boolean))
    known = history.select(rows, "label_coverage").filter(pl.col("value") > 0)
    waiting = scored.join(known, on="time", how="anti")["time"].unique()
    newest = history.newest(known)
    late = len(waiting if newest is None else waiting.filter(waiting > newest))
    oldest, latest = (newest_due - timedelta(days=back) for back in (HOLES_DAYS - 1, bound))
    holes = len(waiting.filter((waiting > oldest) & (waiting < latest)))
    action: Action = "page" if late > 2 * bound else "watch" if late > bound or holes else "healthy"
    text = f"the truth of {counted(late, 'day')} is late" if newest else "no truth is known yet"
    if newest and holes:
        text += f"; of {holes} older than {bound} days there is none"
    return [Reason("truth", action, text, f"≤ {bound} days")]


def _experiment(case: UseCase, rows: pl.DataFrame, key: str) -> list[Reason]:
    """Is the challenger better? For information only: only the gate leads to a promotion."""
    found = experiment.compare(case, rows, key)
    today = rows.filter(pl.col("time") == parse_key(key)).sort("recorded_at")
    answered = history.select(today, "path_available", path="challenger")["value"]
    if found is None and answered.is_empty():
        return []
    text = experiment.describe(case, found) if found else "nothing to compare yet"
    if len(answered) and not answered[-1]:
        text += "; today no challenger scored: the manifest of the predictions says why"
    return [Reason("experiment", "healthy", text, "for information")]


# --- what was decided before ----------------------------------------------------------------------


def _held_back(case: UseCase, reason: Reason, rows: pl.DataFrame, key: str) -> Reason:
    """Weaken `retrain` to `watch` if there was one recently, or if it could change nothing.

    A challenger is judged on the holdout, the newest days with truth. It has no new training days
    until the champion is older than the holdout.
    """
    if reason.action != "retrain":
        return reason
    since, why = _days_since_retraining(case, rows, key), ""
    age = _model_age(rows, key)
    # Newer days have no truth yet.
    with_truth = None if age is None else round(age) - case.truth_delay_days
    new_days = None if with_truth is None else with_truth - case.settings.holdout_days
    if since is not None:
        left = case.settings.retraining_cooldown_days - since
        why = f"a retraining was requested {counted(since, 'day')} ago, "
        why += f"and the next can follow in {counted(left, 'day')}"
    elif new_days is not None and new_days < case.settings.retraining_min_new_days:
        why = f"a challenger would have seen {counted(max(new_days, 0), 'new day')}"
    return Reason(reason.rule, "watch", f"{reason.found}; {why}", reason.bound) if why else reason


def _model_age(rows: pl.DataFrame, key: str) -> float | None:
    """Days since the champion's last training day, if known."""
    found = history.select(rows.filter(pl.col("time") == parse_key(key)), "model_age_days")
    return float(found["value"][-1]) if len(found) else None


def _days_since_retraining(case: UseCase, rows: pl.DataFrame, key: str) -> int | None:
    """Days since one was requested on an earlier day; None if longer ago than the cooldown."""
    day = parse_key(key)
    asked = history.newest(history.select(rows, "retraining").filter(pl.col("time") < day))
    since = (day - asked).days if asked else None
    return since if since is not None and since < case.settings.retraining_cooldown_days else None


def _was_paged(case: UseCase, rows: pl.DataFrame, key: str, rule: str) -> bool:
    """Whether a rule has paged a person on an earlier day within the cooldown."""
    day = parse_key(key)
    since = day - timedelta(days=case.settings.retraining_cooldown_days)
    called = history.select(rows, "rule", rule=rule).filter(pl.col("value") == PAGE)
    return not called.filter(pl.col("time") > since, pl.col("time") < day).is_empty()


def _last_level(rows: pl.DataFrame, key: str, rule: str) -> int:
    """What a rule asked for on the last earlier day."""
    found = history.select(rows, "rule", rule=rule)
    found = found.filter(pl.col("time") < parse_key(key)).sort("time")
    return int(found["value"][-1]) if len(found) else 0
