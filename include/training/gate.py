"""The gate between a challenger and the champion: every rule with its figure, bound and result.

The bounds are the settings `gate_…`. All models are judged on the same rows of one holdout, against
the champion, if there is one, and the baseline, a forecast that knows only the training labels.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from include.errors import BadData, MissingData
from include.lake.tables import Version
from include.messages import Evaluated, ModelVersion, Rival, Rule, Verdict
from include.registry import registry
from include.training import evaluation, snapshot
from include.training.evaluation import Figures
from include.usecase import UseCase
from include.wording import literal

LEAST_SHIFT = 0.3
"""A smaller shift is never a fault (see `_inputs`)."""


@dataclass(frozen=True)
class Model:
    """What the gate knows about one model, on the rows of the holdout.

    Attributes:
        lacks: features that it was trained without on purpose.
    """

    figures: Figures
    slices: dict[str, Figures]
    scores: np.ndarray
    features: list[str]
    scoring_seconds_per_million: float
    bytes: int
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """The data that all models are judged on: the holdout's labels and days, and input shifts.

    Attributes:
        reference: the champion, or the baseline if there is none.
        baseline_losses: losses of the baseline on these rows; their mean is the unit of every gain.
        label_ratio: how many times the labels vary more in one of training days, holdout and the
            champion's training days than in another; None if it is not known.
        shifts: shifts of the features, from `snapshot.input_shifts`.
    """

    labels: np.ndarray
    days: np.ndarray
    reference: Model
    baseline_losses: np.ndarray
    has_champion: bool
    label_ratio: float | None
    shifts: pl.DataFrame

    @property
    def baseline_loss(self) -> float:
        """The mean loss of the baseline."""
        return float(self.baseline_losses.mean())


def check(case: UseCase, model: Model, evidence: Evidence) -> list[Rule]:
    """The results of all rules for a model."""
    rules = (
        _better_than_baseline, _slices, _calibrated, _not_too_good, _features, _inputs, _labels,
        _speed, _size,
    )  # fmt: skip
    against_champion = (_better_than_champion,) if evidence.has_champion else ()
    return [rule(case, model, evidence) for rule in (*against_champion, *rules)]


def _better_than_champion(case: UseCase, model: Model, evidence: Evidence) -> Rule:
    known = case.target.losses(evidence.labels, evidence.reference.scores)
    return _better(case, model, evidence, known, "champion")


def _better_than_baseline(case: UseCase, model: Model, evidence: Evidence) -> Rule:
    """A champion that has become worse than the baseline is beaten by models that know nothing."""
    return _better(case, model, evidence, evidence.baseline_losses, case.target.baseline_name)


def _better(case: UseCase, model: Model, evidence: Evidence, known: np.ndarray, whom: str) -> Rule:
    """Its loss is lower by a margin in most samples of days.

    Args:
        known: losses of the one it is compared with.
        whom: who that is.
    """
    gains = (known - case.target.losses(evidence.labels, model.scores)) / evidence.baseline_loss
    means = evaluation.bootstrap_means(gains, evidence.days, case.settings.seed)
    margin, confidence = case.settings.gate_min_skill_gain, case.settings.gate_confidence
    share = float((means >= margin).mean())
    return Rule(
        f"better than the {whom}",
        f"{_gain(gains.mean())}, enough in {share:.1%}",
        f"gains ≥ {margin:.2%} in ≥ {confidence:.0%} of samples",
        share >= confidence,
        fault=False,
    )


def _slices(case: UseCase, model: Model, evidence: Evidence) -> Rule:
    """It is not much worse on any slice that is large enough."""
    gains = slice_gains(case, model, evidence)
    bound = case.settings.gate_max_slice_skill_loss
    least = case.settings.gate_min_slice_rows
    where = min(gains, key=gains.__getitem__, default=None)
    found = f"{_gain(gains[where])} ({where})" if where else "no slice to judge"
    return Rule(
        "no worse on any slice",
        found,
        f"loses ≤ {bound:.2%} where there are ≥ {least} rows",
        where is None or -gains[where] <= bound,
        fault=False,
    )


def _gain(value: float) -> str:
    return f"gains {value:.2%}" if value >= 0 else f"loses {-value:.2%}"


def slice_gains(case: UseCase, model: Model, evidence: Evidence) -> dict[str, float]:
    """Slice → the gain in skill over the reference; only slices large enough to judge."""
    reference, loss = evidence.reference, case.target.loss
    return {
        name: (reference.slices[name][loss] - found[loss]) / evidence.baseline_loss
        for name, found in model.slices.items()
        if found["rows"] >= case.settings.gate_min_slice_rows
    }


def _calibrated(case: UseCase, model: Model, evidence: Evidence) -> Rule:
    """Its predictions are right on average, or more nearly so than the champion's.

    It is compared with the champion because no model can foresee a stormy week, which changes the
    rate of every day.
    """
    name = case.target.calibration
    found, known = model.figures[name], evidence.reference.figures[name]
    bound = max(case.settings.gate_max_calibration_error, known or 0)
    text = f"{case.target.measures[name].title} ≤ {bound:.3f}"
    if found is None:
        return Rule("calibrated", "unknown", text, passed=False)
    return Rule("calibrated", f"{found:.3f}", text, found <= bound)


def _not_too_good(case: UseCase, model: Model, evidence: Evidence) -> Rule:
    """It does not know the future: a leaked label makes a model look too good."""
    found, known = (
        1 - side.figures[case.target.loss] / evidence.baseline_loss
        for side in (model, evidence.reference)
    )
    if evidence.has_champion:
        bound, setting = known + case.settings.gate_max_skill_gain, "gate_max_skill_gain"
    else:
        bound, setting = case.settings.gate_max_skill, "gate_max_skill"
    where = case.settings.where_set(setting)
    text = f"skill ≤ {bound:.3f} ({where})"
    return Rule("not too good to be true", f"{found:.3f}", text, found <= bound)


def _features(case: UseCase, model: Model, _: Evidence) -> Rule:
    """It reads exactly the features of this code, except those that it was trained without."""
    expected = set(case.features.FEATURES) - set(model.lacks)
    extra = sorted(set(model.features) ^ expected)
    return Rule(
        "same features",
        "as declared" if not extra else f"differs in {', '.join(extra[:3])}",
        f"the {len(case.features.FEATURES)} features of the use case"
        + (f" without {', '.join(model.lacks[:3])} …" if model.lacks else ""),
        not extra,
    )


def _inputs(case: UseCase, _: Model, evidence: Evidence) -> Rule:
    """Its training data looks like the data that it will score.

    A changed unit, a missing feed or another time zone shifts a feature suddenly, and further than
    the seasons do. Each feature is compared with its own earlier shifts, as far as known. (Of 240
    normal windows of real data one is refused; Celsius instead of Fahrenheit, or a length
    in another unit, is nearly always refused.)
    """
    ratio, most = case.settings.gate_max_shift_ratio, case.settings.gate_max_shift
    allowed = (ratio * pl.col("usual")).clip(min(LEAST_SHIFT, most), most).fill_null(most)
    judged = evidence.shifts.with_columns(allowed=allowed)
    worst = judged.sort(pl.col("shift") / pl.col("allowed")).row(-1, named=True)
    return Rule(
        "same inputs",
        f"{worst['shift']:.2f} of {worst['allowed']:.2f} ({worst['feature']})",
        f"shift ≤ {ratio:g} × the usual ({min(LEAST_SHIFT, most):g} to {most:g})",
        worst["shift"] <= worst["allowed"],
    )


def _labels(case: UseCase, _: Model, evidence: Evidence) -> Rule:
    """The labels are in the unit that they were in before.

    If they come in seconds instead of minutes, a challenger is much better than a champion that
    still answers in minutes, and everyone who reads the predictions is wrong.
    """
    most, found = case.settings.gate_max_label_ratio, evidence.label_ratio
    return Rule(
        "same labels",
        "unknown" if found is None else f"{found:.2f} ×",
        f"vary ≤ {most:g} × as much as before",
        found is None or found <= most,
    )


def _speed(case: UseCase, model: Model, _: Evidence) -> Rule:
    found, bound = model.scoring_seconds_per_million, case.settings.gate_max_scoring_seconds
    return Rule(
        "fast enough", f"{found:.1f} s", f"≤ {bound:g} CPU-s per million rows", found <= bound
    )


def _size(case: UseCase, model: Model, _: Evidence) -> Rule:
    found, bound = model.bytes / 1e6, case.settings.gate_max_model_mb
    return Rule("small enough", f"{found:.1f} MB", f"≤ {bound:g} MB", found <= bound)


def judge(case: UseCase, reference: str, champion: str | None, candidates: list[str]) -> Verdict:
    """Judge the candidates of a snapshot by their evaluations, and log the verdict to their runs.

    Args:
        reference: the snapshot.
        champion: evaluation of the champion, if there is one.
        candidates: evaluations of the candidates.

    Raises:
        BadData: an evaluation is for another snapshot or against another champion.
    """
    rival = _rival(case, reference, [*candidates, *([champion] if champion else [])])
    if (rival is None) != (champion is None):
        raise BadData(
            f"The evaluations of {reference} were made against {rival and rival.model}, and the "
            f"champion's evaluation is {champion}. Clear this run from `take_snapshot`."
        )
    evidence = gather(case, reference, champion)
    judged = {}
    for name in candidates:
        facts = case.lake.version(name).manifest().metadata
        rules = check(case, read_model(case, case.lake.version(name)), evidence)
        judged[name] = (facts, rules)
    passed = [name for name, (_, rules) in judged.items() if all(rule.passed for rule in rules)]
    lacking = {
        group.path for group in case.features.GROUPS
    }  # not champions: they score only some rows
    whole = [name for name in passed if judged[name][0]["candidate"] not in lacking]
    best = min(whole, key=lambda name: judged[name][0]["figures"][case.target.loss], default=None)
    wanted = {member.name for member in case.members} | lacking
    sound = [
        name
        for name, (facts, rules) in judged.items()
        if name == best
        or (facts["candidate"] in wanted and all(r.passed for r in rules if r.fault))
    ]
    described = {
        name: Evaluated(facts["candidate"], facts["run_id"], name)
        for name, (facts, _) in judged.items()
    }
    known = rival.model if rival else None
    verdict = Verdict(
        snapshot=reference,
        challenger=None if best is None else described[best],
        members=[described[name] for name in sorted(sound, key=lambda name: name != best)],
        champion=known,
        champion_evaluation=champion,
        rules={facts["candidate"]: rules for facts, rules in judged.values()},
        markdown=_markdown(case, case.lake.version(reference), evidence, judged, best, known),
    )
    for name, (facts, rules) in judged.items():
        answer = "passed" if name in passed else "refused"
        refused_by = ", ".join(rule.name for rule in rules if not rule.passed)
        tags = {"verdict": answer, "refused_by": refused_by, "chosen": str(name == best).lower()}
        registry.log_verdict(case, facts["run_id"], verdict.markdown, tags)
    if best is None:
        registry.count(case, "refused")
    return verdict


def _rival(case: UseCase, reference: str, evaluations: list[str]) -> Rival | None:
    """The evaluations' common rival; all must have the same rival and snapshot."""
    versions = [case.lake.version(name) for name in evaluations]
    rivals = [evaluation.read_rival(version) for version in versions]
    for name, version, rival in zip(evaluations, versions, rivals, strict=True):
        if version.manifest().metadata["snapshot"] != reference or rival != rivals[0]:
            raise BadData(
                f"{name} was evaluated on another snapshot than {reference}, or against another "
                "champion than the others: its figures cannot be compared. Nothing was promoted; "
                "clear this run from `take_snapshot`."
            )
    return rivals[0]


