"""A regression model that gives an interval with each prediction.

Stored models name this module, so it never moves.
"""

from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from include.errors import BadData


class IntervalPipeline(Pipeline):
    """A fitted pipeline whose predictions get an interval, calibrated on rows it was not fitted on.

    Split conformal prediction with a bound for each side: the interval covers at least `share` of
    exchangeable rows (Lei et al., Distribution-Free Predictive Inference for Regression, 2018). If
    the model predicts quantiles, these are widened or narrowed (Romano et al., Conformalized
    Quantile Regression, 2019).

    Args:
        steps: fitted steps; the last one predicts one number a row, or three quantiles.
        share: share of rows that the interval should cover, between 0 and 1.
        log: whether the model was fitted on log(1 + label). Predictions are transformed back, so
            the interval is relative.
        least: the least possible value.
        most: the greatest possible value.
    """

    def __init__(
        self,
        steps: list[tuple[str, Any]],
        *,
        share: float = 0.8,
        log: bool = False,
        least: float = -np.inf,
        most: float = np.inf,
        transform_input: Any = None,
        memory: Any = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(steps, transform_input=transform_input, memory=memory, verbose=verbose)
        self.share, self.log, self.least, self.most = share, log, least, most

    @property
    def least_rows(self) -> int:
        """How many rows are needed to calibrate it."""
        level = (1 + self.share) / 2
        return int(np.ceil(round(level / (1 - level), 9)))

    def calibrate(self, rows: Any, labels: np.ndarray) -> "IntervalPipeline":
        """Find how far lower and upper bound have to be from the model's own.

        Args:
            rows: features of rows that the model was not fitted on.
            labels: their labels, of shape (rows,), at least `least_rows`.
        """
        truth = np.log1p(labels) if self.log else labels
        lower, _, upper = self._model(rows)
        self.below_ = _margin(lower - truth, (1 + self.share) / 2)
        self.above_ = _margin(truth - upper, (1 + self.share) / 2)
        return self

    def predict(self, X: Any, **params: Any) -> np.ndarray:  # noqa: ARG002 - scikit-learn's
        """Value, lower and upper bound of each row, of shape (rows, 3)."""
        lower, value, upper = self._model(X)
        found = np.column_stack([value, lower - self.below_, upper + self.above_])
        found = np.expm1(found) if self.log else found
        found = np.clip(found, self.least, self.most)
        found[:, 1] = np.minimum(found[:, 0], found[:, 1])
        found[:, 2] = np.maximum(found[:, 0], found[:, 2])
        return found

    def _model(self, rows: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The model's own lower bound, value and upper bound."""
        predicted = np.asarray(super().predict(rows), dtype=np.float64)
        if predicted.ndim == 1:
            return predicted, predicted, predicted
        if predicted.shape[1] != 3:
            raise BadData(
                f"The model predicts {predicted.shape[1]} numbers a row, and has to predict one or "
                "three quantiles. No model was kept; change models.py."
            )
        lower, value, upper = np.sort(predicted, axis=1).T
        return lower, value, upper


def _margin(scores: np.ndarray, share: float) -> float:
    """The bound that a share of scores do not exceed, corrected for their finite number."""
    rank = min(1.0, np.ceil((len(scores) + 1) * share) / len(scores))
    return float(np.quantile(scores, rank, method="inverted_cdf"))
