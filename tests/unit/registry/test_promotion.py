"""Promotion and rollback: one champion, moved in one step, whoever dies or comes second.

All on real MLflow stores. A challenger here has a run of its own and the first champion's files.
"""

import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import mlflow.artifacts
import pytest
from mlflow.server.constants import BACKEND_STORE_URI_ENV_VAR

from include.errors import BadData, MissingData
from include.inference import scoring
from include.lake.tables import Lake
from include.messages import ModelVersion
from include.registry import promotion, registry
from local.in_process import predict
from tests.case import CASE
from tests.unit import children
from tests.unit.champions import challengers, client, without_champion
from tests.unit.conftest import OLD_DAY, History


def environment() -> dict[str, str]:
    """What a process of its own needs to work with the same registry."""
    return {"MLFLOW_TRACKING_URI": CASE.settings.registry}


@pytest.fixture
def first(history: History, own_registry: Path) -> ModelVersion:
    """The champion before each test, in a registry of the test's own."""
    return history.champion


@pytest.fixture
def second(first: ModelVersion) -> ModelVersion:
    return challengers(1)[0]


@pytest.fixture
def third(second: ModelVersion) -> ModelVersion:
    return challengers(1)[0]


def aliases() -> dict[str, str]:
    found = client().get_registered_model(CASE.name).aliases
    return {alias: str(number) for alias, number in found.items()}


def tags(model: ModelVersion) -> dict[str, str]:
    found: dict[str, str] = client().get_model_version(CASE.name, model.version).tags
    return found


def by_hand(alias: str, model: ModelVersion) -> None:
    """Move an alias as a person does in MLflow."""
    client().set_registered_model_alias(CASE.name, alias, model.version)


def state() -> object:
    """All that promotions change."""
    versions = client().search_model_versions(f"name = '{CASE.name}'")
    runs = {found.version: client().get_run(found.run_id).data.params for found in versions}
    return aliases(), {found.version: found.tags for found in versions}, runs


@contextmanager
def unchanged() -> Iterator[None]:
    before = state()
    yield
    assert state() == before


@contextmanager
def too_late(*versions: ModelVersion | None) -> Iterator[None]:
    """The block is refused because of the champion: the new, the judged and the actual one."""
    with pytest.raises(BadData) as failure:
        yield
    names = [f"version {model.version}" if model else "the base rate" for model in versions]
    assert [name for name in names if name not in str(failure.value).replace("V", "v")] == []


def test_a_promoted_version_is_champion_and_the_one_before_is_previous(
    first: ModelVersion, second: ModelVersion, third: ModelVersion
) -> None:
    for before, model in ((first, second), (second, third)):
        promotion.promote(CASE, model, before, "it is better", "Ada")
        assert registry.champion(CASE) == model
        assert promotion.previous(CASE, model) == before
        assert (aliases()["champion"], aliases()["previous"]) == (model.version, before.version)
        kept = tags(model)
        assert datetime.fromisoformat(kept.pop("promoted_at")).tzinfo
        expected = {"promotion_reason": "it is better", "approved_by": "Ada"}
        assert kept == {"replaced": before.version, **expected}


def test_promoting_the_champion_again_changes_nothing(
    first: ModelVersion, second: ModelVersion
) -> None:
    promotion.promote(CASE, second, first, "it is better", "Ada")
    with unchanged():
        promotion.promote(CASE, second, first, "the task was cleared")


def test_the_first_champion_has_no_previous_one(first: ModelVersion) -> None:
    without_champion()
    promotion.promote(CASE, first, None, "there was none")
    assert registry.champion(CASE) == first
    assert "previous" not in aliases()
    with pytest.raises(BadData, match=r"Version 1 .* nothing to roll back to.*Train a new"):
        promotion.previous(CASE, first)


