"""From a snapshot to a registered challenger: what is kept of it, and when it is refused."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from mlflow import MlflowClient
from mlflow.models import get_model_info
from sklearn.pipeline import Pipeline

from include.encoder import FeatureEncoder
from include.errors import BadData, DependencyDown, MissingData
from include.inference import scoring
from include.lake.tables import Lake
from include.messages import Evaluated, ModelVersion, Rival, Verdict
from include.registry import registry
from include.training import evaluation, gate, training
from include.training.snapshot import fingerprint
from include.usecases.flight_delays import features, models
from include.usecases.flight_delays.schema import KEY
from tests.case import CASE, at
from tests.unit.conftest import TRAINED, History


def run_of(run_id: str) -> Any:
    return MlflowClient().get_run(run_id).data


def test_a_training_keeps_what_repeats_it(
    lake: Lake, history: History, own_registry: Path, configure: Callable[..., None]
) -> None:
    configure(seed=8, git_commit="abc123+", training_memory_mb=1000)
    run = training.train(CASE, history.snapshot, "logistic_regression", "the drift of May")
    rows = lake.version(history.snapshot).read("training")
    assert run_of(run).params == {
        "candidate": "logistic_regression",
        "target": "binary",
        "snapshot": history.snapshot,
        "snapshot_sha256": fingerprint(lake.version(history.snapshot)),
        "parts": '["training"]',
        "start": TRAINED[0],
        "end": TRAINED[1],
        "last_day": str(rows["day"].max()),
        "holdout_days": "5",
        "seed": "8",
        "training_memory_mb": "1000.0",
        "rows": str(len(rows)),
        "rows_used": str(len(rows)),
        "method": "in memory",
        "model_sha256": run_of(run).params["model_sha256"],
    }
    tags = run_of(run).tags
    assert (tags["reason"], tags["git_commit"]) == ("the drift of May", "abc123+")


def test_a_model_says_what_it_reads_and_gives(
    lake: Lake, history: History, own_registry: Path
) -> None:
    run = training.train(CASE, history.snapshot, "logistic_regression", "a test")
    signature = get_model_info(run_of(run).tags[registry.MODEL_URI]).signature
    assert signature is not None
    assert signature.inputs.input_names() == features.FEATURES
    assert signature.outputs.inputs[0].shape == (-1,)


def test_training_again_gives_the_same_model(
    lake: Lake, history: History, own_registry: Path
) -> None:
    again = registry.load_run(CASE, training.train(CASE, history.snapshot, "xgboost", "again"))
    rows = lake.version(history.snapshot).read("holdout")
    champion = registry.load(CASE, history.champion)
    np.testing.assert_array_equal(again.predict_proba(rows), champion.predict_proba(rows))


def test_another_seed_gives_another_model(
    lake: Lake, history: History, own_registry: Path, configure: Callable[..., None]
) -> None:
    configure(seed=8)
    other = registry.load_run(
        CASE, training.train(CASE, history.snapshot, "xgboost", "another seed")
    )
    rows = lake.version(history.snapshot).read("holdout")
    champion = registry.load(CASE, history.champion)
    assert (other.predict_proba(rows) != champion.predict_proba(rows)).any()


def test_a_model_knows_the_days_before_the_holdout_only(lake: Lake, history: History) -> None:
    rows = lake.version(history.snapshot).read("training")
    assert known_destinations(history.champion.run_id, history) == sorted(set(rows["dest"]))


def known_destinations(run_id: str, history: History) -> list[str]:
    encoder = registry.load_run(CASE, run_id)[0]
    assert isinstance(encoder, FeatureEncoder)
    return encoder.categories_["dest"]


def test_a_part_that_is_gone_is_missing_and_no_run_is_begun(
    lake: Lake, history: History, own_registry: Path
) -> None:
    runs = all_runs()
    path = lake.version(history.snapshot).part_path("training")
    assert isinstance(path, Path)
    path.unlink()
    with pytest.raises(MissingData, match="There is no file"):
        training.train(CASE, history.snapshot, "xgboost", "a test")
    assert all_runs() == runs


def all_runs() -> list[str]:
    client = MlflowClient()
    return [
        run.info.run_id
        for experiment in client.search_experiments()
        for run in client.search_runs([experiment.experiment_id])
    ]


# --- The challenger that passed -----------------------------------------------------------------


@dataclass(frozen=True)
class Passed:
    """A challenger that was judged, and its verdict."""

    lake: Lake
    run: str
    verdict: Verdict
    scores: np.ndarray

    @property
    def member(self) -> Evaluated:
        """The challenger, as a member of its ensemble."""
        assert self.verdict.challenger is not None
        return self.verdict.challenger


@pytest.fixture
def passed(lake: Lake, history: History, own_registry: Path) -> Passed:
    """The history's model, as if the gate had let it pass against the champion: itself."""
    return judged_on(lake, history, evaluation.find_rival(CASE, history.snapshot))


