"""Fits a candidate's pipeline on Parquet files, in bounded memory.

If all rows fit into memory, they are fitted as usual. If not, XGBoost trains from a cache on disk,
and estimators that need all rows at once get a random sample that fits.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xgboost
from sklearn.pipeline import Pipeline

from include.encoder import FeatureEncoder
from include.errors import BadData
from include.wording import listed

LABEL = "label"

Encode = Callable[[np.ndarray], np.ndarray]

XGBOOST_BYTES, OTHER_BYTES = 24, 64
"""Maximum bytes of a fit per row and feature. XGBoost was measured at 19 to 23: the rows, the
encoded matrix and its sorted and binned copies, four bytes each. scikit-learn's estimators took 28
(boosted trees) and 44 to 56 (linear, one-hot): they compute in eight bytes, and copy more."""

BATCH_ROWS = 262_144
"""Rows per batch, and per page of XGBoost's cache. Training from disk took four times as long with
a quarter of them, and 1.5 times the memory with four times as many."""


@dataclass(frozen=True)
class Fit:
    """How a pipeline was fitted.

    Attributes:
        rows: rows of the files.
        rows_used: rows that the model was fitted on.
        method: "in memory", "external memory" or "sample".
    """

    rows: int
    rows_used: int
    method: str


def fit(
    pipeline: Pipeline,
    files: list[pq.ParquetFile],
    memory_bytes: int,
    seed: int,
    encode: Encode = np.asarray,
    withheld: np.ndarray | None = None,
) -> Fit:
    """Fit a pipeline on the rows of all files; the same rows and seed give the same model.

    Args:
        pipeline: a `FeatureEncoder` first, a classifier or regressor last.
        files: open files with the encoder's columns and `label`; other columns are not
            read. Rows keep the order of the files.
        memory_bytes: for the rows and everything made from them. Training from disk always takes
            0.3 GB and 40 bytes per row, and its cache takes six bytes per row and feature in the
            system's temporary folder.
        seed: seed for the sample.
        encode: turns labels into those that the model is fitted on.
        withheld: true for rows of the files to leave out, of shape (rows,); by default none.

    Raises:
        BadData: there are no rows, or all have the same label.
    """
    rows = sum(file.metadata.num_rows for file in files)
    rows -= 0 if withheld is None else int(withheld.sum())
    if not rows:
        raise BadData(
            "There are no labelled rows in the training days. The champion is unchanged. Choose "
            "another window."
        )
    encoder: FeatureEncoder = pipeline[0]
    columns = [*encoder.numeric, *encoder.categorical, LABEL]
    from_disk = len(pipeline) == 2 and isinstance(pipeline[1], xgboost.XGBModel)
    row_bytes = (len(columns) - 1) * (XGBOOST_BYTES if from_disk else OTHER_BYTES)
    rows_that_fit = memory_bytes // row_bytes
    if rows <= rows_that_fit:
        _fit_in_memory(pipeline, batches(files, columns, withheld), encode)
        return Fit(rows, rows, "in memory")
    if from_disk:
        _fit_from_disk(encoder, pipeline[1], files, encode, withheld)
        return Fit(rows, rows, "external memory")
    sampled = _sample(batches(files, columns, withheld), rows, rows_that_fit, seed)
    _fit_in_memory(pipeline, sampled, encode)
    return Fit(rows, rows_that_fit, "sample")


def batches(
    files: list[pq.ParquetFile], columns: list[str], withheld: np.ndarray | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of files, without those that are withheld."""
    start = 0
    for file in files:
        for batch in file.iter_batches(BATCH_ROWS, columns=columns):
            here = slice(start, start := start + batch.num_rows)
            yield batch if withheld is None else batch.filter(pa.array(~withheld[here]))


