"""Fitting on files: as good a model from disk as from memory, else on a fair sample."""

import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skops.io
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline
from xgboost.core import XGBoostError

from include.errors import BadData
from include.lake.files import to_arrow
from include.lake.tables import Lake
from include.training import fitting
from include.usecases.flight_delays import models
from include.usecases.flight_delays.features import CATEGORICAL, FEATURES, NUMERIC
from tests.unit.conftest import History

PLENTY = 1_000_000_000
MANY = 1_000_000


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "BATCH_ROWS", 2_000)


@pytest.fixture
def rows(lake: Lake, history: History) -> pl.DataFrame:
    """Rows to train on."""
    return lake.version(history.snapshot).read("training")


@pytest.fixture
def holdout(lake: Lake, history: History) -> pl.DataFrame:
    return lake.version(history.snapshot).read("holdout")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[pl.DataFrame], pq.ParquetFile]:
    def write(rows: pl.DataFrame) -> pq.ParquetFile:
        path = tmp_path / f"{len(list(tmp_path.glob('*.parquet')))}.parquet"
        pq.write_table(to_arrow(rows), path)
        return pq.ParquetFile(path)

    return write


@pytest.fixture
def files(rows: pl.DataFrame, write: Callable[..., Any]) -> list[pq.ParquetFile]:
    """The rows in two files, as a refit has them."""
    return [write(rows[:5_000]), write(rows[5_000:])]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def fitted(files: list[pq.ParquetFile], memory_bytes: int = 1) -> Pipeline:
    pipeline = models.xgboost(seed=7)
    fitting.fit(pipeline, files, memory_bytes, seed=7)
    return pipeline


def memory_for(rows: int, value_bytes: int = fitting.XGBOOST_BYTES) -> int:
    return rows * len(FEATURES) * value_bytes


def test_rows_that_fit_into_memory_are_fitted_as_usual(
    files: list[pq.ParquetFile], rows: pl.DataFrame, holdout: pl.DataFrame
) -> None:
    usual = models.xgboost(seed=7).fit(rows, rows["label"].to_numpy())
    ours = models.xgboost(seed=7)
    found = fitting.fit(ours, files, memory_for(len(rows)), seed=7)
    assert found == fitting.Fit(len(rows), len(rows), "in memory")
    np.testing.assert_array_equal(ours.predict_proba(holdout), usual.predict_proba(holdout))


def test_a_model_from_disk_is_as_good_as_one_from_memory(
    files: list[pq.ParquetFile], rows: pl.DataFrame, holdout: pl.DataFrame
) -> None:
    from_memory, from_disk = fitted(files, PLENTY), models.xgboost(seed=7)
    found = fitting.fit(from_disk, files, memory_for(len(rows) - 1), seed=7)
    assert found == fitting.Fit(len(rows), len(rows), "external memory")
    losses = [
        log_loss(holdout["label"].to_numpy(), pipeline.predict_proba(holdout)[:, 1])
        for pipeline in (from_memory, from_disk)
    ]
    assert losses[1] == pytest.approx(losses[0], abs=0.002)
    assert from_disk[0].categories_ == from_memory[0].categories_
    assert from_disk.classes_.tolist() == [0, 1]


def test_training_from_disk_again_gives_the_same_model(
    files: list[pq.ParquetFile], holdout: pl.DataFrame
) -> None:
    one, other = (fitted(files).predict_proba(holdout) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_a_file_of_one_batch_is_trained_from_disk_too(
    files: list[pq.ParquetFile], holdout: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "BATCH_ROWS", 1_000_000)
    scores = fitted(files[:1]).predict_proba(holdout)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-6)


def test_a_model_from_disk_scores_what_it_has_not_seen(
    files: list[pq.ParquetFile], holdout: pl.DataFrame
) -> None:
    unseen = holdout.with_columns(pl.lit("??").alias(name) for name in CATEGORICAL)
    scores = fitted(files).predict_proba(unseen)
    assert np.isfinite(scores).all()


def test_a_model_trained_from_disk_is_stored_and_loaded_like_any_other(
    files: list[pq.ParquetFile], holdout: pl.DataFrame, tmp_path: Path
) -> None:
    pipeline = fitted(files)
    skops.io.dump(pipeline, tmp_path / "model.skops")
    loaded = skops.io.load(tmp_path / "model.skops", trusted=models.TRUSTED_TYPES)
    np.testing.assert_array_equal(loaded.predict_proba(holdout), pipeline.predict_proba(holdout))


def test_a_clone_of_a_model_from_disk_starts_from_scratch(
    files: list[pq.ParquetFile], holdout: pl.DataFrame
) -> None:
    again, new = clone(fitted(files)), models.xgboost(seed=7)
    for pipeline in (again, new):
        fitting.fit(pipeline, files[:1], PLENTY, seed=7)
    np.testing.assert_array_equal(again.predict_proba(holdout), new.predict_proba(holdout))
    assert repr(again) == repr(models.xgboost(seed=7))