def judged_on(lake: Lake, history: History, rival: Rival | None) -> Passed:
    run = history.champion.run_id
    judged = evaluation.evaluate_run(at(lake), history.snapshot, run, "xgboost", rival)
    champion = evaluation.evaluate_champion(at(lake), history.snapshot, rival)
    verdict = gate.judge(at(lake), history.snapshot, champion, [judged])
    challenger = Evaluated("xgboost", run, judged)
    scores = evaluation.read_scores(lake.version(judged))
    verdict = replace(verdict, challenger=challenger, members=[challenger])
    return Passed(lake, run, verdict, scores)


def test_a_refitted_challenger_knows_the_holdout_too_but_for_the_withheld_rows(
    passed: Passed, history: History
) -> None:
    run = training.refit(at(passed.lake), passed.verdict.snapshot, passed.member)
    assert run != passed.run
    version = passed.lake.version(history.snapshot)
    parts = [version.read("training"), version.read("holdout")]
    withheld = reference_rows(passed, run)
    assert len(withheld) == len(parts[1]) // 10
    fitted = pl.concat(parts).join(withheld, on=KEY, how="anti")
    params, tags = run_of(run).params, run_of(run).tags
    assert json.loads(params["parts"]) == ["training", "holdout"]
    assert int(params["rows"]) == len(fitted)
    assert int(params["withheld_rows"]) == len(withheld)
    assert params["last_day"] == TRAINED[1]
    assert tags["mlflow.parentRunId"] == passed.run
    assert known_destinations(run, history) == sorted(set(fitted["dest"]))
    labels = parts[1]["label"].to_numpy()
    after = registry.load_run(CASE, run).predict_proba(parts[1])[:, 1]
    losses = [CASE.target.losses(labels, scores).mean() for scores in (after, passed.scores)]
    assert losses[0] < losses[1]


def reference_rows(passed: Passed, run: str) -> pl.DataFrame:
    """The rows that a version's reference is about, with their scores."""
    reference = registry.reference(CASE, ModelVersion(CASE.name, "2", run))
    return passed.lake.version(reference["evaluation"]).read("scores")


def test_later_scores_of_a_refitted_model_are_compared_with_its_own_on_the_withheld_rows(
    passed: Passed, history: History
) -> None:
    run = training.refit(at(passed.lake), passed.verdict.snapshot, passed.member)
    withheld = reference_rows(passed, run)
    rows = passed.lake.version(history.snapshot).read("holdout")
    rows = rows.join(withheld.select(KEY), on=KEY, how="semi", maintain_order="left")
    own = registry.load_run(CASE, run).predict_proba(rows)[:, 1]
    np.testing.assert_array_equal(withheld["score"], own)
    assert registry.reference(CASE, ModelVersion(CASE.name, "2", run)) == {
        **scoring.score_reference(CASE, own),
        "evaluation": registry.reference(CASE, ModelVersion(CASE.name, "2", run))["evaluation"],
    }


def test_all_candidates_withhold_the_same_rows(passed: Passed, own_registry: Path) -> None:
    again = replace(passed.member, candidate="logistic_regression")
    runs = [
        training.refit(at(passed.lake), passed.verdict.snapshot, one)
        for one in (passed.member, again)
    ]
    one, other = (reference_rows(passed, run) for run in runs)
    assert one.select(KEY).equals(other.select(KEY))
    assert not one["score"].equals(other["score"])


def test_without_a_refit_the_judged_model_itself_is_taken(
    passed: Passed, configure: Callable[..., None]
) -> None:
    configure(refit=False)
    runs = all_runs()
    assert training.refit(at(passed.lake), passed.verdict.snapshot, passed.member) == passed.run
    assert all_runs() == runs
    model = ModelVersion(CASE.name, "2", passed.run)
    evaluation = {"evaluation": passed.member.evaluation}
    assert (
        registry.reference(CASE, model) == scoring.score_reference(CASE, passed.scores) | evaluation
    )