def test_a_rollback_of_a_version_that_is_champion_no_more_changes_nothing(
    first: ModelVersion, second: ModelVersion
) -> None:
    promotion.promote(CASE, second, first, "a test")
    assert promotion.previous(CASE, second, second.version) == first
    with pytest.raises(BadData, match=f"the champion is version {second.version} by now"):
        promotion.previous(CASE, second, first.version)
    assert registry.champion(CASE) == second


def test_a_promotion_that_was_judged_against_an_earlier_champion_is_refused(
    first: ModelVersion, second: ModelVersion, third: ModelVersion
) -> None:
    promotion.promote(CASE, second, first, "it is better")
    with unchanged(), too_late(third, first, second):
        promotion.promote(CASE, third, first, "it is better")
    with unchanged(), too_late(third, None, second):
        promotion.promote(CASE, third, None, "it is better")
    promotion.promote(CASE, third, second, "it is better")
    with unchanged(), too_late(second, first, third):
        promotion.promote(CASE, second, first, "the task of long ago was cleared")


def test_a_rollback_puts_the_one_before_back_and_twice_goes_back_two(
    first: ModelVersion, second: ModelVersion, third: ModelVersion
) -> None:
    promotion.promote(CASE, second, first, "it is better")
    promotion.promote(CASE, third, second, "it is better")
    promotion.roll_back(CASE, third, promotion.previous(CASE, third), "it is late")
    assert (registry.champion(CASE), aliases()["previous"]) == (second, "1")
    promotion.roll_back(CASE, second, promotion.previous(CASE, second), "it is worse")
    assert (registry.champion(CASE), aliases().get("previous")) == (first, None)
    reasons = [tags(model).get("rollback_reason") for model in (first, second, third)]
    assert reasons == [None, "it is worse", "it is late"]
    assert datetime.fromisoformat(tags(third)["rolled_back_at"]).tzinfo


def test_a_finished_rollback_that_is_tried_again_changes_nothing(
    first: ModelVersion, second: ModelVersion, third: ModelVersion
) -> None:
    promotion.promote(CASE, second, first, "it is better")
    promotion.roll_back(CASE, second, first, "it is worse")
    with unchanged():
        promotion.roll_back(CASE, second, first, "the task was cleared")
    promotion.promote(CASE, third, first, "it is better")
    with unchanged(), too_late(first, second, third):
        promotion.roll_back(CASE, second, first, "the task was cleared")


def test_after_a_rollback_whatever_is_wanted_can_be_promoted_and_rolled_back(
    first: ModelVersion, second: ModelVersion, third: ModelVersion
) -> None:
    for model in (second, third, second, second, third):
        promotion.promote(CASE, model, first, "it is better")
        assert (registry.champion(CASE), promotion.previous(CASE, model)) == (model, first)
        promotion.roll_back(CASE, model, first, "it is worse")
        assert registry.champion(CASE) == first


@pytest.fixture(params=["gone", "damaged", "deleted"])
def spoil(request: pytest.FixtureRequest, first: ModelVersion, tmp_path: Path) -> Any:
    """A challenger with files of its own, and what makes it impossible to load it."""
    uri = client().get_run(first.run_id).data.tags[registry.MODEL_URI]
    files = shutil.copytree(mlflow.artifacts.download_artifacts(uri), tmp_path / "model")
    (model,) = challengers(1, files.as_uri())

    def spoiled() -> None:
        if request.param == "gone":
            shutil.rmtree(files)
        elif request.param == "damaged":
            (files / "model.skops").write_bytes((files / "model.skops").read_bytes()[:-1])
        else:
            client().delete_model_version(CASE.name, model.version)

    return model, spoiled


Spoil = tuple[ModelVersion, Callable[[], None]]


def test_a_version_that_cannot_be_loaded_is_not_promoted(spoil: Spoil, first: ModelVersion) -> None:
    model, spoiled = spoil
    spoiled()
    with unchanged(), pytest.raises((BadData, MissingData), match=model.version):
        promotion.promote(CASE, model, first, "it is better")


