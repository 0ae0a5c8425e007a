"""Reason codes: the features that moved each prediction most, and by how much.

Contributions are in the unit of the model's own output, such as log-odds:

- of XGBoost's trees, SHAP values: relative to the mean of the training rows (Lundberg et al.,
  Consistent Individualized Feature Attribution for Tree Ensembles, 2018);
- of a linear model, the change of its output if the feature had its typical value: the mean, or
  the most frequent category, of the training rows.

Other models, and those on servers, give none. Reasons never stop a prediction: if they cannot be
found, the log says why and there are none.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from sklearn.pipeline import Pipeline

from include.errors import BadData, MissingData
from include.messages import ModelVersion
from include.registry import registry
from include.statistics import profiles
from include.usecase import UseCase

Explain = Callable[[pa.RecordBatch, np.ndarray], list[pa.Array]]
"""Takes rows of features and their predictions, and returns the columns `fields`."""

Contribute = Callable[[pa.RecordBatch], tuple[np.ndarray, np.ndarray]]
"""Takes rows of features, and returns what each feature contributes to each output of the model, of
shape (rows, outputs, features), and the outputs, of shape (rows, outputs)."""

MOST_NUMBERS = 4_000_000
"""Contributions that are held at once: 32 MB."""

log = logging.getLogger(__name__)


def fields(count: int) -> list[pa.Field]:
    """The columns of so many reasons, the largest contribution first."""
    reason = pa.dictionary(pa.int16(), pa.string())
    return [
        pa.field(name, kind)
        for place in range(1, count + 1)
        for name, kind in ((f"reason_{place}", reason), (f"contribution_{place}", pa.float32()))
    ]


def unexplained(count: int, rows: int) -> list[pa.Array]:
    """The columns `fields` of rows without reasons."""
    return [pa.nulls(rows, field.type) for field in fields(count)]


def explainer(case: UseCase, pipeline: Pipeline, typical: Mapping[str, Any], count: int) -> Explain:
    """A function that gives the reasons for a fitted model's predictions.

    Args:
        typical: what `typical_row` gives.
        count: reasons of each prediction.
    """
    contribute = _of_trees(pipeline) or _of_terms(pipeline, typical)

    def explain(rows: pa.RecordBatch, predictions: np.ndarray) -> list[pa.Array]:
        if contribute is not None:
            try:
                return _columns(case, pipeline, contribute, count, rows, predictions)
            except Exception as error:  # whatever a library raises, the prediction itself is there
                log.warning("There are no reasons for %s rows: %r", rows.num_rows, error)
        return unexplained(count, rows.num_rows)

    return explain


def typical_row(case: UseCase, model: ModelVersion) -> dict[str, Any]:
    """The mean, or the most frequent category, of each feature of a model's training rows.

    Empty if its snapshot is unknown or gone.
    """
    profile = None
    with suppress(BadData, MissingData):
        if reference := registry.param(case, model.run_id, "snapshot"):
            profile = profiles.read(case.lake.version(reference), "features")
    return {
        name: column.mean if column.is_number else str(column.values[column.counts.argmax()])
        for name, column in (profile or {}).items()
        if len(column.values)
    }


def _columns(
    case: UseCase,
    pipeline: Pipeline,
    contribute: Contribute,
    count: int,
    rows: pa.RecordBatch,
    predictions: np.ndarray,
) -> list[pa.Array]:
    """The reasons of rows, a slice at a time: only the largest contributions are kept."""
    names = pipeline[0].get_feature_names_out()
    kept = min(count, len(names))
    places = np.zeros((rows.num_rows, kept), np.int16)
    values = np.zeros((rows.num_rows, kept), np.float32)
    outputs = contribute(rows.slice(0, 1))[1].shape[1] if rows.num_rows else 1
    size = max(1, MOST_NUMBERS // (len(names) * outputs))
    for start in range(0, rows.num_rows, size):
        here = slice(start, start + size)
        found, given = contribute(rows.slice(start, size))
        output = case.target.explained(predictions[here], given)
        chosen = found[np.arange(len(found)), np.minimum(output, given.shape[1] - 1)]
        order = np.argsort(-np.abs(chosen), axis=1, kind="stable")[:, :kept]
        places[here], values[here] = order, np.take_along_axis(chosen, order, axis=1)
    columns = unexplained(count, rows.num_rows)
    for place in range(kept):
        nothing = values[:, place] == 0
        codes = pa.array(places[:, place], mask=nothing)
        columns[2 * place] = pa.DictionaryArray.from_arrays(codes, pa.array(names, pa.string()))
        columns[2 * place + 1] = pa.array(values[:, place], mask=nothing)
    return columns


def _of_trees(pipeline: Pipeline) -> Contribute | None:
    """The contributions of XGBoost's trees right after the encoder; None for other models."""
    model: Any = pipeline[-1]
    if not hasattr(model, "get_booster") or len(pipeline.steps) != 2:
        return None
    from xgboost import DMatrix

    last = getattr(model, "best_iteration", None) if model.early_stopping_rounds else None
    trees = (0, 0) if last is None else (0, last + 1)

    def contribute(rows: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        inputs = pipeline[0].transform(rows)
        matrix = DMatrix(
            inputs, missing=model.missing, feature_types=model.feature_types,
            enable_categorical=True, nthread=model.n_jobs,
        )  # fmt: skip
        found = model.get_booster().predict(matrix, pred_contribs=True, iteration_range=trees)
        whole = found.reshape(len(inputs), -1, inputs.shape[1] + 1)
        return whole[:, :, :-1], whole.sum(axis=2)  # the last one is the mean of all rows

    return contribute


def _of_terms(pipeline: Pipeline, typical: Mapping[str, Any]) -> Contribute | None:
    """What each feature changes in a linear model's output; None for other models."""
    names = list(pipeline[0].get_feature_names_out())
    if not hasattr(pipeline[-1], "coef_") or not typical.keys() >= set(names):
        return None
    steps = Pipeline(pipeline.steps)  # without an interval
    ask = getattr(steps, "decision_function", None) or steps.predict

    def outputs(rows: pl.DataFrame) -> np.ndarray:
        return np.asarray(ask(rows), dtype=np.float64).reshape(len(rows), -1)

    def contribute(rows: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        table = pl.DataFrame(pl.from_arrow(rows.select(names)))
        given = outputs(table)
        found = np.empty((len(table), given.shape[1], len(names)), np.float32)
        for place, name in enumerate(names):
            usual = pl.lit(typical[name]).cast(table.schema[name]).alias(name)
            found[:, :, place] = given - outputs(table.with_columns(usual))
        return found, given

    return contribute
