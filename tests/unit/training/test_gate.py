"""The gate: each rule at its bound, and each bad challenger refused by the rule meant for it."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from mlflow import MlflowClient

from include.errors import BadData
from include.lake.tables import Lake
from include.messages import ModelVersion, Rule, Verdict
from include.registry import promotion, registry
from include.settings import settings
from include.training import evaluation, gate, training
from include.training.gate import Evidence, Model
from include.usecases.flight_delays import features, models, source
from include.usecases.flight_delays.schema import KEY
from tests.case import CASE, at

RULES = [
    "better than the champion", "better than the base rate", "no worse on any slice",
    "calibrated", "not too good to be true", "same features", "same inputs", "same labels",
    "fast enough", "small enough",
]  # fmt: skip
BETTER, KNOWS, SLICES, CALIBRATED, NOT_TOO_GOOD, FEATURES, INPUTS, LABELS_RULE, FAST, SMALL = RULES

# --- Each rule at its bound, on evidence that is made up --------------------------------------

DAYS = np.repeat(np.arange("2013-03-01", "2013-03-11", dtype="datetime64[D]"), 40)
LABELS = np.tile(np.array([0, 0, 0, 1], np.int8), len(DAYS) // 4)


def scores_that(know: float | np.ndarray) -> np.ndarray:
    """Scores between the base rate (0) and the label itself (1), better on some days."""
    luck = np.repeat(np.random.default_rng(7).uniform(-0.1, 0.1, 10), 40)
    return 0.25 + (LABELS - 0.25) * (know + luck)


def model(scores: np.ndarray, **changes: Any) -> Model:
    figures = CASE.target.figures(LABELS, scores)
    known = Model(
        figures={**figures, "calibration_error": 0.02},
        slices={"origin = EWR": {**figures, "rows": 600}, "origin = JFK": figures},
        scores=scores,
        features=features.FEATURES,
        scoring_seconds_per_million=5,
        bytes=1_000_000,
    )
    figures = known.figures | changes.pop("figures", {})
    return replace(known, figures=figures, **changes)


CHAMPION, GOOD = model(scores_that(know=0.2)), model(scores_that(know=0.5))


def shifts(shift: float, usual: float | None) -> pl.DataFrame:
    rows = [{"feature": "distance", "shift": 0.1, "usual": 0.1}]
    rows.append({"feature": "temp", "shift": shift, "usual": usual})
    return pl.DataFrame(rows, schema={"feature": str, "shift": float, "usual": float})


BASELINE = np.full(len(LABELS), 0.25)
BASELINE_LOSSES = CASE.target.losses(LABELS, BASELINE)
BASELINE_LOSS = float(BASELINE_LOSSES.mean())
EVIDENCE = Evidence(LABELS, DAYS, CHAMPION, BASELINE_LOSSES, True, 1.2, shifts(0.2, 0.1))


@pytest.fixture(autouse=True)
def no_skill_is_too_good(configure: Callable[..., None], request: pytest.FixtureRequest) -> None:
    """Scores that are made up from the labels may be."""
    if "world" not in request.fixturenames:
        configure(gate_max_skill=1, gate_max_skill_gain=1)


def answers(challenger: Model, evidence: Evidence = EVIDENCE) -> dict[str, Rule]:
    return {rule.name: rule for rule in gate.check(CASE, challenger, evidence)}


def refused_by(challenger: Model, evidence: Evidence = EVIDENCE) -> list[str]:
    return [name for name, rule in answers(challenger, evidence).items() if not rule.passed]


def test_a_good_challenger_passes_every_rule() -> None:
    assert list(answers(GOOD)) == RULES
    assert refused_by(GOOD) == []


def test_one_that_is_as_good_as_the_champion_has_gained_nothing(
    configure: Callable[..., None],
) -> None:
    assert refused_by(CHAMPION) == [BETTER]
    configure(gate_min_skill_gain=0)
    assert refused_by(CHAMPION) == []
    configure(gate_min_skill_gain=1e-12)
    assert refused_by(CHAMPION) == [BETTER]


def test_a_gain_must_show_in_enough_samples(configure: Callable[..., None]) -> None:
    lucky = model(scores_that(know=np.repeat([0] * 3 + [0.3] * 7, 40)))
    gains = CASE.target.losses(LABELS, CHAMPION.scores)
    gains -= CASE.target.losses(LABELS, lucky.scores)
    gains /= BASELINE_LOSS
    means = evaluation.bootstrap_means(gains, DAYS, CASE.settings.seed)
    share = float((means >= CASE.settings.gate_min_skill_gain).mean())
    assert 0 < share < 0.9
    assert BETTER in refused_by(lucky)
    configure(gate_confidence=share)
    assert BETTER not in refused_by(lucky)
    configure(gate_confidence=share + 1e-6)
    assert BETTER in refused_by(lucky)


def test_one_that_only_beats_a_bad_champion_knows_nothing() -> None:
    bad = model(scores_that(know=-0.2))
    assert refused_by(model(BASELINE), replace(EVIDENCE, reference=bad)) == [KNOWS]


def test_without_a_champion_only_the_base_rate_has_to_be_beaten() -> None:
    evidence = replace(EVIDENCE, reference=model(BASELINE), has_champion=False)
    assert list(answers(GOOD, evidence)) == RULES[1:]
    assert refused_by(GOOD, evidence) == []
    assert refused_by(model(BASELINE), evidence) == [KNOWS]


def test_a_loss_on_a_slice_is_refused_beyond_its_bound(configure: Callable[..., None]) -> None:
    known, loss = GOOD.slices["origin = EWR"], 0.1
    worse = {**known, "log_loss": CHAMPION.slices["origin = EWR"]["log_loss"] + loss}
    challenger = replace(GOOD, slices={**GOOD.slices, "origin = EWR": worse})
    exact = -gate.slice_gains(CASE, challenger, EVIDENCE)["origin = EWR"]
    configure(gate_max_slice_skill_loss=exact)
    assert refused_by(challenger) == []
    configure(gate_max_slice_skill_loss=np.nextafter(exact, 0))
    assert refused_by(challenger) == [SLICES]
    assert "(origin = EWR)" in answers(challenger)[SLICES].found


@pytest.mark.parametrize(("rows", "judged"), [(499, False), (500, True)])
def test_a_slice_is_judged_if_it_is_large_enough(rows: int, judged: bool) -> None:
    small = {**GOOD.slices["origin = EWR"], "rows": rows, "log_loss": 9.0}
    assert (SLICES in refused_by(replace(GOOD, slices={"origin = EWR": small}))) == judged


def test_a_missing_slice_is_no_reason_to_refuse() -> None:
    assert refused_by(replace(GOOD, slices={})) == []


@pytest.mark.parametrize(
    ("error", "champion", "passes"),
    [(0.05, 0.01, True), (0.0501, 0.01, False), (0.09, 0.09, True), (0.0901, 0.09, False)],
)
def test_calibration_is_held_to_the_bound_or_to_the_champion(
    error: float, champion: float, passes: bool
) -> None:
    rival = replace(CHAMPION, figures={**CHAMPION.figures, "calibration_error": champion})
    challenger = model(GOOD.scores, figures={"calibration_error": error})
    expected = [] if passes else [CALIBRATED]
    assert refused_by(challenger, replace(EVIDENCE, reference=rival)) == expected


@pytest.mark.parametrize(
    ("skill", "champion", "passes"),
    [(0.2, 0.1, True), (0.2001, 0.1, False), (0.25, None, True), (0.2501, None, False)],
)
def test_a_leap_of_the_skill_is_refused(
    skill: float, champion: float | None, passes: bool, configure: Callable[..., None]
) -> None:
    configure(gate_max_skill=0.25, gate_max_skill_gain=0.1 + 1e-12)

    def of(skill: float) -> dict[str, float]:
        return {"log_loss": (1 - skill) * BASELINE_LOSS}

    rival = replace(CHAMPION, figures={**CHAMPION.figures, **of(champion or 0)})
    evidence = replace(EVIDENCE, reference=rival, has_champion=champion is not None)
    challenger = model(GOOD.scores, figures=of(skill))
    assert answers(challenger, evidence)[NOT_TOO_GOOD].passed == passes
    assert "(ML_GATE_MAX_SKILL" in answers(challenger, evidence)[NOT_TOO_GOOD].bound


def test_a_bound_names_the_place_that_sets_it() -> None:
    case = replace(CASE, own_settings={"gate_max_skill": 0.7})
    rules = gate.check(case, GOOD, replace(EVIDENCE, has_champion=False))
    [bound] = [rule.bound for rule in rules if rule.name == NOT_TOO_GOOD]
    assert bound == "skill ≤ 0.700 (gate_max_skill in own_settings of flight_delays)"


@pytest.mark.parametrize(
    ("names", "passes"),
    [
        (features.FEATURES, True),
        (features.FEATURES[::-1], True),
        (features.FEATURES[1:], False),
        ([*features.FEATURES, "dep_delay"], False),
        ([], False),
    ],
)
def test_a_model_reads_the_features_of_this_code(names: list[str], passes: bool) -> None:
    expected = [] if passes else [FEATURES]
    assert refused_by(replace(GOOD, features=names)) == expected


@pytest.mark.parametrize(
    ("shift", "usual", "passes"),
    [
        (2.5 * 0.2, 0.2, True),
        (0.501, 0.2, False),
        (0.3, 0.01, True),  # so small a shift is never a fault
        (0.301, 0.01, False),
        (0.8, 0.5, True),  # so large a shift is never normal
        (0.801, 0.5, False),
        (0.8, None, True),  # nobody knows what is usual
        (0.801, None, False),
    ],
)
def test_a_shift_is_held_to_the_usual_ones(shift: float, usual: float | None, passes: bool) -> None:
    rule = answers(GOOD, replace(EVIDENCE, shifts=shifts(shift, usual)))[INPUTS]
    assert rule.passed == passes
    assert rule.found.endswith("(temp)")


@pytest.mark.parametrize(
    ("ratio", "passes"), [(None, True), (1.0, True), (5.0, True), (5.01, False), (60.0, False)]
)
def test_labels_in_another_unit_are_refused(ratio: float | None, passes: bool) -> None:
    evidence = replace(EVIDENCE, label_ratio=ratio)
    assert refused_by(GOOD, evidence) == ([] if passes else [LABELS_RULE])


@pytest.mark.parametrize(("seconds", "passes"), [(60, True), (60.01, False)])
def test_a_slow_model_is_refused(seconds: float, passes: bool) -> None:
    expected = [] if passes else [FAST]
    assert refused_by(replace(GOOD, scoring_seconds_per_million=seconds)) == expected


@pytest.mark.parametrize(("size", "passes"), [(100_000_000, True), (100_000_001, False)])
def test_a_big_model_is_refused(size: int, passes: bool) -> None:
    assert refused_by(replace(GOOD, bytes=size)) == ([] if passes else [SMALL])


# --- The scenarios, on real flights and real models --------------------------------------------

TRAINED, HOLDOUT = (date(2013, 3, 23), date(2013, 5, 17)), (date(2013, 5, 18), date(2013, 5, 31))
WEAK = (date(2013, 1, 1), date(2013, 1, 14))
"""Days of the first champion: few, and of another season."""


@dataclass(frozen=True)
class World:
    """What is made once: real rows, a champion, and an honest challenger that is much better."""

    lake: Lake
    registry: Path
    rows: pl.DataFrame
    snapshot: str
    weak: ModelVersion
    strong: ModelVersion


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("gate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ML_DATA_DIR", str(folder))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        settings.cache_clear()
        registry.create_store(CASE)
        lake, rows = Lake(str(folder / "lake")), real_rows(TRAINED[0], HOLDOUT[1])
        few = real_rows(WEAK[0], WEAK[1])
        old = keep(lake, few, few.filter(pl.col("day") == WEAK[1]))
        snapshot = keep(lake, *split(rows))
        weak, strong = (
            registry.register(CASE, training.train(at(lake), taken, "xgboost", "the tests"))
            for taken in (old, snapshot)
        )
        promotion.promote(CASE, weak, None, "the tests")
    settings.cache_clear()
    return World(lake, folder / "mlflow.db", rows, snapshot, weak, strong)


@pytest.fixture
def world(made: World, configure: Callable[..., None], tmp_path: Path) -> World:
    """The same with a registry of the test's own, in which the weak model is champion."""
    own = tmp_path / "own.db"
    with sqlite3.connect(made.registry) as one, sqlite3.connect(own) as other:
        one.backup(other)
    configure(mlflow_tracking_uri=f"sqlite:///{own}")
    return made


