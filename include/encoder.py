"""Encodes a table of features as the float matrix that every model of this project reads.

Stored models refer to its class by dotted path, `include.encoder.FeatureEncoder`. Moving or
renaming it would make all of them unreadable.
"""

from typing import Any, Self

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.base import BaseEstimator, TransformerMixin

from include.errors import BadData
from include.wording import counted, listed


class FeatureEncoder(TransformerMixin, BaseEstimator):
    """Numeric columns unchanged, categories as codes; float32, NaN for missing or unseen values.

    It is the first step of every model's pipeline, so a model carries its own input contract.

    Args:
        numeric: names of the numeric features.
        categorical: names of the categorical features, encoded after the numeric ones.
    """

    def __init__(self, numeric: list[str], categorical: list[str]):
        self.numeric = numeric
        self.categorical = categorical

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002 - scikit-learn passes it
        """Learn the categories in sorted order: the n-th one gets code n.

        Args:
            X: Arrow table or batch, Polars or pandas frame with the named columns.
            y: not used.
        """
        table = _as_arrow(X)
        self.categories_ = {
            name: sorted(filter(None, pc.unique(_column(table, name)).to_pylist()))
            for name in self.categorical
        }
        self.n_features_in_ = len(self.numeric) + len(self.categorical)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Encode rows.

        Args:
            X: as in `fit`.

        Returns:
            float32 array of shape (rows, features), row-major.

        Raises:
            BadData: a column that the model expects is missing.
        """
        table = _as_arrow(X)
        self.check_columns(table.schema.names)
        matrix = np.empty((table.num_rows, self.n_features_in_), dtype=np.float32)
        for position, name in enumerate(self.numeric):
            matrix[:, position] = _column(table, name).to_numpy(zero_copy_only=False)
        for position, name in enumerate(self.categorical, start=len(self.numeric)):
            known = pa.array(self.categories_[name], pa.string())
            codes = pc.index_in(_column(table, name).cast(pa.string()), value_set=known)
            matrix[:, position] = codes.to_numpy(zero_copy_only=False)
        return matrix

    def check_columns(self, columns: list[str]) -> None:
        """Raise `BadData` that names every expected column missing from `columns`."""
        missing = [name for name in [*self.numeric, *self.categorical] if name not in columns]
        if missing:
            raise BadData(
                f"The model expects {counted(len(missing), 'feature')} that the table lacks: "
                f"{listed(missing)}. Nothing was scored. Train a model on the features of "
                "this code, or run the code the model was trained with."
            )

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:  # noqa: ARG002
        """Names of the matrix's columns."""
        return np.array([*self.numeric, *self.categorical], dtype=object)


def _as_arrow(rows: Any) -> pa.Table | pa.RecordBatch:
    if isinstance(rows, pl.DataFrame):
        return rows.to_arrow(compat_level=pl.CompatLevel.oldest())
    if isinstance(rows, pd.DataFrame):
        return pa.Table.from_pandas(rows, preserve_index=False)
    return rows


def _column(table: pa.Table | pa.RecordBatch, name: str) -> pa.Array:
    column = table.column(name)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