def _sample(
    batches: Iterable[pa.RecordBatch], rows: int, wanted: int, seed: int
) -> Iterator[pa.RecordBatch]:
    """A random sample of the rows, without replacement, in their original order."""
    random = np.random.default_rng(seed)
    for batch in batches:
        here = random.hypergeometric(wanted, rows - wanted, batch.num_rows)
        places = random.choice(batch.num_rows, here, replace=False)
        yield batch.take(pa.array(np.sort(places)))
        rows, wanted = rows - batch.num_rows, wanted - here


def _fit_in_memory(pipeline: Pipeline, batches: Iterable[pa.RecordBatch], encode: Encode) -> None:
    table = pa.Table.from_batches(batches)
    _require_difference(set(pc.min_max(table[LABEL]).as_py().values()), table.num_rows)
    pipeline.fit(table, encode(table[LABEL].to_numpy()))


def _fit_from_disk(
    encoder: FeatureEncoder,
    model: xgboost.XGBModel,
    files: list[pq.ParquetFile],
    encode: Encode,
    withheld: np.ndarray | None,
) -> None:
    values: dict[str, set[Any]] = {name: set() for name in encoder.categorical}
    labels: set[Any] = set()
    is_number = not isinstance(model, xgboost.XGBClassifier)
    for batch in batches(files, [*values, LABEL], withheld):
        for name, known in values.items():
            known.update(batch.column(name).unique().to_pylist())
        given = batch.column(LABEL)
        labels.update(  # numbers may be as many as rows
            pc.min_max(given).as_py().values() if is_number else given.unique().to_pylist()
        )
    _require_difference(labels, sum(file.metadata.num_rows for file in files))
    rows = list(zip_longest(*values.values()))
    encoder.fit(pl.DataFrame(rows, schema=list(values), orient="row", infer_schema_length=None))

    with tempfile.TemporaryDirectory(prefix="training-") as folder:
        encoded = _EncodedBatches(encoder, model, files, folder, encode, withheld)
        booster = _train(model, encoded, len(labels))
    parameters = model.get_params()
    model.load_model(booster.save_raw())
    # Loading turned the model's base score into a parameter, which every clone would inherit.
    model.set_params(**parameters)


class _EncodedBatches(xgboost.DataIter):
    """The files' rows for XGBoost, which iterates over them several times."""

    def __init__(
        self,
        encoder: FeatureEncoder,
        model: xgboost.XGBModel,
        files: list[pq.ParquetFile],
        folder: str,
        encode: Encode,
        withheld: np.ndarray | None,
    ):
        super().__init__(cache_prefix=str(Path(folder) / "cache"))
        self.encoder, self.feature_types = encoder, model.feature_types
        self.files, self.encode, self.withheld = files, encode, withheld

    def reset(self) -> None:
        columns = [*self.encoder.numeric, *self.encoder.categorical, LABEL]
        self.batches = batches(self.files, columns, self.withheld)

    def next(self, input_data: Callable[..., None]) -> bool:
        batch = next(self.batches, None)
        if batch is not None:
            input_data(
                data=self.encoder.transform(batch),
                label=self.encode(batch.column(LABEL).to_numpy()),
                feature_types=self.feature_types,
            )
        return batch is not None


def _train(model: xgboost.XGBModel, encoded: _EncodedBatches, labels: int) -> xgboost.Booster:
    matrix = xgboost.ExtMemQuantileDMatrix(
        encoded,
        missing=model.missing,
        nthread=model.n_jobs,
        max_bin=model.max_bin,
        enable_categorical=model.enable_categorical,
    )
    parameters = model.get_xgb_params()
    if isinstance(model, xgboost.XGBClassifier) and labels > 2:  # as its `fit` does
        parameters |= {"objective": "multi:softprob", "num_class": labels}
    return xgboost.train(parameters, matrix, model.get_num_boosting_rounds())


def _require_difference(labels: set[Any], rows: int) -> None:
    if len(labels) < 2:
        raise BadData(
            f"All {rows} labelled rows of the training days have the label {listed(labels)}, so "
            "there is nothing to learn. The champion is unchanged. Choose a longer window."
        )