def real_rows(first: date, last: date) -> pl.DataFrame:
    """The labelled rows of real days, and the arrival delay that no model may see."""
    frames = []
    for number in range((last - first).days + 1):
        day = first + timedelta(number)
        found = {name: source.fetch(name, day) for name in ("flights", "weather", "actuals")}
        inputs = {name: rows for name, rows in found.items() if rows is not None}
        truth = inputs.pop("actuals")
        rows = features.build_features(inputs).join(features.build_labels(truth), on=KEY)
        rows = rows.with_columns(day=pl.lit(day))
        frames.append(rows.join(truth.select(*KEY, "arr_delay"), on=KEY))
    return pl.concat(frames)


def split(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    later = pl.col("day") >= HOLDOUT[0]
    return rows.filter(~later), rows.filter(later)


def keep(lake: Lake, train: pl.DataFrame, holdout: pl.DataFrame) -> str:
    """Publish rows as a snapshot."""
    parts = {"training": train.drop("arr_delay"), "holdout": holdout.drop("arr_delay")}
    version = lake.new_version("training", str(holdout["day"].max()))
    for part, rows in parts.items():
        version.write_frame(part, rows)
    described = {p: CASE.target.describe(rows["label"].to_numpy()) for p, rows in parts.items()}
    version.publish(
        list(parts),
        {
            "start": str(train["day"].min()),
            "end": version.key,
            "holdout_days": holdout["day"].n_unique(),
            "labels": described,
            "sources": {},
        },
    )
    return str(version)


def relabel(
    rows: pl.DataFrame,
    share: float,
    change: Callable[[np.ndarray], np.ndarray],
    where: pl.Expr | None = None,
) -> pl.DataFrame:
    """Change a share of the labels, or of those somewhere."""
    labels = rows["label"].to_numpy().copy()
    there = (
        np.arange(len(rows)) if where is None else rows.select(where.arg_true())[:, 0].to_numpy()
    )
    random = np.random.default_rng(7)
    chosen = random.choice(there, int(share * len(there)), replace=False)
    labels[chosen] = change(labels[chosen])
    return rows.with_columns(label=pl.Series(labels))


def shuffled(labels: np.ndarray) -> np.ndarray:
    return np.random.default_rng(8).permutation(labels)


def judge(world: World, snapshot: str, *runs: tuple[str, str], champion: bool = True) -> Verdict:
    """Put runs (candidate, id) to the gate; by default, train the candidate xgboost for it."""
    if not runs:
        runs = (("xgboost", training.train(at(world.lake), snapshot, "xgboost", "a test")),)
    lake, rival = world.lake, evaluation.find_rival(at(world.lake), snapshot) if champion else None
    judged = [evaluation.evaluate_run(at(lake), snapshot, run, name, rival) for name, run in runs]
    return gate.judge(
        at(lake), snapshot, evaluation.evaluate_champion(at(lake), snapshot, rival), judged
    )


def failed(verdict: Verdict) -> list[str]:
    """The rules that refuse the only candidate."""
    (rules,) = verdict.rules.values()
    assert (verdict.challenger is None) == any(not rule.passed for rule in rules)
    return [rule.name for rule in rules if not rule.passed]


@pytest.fixture
def strong_champion(world: World) -> None:
    promotion.promote(CASE, world.strong, world.weak, "the tests")


def assert_tells_all(verdict: Verdict) -> None:
    """The tables have a row a rule with a cell a candidate, and a row a figure with the rival's."""
    _, rules, figures = verdict.markdown.split("\n\n")
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rules.splitlines()]
    candidates = list(verdict.rules)
    assert cells[0] == ["rule", *candidates, "bound"]
    for place, name in enumerate(candidates, start=1):
        expected = [
            (rule.name, f"{'✓' if rule.passed else '✗'} {rule.found}", rule.bound)
            for rule in verdict.rules[name]
        ]
        assert [(row[0], row[place], row[-1]) for row in cells[2:]] == expected
    assert [row.count("|") for row in figures.splitlines()] == [len(candidates) + 3] * 7


