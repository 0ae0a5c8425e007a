"""What a use case asks about each row, and everything that depends on the kind of answer.

A use case declares one of these as `TARGET` in its `features.py`. No other module knows a kind of
target, a loss or a figure by its name: it asks the target.

Labels and predictions are arrays whose first axis are the rows. The mean loss of a row decides
everywhere: skill is 1 - loss / loss of the baseline, the forecast that knows nothing but the
labels of the training rows.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import polars as pl

from include.targets.binary import Binary
from include.targets.measures import Measure
from include.targets.multiclass import Multiclass
from include.targets.regression import Regression

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

UNSAID = Binary.name
"""The target of models and tables from releases that did not say."""

__all__ = ["UNSAID", "Binary", "Measure", "Multiclass", "Regression", "Target"]


@runtime_checkable
class Target(Protocol):
    """A kind of answer; `docs/targets.md` says how to write another one."""

    @property
    def name(self) -> str:
        """The name of the kind."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The numbers of a prediction, as columns of published tables."""

    @property
    def watched(self) -> tuple[str, ...]:
        """Those of the columns whose distribution is compared with the usual one."""

    @property
    def other_columns(self) -> "dict[str, pa.DataType]":
        """Columns that are published beside the numbers, with their types."""

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest number that is possible; infinite if it is unknown."""

    @property
    def unit(self) -> str:
        """The unit of the first number of a prediction."""

    @property
    def axis(self) -> str:
        """What the first number of a prediction is, with its unit."""

    @property
    def output(self) -> str:
        """Name of the tensor in which a model server gives predictions."""

    @property
    def measures(self) -> dict[str, Measure]:
        """Figure → what it means; those that people see, the most important ones first."""

    @property
    def loss(self) -> str:
        """The figure that is the mean loss of a row."""

    @property
    def calibration(self) -> str:
        """The figure that says how far predictions are from being right on average, from 0 to 1."""

    @property
    def headline(self) -> str:
        """The figure that a person looks at first."""

    @property
    def baseline_name(self) -> str:
        """What the baseline is called."""

    @property
    def trusted_types(self) -> list[str]:
        """Types that a stored model may contain, in addition to the use case's."""

    @property
    def calibrates(self) -> bool:
        """Whether `finish` needs rows that no fit has seen."""

    def wrong_labels(self, labels: pl.Series) -> str:
        """What is wrong with labels; empty if nothing is."""

    def possible(self, labels: pl.Series) -> pl.Series:
        """Which labels are possible, whatever their type, never null."""

    def codes(self, labels: pl.Series) -> pl.Series:
        """Labels as the numbers that the library computes with."""

    def describe(self, labels: np.ndarray) -> dict[str, Any]:
        """What the baseline needs to know about labels, as plain JSON."""

    def lacking(self, described: Mapping[str, Any], training: bool = True) -> str:
        """What labels lack that a model could learn from; empty if nothing.

        Args:
            training: whether a model learns from them, or is only judged on them.
        """

    def baseline(self, described: Iterable[Mapping[str, Any]]) -> np.ndarray:
        """The prediction of one row that knows nothing but some labels.

        Args:
            described: results of `describe`; their rows count together.
        """

    def wrong_model(self, pipeline: Any) -> str:
        """Why a pipeline cannot answer; empty if it can."""

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """Labels as models are fitted on them."""

    def finish(self, pipeline: Any, unseen: pl.DataFrame) -> Any:
        """Complete a fitted pipeline, so that it answers the question.

        Args:
            unseen: rows with features and label that it was not fitted on.
        """

    def predict(self, pipeline: Any, rows: Any) -> np.ndarray:
        """A model's predictions for a table of features."""

    def wrong(self, predictions: np.ndarray) -> str:
        """What is wrong with predictions; empty if nothing is."""

    def others(self, predictions: np.ndarray) -> "dict[str, pa.Array]":
        """Those other columns."""

    def explained(self, predictions: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Which of a model's own outputs each prediction follows, of shape (rows,).

        Args:
            outputs: the model's outputs before they become predictions, of shape (rows, outputs).
        """

    def combine(
        self, predictions: Mapping[str, np.ndarray], shares: Mapping[str, float]
    ) -> np.ndarray:
        """Several models' predictions of the same rows as one, float32.

        Args:
            predictions: model → predictions.
            shares: model → its weight; the weights sum to 1.
        """

    def from_output(self, values: np.ndarray, rows: int) -> np.ndarray:
        """Predictions from a model server's tensor.

        Raises:
            ValueError: it has another shape; says which.
        """

    def losses(self, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """The loss of each row, of shape (rows,)."""

    def expected_losses(self, predictions: np.ndarray) -> np.ndarray:
        """The loss of each row to be expected before its label is known, of shape (rows,)."""

    def figures(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, Any]:
        """Metrics of predictions, among them `rows`, `loss` and `calibration`.

        One that the rows do not define is None.
        """

    def plots(
        self, labels: np.ndarray, predictions: Mapping[str, np.ndarray]
    ) -> "dict[str, Figure]":
        """Name → plot of some models' predictions of the same rows."""

    def outcome_plots(
        self,
    ) -> "dict[str, Callable[[np.ndarray, Mapping[str, np.ndarray]], Figure | str]]":
        """Title → function that draws predictions whose truth is known, or says why it cannot."""