def test_a_version_that_cannot_be_loaded_is_not_rolled_back_to(
    spoil: Spoil, first: ModelVersion
) -> None:
    model, spoiled = spoil
    (last,) = challengers(1)
    promotion.promote(CASE, model, first, "it is better")
    promotion.promote(CASE, last, model, "it is better")
    spoiled()
    with unchanged(), pytest.raises((BadData, MissingData), match=model.version):
        promotion.roll_back(CASE, last, model, "it is worse")


@pytest.mark.exhaustive
def test_a_version_that_can_no_longer_be_loaded_blocks_nothing(
    spoil: Spoil, first: ModelVersion, start: Callable[..., Any]
) -> None:
    model, spoiled = spoil
    (other,) = challengers(1)
    until_alias = (
        1,
        ["set_registered_model_alias"],
        promotion.promote,
        CASE,
        model,
        first,
        "better",
    )
    start(children.change_champion_until, environment(), *until_alias).join()
    spoiled()
    promotion.promote(CASE, other, first, "it is better")
    assert (registry.champion(CASE), promotion.previous(CASE, other)) == (other, first)


def test_a_champion_made_by_hand_is_respected(
    first: ModelVersion, second: ModelVersion, third: ModelVersion
) -> None:
    promotion.promote(CASE, second, first, "it is better")
    by_hand("champion", first)
    with unchanged(), too_late(third, second, first):
        promotion.promote(CASE, third, second, "it is better")
    promotion.promote(CASE, third, first, "it is better")
    assert (registry.champion(CASE), promotion.previous(CASE, third)) == (third, first)


def test_predictions_are_made_by_the_champion_they_were_planned_with(
    lake: Lake, first: ModelVersion, history: History
) -> None:
    rows = lake.version(history.snapshot).read("training")[:3000]
    other = registry.load(CASE, first).fit(rows, rows["label"].to_numpy())
    second = registry.register(CASE, registry.log_training(CASE, other, {}, {}))
    features = scoring.preprocess(CASE, OLD_DAY)
    planned = scoring.plan_chunks(CASE, features, registry.champion(CASE))
    promotion.promote(CASE, second, first, "it is better")
    chunks = planned
    for chunk in chunks:
        scoring.score_chunk(CASE, chunk)
    found = lake.version(scoring.assemble(CASE, features, chunks)).read("predictions")
    assert found["model_version"].unique().to_list() == [first.version]
    later = lake.version(predict(CASE, OLD_DAY, registry.champion(CASE))).read("predictions")
    assert later["model_version"].unique().to_list() == [second.version]
    assert not found["score"].equals(later["score"])


Change = tuple[Any, ...]
"""A way to change the champion, with its arguments."""


@pytest.fixture
def changes(first: ModelVersion) -> dict[str, Change]:
    """What can be done to version 3, the champion, which replaced 2, which replaced 1."""
    second, third, fourth, fifth = challengers(4)
    promotion.promote(CASE, second, first, "it is better")
    promotion.promote(CASE, third, second, "it is better")
    return {
        "promotion": (promotion.promote, CASE, fourth, third, "it is better"),
        "another promotion": (promotion.promote, CASE, fifth, third, "it is better"),
        "rollback": (promotion.roll_back, CASE, third, second, "it is worse"),
        "first promotion": (promotion.promote, CASE, fourth, None, "there was none"),
        "another first promotion": (promotion.promote, CASE, fifth, None, "there was none"),
    }


def next_champion(change: Change) -> ModelVersion:
    made: ModelVersion = change[3] if change[0] is promotion.roll_back else change[2]
    return made


def save(database: Path) -> sqlite3.Connection:
    saved = sqlite3.connect(":memory:")
    with sqlite3.connect(database) as source:
        source.backup(saved)
    return saved


def put_back(database: Path, saved: sqlite3.Connection) -> None:
    with sqlite3.connect(database) as target:
        saved.backup(target)