def kept(run: str) -> tuple[str, str, str, str]:
    """What a run says of its verdict."""
    client = MlflowClient()
    tags = client.get_run(run).data.tags
    text = Path(client.download_artifacts(run, registry.VERDICT)).read_text()
    return tags["verdict"], tags["refused_by"], tags["chosen"], text


def test_a_truly_better_challenger_passes_every_rule_and_is_promoted(world: World) -> None:
    linear = training.train(at(world.lake), world.snapshot, "logistic_regression", "a test")
    runs = {"logistic_regression": linear, "xgboost": world.strong.run_id}
    verdict = judge(world, world.snapshot, *runs.items())
    assert [rule for rules in verdict.rules.values() for rule in rules if not rule.passed] == []
    assert verdict.challenger is not None
    assert verdict.challenger.candidate == "xgboost", "the better of two that passed"
    assert verdict.challenger.run_id == world.strong.run_id
    assert verdict.champion == world.weak
    promotion.promote(CASE, world.strong, verdict.champion, "a test")
    assert registry.champion(CASE) == world.strong

    assert verdict.markdown.startswith("**xgboost** passed: trained on 2013-03-23 and later")
    judged_on = (
        "on 14 days, 2013-05-18 to 2013-05-31 (12,420 rows), against the champion (version 1)"
    )
    assert judged_on in verdict.markdown
    assert_tells_all(verdict)
    for name, run in runs.items():
        assert kept(run) == ("passed", "", str(name == "xgboost").lower(), verdict.markdown)


