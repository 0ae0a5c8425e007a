"""Reason codes: the features that moved each prediction most, and by how much.

Contributions are in the unit of the model's own output, such as log-odds:

- of XGBoost's trees, SHAP values (Lundberg et al., Consistent Individualized Feature Attribution
  for Tree Ensembles, 2018);
- of a linear model, its terms: each coefficient times its input.

Other models, and those on servers, give none.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.pipeline import Pipeline

from include.encoder import FeatureEncoder
from include.usecase import UseCase

Explain = Callable[[pa.RecordBatch, np.ndarray], list[pa.Array]]
"""Takes rows of features and their predictions, and returns the columns `fields`."""

MOST_NUMBERS = 4_000_000
"""Contributions that are held at once: 32 MB."""


def fields(case: UseCase) -> list[pa.Field]:
    """The columns of reason codes, the largest contribution first; none unless asked for."""
    reason = pa.dictionary(pa.int16(), pa.string())
    return [
        pa.field(name, kind)
        for place in range(1, case.settings.reason_codes + 1)
        for name, kind in ((f"reason_{place}", reason), (f"contribution_{place}", pa.float32()))
    ]


def explainer(case: UseCase, pipeline: Pipeline) -> Explain:
    """A function that gives a model's reasons as the columns `fields`; null where it has none."""
    contributions = _contributions_of_features(case, pipeline)
    names = pa.array(pipeline[0].get_feature_names_out(), pa.string())

    def explain(rows: pa.RecordBatch, predictions: np.ndarray) -> list[pa.Array]:
        if contributions is None:
            return unexplained(case, rows.num_rows)
        found = contributions(rows, predictions)
        order = np.argsort(-np.abs(found), axis=1, kind="stable")
        largest = np.take_along_axis(found, order, axis=1)
        columns = unexplained(case, rows.num_rows)
        for place in range(min(case.settings.reason_codes, len(names))):
            nothing = largest[:, place] == 0
            codes = pa.array(order[:, place].astype(np.int16), mask=nothing)
            columns[2 * place] = pa.DictionaryArray.from_arrays(codes, names)
            columns[2 * place + 1] = pa.array(largest[:, place].astype(np.float32), mask=nothing)
        return columns

    return explain


def unexplained(case: UseCase, rows: int) -> list[pa.Array]:
    """The columns `fields` of rows without reasons."""
    return [pa.nulls(rows, field.type) for field in fields(case)]


def _contributions_of_features(
    case: UseCase, pipeline: Pipeline
) -> Callable[[pa.RecordBatch, np.ndarray], np.ndarray] | None:
    """Takes rows and predictions and returns what each feature contributes, (rows, features).

    None if the model has none to give, or mixes features before it weighs them.
    """
    contribute = _contributions(pipeline[-1])
    if contribute is None:
        return None
    probe = _probe(pipeline)
    owners = _owners(pipeline, probe)
    if owners is None:
        return None
    outputs = contribute(_inputs(pipeline, probe)).shape[1]
    by_feature = np.equal.outer(owners, np.arange(probe.shape[1])).astype(np.float32)
    size = max(1, MOST_NUMBERS // (len(owners) * outputs))

    def contributions(rows: pa.RecordBatch, predictions: np.ndarray) -> np.ndarray:
        output = np.minimum(case.target.explained(predictions), outputs - 1)
        found = [np.empty((0, probe.shape[1]), np.float32)]
        for start in range(0, rows.num_rows, size):
            inputs = _inputs(pipeline, pipeline[0].transform(rows.slice(start, size)))
            given = contribute(inputs)
            chosen = given[np.arange(len(given)), output[start : start + size]]
            found.append(chosen @ by_feature)
        return np.concatenate(found)

    return contributions


def _contributions(model: Any) -> Callable[[np.ndarray], np.ndarray] | None:
    """Takes a model's input and returns its contributions, of shape (rows, outputs, columns)."""
    if hasattr(model, "get_booster"):
        from xgboost import DMatrix

        def of_trees(inputs: np.ndarray) -> np.ndarray:
            matrix = DMatrix(
                inputs, missing=model.missing, feature_types=model.feature_types,
                enable_categorical=True, nthread=model.n_jobs,
            )  # fmt: skip
            found = model.get_booster().predict(matrix, pred_contribs=True)
            whole: np.ndarray = found.reshape(len(inputs), -1, inputs.shape[1] + 1)
            return whole[:, :, :-1]  # the last one is the mean of all rows

        return of_trees
    if hasattr(model, "coef_"):
        coefficients = np.atleast_2d(model.coef_)
        return lambda inputs: inputs[:, None, :] * coefficients
    return None


def _inputs(pipeline: Pipeline, encoded: np.ndarray) -> np.ndarray:
    """Encoded features as the last step reads them."""
    for _, step in pipeline.steps[1:-1]:
        encoded = step.transform(encoded)
    return encoded.toarray() if hasattr(encoded, "toarray") else encoded


def _probe(pipeline: Pipeline) -> np.ndarray:
    """Encoded rows in which each feature has many values, every category, and none if it may."""
    encoder: FeatureEncoder = pipeline[0]
    codes = [len(encoder.categories_[name]) for name in encoder.categorical]
    rows = 1 + max([*codes, 8])
    probe = 100 * np.random.default_rng(7).standard_normal((rows, encoder.n_features_in_))
    for place, known in enumerate(codes, start=len(encoder.numeric)):
        probe[:, place] = np.arange(rows) % max(known, 1)
    with_missing = np.vstack([np.full(encoder.n_features_in_, np.nan), probe]).astype(np.float32)
    try:
        _inputs(pipeline, with_missing)
    except ValueError:  # its transformers take no missing values
        return with_missing[1:]
    return with_missing


def _owners(pipeline: Pipeline, probe: np.ndarray) -> np.ndarray | None:
    """The feature that each column of the last step's input comes from.

    -1 for a constant; None if a column depends on several features.
    """
    usual = _inputs(pipeline, probe)
    owners = np.full(usual.shape[1], -1)
    for place in range(probe.shape[1]):
        other = probe.copy()
        other[:, place] = np.roll(probe[:, place], 1)
        differs = ~np.isclose(_inputs(pipeline, other), usual, equal_nan=True).all(axis=0)
        if (owners[differs] >= 0).any():
            return None
        owners[differs] = place
    return owners