def gather(case: UseCase, reference: str, champion: str | None) -> Evidence:
    """The evidence of a snapshot's holdout against a champion's evaluation, or the baseline."""
    version = case.lake.version(reference)
    source, part = (case.lake.version(champion), "scores") if champion else (version, "holdout")
    rows = source.read(part, ["label", "day"])
    labels = rows["label"].to_numpy()
    constant = baseline_predictions(case, version, labels)
    return Evidence(
        labels=labels,
        days=rows["day"].to_numpy(),
        reference=read_model(case, case.lake.version(champion))
        if champion
        else baseline(case, version),
        baseline_losses=case.target.losses(labels, constant),
        has_champion=champion is not None,
        label_ratio=label_ratio(case, version, champion),
        shifts=snapshot.input_shifts(case, version),
    )


def label_ratio(case: UseCase, version: Version, champion: str | None) -> float | None:
    """The largest ratio between how much the labels of two periods vary.

    The periods are training days and holdout of a snapshot, and the champion's training days. How
    much labels vary is the loss that their own baseline expects on them.

    Args:
        champion: the champion's evaluation, if there is one.
    """
    described = list(version.manifest().metadata["labels"].values())
    if champion is not None:
        run = case.lake.version(champion).manifest().metadata["run_id"]
        with suppress(BadData, MissingData):  # a champion from another lake, or older
            if reference := registry.param(case, run, "snapshot"):
                known = case.lake.version(reference).manifest().metadata["labels"]
                described.append(known["training"])
    baselines = np.stack([case.target.baseline([one]) for one in described])
    found = case.target.expected_losses(baselines)
    return float(found.max() / found.min()) if (found > 0).all() else None