def test_labels_are_compared_with_those_of_the_champions_training(
    world: World, configure: Callable[..., None]
) -> None:
    configure(gate_max_label_ratio=1.0001)
    assert "same labels" in failed(judge(world, world.snapshot))
    configure(gate_max_label_ratio=1.5)
    assert "same labels" not in failed(judge(world, world.snapshot))


def test_a_leaked_label_is_too_good_to_be_true(world: World) -> None:
    leaked = world.rows.with_columns(plane_age=pl.col("arr_delay").cast(pl.Float32))
    assert failed(judge(world, keep(world.lake, *split(leaked)))) == [NOT_TOO_GOOD]


@pytest.mark.usefixtures("strong_champion")
def test_shuffled_labels_make_no_better_model(world: World) -> None:
    train, holdout = split(world.rows)
    snapshot = keep(world.lake, relabel(train, 0.3, shuffled), holdout)
    assert BETTER in failed(judge(world, snapshot))


def test_labels_that_are_all_shuffled_leave_nothing_to_know(world: World) -> None:
    train, holdout = split(world.rows)
    snapshot = keep(world.lake, relabel(train, 1.0, shuffled), holdout)
    assert KNOWS in failed(judge(world, snapshot))


@pytest.mark.usefixtures("strong_champion")
def test_the_champion_itself_is_no_better(world: World) -> None:
    verdict = judge(world, world.snapshot, ("xgboost", world.strong.run_id))
    assert failed(verdict) == [BETTER]
    assert verdict.markdown.startswith("All were **refused**: ")
    assert_tells_all(verdict)
    assert kept(world.strong.run_id) == ("refused", BETTER, "false", verdict.markdown)