PAIRS = [
    ("promotion", "another promotion"),
    ("promotion", "rollback"),
    ("rollback", "promotion"),
    ("first promotion", "another first promotion"),
]


@pytest.mark.exhaustive
@pytest.mark.parametrize(("what", "then"), PAIRS)
def test_killed_at_any_step_it_can_be_tried_again_or_left_to_the_next_one(
    what: str,
    then: str,
    changes: dict[str, Change],
    own_registry: Path,
    start: Callable[..., Any],
) -> None:
    change, another = changes[what], changes[then]
    (last,) = challengers(1)
    if "first" in what:
        without_champion()
    old, new = registry.find_champion(CASE), next_champion(change)
    before = save(own_registry)
    champions, winners = [], set()
    for call in count(1):
        put_back(own_registry, before)
        child = start(children.change_champion_until, environment(), call, children.WRITES, *change)
        child.join()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        champions.append(registry.find_champion(CASE))
        assert champions[-1] is None or registry.load(CASE, champions[-1])
        died = save(own_registry)

        change[0](*change[1:])  # tried again
        assert registry.champion(CASE) == new
        expected = registry.version(CASE, "1") if what == "rollback" else old
        assert aliases().get("previous") == (expected.version if expected else None)

        put_back(own_registry, died)  # or not tried again, but another one comes
        refusal = children.refusal(*another)
        winner = new if refusal else next_champion(another)
        assert registry.champion(CASE) == winner
        assert not refusal or f"the champion is version {new.version} by now" in refusal
        winners.add(winner)
        promotion.promote(CASE, last, winner, "life goes on")
    assert sorted(champions, key=lambda found: found == new) == champions, "back and forth"
    assert set(champions) == {old, new}
    assert winners == {new, next_champion(another)}


@pytest.mark.parametrize("back", ["rollback", "by hand"])
def test_a_promotion_that_died_at_its_end_does_not_come_back_later(
    back: str,
    first: ModelVersion,
    second: ModelVersion,
    third: ModelVersion,
    start: Callable[..., Any],
) -> None:
    until_done = (2, ["log_param"], promotion.promote, CASE, second, first, "it is better")
    start(children.change_champion_until, environment(), *until_done).join()
    assert registry.champion(CASE) == second
    if back == "rollback":
        promotion.roll_back(CASE, second, first, "it is worse")
    else:
        promotion.promote(CASE, second, first, "the task was tried again")
        by_hand("champion", first)
    promotion.promote(CASE, third, first, "it is better")
    assert registry.champion(CASE) == third


class Paused:
    """A change of the champion that stands still at a call until it is told to go on."""

    def __init__(self, process_server: Any, start: Callable[..., Any], *arguments: object):
        self.says, self.go_on = process_server.SimpleQueue(), process_server.SimpleQueue()
        pipes = (self.says, self.go_on)
        start(children.change_champion_with_a_pause, environment(), *pipes, *arguments)
        self.is_finished = self.says.get() != "paused"

    def finish(self) -> str:
        """Why it was refused; nothing if it was not."""
        self.go_on.put(None)
        refusal: str = self.says.get()
        return refusal


@pytest.mark.exhaustive
@pytest.mark.parametrize(("what", "meanwhile"), PAIRS)
def test_one_of_two_promotions_that_meet_at_any_step_wins(
    what: str,
    meanwhile: str,
    changes: dict[str, Change],
    own_registry: Path,
    process_server: Any,
    start: Callable[..., Any],
) -> None:
    change, another = changes[what], changes[meanwhile]
    if "first" in what:
        without_champion()
    before = save(own_registry)
    winners = set()
    for call in count(1):
        put_back(own_registry, before)
        methods = children.WRITES + children.LOOKS
        paused = Paused(process_server, start, call, methods, *change)
        if paused.is_finished:
            break
        refusals = {next_champion(another): children.refusal(*another)}
        refusals[next_champion(change)] = paused.finish()
        winner = only_winner(refusals)
        assert registry.champion(CASE) == winner
        for made in (change, another):
            tag = "rolled_back_at" if made[0] is promotion.roll_back else "promoted_at"
            assert (tag in tags(made[2])) == (next_champion(made) == winner)
        winners.add(winner)
    assert winners == {next_champion(change), next_champion(another)}


