"""A day that members missed is scored again for some days, and replaced only by what is better."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from include import metrics
from include.errors import Overtaken
from include.inference import ensemble, scoring
from include.inference.ensemble import TABLE
from include.lake.tables import Lake
from include.messages import RollCall
from include.metrics import Sample
from include.monitoring import healing
from include.partitions import days_before
from tests.case import CASE, at
from tests.unit.conftest import OLD_DAY, History
from tests.unit.ensembles import ask_all, connect_to

DAY = "2013-03-31"


def publish_day(lake: Lake, key: str, awaited: list[str] | None) -> None:
    """A published day whose manifest says whom it waits for; one of an older release does not."""
    facts = {} if awaited is None else {"awaited": awaited}
    lake.new_version(TABLE, key).publish([], facts)


@pytest.fixture
def empty_lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Sample]:
    """What would be sent to StatsD."""
    found: list[Sample] = []
    monkeypatch.setattr(metrics, "send_all", lambda _, samples: found.extend(samples))
    return found


def test_a_degraded_day_is_scored_again_for_some_days_and_counted_for_a_week_after(
    empty_lake: Lake, sent: list[Sample], configure: Callable[..., None]
) -> None:
    configure(ensemble_heal_days=2)
    publish_day(empty_lake, DAY, ["remote"])
    found = {}
    for later in range(11):
        sent.clear()
        days = healing.days_to_heal(at(empty_lake), days_before(DAY, -later))
        [sample] = sent
        found[later] = days, sample.value
    again, unhealed, over = ([DAY], 0), ([], 1), ([], 0)
    assert list(found.values()) == [again] * 2 + [unhealed] * 7 + [over] * 2


def test_days_without_awaited_members_are_left_alone(
    empty_lake: Lake, sent: list[Sample], configure: Callable[..., None]
) -> None:
    configure(ensemble_heal_days=3)
    publish_day(empty_lake, DAY, [])
    publish_day(empty_lake, days_before(DAY, 1), None)
    publish_day(empty_lake, days_before(DAY, 2), ["remote"])
    assert healing.days_to_heal(at(empty_lake), DAY) == [days_before(DAY, 2)]


def test_without_days_to_heal_nothing_is_scored_again_and_it_is_reported(
    empty_lake: Lake, sent: list[Sample], configure: Callable[..., None]
) -> None:
    configure(ensemble_heal_days=0)
    publish_day(empty_lake, DAY, ["remote"])
    sent.clear()
    assert healing.days_to_heal(at(empty_lake), DAY) == []
    assert [sample.value for sample in sent] == [1]


# --- What heals replaces only what it betters -----------------------------------------------------


def publish(lake: Lake, features: str, roll: RollCall, healing: bool) -> dict[str, Any]:
    scored = ensemble.combine_day(at(lake), features, roll)
    check = scoring.check_outputs(at(lake), scored.predictions, features, None)
    return ensemble.publish(at(lake), scored, check, features, roll, "a run", healing)


def without(roll: RollCall, *names: str) -> RollCall:
    """The same, if these members had been down."""
    answers = {name: one for name, one in roll.answers.items() if name not in names}
    absent = roll.absent | dict.fromkeys(names, "it is down")
    return replace(roll, answers=answers, absent=absent, awaited=sorted(names))


@pytest.mark.exhaustive
def test_a_day_that_is_healed_is_replaced_by_what_more_members_made_and_by_nothing_less(
    lake: Lake, history: History, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_to(f"http://127.0.0.1:{unused_port}", monkeypatch)
    features = scoring.preprocess(CASE, OLD_DAY)
    whole = ask_all(lake, features, history.champion)
    degraded, worse = without(whole, "xgboost"), without(whole, "hist_gradient_boosting")
    first = publish(lake, features, degraded, healing=False)["version"]
    for no_better in (degraded, worse):
        with pytest.raises(
            Overtaken, match="made from the same inputs with 2 of the members missing"
        ):
            publish(lake, features, no_better, healing=True)
        assert str(lake.current(TABLE, OLD_DAY)) == first
        assert lake.current(TABLE, OLD_DAY).manifest().metadata["awaited"] == ["xgboost"]
    healed = publish(lake, features, whole, healing=True)["version"]
    assert str(lake.current(TABLE, OLD_DAY)) == healed != first
    assert publish(lake, features, degraded, healing=False)["version"] != healed, "if a person asks"