def test_weather_in_another_unit_is_another_input(world: World) -> None:
    train, holdout = split(world.rows)
    celsius = train.with_columns((pl.col("temp", "dewp") - 32) * 5 / 9)
    assert failed(judge(world, keep(world.lake, celsius, holdout))) == [INPUTS]


def test_better_in_the_mean_is_not_enough_if_one_airport_pays_for_it(world: World) -> None:
    train, holdout = split(world.rows)
    inverted = relabel(train, 0.28, lambda labels: 1 - labels, pl.col("origin") == "JFK")
    assert failed(judge(world, keep(world.lake, inverted, holdout))) == [SLICES]


def test_squeezed_scores_are_badly_calibrated(world: World) -> None:
    """Labels that are mostly noise draw all scores to the base rate, which it still beats."""
    train, holdout = split(world.rows)
    snapshot = keep(world.lake, relabel(train, 0.6, shuffled), holdout)
    assert failed(judge(world, snapshot, champion=False)) == [CALIBRATED]


def test_a_model_of_other_features_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poorer(seed: int) -> Any:
        pipeline = models.xgboost(seed)
        pipeline["encode"].numeric = features.NUMERIC[:-1]
        types = pipeline["classify"].feature_types[1:]
        pipeline["classify"].set_params(feature_types=types)
        return pipeline

    monkeypatch.setitem(models.CANDIDATES, "poorer", poorer)
    run = training.train(at(world.lake), world.snapshot, "poorer", "a test")
    verdict = judge(world, world.snapshot, ("poorer", run))
    assert failed(verdict) == [FEATURES]
    assert "differs in visib" in verdict.markdown