def test_a_promotion_can_still_come_after_one_that_came_and_went_meanwhile(
    first: ModelVersion,
    second: ModelVersion,
    third: ModelVersion,
    process_server: Any,
    start: Callable[..., Any],
) -> None:
    change = (promotion.promote, CASE, second, first, "it is better")
    paused = Paused(process_server, start, 1, ["log_param"], *change)
    promotion.promote(CASE, third, first, "it is better")
    promotion.roll_back(CASE, third, first, "it is worse")
    assert paused.finish() == ""
    assert (registry.champion(CASE), promotion.previous(CASE, second)) == (second, first)


def only_winner(messages: dict[ModelVersion, str]) -> ModelVersion:
    """The one of which nothing was refused; the others' refusals name it."""
    (winner,) = [model for model, message in messages.items() if not message]
    others = [message for message in messages.values() if message]
    assert all(f"the champion is version {winner.version} by now" in other for other in others)
    return winner


@pytest.fixture
def served_registry(
    own_registry: Path,
    configure: Callable[..., None],
    process_server: Any,
    start: Callable[..., Any],
) -> None:
    """The test's own registry, behind an MLflow server."""
    port = process_server.SimpleQueue()
    database = {BACKEND_STORE_URI_ENV_VAR: f"sqlite:///{own_registry}"}
    start(children.serve_registry, database, port)
    configure(mlflow_tracking_uri=f"http://127.0.0.1:{port.get()}")


@pytest.mark.exhaustive
@pytest.mark.parametrize(("promotions", "times"), [(2, 15), (3, 5)])
def test_one_of_concurrent_promotions_wins(
    promotions: int,
    times: int,
    first: ModelVersion,
    process_server: Any,
    start: Callable[..., Any],
) -> None:
    turns = [challengers(times) for _ in range(promotions)]
    assert race(turns, process_server, start) == times


@pytest.mark.usefixtures("served_registry")
def test_one_of_concurrent_promotions_wins_on_a_server_too(
    first: ModelVersion, process_server: Any, start: Callable[..., Any]
) -> None:
    turns = [challengers(5) for _ in range(3)]
    assert race(turns, process_server, start) == 5


def test_one_of_a_concurrent_promotion_and_rollback_wins(
    first: ModelVersion, process_server: Any, start: Callable[..., Any]
) -> None:
    champion = first
    for model in challengers(8):  # so that there is enough to roll back to
        promotion.promote(CASE, model, champion, "it is better")
        champion = model
    assert race([challengers(8), [None] * 8], process_server, start) == 8


def test_one_of_two_concurrent_first_champions_wins(
    first: ModelVersion, process_server: Any, start: Callable[..., Any]
) -> None:
    turns = [challengers(1) for _ in range(2)]
    without_champion()
    assert race(turns, process_server, start) == 1


def race(turns: list[Any], process_server: Any, start: Callable[..., Any]) -> int:
    """Let processes take their turns at the same time. Returns how many had one winner."""
    together, outcomes = process_server.Barrier(len(turns)), process_server.SimpleQueue()
    racers = [start(children.race, environment(), together, outcomes, turn) for turn in turns]
    found = [outcomes.get() for _ in turns for _ in turns[0]]
    for racer in racers:
        racer.join()
        assert racer.exitcode == 0
    numbers = {number for number, *_ in found}
    for number in numbers:
        here = [outcome for outcome in found if outcome[0] == number]
        winner = only_winner({wanted: message for _, wanted, message, _ in here})
        assert {champion for *_, champion in here} == {winner}
    return len(numbers)