def baseline(case: UseCase, version: Version) -> Model:
    """A forecast that gives every row of the holdout the baseline of the training days."""
    holdout = version.read("holdout", ["label", *case.features.SLICES])
    labels = holdout["label"].to_numpy()
    scores = baseline_predictions(case, version, labels)
    sliced = evaluation.by_slice(case, holdout, labels, scores)
    figures = case.target.figures(labels, scores)
    return Model(figures, sliced, scores, case.features.FEATURES, 0, 0)


def baseline_predictions(case: UseCase, version: Version, labels: np.ndarray) -> np.ndarray:
    """The baseline of a snapshot's training days, once for each label."""
    known = case.target.baseline([version.manifest().metadata["labels"]["training"]])
    return np.broadcast_to(known, (len(labels), *known.shape))


def read_model(case: UseCase, version: Version) -> Model:
    """What the gate knows about a model, from its evaluation."""
    facts = version.manifest().metadata
    return Model(
        figures=facts["figures"],
        slices=facts["slices"],
        scores=evaluation.read_scores(version),
        features=facts["features"],
        scoring_seconds_per_million=facts["scoring_seconds_per_million"],
        bytes=facts.get("model_bytes", 0),
        lacks=tuple(
            name
            for group in case.features.GROUPS
            if group.path == facts["candidate"]
            for name in group.features
        ),
    )


