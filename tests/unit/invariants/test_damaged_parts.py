"""A published part whose bytes are not those of its manifest is never used by any reader.

Of 41 changes of one byte, 29 had become features before anybody compared them.
"""

import json
import secrets
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include import partitions
from include.errors import BadData
from include.inference import scoring
from include.lake import files
from include.lake.tables import Lake, Version
from include.messages import Chunk
from include.monitoring import daily, outcomes
from include.monitoring import history as history_of
from include.monitoring.history import Figure
from include.preprocess import labelled
from include.statistics import profiles
from tests.case import CASE, at
from tests.unit.conftest import NEW_DAY, OLD_DAY, History
from tests.unit.helpers import infer, replace

CHANGES = 41


@pytest.fixture
def scored(lake: Lake, history: History) -> Lake:
    """A lake whose newest day is scored."""
    infer(lake, OLD_DAY, history.champion)
    return lake


def change(version: Version, part: str, place: float, by: int = 1) -> Path:
    """Change one byte of a part; `place` is 0 for its first byte and 1 for its last one."""
    path = version.part_path(part)
    assert isinstance(path, Path)
    content = bytearray(path.read_bytes())
    content[round(place * (len(content) - 1))] ^= by
    replace(path, bytes(content))
    files._hash_of.cache_clear()  # another task would begin without it
    profiles._read.cache_clear()
    return path


@pytest.mark.parametrize("part", ["flights", "weather", "flights.profile"])
@given(place=st.floats(0, 1), by=st.integers(1, 255))
def test_a_part_with_any_changed_byte_is_refused_by_name(
    part: str, place: float, by: int, lake: Lake
) -> None:
    published = lake.current("validated", OLD_DAY)
    good = published.part_path(part)
    content = good.read_bytes()
    try:
        path = change(published, part, place, by)
        with pytest.raises(BadData, match="is not what was published") as failure:
            published.read(part)
        assert str(path) in str(failure.value)
    finally:
        replace(good, content)
    assert len(published.read(part)) > 0


@pytest.mark.parametrize("number", range(0, CHANGES, 4))
def test_a_changed_byte_never_becomes_a_feature(number: int, lake: Lake) -> None:
    path = change(lake.current("validated", OLD_DAY), "flights", number / (CHANGES - 1))
    with pytest.raises(BadData, match=f"{path} is not what was published"):
        scoring.preprocess(CASE, OLD_DAY)
    assert lake.manifest("features", OLD_DAY) is None


def score_all(lake: Lake, history: History) -> str:
    """Score the newest day's features in one chunk, as a model that has not yet."""
    features, model = lake.current("features", OLD_DAY), history.champion
    part = features.manifest().parts["features"]
    whose = (model.name, model.version, secrets.token_hex(4))
    chunk = Chunk(str(features), *whose, 0, part.rows, 0, 0, "all", part.sha256)
    return scoring.score_chunk(at(lake), chunk, scoring.predictor(CASE, model))


