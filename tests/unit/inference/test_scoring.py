"""From a validated day to its predictions: every row once, every chunk once, the same each time."""

import re
import signal
from collections.abc import Callable
from dataclasses import replace as changed
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.encoder import FeatureEncoder
from include.errors import BadData, MissingData, Overtaken
from include.inference import scoring
from include.lake.tables import Lake
from include.messages import Chunk, ModelVersion
from include.registry import registry
from include.usecases.flight_delays.features import FEATURES
from include.usecases.flight_delays.schema import KEY
from local.in_process import predict, validate_day
from tests.case import CASE, at
from tests.unit import children
from tests.unit.conftest import OLD_DAY, History, copy_lake
from tests.unit.helpers import infer, refused, replace, shown

SOME = Chunk("", "model", "1", "", 0, 900, 0, 0, "", "")


def plan(lake: Lake, features: str, model: ModelVersion) -> list[Chunk]:
    return scoring.plan_chunks(at(lake), features, model)


def publish_validated(lake: Lake, key: str, flights: pl.DataFrame) -> None:
    """Publish rows as validated that no validation would let through."""
    version = lake.new_version("validated", key)
    version.write_frame("flights", flights)
    version.publish(["flights"])


def test_every_validated_row_has_one_score_and_its_model(lake: Lake, history: History) -> None:
    predictions = infer(lake, OLD_DAY, history.champion)
    validated = lake.current("validated", OLD_DAY).read("flights")
    assert predictions.select(KEY).equals(validated.select(KEY))
    assert predictions.columns == [*KEY, "score", "model", "model_version"]
    assert predictions["score"].is_between(0, 1).all()
    whose = predictions.select(pl.col("model", "model_version").cast(pl.String)).unique().rows()
    assert whose == [(history.champion.name, history.champion.version)]


def test_a_score_is_the_probability_that_the_model_gives_the_row(
    lake: Lake, history: History
) -> None:
    predictions = infer(lake, OLD_DAY, history.champion)
    rows = lake.current("features", OLD_DAY).read("features")
    expected = registry.load(CASE, history.champion).predict_proba(rows)[:, 1].astype(np.float32)
    np.testing.assert_array_equal(predictions["score"].to_numpy(), expected)


def test_a_day_that_is_not_validated_is_missing(lake: Lake, history: History) -> None:
    words = ["'validated' has no published partition 2013-03-01"]
    with refused(lake, "predictions", "2013-03-01", *words, kind=MissingData):
        infer(lake, "2013-03-01", history.champion)


@pytest.mark.parametrize("key", [None, "2013-3-1", "20130301", "../x"])
def test_a_key_that_is_not_a_date_is_not_scored(key: str, lake: Lake) -> None:
    with pytest.raises(BadData, match="is not a partition"):
        scoring.preprocess(CASE, key)


def test_a_day_without_weather_is_scored(lake: Lake, history: History) -> None:
    key = "2013-12-31"
    rows = validate_day(CASE, "validated", key)
    assert len(infer(lake, key, history.champion)) == rows["flights"]


def test_rows_without_a_required_feature_are_rejected_and_counted(
    lake: Lake, history: History
) -> None:
    rows = lake.current("validated", OLD_DAY).read("flights")
    distance = pl.when(~pl.int_range(pl.len()).is_in([3, 7, 11])).then("distance")
    publish_validated(lake, OLD_DAY, rows.with_columns(distance=distance))
    predictions = infer(lake, OLD_DAY, history.champion)
    manifest = lake.manifest("predictions", OLD_DAY)
    assert manifest is not None
    check = manifest.metadata["check"]
    assert (check["rows"], check["scored"], check["rejected"]) == (len(rows), len(rows) - 3, 3)
    rejected = lake.current("features", OLD_DAY).read("rejected")
    together = pl.concat([predictions.select(KEY), rejected.select(KEY)])
    assert together.sort(KEY).equals(rows.select(KEY).sort(KEY))


def test_too_many_rejected_rows_fail_the_day(
    lake: Lake, history: History, configure: Callable[..., None]
) -> None:
    infer(lake, OLD_DAY, history.champion)
    rows = lake.current("validated", OLD_DAY).read("flights")
    publish_validated(lake, OLD_DAY, rows.with_columns(distance=pl.lit(None, pl.Int32)))
    words = [f"{len(rows)} of {len(rows)} rows of {OLD_DAY} lack a required feature", "5.0%"]
    with refused(lake, "predictions", OLD_DAY, *words):
        infer(lake, OLD_DAY, history.champion)
    configure(max_rejected_share=1.0)
    assert scoring.preprocess(CASE, OLD_DAY)