def test_a_model_that_cannot_train_from_disk_gets_a_sample_that_fits(
    files: list[pq.ParquetFile], rows: pl.DataFrame, holdout: pl.DataFrame
) -> None:
    pipeline = models.CANDIDATES["logistic_regression"](7)
    found = fitting.fit(pipeline, files, memory_for(3_000, fitting.OTHER_BYTES), seed=7)
    assert found == fitting.Fit(len(rows), 3_000, "sample")
    assert np.isfinite(pipeline.predict_proba(holdout)).all()


def sample(rows: int, wanted: int, seed: int) -> list[int]:
    numbers = pa.table({"number": range(rows)})
    taken = fitting._sample(numbers.to_batches(max_chunksize=100), rows, wanted, seed)
    return pa.Table.from_batches(taken)["number"].to_pylist()


@pytest.mark.parametrize("wanted", [0, 1, 99, 1_049])
def test_a_sample_has_so_many_rows_in_their_order(wanted: int) -> None:
    found = sample(1_050, wanted, seed=7)
    assert len(found) == wanted
    assert found == sorted(set(found))


def test_a_sample_depends_on_its_seed_alone() -> None:
    assert sample(1_050, 99, seed=7) == sample(1_050, 99, seed=7) != sample(1_050, 99, seed=8)


def test_every_row_is_as_likely_in_a_sample() -> None:
    times = np.zeros(250)
    for seed in range(2_000):
        times[sample(250, 50, seed)] += 1
    # Five standard deviations of a count whose mean is 400.
    assert np.abs(times - 400).max() < 5 * np.sqrt(2_000 * 0.2 * 0.8)


@pytest.mark.parametrize("memory_bytes", [1, PLENTY])
@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (pl.col("label") == 1, r"All \d+ labelled rows of the training days have the label 1"),
        (pl.lit(False), "no labelled rows in the training days"),
    ],
)
def test_rows_from_which_nothing_can_be_learned_are_refused(
    kept: pl.Expr, words: str, memory_bytes: int, rows: pl.DataFrame, write: Callable[..., Any]
) -> None:
    with pytest.raises(BadData, match=words):
        fitted([write(rows.filter(kept))], memory_bytes)


def test_nothing_is_left_on_disk(files: list[pq.ParquetFile], temporary: Path) -> None:
    fitted(files)
    assert list(temporary.iterdir()) == []


@pytest.mark.filterwarnings("ignore:.*xternal memory cache file")  # XGBoost's: it is gone
def test_nothing_is_left_on_disk_when_training_fails(
    files: list[pq.ParquetFile], temporary: Path
) -> None:
    impossible = models.xgboost(seed=7).set_params(classify__subsample=7)
    with pytest.raises(XGBoostError, match="subsample"):
        fitting.fit(impossible, files, 1, seed=7)
    assert list(temporary.iterdir()) == []


def test_what_reading_a_batch_raises_is_raised(
    rows: pl.DataFrame, write: Callable[..., Any], temporary: Path
) -> None:
    with pytest.raises(BadData, match=r"1 feature that the table lacks: distance"):
        fitted([write(rows.drop("distance"))])
    assert list(temporary.iterdir()) == []


def measure(path: Path, candidate: str, memory_bytes: int, result: Path) -> None:
    """Write by how many bytes a fit lets the peak memory of this process grow."""
    pipeline = models.CANDIDATES[candidate](7)
    rounds = {"xgboost": "n_estimators", "logistic_regression": "max_iter"}[candidate]
    pipeline.set_params(**{f"classify__{rounds}": 2})
    before = peak_bytes()
    fitting.fit(pipeline, [pq.ParquetFile(path, pre_buffer=False)], memory_bytes, seed=7)
    result.write_text(str(peak_bytes() - before))


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@pytest.fixture(scope="module")
def many_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("many") / "rows.parquet"
    random = np.random.default_rng(7)
    numbers = {name: random.random(100_000, np.float32) for name in NUMERIC}
    texts = {name: random.choice(["a", "b", "c", None], 100_000) for name in CATEGORICAL}
    table = pa.table({**numbers, **texts, "label": random.integers(0, 2, 100_000, np.int8)})
    with pq.ParquetWriter(path, table.schema) as writer:
        for _ in range(MANY // 100_000):
            writer.write_table(table)
    return path


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("candidate", "memory_bytes"),
    [
        ("xgboost", memory_for(MANY * 3 // 4)),
        ("logistic_regression", memory_for(MANY // 2, fitting.OTHER_BYTES)),
    ],
)
def test_rows_that_are_too_many_take_no_more_memory_than_was_given(
    candidate: str, memory_bytes: int, many_rows: Path, start: Callable[..., Any], tmp_path: Path
) -> None:
    result = tmp_path / "bytes"
    start(measure, {}, many_rows, candidate, memory_bytes, result).join()
    assert int(result.read_text()) < memory_bytes
