"""Members that score apart from each other, what is made of those that answer, and what if not."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

from include.errors import BadData, MissingData, ModelMissing, Overtaken, ServerDown
from include.inference import ensemble, scoring
from include.inference.remote import ORDER_ROWS
from include.lake.tables import Lake, Manifest
from include.messages import Chunk, ModelVersion, RollCall
from include.registry import registry
from include.usecase import Member, UseCase
from include.usecases.flight_delays.schema import KEY
from tests.case import CASE, at
from tests.unit.conftest import OLD_DAY, History
from tests.unit.ensembles import (
    BY_NAME,
    REMOTE,
    ask,
    ask_all,
    connect_to,
    nobody,
    publish,
    published,
    tell,
)
from tests.unit.helpers import infer, running

# --- The combination ------------------------------------------------------------------------------

probability = st.floats(0, 1, width=32)
weight = st.floats(0.125, 8)


@st.composite
def asked(draw: st.DrawFn) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Scores and weights of one to five members."""
    rows = draw(st.integers(1, 6))
    names = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5, unique=True))
    columns = st.lists(probability, min_size=rows, max_size=rows)
    scores = {name: np.array(draw(columns), np.float32) for name in names}
    return scores, {name: draw(weight) for name in names}


Asked = tuple[dict[str, np.ndarray], dict[str, float]]


@given(asked())
def test_the_average_lies_between_the_least_and_the_greatest_score(members: Asked) -> None:
    scores, weights = members
    found, all_scores = ensemble.combine(CASE, scores, weights), np.array(list(scores.values()))
    assert found.dtype == np.float32
    assert found.shape == all_scores.shape[1:]
    assert (all_scores.min(axis=0) - 1e-6 <= found).all()
    assert (found <= all_scores.max(axis=0) + 1e-6).all()


@given(asked(), st.randoms())
def test_the_order_of_members_does_not_matter_to_the_last_bit(members: Asked, random: Any) -> None:
    scores, weights = members
    names = random.sample(list(scores), len(scores))
    again = ensemble.combine(CASE, {name: scores[name] for name in names}, weights)
    assert np.array_equal(again, ensemble.combine(CASE, scores, weights))


@given(asked(), st.floats(0.5, 100))
def test_weights_are_shares_of_their_sum(members: Asked, factor: float) -> None:
    scores, weights = members
    assert sum(ensemble.normalized(weights).values()) == pytest.approx(1)
    scaled = {name: factor * value for name, value in weights.items()}
    assert np.allclose(
        ensemble.combine(CASE, scores, scaled), ensemble.combine(CASE, scores, weights), atol=1e-6
    )


@given(asked(), probability)
def test_a_missing_member_is_a_member_without_weight(members: Asked, score: float) -> None:
    scores, weights = members
    rows = len(next(iter(scores.values())))
    more = {**scores, "z": np.full(rows, score, np.float32)}
    assert np.allclose(
        ensemble.combine(CASE, more, {**weights, "z": 0.0}),
        ensemble.combine(CASE, scores, weights),
        atol=1e-6,
    )


@given(asked(), st.data())
def test_a_higher_score_never_lowers_the_average(members: Asked, data: st.DataObject) -> None:
    scores, weights = members
    name = data.draw(st.sampled_from(sorted(scores)))
    rise = data.draw(probability)
    higher = {**scores, name: scores[name] + (1 - scores[name]) * np.float32(rise)}
    assert (
        ensemble.combine(CASE, higher, weights) >= ensemble.combine(CASE, scores, weights) - 1e-6
    ).all()


@given(asked())
def test_members_that_agree_are_believed(members: Asked) -> None:
    scores, weights = members
    one = next(iter(scores.values()))
    assert np.allclose(ensemble.combine(CASE, dict.fromkeys(scores, one), weights), one, atol=1e-6)


@pytest.mark.parametrize("weights", [{"a": 0.0}, {"a": -1.0}, {"a": float("nan")}, {}])
def test_without_a_weight_there_is_no_average(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="one of them more"):
        ensemble.combine(CASE, {name: np.ones(2) for name in weights}, weights)


# --- One member -----------------------------------------------------------------------------------