def test_an_empty_plan_does_not_fit_a_day_with_rows(lake: Lake, history: History) -> None:
    features = scoring.preprocess(CASE, OLD_DAY)
    with pytest.raises(BadData, match="0 scores for "):
        scoring.assemble(CASE, features, [])


@pytest.mark.parametrize(
    ("chunk_rows", "batch_rows"), [(100, 30), (250, 1000), (1, 50), (10_000, 7)]
)
def test_chunks_hold_every_row_once_in_order(
    chunk_rows: int, batch_rows: int, lake: Lake, history: History, configure: Callable[..., None]
) -> None:
    configure(chunk_rows=chunk_rows, batch_rows=batch_rows, mlflow_tracking_uri=history.registry)
    features = scoring.preprocess(CASE, OLD_DAY)
    chunks = plan(lake, features, history.champion)
    rows = lake.current("validated", OLD_DAY).read("flights").height
    starts = [chunk.first_row for chunk in chunks]
    assert starts == [sum(chunk.rows for chunk in chunks[:n]) for n in range(len(chunks))]
    assert sum(chunk.rows for chunk in chunks) == rows
    assert all(chunk.rows >= chunk_rows for chunk in chunks[:-1])
    assert max(chunk.rows for chunk in chunks) < max(chunk_rows + batch_rows, 2 * chunk_rows)
    assert chunks[0].label == f"rows 0 to {chunks[0].rows - 1:,}"


@pytest.mark.parametrize(("chunk_rows", "batch_rows"), [(100, 30), (333, 1000), (10_000, 7)])
def test_the_size_of_chunks_and_batches_does_not_change_a_bit_of_the_scores(
    chunk_rows: int, batch_rows: int, lake: Lake, history: History, configure: Callable[..., None]
) -> None:
    expected = infer(lake, OLD_DAY, history.champion)
    configure(chunk_rows=chunk_rows, batch_rows=batch_rows)
    found = infer(lake, OLD_DAY, history.champion)
    assert found.equals(expected)


@given(cuts=st.lists(st.integers(0, 900), max_size=6))
def test_any_split_into_batches_gives_the_same_scores(
    cuts: list[int], lake: Lake, history: History
) -> None:
    version = history.lake.version(history.snapshot)
    with version.parquet("training") as file:
        table = file.read()[:900].combine_chunks()
    predict = scoring.predictor(CASE, history.champion)
    whole = scoring.score_batch(CASE, table.to_batches()[0], predict, SOME)
    edges = [0, *sorted(cuts), 900]
    parts = [
        scoring.score_batch(CASE, table[a:b].combine_chunks().to_batches()[0], predict, SOME)
        for a, b in pairwise(edges)
        if a < b
    ]
    assert pa.Table.from_batches(parts).combine_chunks().equals(pa.Table.from_batches([whole]))


def score_paths(lake: Lake, chunks: list[Chunk]) -> list[Path]:
    return [Path(scoring.score_chunk(at(lake), chunk)) for chunk in chunks]