def _markdown(
    case: UseCase,
    version: Version,
    evidence: Evidence,
    judged: dict[str, tuple[dict[str, Any], list[Rule]]],
    best: str | None,
    champion: ModelVersion | None,
) -> str:
    facts = version.manifest().metadata
    rival = f"champion (version {champion.version})" if champion else case.target.baseline_name
    names = [found["candidate"] for found, _ in judged.values()]
    decision = "All were **refused**"
    if best:
        decision = f"**{literal(judged[best][0]['candidate'])}** passed"
    days = np.unique(evidence.days)
    window = (
        f"trained on {facts['start']} and later, judged on {len(days)} days, {days[0]} to "
        f"{days[-1]} ({len(evidence.labels):,} rows), against the {rival}"
    )
    by_rule = zip(*(rules for _, rules in judged.values()), strict=True)
    rules = [
        [
            same_rule[0].name,
            *(f"{'✓' if rule.passed else '✗'} {rule.found}" for rule in same_rule),
            same_rule[0].bound,
        ]
        for same_rule in by_rule
    ]
    all_figures = [
        *(found["figures"] for found, _ in judged.values()),
        evidence.reference.figures,
    ]
    compared = [
        [name, *("–" if value is None else f"{value:.4f}" for value in values)]
        for name in case.target.measures
        if (values := [found[name] for found in all_figures])
    ]
    return "\n".join(
        [
            f"{decision}: {window}.",
            "",
            *_table(["rule", *names, "bound"], rules),
            "",
            *_table(["on the holdout", *names, rival], compared),
        ]
    )


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    headings = list(headings)
    lines = [headings, ["---"] * len(headings), *rows]
    return [f"| {' | '.join(map(literal, cells))} |" for cells in lines]