def test_a_model_for_rows_that_lack_a_group_may_be_a_member_and_is_never_champion(
    world: World, configure: Callable[..., None]
) -> None:
    configure(gate_max_calibration_error=0.5)  # without weather it knows of no storm
    candidates = ("without_weather", "xgboost")
    runs = [
        (name, training.train(at(world.lake), world.snapshot, name, "a test"))
        for name in candidates
    ]
    for several in (runs, runs[:1]):
        verdict = judge(world, world.snapshot, *several)
        rules = verdict.rules["without_weather"]
        assert [rule.name for rule in rules if not rule.passed and rule.fault] == []
        assert "without_weather" in [member.candidate for member in verdict.members]
        challenger = verdict.challenger and verdict.challenger.candidate
        assert challenger == ("xgboost" if len(several) > 1 else None)


@pytest.mark.parametrize(
    ("tight", "rule"),
    [({"gate_max_scoring_seconds": 0.001}, FAST), ({"gate_max_model_mb": 0.01}, SMALL)],
)
def test_a_slow_or_big_one_is_refused_by_its_own_rule(
    tight: dict[str, float], rule: str, world: World, configure: Callable[..., None]
) -> None:
    configure(**tight)
    assert failed(judge(world, world.snapshot, ("xgboost", world.strong.run_id))) == [rule]


def test_figures_of_other_rows_or_against_another_champion_are_not_compared(world: World) -> None:
    lake, run = world.lake, world.strong.run_id
    other = keep(lake, *split(world.rows))
    rival = evaluation.find_rival(at(lake), other)
    ours, theirs = (
        evaluation.evaluate_champion(at(lake), s, rival) for s in (world.snapshot, other)
    )
    against_champion = evaluation.evaluate_run(at(lake), world.snapshot, run, "xgboost", rival)
    against_base_rate = evaluation.evaluate_run(at(lake), world.snapshot, run, "xgboost")
    for champion, candidate in (
        (theirs, against_champion),
        (ours, against_base_rate),
        (None, against_champion),
    ):
        with pytest.raises(BadData, match=r"[Cc]lear this run from `take_snapshot`"):
            gate.judge(at(lake), world.snapshot, champion, [candidate])


def test_a_holdout_of_one_class_promotes_nothing(world: World) -> None:
    train, holdout = split(world.rows)
    snapshot = keep(world.lake, train, holdout.with_columns(label=pl.lit(0, pl.Int8)))
    verdict = judge(world, snapshot, ("xgboost", world.strong.run_id))
    assert BETTER in failed(verdict)
    assert "| roc_auc | – | – |" in verdict.markdown