@pytest.mark.parametrize("most", [1, 2, 7, 12])
@pytest.mark.parametrize("others", [0, 3])
def test_chunks_are_larger_where_they_would_be_more_than_airflow_maps(
    most: int,
    others: int,
    lake: Lake,
    history: History,
    configure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", str(most))
    configure(chunk_rows=10, group_models=others > 0, experiment="shadow" if others else "off")
    reference = scoring.preprocess(CASE, OLD_DAY)
    chunks = scoring.cut_chunks(CASE, reference, history.champion)
    assert len(chunks) * max(others, 1) <= max(most, others)
    rows = lake.version(reference).manifest().parts["features"].rows
    ends = [chunk.first_row + chunk.rows for chunk in chunks]
    assert [chunk.first_row for chunk in chunks] == [0, *ends[:-1]]
    assert ends[-1] == rows
    [line] = caplog.messages
    assert f"instead of 10 (ML_CHUNK_ROWS): {rows} rows" in line
    assert f"core.max_map_length is {most}" in line


def test_a_chunk_that_is_scored_is_not_scored_again(
    lake: Lake,
    history: History,
    configure: Callable[..., None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    configure(chunk_rows=300)
    features = scoring.preprocess(CASE, OLD_DAY)
    chunks = plan(lake, features, history.champion)
    before = {path: path.stat().st_ino for path in score_paths(lake, chunks)}
    by = f"{history.champion.name} version {history.champion.version}"
    assert re.search(rf"Scored: chunk rows 0 to 299, 300 rows by {by} in [0-9.]+ s: ", caplog.text)
    assert "Found: " not in caplog.text
    again = plan(lake, scoring.preprocess(CASE, OLD_DAY), history.champion)
    assert [changed(chunk, features=features) for chunk in again] == chunks
    configure(mlflow_tracking_uri=f"sqlite:///{tmp_path / 'no such registry.db'}")
    assert {path: path.stat().st_ino for path in score_paths(lake, again)} == before
    assert len(before) > 2
    assert f"Found: chunk rows 0 to 299 is already scored by {by}: " in caplog.text


def test_a_chunk_is_scored_again_by_a_new_version_of_the_model(
    lake: Lake, history: History, own_registry: Path
) -> None:
    features = scoring.preprocess(CASE, OLD_DAY)
    (first,) = plan(lake, features, history.champion)
    pipeline = registry.load(CASE, history.champion)
    (second,) = plan(
        lake, features, registry.register(CASE, registry.log_training(CASE, pipeline, {}, {}))
    )
    one, other = score_paths(lake, [first, second])
    assert one != other
    assert pl.read_parquet(other)["model_version"].cast(pl.String).unique().to_list() == ["2"]


def test_a_chunk_is_scored_again_when_its_rows_have_changed(lake: Lake, history: History) -> None:
    (before,) = plan(lake, scoring.preprocess(CASE, OLD_DAY), history.champion)
    rows = lake.current("validated", OLD_DAY).read("flights")
    publish_validated(lake, OLD_DAY, rows.with_columns(pl.col("distance") + 500))
    (after,) = plan(lake, scoring.preprocess(CASE, OLD_DAY), history.champion)
    one, other = (pl.read_parquet(path)["score"] for path in score_paths(lake, [before, after]))
    assert (one != other).any()


def test_a_champion_that_expects_other_columns_scores_nothing_and_names_them(
    lake: Lake, history: History, own_registry: Path
) -> None:
    published = infer(lake, OLD_DAY, history.champion)
    pipeline = registry.load(CASE, history.champion)
    encoder = pipeline[0]
    assert isinstance(encoder, FeatureEncoder)
    pipeline.set_params(encode__numeric=[*encoder.numeric[:-2], "wind_at_destination", "moon"])
    model = registry.register(CASE, registry.log_training(CASE, pipeline, {}, {}))
    words = [f"version {model.version} cannot score features/{OLD_DAY}/", "moon"]
    with refused(lake, "predictions", OLD_DAY, "wind_at_destination", *words):
        infer(lake, OLD_DAY, model)
    assert lake.current("predictions", OLD_DAY).read("predictions").equals(published)


Scored = tuple[str, list[Chunk], list[str]]


@pytest.fixture
def scored(lake: Lake, history: History, configure: Callable[..., None]) -> Scored:
    """A day's features, chunks and where their scores are."""
    configure(chunk_rows=300)
    features = scoring.preprocess(CASE, OLD_DAY)
    chunks = plan(lake, features, history.champion)
    return features, chunks, [scoring.score_chunk(CASE, chunk) for chunk in chunks]


@pytest.mark.parametrize("rows", [slice(0, -1), slice(0, 0)])
def test_a_chunk_that_lost_scores_is_refused_by_name(
    rows: slice, lake: Lake, scored: Scored
) -> None:
    features, chunks, paths = scored
    path = Path(paths[1])
    replace(path, pq.read_table(path)[rows])
    words = [f"Chunk {chunks[1].label} has ", f"scores for {chunks[1].rows} rows", str(path)]
    with refused(lake, "predictions", OLD_DAY, *words):
        scoring.assemble(CASE, features, chunks)


def test_a_chunk_with_surplus_scores_is_refused_by_name(lake: Lake, scored: Scored) -> None:
    features, chunks, paths = scored
    path = Path(paths[0])
    table = pq.read_table(path)
    replace(path, pa.concat_tables([table, table[:1]]))
    with refused(lake, "predictions", OLD_DAY, f"has {chunks[0].rows + 1} scores", str(path)):
        scoring.assemble(CASE, features, chunks)


def test_a_lost_chunk_or_a_repeated_one_is_refused(lake: Lake, scored: Scored) -> None:
    features, chunks, _ = scored
    for order in ([0, 1], [0, 1, 2, 2, 3]):
        with refused(lake, "predictions", OLD_DAY, " scores for ", features):
            scoring.assemble(CASE, features, [chunks[n] for n in order if n < len(chunks)])


def test_damaged_and_missing_scores_are_refused_by_path(lake: Lake, scored: Scored) -> None:
    features, chunks, paths = scored
    path = Path(paths[0])
    replace(path, path.read_bytes()[:-100])
    with refused(lake, "predictions", OLD_DAY, str(path), "cannot be read as Parquet"):
        scoring.assemble(CASE, features, chunks)
    path.unlink()
    with refused(lake, "predictions", OLD_DAY, str(path), kind=MissingData):
        scoring.assemble(CASE, features, chunks)


Scores = Callable[[pl.DataFrame], pl.DataFrame]


def with_scores(score: pl.Expr) -> Scores:
    """Other scores for the same rows."""
    return lambda rows: rows.with_columns(score=score.cast(pl.Float32))


ROW = pl.int_range(pl.len())

WRONG_OUTPUTS: list[tuple[str, Scores, list[str]]] = [
    (
        "NaN",
        with_scores(pl.when(ROW == 5).then(np.nan).otherwise("score")),
        ["1 of 949 "],
    ),
    ("null", with_scores(pl.when(ROW > 5).then("score")), ["6 of 949 scores are missing, NaN"]),
    ("infinite", with_scores(pl.lit(np.inf)), ["scores are missing, NaN or outside 0 to 1"]),
    ("negative", with_scores(pl.col("score") - 1), ["outside 0 to 1"]),
    ("percent", with_scores(pl.col("score") * 100), ["outside 0 to 1"]),
    ("constant", with_scores(pl.lit(0.2)), ["PSI against the holdout of version 1 is "]),
    ("lost", lambda rows: rows[1:], ["rows came in", "scored + 0 rejected go out"]),
    ("twice", lambda rows: pl.concat([rows[1:], rows[-1:]]), ["2 rows share their key"]),
    (
        "all at once",
        lambda rows: with_scores(pl.col("score") + 2)(pl.concat([rows, rows])),
        ["3 breaches", "rows came in", "share their key", "outside"],
    ),
]


@pytest.mark.parametrize(("what", "spoil", "words"), WRONG_OUTPUTS)
def test_wrong_predictions_are_held_back_with_every_reason(
    what: str, spoil: Scores, words: list[str], lake: Lake, history: History
) -> None:
    good = infer(lake, OLD_DAY, history.champion)
    version = lake.new_version("predictions", OLD_DAY)
    version.write_frame("predictions", spoil(good))
    features = str(lake.current("features", OLD_DAY))
    where = [f"predictions of {OLD_DAY}", "version 1 are not published", str(version.path)]
    with refused(lake, "predictions", OLD_DAY, *where, *words):
        scoring.check_outputs(CASE, str(version), features, history.champion)


def test_outputs_are_counted_against_the_features_they_were_made_from(
    lake: Lake, history: History
) -> None:
    predictions = predict(CASE, OLD_DAY, history.champion)
    features = str(lake.current("features", OLD_DAY))
    rows = lake.current("validated", OLD_DAY).read("flights")
    publish_validated(lake, OLD_DAY, rows[:100])
    scoring.preprocess(CASE, OLD_DAY)  # another run has other features by now
    check = scoring.check_outputs(CASE, predictions, features, history.champion)
    assert (check.rows, check.scored) == (len(rows), len(rows))


def test_predictions_are_published_with_their_check_and_lineage(
    lake: Lake, history: History
) -> None:
    infer(lake, OLD_DAY, history.champion)
    manifest = lake.manifest("predictions", OLD_DAY)
    assert manifest is not None
    features = lake.current("features", OLD_DAY)
    assert manifest.metadata["features"] == str(features)
    assert features.manifest().metadata["validated"] == str(lake.current("validated", OLD_DAY))
    assert set(manifest.metadata["check"]) == {"rows", "scored", "rejected", "mean", "psi"}


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_a_day_is_scored_the_same_again_and_on_any_lake(
    place: str, lake: Lake, history: History, request: pytest.FixtureRequest
) -> None:
    expected = infer(lake, OLD_DAY, history.champion)
    if place == "folder":
        assert infer(lake, OLD_DAY, history.champion).equals(expected)
        return
    remote = Lake(request.getfixturevalue("s3_root"))
    validate_day(at(remote), "validated", OLD_DAY)
    assert infer(remote, OLD_DAY, history.champion).equals(expected)
    assert infer(remote, OLD_DAY, history.champion).equals(expected)


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_a_run_killed_at_any_file_and_run_again_publishes_the_same_predictions(
    step: int,
    start: Callable[..., Any],
    history: History,
    tmp_path: Path,
    configure: Callable[..., None],
) -> None:
    environment = {"MLFLOW_TRACKING_URI": history.registry, "ML_CHUNK_ROWS": "400"}
    configure(mlflow_tracking_uri=history.registry, chunk_rows=400)
    copy_lake(history.lakes / CASE.name, tmp_path / "reference")
    expected = infer(Lake(str(tmp_path / "reference")), OLD_DAY, history.champion)
    for files in range(1, 100, step):
        root = tmp_path / f"lake-{files}"
        copy_lake(history.lakes / CASE.name, root)
        child = start(
            children.infer_until_file, environment, str(root), OLD_DAY, history.champion, files
        )
        child.join()
        lake = Lake(str(root))
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        assert shown(lake, "predictions", OLD_DAY) is None
        assert infer(lake, OLD_DAY, history.champion).equals(expected)
    assert files > 10
    assert lake.current("predictions", OLD_DAY).read("predictions").equals(expected)


def test_the_stability_index_is_zero_against_itself_and_positive_against_others() -> None:
    rng = np.random.default_rng(7)
    scores = rng.beta(2, 5, 5000)
    reference = scoring.score_reference(CASE, scores)
    assert scoring.population_stability(CASE, scores, reference) == pytest.approx(0, abs=1e-12)
    assert scoring.population_stability(CASE, rng.beta(2, 5, 5000), reference) < 0.02
    assert scoring.population_stability(CASE, 1 - scores, reference) > 1


@given(
    reference=st.lists(st.floats(0, 1), min_size=1, max_size=50),
    scores=st.lists(st.floats(0, 1), min_size=1, max_size=50),
)
def test_the_stability_index_is_a_number_and_never_negative(
    reference: list[float], scores: list[float]
) -> None:
    known = scoring.score_reference(CASE, np.array(reference))
    found = scoring.population_stability(CASE, np.array(scores), known)
    assert np.isfinite(found)
    assert found >= -1e-12
    assert scoring.population_stability(CASE, np.array(reference), known) == pytest.approx(
        0, abs=1e-9
    )


def test_scores_carry_the_key_as_the_features_have_it(lake: Lake, history: History) -> None:
    features = lake.version(scoring.preprocess(CASE, OLD_DAY))
    with features.parquet("features") as file:
        found = scoring.scores_schema(CASE, file.schema_arrow, 0)
        given_keys = [file.schema_arrow.field(name) for name in KEY]
    assert [found.field(name) for name in KEY] == given_keys
    assert set(FEATURES) & set(found.names) == {"carrier", "origin"}


def test_a_slow_run_never_replaces_predictions_from_newer_rows(
    lake: Lake, history: History
) -> None:
    slow = predict(CASE, OLD_DAY, history.champion)
    old_features = str(lake.current("features", OLD_DAY))
    check = scoring.check_outputs(CASE, slow, old_features, history.champion)
    publish_validated(lake, OLD_DAY, lake.current("validated", OLD_DAY).read("flights")[:700])
    infer(lake, OLD_DAY, history.champion)
    with pytest.raises(Overtaken, match="was made from newer inputs"):
        scoring.publish(CASE, slow, check, {"features": old_features})
    assert len(lake.current("predictions", OLD_DAY).read("predictions")) == 700


@pytest.mark.parametrize("wrong", [np.nan, -0.1, 1.1])
def test_a_score_that_is_none_is_never_kept(
    wrong: float, lake: Lake, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def __getitem__(self, step: int) -> Any:
            return registry_load(CASE, history.champion)[step]

        def predict_proba(self, rows: pa.RecordBatch) -> np.ndarray:
            return np.full((rows.num_rows, 2), wrong)

    registry_load = registry.load
    with monkeypatch.context() as patch:
        patch.setattr(registry, "load", lambda case, model: Broken())
        with refused(lake, "predictions", OLD_DAY, "NaN or outside 0 to 1"):
            infer(lake, OLD_DAY, history.champion)
    assert len(infer(lake, OLD_DAY, history.champion)) > 0