@pytest.fixture
def server(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A model server that can be told to fail, to which the connection leads."""
    with running(faults=True) as url:
        connect_to(url, monkeypatch)
        yield url


def test_every_member_scores_as_its_own_model_does(
    lake: Lake, day: str, history: History, server: str, configure: Callable[..., None]
) -> None:
    configure(chunk_rows=300, batch_rows=128, remote_batch_rows=50)
    rows = lake.version(day).read("features")
    models = {**registry.members(CASE, history.champion), "remote": history.champion}
    for name, model in models.items():
        answer = ask(lake, day, BY_NAME[name], history.champion)
        expected = registry.load(CASE, model).predict_proba(rows)[:, 1]
        assert np.allclose(ensemble.read_scores(CASE, answer.chunks), expected, atol=1e-6)
        assert answer.version == model.version
        assert answer.rows == len(rows)


def test_a_retry_asks_the_server_only_for_the_chunks_that_it_lacks(
    lake: Lake, history: History, server: str, configure: Callable[..., None]
) -> None:
    configure(chunk_rows=300, batch_rows=300)
    day = scoring.preprocess(CASE, OLD_DAY)
    chunks = ensemble.plan(CASE, day, REMOTE, None)
    assert len(chunks) > 2
    ensemble.score(CASE, REMOTE, chunks[0])
    before = httpx.get(f"{server}/faults/counts").json()["rows"]
    for _ in range(2):
        for chunk in chunks:
            ensemble.score(CASE, REMOTE, chunk)
    scored_again = httpx.get(f"{server}/faults/counts").json()["rows"] - before
    rest = chunks[1:]
    assert scored_again == sum(chunk.rows + ORDER_ROWS for chunk in rest)


def test_one_request_in_five_fails_and_every_row_is_scored_once(
    lake: Lake, day: str, history: History, server: str, configure: Callable[..., None]
) -> None:
    configure(remote_batch_rows=20, remote_max_wait_seconds=0.05, remote_breaker_failures=20)
    tell(server, error_rate=0.2)
    answer = ask(lake, day, REMOTE, history.champion)
    assert httpx.get(f"{server}/faults/counts").json()["failed"] > 0
    rows = lake.version(day).read("features")
    expected = registry.load(CASE, history.champion).predict_proba(rows)[:, 1]
    assert np.allclose(ensemble.read_scores(CASE, answer.chunks), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("nonsense", "words"),
    [
        ("nan", "NaN or outside 0 to 1"), ("out_of_range", "NaN or outside 0 to 1"),
        ("constant", "every score is 0.5000"), ("short", "has the shape"),
        ("not_json", "is no JSON"),
    ],
)  # fmt: skip
def test_a_server_that_answers_nonsense_is_as_good_as_down(
    nonsense: str, words: str, lake: Lake, day: str, history: History, server: str
) -> None:
    tell(server, nonsense=nonsense)
    with pytest.raises(BadData, match=words):
        ask(lake, day, REMOTE, history.champion)


def test_rows_that_a_server_mixes_up_are_noticed(lake: Lake, day: str, server: str) -> None:
    tell(server, nonsense="shuffled")
    with pytest.raises(BadData, match="sent in another order, have other scores"):
        ask(lake, day, REMOTE, None)


def test_a_member_whose_version_was_deleted_says_so_at_once(
    lake: Lake, day: str, history: History, own_registry: Path
) -> None:
    gone = registry.members(CASE, history.champion)["logistic_regression"]
    MlflowClient().delete_model_version(gone.name, gone.version)
    with pytest.raises(BadData, match=f"{gone} is gone from the registry"):
        ask(lake, day, BY_NAME["logistic_regression"], history.champion)


def test_a_missing_input_is_not_the_members_own_failure(
    lake: Lake, day: str, history: History
) -> None:
    chunk = ensemble.plan(CASE, day, BY_NAME["xgboost"], history.champion)[0]
    lake.version(day).part_path("features").unlink()
    for step in (
        lambda: ensemble.plan(CASE, day, BY_NAME["xgboost"], history.champion),
        lambda: ensemble.score(CASE, BY_NAME["xgboost"], chunk),
    ):
        with pytest.raises(MissingData, match="There is no file") as failure:
            step()
        assert not isinstance(failure.value, ModelMissing)


def test_a_model_that_goes_missing_after_its_plan_is_the_members_own_failure(
    lake: Lake, day: str, history: History, own_registry: Path
) -> None:
    member = BY_NAME["logistic_regression"]
    chunk = ensemble.plan(CASE, day, member, history.champion)[0]
    MlflowClient().delete_model_version(chunk.model, chunk.version)
    with pytest.raises(ModelMissing, match="not found"):
        ensemble.score(CASE, member, chunk)


def test_a_member_that_was_not_trained_with_the_champion_is_missing(
    lake: Lake, day: str, history: History
) -> None:
    newer = Member("neural_network", "registry")
    with pytest.raises(BadData, match="No neural_network was trained with the champion"):
        ask(lake, day, newer, history.champion)


def test_a_member_far_from_its_usual_distribution_is_as_good_as_down(
    lake: Lake, day: str, history: History
) -> None:
    member = BY_NAME["xgboost"]
    chunks = ensemble.plan(CASE, day, member, history.champion)
    for chunk in chunks:
        score_turned_round(lake, chunk)
    with pytest.raises(BadData, match="answers wrongly for") as failure:
        ensemble.check(CASE, day, member, chunks)
    assert "PSI of the scores against the usual ones" in str(failure.value)


def score_turned_round(lake: Lake, chunk: Chunk) -> str:
    right = scoring.predictor(CASE, ModelVersion(chunk.model, chunk.version, chunk.run_id))
    return scoring.score_chunk(at(lake), chunk, lambda batch: 1 - right(batch))


def test_a_remote_members_earlier_scores_define_its_usual_ones(
    lake: Lake, history: History, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("2013-02-18", "2013-02-19"):
        day = scoring.preprocess(CASE, key)
        publish(lake, day, ask_all(lake, day, history.champion))
    day = scoring.preprocess(CASE, OLD_DAY)
    assert ask(lake, day, REMOTE, None).psi == pytest.approx(0, abs=2)
    right = scoring.predictor(CASE, history.champion)
    monkeypatch.setattr(ensemble.remote.ModelServer, "predict", lambda _, rows, __: 1 - right(rows))
    monkeypatch.setattr(ensemble.remote.ModelServer, "check_order", lambda *_: None)
    with pytest.raises(BadData, match="against the usual ones"):
        ask(lake, day, REMOTE, None)


def test_at_first_a_remote_member_is_held_to_the_champions_predictions(
    lake: Lake, day: str, history: History, server: str
) -> None:
    assert ask(lake, day, REMOTE, None).psi is None, "nothing is known yet"
    infer(lake, "2013-02-19", history.champion)
    assert ask(lake, day, REMOTE, None).psi is not None


# --- All of them ----------------------------------------------------------------------------------


def scored_alike(lake: Lake, day: str, *names: str) -> dict[str, dict[str, Any] | None]:
    """The answers of some members, all with the scores of one model."""
    champion = registry.champion(CASE)
    one = ask(lake, day, BY_NAME["xgboost"], champion)
    return {member.name: one if member.name in names else None for member in CASE.members}


def test_two_of_four_are_enough_and_the_others_have_a_reason(lake: Lake, day: str) -> None:
    given = scored_alike(lake, day, "xgboost", "remote")
    why = {"logistic_regression": "it is gone"}
    roll = ensemble.call_roll(CASE, day, None, given, why)
    assert roll.lacking == ""
    assert roll.absent["logistic_regression"] == "it is gone"
    assert "ended without a message" in roll.absent["hist_gradient_boosting"]
    assert msgspec.convert(json.loads(json.dumps(asdict(roll))), RollCall) == roll


def test_below_the_quorum_there_is_no_ensemble(
    lake: Lake, day: str, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*names: str, case: UseCase = CASE) -> str:
        return ensemble.call_roll(case, day, None, scored_alike(lake, day, *names), {}).lacking

    assert lacking("xgboost") == "1 member answered, 2 have to"
    assert lacking("xgboost", "remote") == ""
    shadows = [replace(member, weight=float(member.name != "remote")) for member in CASE.members]
    shadowed = replace(CASE, members=shadows)
    said = lacking("xgboost", "remote", case=shadowed)
    assert said == "1 member answered, 2 have to", "without weight"
    configure(ensemble_quorum=1, mlflow_tracking_uri=CASE.settings.registry)
    assert lacking("xgboost") == ""


def test_without_a_required_member_there_is_no_ensemble(
    lake: Lake, day: str, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = scored_alike(lake, day, "xgboost", "hist_gradient_boosting")
    configure(ensemble_required="remote, xgboost")
    lacking = "required but missing: remote"
    assert ensemble.call_roll(CASE, day, None, given, {}).lacking == lacking
    configure(ensemble_required="")
    demanding = [replace(member, required=member.kind == "remote") for member in CASE.members]
    case = replace(CASE, members=demanding)
    assert ensemble.call_roll(case, day, None, given, {}).lacking == lacking


@pytest.mark.parametrize("wrong", [{"ensemble_required": "remot"}, {"ensemble_quorum": 5}])
def test_settings_that_no_day_can_meet_are_an_error_not_a_fallback_for_ever(
    wrong: dict[str, object], lake: Lake, day: str, configure: Callable[..., None]
) -> None:
    configure(**wrong)
    with pytest.raises(BadData, match="can never be met"):
        ensemble.call_roll(CASE, day, None, {}, {})


def test_an_answer_about_other_rows_counts_for_nothing(lake: Lake, day: str) -> None:
    given = scored_alike(lake, day, "xgboost", "remote")
    other = scoring.preprocess(CASE, OLD_DAY)
    roll = ensemble.call_roll(CASE, other, None, given, {})
    assert roll.answers == {}
    assert roll.absent["remote"] == f"its answer is about other rows: {day}"


def test_a_member_whose_scores_go_against_all_others_counts_as_down(
    lake: Lake, day: str, history: History, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noise(_: object, rows: Any, __: object) -> np.ndarray:
        return np.random.default_rng(rows.num_rows).uniform(0.1, 0.4, rows.num_rows)

    monkeypatch.setattr(ensemble.remote.ModelServer, "predict", noise)
    monkeypatch.setattr(ensemble.remote.ModelServer, "check_order", lambda *_: None)
    roll = ask_all(lake, day, history.champion)
    assert sorted(roll.answers) == sorted(registry.members(CASE, history.champion))
    assert "it disagrees with the 3 others" in roll.absent["remote"]


def test_a_server_given_up_for_one_chunk_is_not_asked_for_the_others(
    lake: Lake, server: str, configure: Callable[..., None]
) -> None:
    configure(
        chunk_rows=300, batch_rows=300, remote_give_up_seconds=0.3, remote_max_wait_seconds=0.1
    )
    day = scoring.preprocess(CASE, OLD_DAY)
    first, second, *_ = ensemble.plan(CASE, day, REMOTE, None)
    tell(server, error_rate=1)
    with pytest.raises(ServerDown, match="503"):
        ensemble.score(CASE, REMOTE, first)
    before = httpx.get(f"{server}/faults/counts").json()["requests"]
    with pytest.raises(ServerDown, match="another chunk has already failed"):
        ensemble.score(CASE, REMOTE, second)
    assert httpx.get(f"{server}/faults/counts").json()["requests"] == before
    tell(server)
    assert ask(lake, day, REMOTE, None).rows > 0, "a new plan asks again"


def test_every_row_carries_its_members_and_the_run_why_one_is_missing(
    lake: Lake,
    day: str,
    history: History,
    unused_port: int,
    configure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure(remote_give_up_seconds=0.2)
    connect_to(f"http://127.0.0.1:{unused_port}", monkeypatch)
    publish(lake, day, ask_all(lake, day, history.champion))
    rows, facts = published(lake)
    known = lake.version(day).read("features")
    assert rows.select(KEY).equals(known.select(KEY))
    assert rows["members"].unique().to_list() == [
        "hist_gradient_boosting:1 logistic_regression:1 xgboost:1"
    ]
    assert rows["fallback"].unique().to_list() == [0]
    assert rows["score_remote"].null_count() == len(rows)
    columns = [
        rows[f"score_{name}"].to_numpy() for name in registry.members(CASE, history.champion)
    ]
    assert np.allclose(rows["score"].to_numpy(), np.mean(columns, axis=0), atol=1e-6)
    assert facts["fallback"] == "ensemble"
    assert facts["answers"]["xgboost"]["share"] == pytest.approx(1 / 3)
    assert list(facts["absent"]) == ["remote"]
    assert f"model server at http://127.0.0.1:{unused_port} is down" in facts["absent"]["remote"]


def test_two_members_with_the_same_wrong_constant_do_not_outvote_the_others(
    lake: Lake, day: str, history: History, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = registry.load

    class Constant(list[Any]):
        def predict_proba(self, rows: Any) -> np.ndarray:
            return np.full((len(rows), 2), 0.5, np.float32)

    def wrong(case: UseCase, model: ModelVersion) -> Any:
        found = right(case, model)
        return Constant([found[0]]) if model.name.endswith(".logistic_regression") else found

    monkeypatch.setattr(registry, "load", wrong)
    tell(server, nonsense="constant")
    roll = ask_all(lake, day, history.champion)
    assert sorted(roll.answers) == ["hist_gradient_boosting", "xgboost"]
    assert all("every score is 0.5" in why for why in roll.absent.values())


def test_an_ensembles_predictions_are_not_replaced_by_a_fallbacks(
    lake: Lake, day: str, history: History, server: str
) -> None:
    publish(lake, day, ask_all(lake, day, history.champion))
    before = lake.current(ensemble.TABLE, OLD_DAY).name
    again = scoring.preprocess(CASE, OLD_DAY)
    with pytest.raises(Overtaken, match="which the ensemble made from the same inputs"):
        publish(lake, again, nobody(history.champion))
    assert lake.current(ensemble.TABLE, OLD_DAY).name == before
    publish(lake, again, ask_all(lake, again, history.champion))
    assert lake.current(ensemble.TABLE, OLD_DAY).name != before


@pytest.mark.parametrize(("name", "level"), [("ensemble", 0), ("previous", 2), ("base rate", 3)])
def test_a_fallback_that_an_older_release_named_is_known(name: str, level: int) -> None:
    manifest = Manifest(ensemble.TABLE, OLD_DAY, "1", "", "", {}, {"fallback": name})
    assert ensemble.level_of(manifest) == level
