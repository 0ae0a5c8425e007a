"""Two use cases in one process do not affect each other, taking turns or side by side."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import zip_longest
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from include import metrics, usecases
from include.inference import scoring
from include.registry import promotion, registry
from include.training import evaluation, gate, snapshot, training
from include.usecase import UseCase
from local.in_process import batch_inference, validate_day
from tests.case import CASE, SECOND
from tests.unit.helpers import shown

Sent = list[tuple[str, metrics.Sample]]


@dataclass(frozen=True)
class Days:
    """Days of a use case: a candidate is trained on all but the last, which is scored."""

    case: UseCase
    candidate: str
    first: str
    number: int
    holdout_days: int

    @property
    def keys(self) -> list[str]:
        first = date.fromisoformat(self.first)
        return [(first + timedelta(day)).isoformat() for day in range(self.number)]


@pytest.fixture
def both() -> list[Days]:
    """Two use cases that are set differently, too."""
    second = usecases.load(SECOND)  # now, as other tests load other folders of that name
    visits = replace(second, own_settings={"seed": 11, "chunk_rows": 100})
    return [
        Days(CASE, "xgboost", "2013-02-01", 11, 5),
        Days(visits, "shallow_trees", "2021-03-01", 13, 5),
    ]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """The metrics that are sent, each with the use case that it is about."""
    seen: Sent = []
    real = metrics.send_all

    def send_all(usecase: str, samples: Any) -> None:
        kept = list(samples)
        seen.extend((usecase, sample) for sample in kept)
        real(usecase, kept)

    monkeypatch.setattr(metrics, "send_all", send_all)
    return seen


def steps(days: Days) -> Iterator[None]:
    """From landing to predictions, with a pause after each step."""
    case, (*trained, scored) = days.case, days.keys
    for key in days.keys:
        for table in case.tables:
            validate_day(case, table, key)
            yield
    taken = snapshot.take(case, trained[0], trained[-1], days.holdout_days)
    yield
    run_id = training.train(case, taken, days.candidate, "the tests")
    yield
    evaluated = evaluation.evaluate_run(case, taken, run_id, days.candidate)
    yield
    gate.judge(case, taken, None, [evaluated])
    scores = evaluation.read_scores(case.lake.version(evaluated))
    registry.log_reference(case, run_id, scoring.score_reference(CASE, scores))
    yield
    promotion.promote(case, registry.register(case, run_id), None, "the tests")
    yield
    batch_inference(case, scored, registry.champion(case))


def figures(days: Days, sent: Sent) -> dict[str, Any]:
    """What has come of it, but for what takes longer at one time than at another."""
    case, key = days.case, days.keys[-1]
    lake, champion = case.lake, registry.champion(case)
    with registry.connection(case) as client:
        run = client.get_run(champion.run_id)
    measured = {name: value for name, value in run.data.metrics.items() if "seconds" not in name}
    gauges = [
        (sample.name, *sorted(sample.labels.items()), sample.value)
        for usecase, sample in sent
        if usecase == case.name and "seconds" not in sample.name
    ]
    return {
        "validated": [shown(lake, table, day) for day in days.keys for table in case.tables],
        "features": shown(lake, "features", key),
        "predictions": lake.current("predictions", key).read("predictions").to_dicts(),
        "champion": str(champion),
        "trained": (measured, registry.reference(case, champion)),
        "sent": sorted(gauges, key=str),
    }


@pytest.fixture
def settle(configure: Callable[..., None], tmp_path: Path, sent: Sent) -> Callable[..., None]:
    """Start with empty lakes and an empty registry, in a separate folder."""

    def begin(name: str, *several: Days) -> None:
        folder = tmp_path / name / "mlflow"
        configure(data_dir=folder.parent, mlflow_tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
        sent.clear()
        for days in several:
            registry.create_store(days.case)

    return begin


@pytest.mark.exhaustive
def test_two_use_cases_give_the_same_results_together_as_alone(
    both: list[Days], settle: Callable[..., None], sent: Sent
) -> None:
    alone = []
    for days in both:
        settle(days.case.name, days)
        list(steps(days))
        alone.append(figures(days, sent))
        assert {usecase for usecase, _ in sent} == {days.case.name}

    settle("taking turns", *both)
    for _ in zip_longest(*map(steps, both)):
        pass
    assert [figures(days, sent) for days in both] == alone

    settle("in two threads", *both)
    together = Barrier(2)

    def all_steps(days: Days) -> None:
        together.wait(60)
        list(steps(days))

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(all_steps, both))
    assert [figures(days, sent) for days in both] == alone