def test_a_refit_that_is_worse_than_the_judged_model_is_refused(
    passed: Passed, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unbalanced(seed: int) -> Pipeline:
        return models.xgboost(seed).set_params(classify__scale_pos_weight=20)

    monkeypatch.setitem(models.CANDIDATES, "xgboost", unbalanced)
    with pytest.raises(BadData, match=r"The refitted xgboost \(run ") as failure:
        training.refit(at(passed.lake), passed.verdict.snapshot, passed.member)
    assert "set ML_REFIT to false" in str(failure.value)
    assert registry.champion(CASE) == history.champion


@pytest.mark.parametrize("against", ["champion", "base rate"])
def test_a_registered_challenger_tells_where_it_came_from(
    against: str, lake: Lake, history: History, own_registry: Path
) -> None:
    rival = evaluation.find_rival(CASE, history.snapshot) if against == "champion" else None
    passed = judged_on(lake, history, rival)
    verdict = passed.verdict
    tags = {"git_commit": "abc123", "mlflow.parentRunId": passed.run}
    run = registry.log_training(CASE, registry.load_run(CASE, passed.run), {}, tags)
    runs = {"xgboost": run}
    version = training.register(at(passed.lake), verdict, runs, "the drift of May", "manual__1")
    assert version.run_id == run
    assert {name: member.run_id for name, member in registry.members(CASE, version).items()} == runs

    kept = MlflowClient().get_model_version(CASE.name, version.version)
    kept.tags.pop(registry.MEMBERS)
    assert verdict.challenger is not None
    facts = passed.lake.version(verdict.challenger.evaluation).manifest().metadata
    assert kept.description == verdict.markdown
    assert kept.tags == {
        "candidate": "xgboost",
        "snapshot": history.snapshot,
        "snapshot_sha256": fingerprint(passed.lake.version(history.snapshot)),
        "judged_run": passed.run,
        "evaluation": verdict.challenger.evaluation,
        "judged_against": history.champion.version if rival else "base rate",
        "git_commit": "abc123",
        "reason": "the drift of May",
        "dag_run": "manual__1",
        **{f"holdout_{name}": str(value) for name, value in facts["figures"].items()},
    }
    assert run_of(run).tags["verdict"] == "passed"
    client = MlflowClient()
    assert Path(client.download_artifacts(run, registry.VERDICT)).read_text() == verdict.markdown
    pictures = Path(client.download_artifacts(run, "plots"))
    assert {path.name for path in pictures.iterdir()} == {
        "calibration.png", "contributions.png", "roc.png", "slices.png"
    }  # fmt: skip
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures.iterdir())


def test_a_member_that_could_not_be_refitted_is_left_out_and_a_stale_one_too(
    passed: Passed,
) -> None:
    other = replace(passed.member, candidate="logistic_regression", run_id="another run")
    verdict = replace(passed.verdict, members=[passed.member, other])
    stale = registry.log_training(
        CASE, registry.load_run(CASE, passed.run), {}, {"mlflow.parentRunId": "an earlier run"}
    )
    for runs in ({"xgboost": passed.run}, {"xgboost": passed.run, "logistic_regression": stale}):
        version = training.register(at(passed.lake), verdict, runs, "a test", "manual__1")
        assert list(registry.members(CASE, version)) == ["xgboost"]
    with pytest.raises(BadData, match="no refitted xgboost to register"):
        training.register(at(passed.lake), verdict, {"xgboost": stale}, "a test", "manual__1")


def test_a_run_that_is_registered_already_stays_the_version_it_is(
    passed: Passed, history: History
) -> None:
    runs = {"xgboost": passed.run}
    versions = [
        training.register(at(passed.lake), passed.verdict, runs, "a test", "manual__1")
        for _ in range(2)
    ]
    assert versions == [history.champion] * 2 == [registry.champion(CASE)] * 2
    assert registry.members(CASE, versions[1])["xgboost"].version == "1"


STEPS: list[Callable[[Passed, History], object]] = [
    lambda passed, history: training.train(at(passed.lake), history.snapshot, "xgboost", "a test"),
    lambda passed, history: training.refit(at(passed.lake), passed.verdict.snapshot, passed.member),
    lambda passed, history: training.register(
        at(passed.lake), passed.verdict, {"xgboost": passed.run}, "a", "b"
    ),
]


@pytest.mark.parametrize("step", STEPS, ids=["train", "refit", "register"])
def test_a_registry_that_is_down_is_said_to_be_and_the_champion_stays(
    step: Callable[[Passed, History], object],
    passed: Passed,
    history: History,
    own_registry: Path,
    configure: Callable[..., None],
    take_registry_down: Callable[[], str],
) -> None:
    address = take_registry_down()
    with pytest.raises(DependencyDown, match=rf"registry at {re.escape(address)}"):
        step(passed, history)
    configure(mlflow_tracking_uri=f"sqlite:///{own_registry}")
    assert registry.champion(CASE) == history.champion