READERS: dict[str, tuple[str, str, Callable[[Lake, History], object]]] = {
    "features": ("validated", "weather", lambda lake, _: scoring.preprocess(at(lake), OLD_DAY)),
    "chunks": ("features", "features", lambda lake, history: scoring.plan_chunks(
        at(lake), str(lake.current("features", OLD_DAY)), history.champion)),
    "scoring": ("features", "features", score_all),
    "the output checks": ("features", "rejected", lambda lake, history: scoring.check_outputs(
        at(lake), str(lake.current("predictions", OLD_DAY)),
        str(lake.current("features", OLD_DAY)), history.champion)),
    "training": ("actuals", "actuals", lambda lake, _: labelled(CASE,
        partitions.parse_key(OLD_DAY), lake.current("validated", OLD_DAY),
        lake.current("actuals", OLD_DAY))),
    "outcomes": ("predictions", "predictions", lambda lake, _: outcomes.join(at(lake), OLD_DAY)),
    "profiles": ("predictions", "predictions.profile", lambda lake, _: profiles.read(
        lake.current("predictions", OLD_DAY), "predictions")),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_a_part_that_is_not_what_was_published(
    reader: str, scored: Lake, history: History
) -> None:
    table, part, read = READERS[reader]
    read(scored, history)
    path = change(scored.current(table, OLD_DAY), part, 0.4)
    with pytest.raises(BadData) as failure:
        read(scored, history)
    assert f"{path} is not what was published" in str(failure.value)


def test_one_chunk_of_many_is_read_with_the_checksums_of_its_pages(
    scored: Lake, history: History, configure: Callable[..., None]
) -> None:
    configure(mlflow_tracking_uri=history.registry, chunk_rows=300, batch_rows=100)
    features = scored.version(scoring.preprocess(at(scored), OLD_DAY))
    [first, *_] = scoring.plan_chunks(at(scored), str(features), history.champion)
    change(features, "features", 0.05)
    with pytest.raises(OSError, match="CRC checksum verification failed"):
        scoring.score_chunk(at(scored), first)


def test_the_parts_of_one_bad_day_stop_no_other_day(
    scored: Lake, history: History, caplog: pytest.LogCaptureFixture
) -> None:
    """Monitoring joins the truth of many days; what it finds in the others counts."""
    infer(scored, "2013-02-19", history.champion)
    path = change(scored.current("predictions", "2013-02-19"), "predictions", 0.5)
    assert outcomes.update(at(scored), OLD_DAY) == [OLD_DAY]
    assert "The day 2013-02-19 is passed over" in caplog.text
    assert str(path) in caplog.text
    assert len(outcomes.read(at(scored), OLD_DAY, 2)) > 900
    decision = daily.decide(at(scored), OLD_DAY)
    daily.write_report(at(scored), OLD_DAY, decision)


def test_a_damaged_file_of_the_history_is_passed_over_and_is_a_reason_to_watch(
    lake: Lake,
) -> None:
    day_before = "2013-02-19"
    for key in (day_before, OLD_DAY):
        history_of.append(CASE, key, [Figure("outcomes", "skill", 0.1)])
    [file] = lake.partition_path("history", day_before).iterdir()
    replace(file, file.read_bytes()[:-1])
    decision = daily.decide(CASE, OLD_DAY)
    [reason] = [reason for reason in decision.reasons if reason.rule == "history"]
    assert reason.action == "watch"
    assert str(file) in reason.found
    daily.write_report(CASE, OLD_DAY, decision)
    with pytest.raises(BadData, match=file.name):
        daily.decide(CASE, day_before)


def test_an_object_that_was_replaced_is_refused_and_a_copied_lake_is_not(s3_root: str) -> None:
    lake = Lake(s3_root)
    version = lake.new_version("table", NEW_DAY)
    version.write_frame("a", pl.DataFrame({"x": range(9)}))
    part = version.publish(["a"]).parts["a"]
    assert part.etag
    assert len(lake.current("table", NEW_DAY).read("a")) == 9
    path = lake.partition_path("table", NEW_DAY) / "current.json"
    moved = files.read_text(path).replace(part.etag.strip('"'), "of another bucket")
    files.put_text(path, moved)
    assert len(lake.current("table", NEW_DAY).read("a")) == 9
    version.write_frame("a", pl.DataFrame({"x": range(1, 10)}))
    with pytest.raises(BadData, match="is not what was published"):
        lake.current("table", NEW_DAY).read("a")


def test_a_manifest_of_an_older_release_lacks_profiles_and_tags(lake: Lake) -> None:
    path = lake.partition_path("validated", OLD_DAY) / "current.json"
    found = files.read_json(path, dict)
    del found["profiles"]
    for part in found["parts"].values():
        del part["etag"]
    files.put_text(path, json.dumps(found))
    assert profiles.read(lake.current("validated", OLD_DAY), "flights")
    assert len(lake.current("validated", OLD_DAY).read("flights")) > 900
