"""What stands in for an ensemble: champion, the version before it, the baseline, or an error."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from mlflow import MlflowClient

from include.errors import MissingData
from include.inference import ensemble, fallback, scoring
from include.inference.ensemble import LEVELS
from include.lake.tables import Lake
from include.messages import ModelVersion
from include.registry import promotion, registry
from include.usecases.flight_delays import features
from tests.case import CASE
from tests.unit.conftest import History
from tests.unit.ensembles import ABSENT, nobody, publish, published


def test_the_champion_alone_is_the_fallback_and_every_row_says_so(
    lake: Lake, day: str, history: History
) -> None:
    scored = publish(lake, day, nobody(history.champion))
    rows, facts = published(lake)
    known = lake.version(day).read("features")
    expected = registry.load(CASE, history.champion).predict_proba(known)[:, 1]
    assert np.allclose(rows["score"].to_numpy(), expected, atol=1e-6)
    assert scored.level == 1
    assert rows["fallback"].unique().to_list() == [1]
    assert rows["members"].unique().to_list() == [f"{CASE.name}:1"]
    assert facts["fallback"] == "champion"
    assert facts["failed"] == {"ensemble": "0 answered, 2 have to"}
    assert facts["absent"] == ABSENT


def test_the_version_before_replaces_a_champion_that_cannot_be_loaded(
    lake: Lake, day: str, history: History, own_registry: Path
) -> None:
    pipeline = registry.load(CASE, history.champion)
    run = registry.log_training(CASE, pipeline, {}, {})
    registry.log_reference(CASE, run, registry.reference(CASE, history.champion))
    champion = registry.register(CASE, run)
    promotion.promote(CASE, champion, history.champion, "a test")
    assert fallback.fall_back(CASE, day, nobody(champion)).level == 1
    break_model(champion)
    publish(lake, day, nobody(champion))
    rows, facts = published(lake)
    assert rows["fallback"].unique().to_list() == [2]
    assert rows["members"].unique().to_list() == [f"{CASE.name}:{history.champion.version}"]
    assert facts["fallback"] == "previous"
    assert "no model.skops" in facts["failed"]["champion"]


def break_model(model: ModelVersion) -> None:
    client = MlflowClient()
    location = client.get_model_version_download_uri(model.name, model.version)
    [file] = Path(location.removeprefix("file://")).glob("**/model.skops")
    file.unlink()


def test_with_the_registry_down_each_segment_gets_its_baseline(
    lake: Lake,
    day: str,
    history: History,
    take_registry_down: Callable[[], str],
) -> None:
    take_registry_down()
    assert publish(lake, day, nobody(history.champion)).level == LEVELS.index("baseline")
    rows, facts = published(lake)
    assert rows["fallback"].unique().to_list() == [3]
    assert "registry" in facts["failed"]["champion"]
    assert "registry" in facts["failed"]["previous"]

    labels = [
        lake.current("actuals", f"2013-02-{number:02d}").read("actuals") for number in range(1, 20)
    ]
    known = features.build_labels(pl.concat(labels))
    overall = known["label"].mean()
    here = known.filter(carrier="UA", origin="EWR")["label"]
    expected = (here.sum() + 100 * overall) / (len(here) + 100)  # type: ignore[operator]
    scores = rows.filter(carrier="UA", origin="EWR")["score"]
    assert scores.unique().to_list() == [pytest.approx(expected, rel=0.02)]
    assert rows["score"].is_between(0, 1).all()


def test_a_baseline_knows_only_days_before(lake: Lake, history: History) -> None:
    day = scoring.preprocess(CASE, "2013-02-01")
    with pytest.raises(MissingData, match="no day before 2013-02-01"):
        fallback.baselines(CASE, day)


def test_without_segments_the_baseline_is_that_of_all_rows(
    lake: Lake, history: History, day: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_segment = fallback.baselines(CASE, day)
    monkeypatch.setattr(features, "SEGMENT", [])
    [rate] = set(fallback.baselines(CASE, day).tolist())
    assert len(fallback.baselines(CASE, day)) == len(by_segment)
    assert by_segment.min() < rate < by_segment.max()


def test_without_any_fallback_the_error_says_exactly_why(
    lake: Lake,
    history: History,
    take_registry_down: Callable[[], str],
) -> None:
    take_registry_down()
    day = scoring.preprocess(CASE, "2013-02-01")
    with pytest.raises(MissingData, match="Nothing can score 2013-02-01") as failure:
        fallback.fall_back(CASE, day, nobody(history.champion))
    message = str(failure.value)
    for line in (
        "member remote: it is down",
        "ensemble: 0 answered, 2 have to",
        "champion: DependencyDown: The model registry at",
        "previous: DependencyDown: The model registry at",
        "baseline: MissingData: There is no day before 2013-02-01",
    ):
        assert line in message
    assert lake.manifest(ensemble.TABLE, "2013-02-01") is None
