"""Does it happen? Labels are 0 and 1, and a prediction is the probability of 1."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import polars as pl

from include.targets.measures import Measure
from include.wording import listed

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

CALIBRATION_BINS = 10
LEAST_PROBABILITY = 1e-7
"""A wrong score of 0 or 1 costs 16 nats, not infinitely many."""


@dataclass(frozen=True)
class Binary:
    """A target of two classes. Labels and predictions have the shape (rows,).

    Costs choose what is decided, not what models learn: scores stay probabilities.

    Attributes:
        positive: what the label 1 means, such as `late`.
        costs: what a false alarm and a miss cost. With them, a column `decision` is published, and
            the cost per row is a figure.
    """

    positive: str = "1"
    costs: tuple[float, float] | None = None

    name: ClassVar[str] = "binary"
    columns: ClassVar[tuple[str, ...]] = ("score",)
    watched: ClassVar[tuple[str, ...]] = ("score",)
    range: ClassVar[tuple[float, float]] = (0, 1)
    output: ClassVar[str] = "score"
    unit: ClassVar[str] = "probability"
    loss: ClassVar[str] = "log_loss"
    baseline_name: ClassVar[str] = "base rate"
    calibration: ClassVar[str] = "calibration_error"
    headline: ClassVar[str] = "roc_auc"
    trusted_types: ClassVar[list[str]] = []
    calibrates: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse what could never work."""
        if self.costs is None:
            return
        costs = self.costs if isinstance(self.costs, tuple) else ()
        if len(costs) != 2 or not all(0 < cost < np.inf for cost in costs):
            raise ValueError(
                f"Binary: costs is {self.costs!r}, not two numbers above 0 in parentheses: the "
                "cost of a false alarm, and of a miss"
            )

    @property
    def measures(self) -> dict[str, Measure]:
        """Figure → what it means."""
        decided = {} if self.costs is None else {"cost": Measure("cost", "per row")}
        return {
            "log_loss": Measure("log-loss", "nats"),
            "roc_auc": Measure("AUC", "ratio"),
            "average_precision": Measure("average precision", "ratio"),
            **decided,
            "brier": Measure("Brier score", "ratio"),
            "calibration_error": Measure("calibration error", "share"),
        }

    @property
    def axis(self) -> str:
        """What a score is."""
        return f"Probability of {self.positive}"

    @property
    def other_columns(self) -> "dict[str, pa.DataType]":
        """The decision, if costs are known."""
        import pyarrow as pa

        return {} if self.costs is None else {"decision": pa.bool_()}

    def wrong_labels(self, labels: pl.Series) -> str:
        """What is wrong with labels; empty if nothing is."""
        if labels.dtype != pl.Int8 or labels.null_count():
            nulls = f" with {labels.null_count()} nulls" if labels.null_count() else ""
            return f"has to be Int8, and never null: it is {labels.dtype}{nulls}"
        if strange := sorted(set(labels.unique()) - {0, 1}):
            return f"has to be 0 or 1: there are {listed(strange, 5)}, too"
        return ""

    def possible(self, labels: pl.Series) -> pl.Series:
        """Which labels are 0 or 1."""
        return labels.cast(pl.Float64, strict=False).is_in([0, 1]).fill_null(False)

    def codes(self, labels: pl.Series) -> pl.Series:
        """Labels as the library computes with them."""
        return labels

    def describe(self, labels: np.ndarray) -> dict[str, Any]:
        """The number of rows of each class."""
        negative, positive = np.bincount(labels, minlength=2)
        return {"0": int(negative), "1": int(positive)}

    def lacking(self, described: Mapping[str, Any], training: bool = True) -> str:  # noqa: ARG002
        """What labels lack that a model could learn from; empty if nothing."""
        if all(described.values()):
            return ""
        what = "only one class" if any(described.values()) else "no labelled row"
        return f"{what}: {described['0']} rows with label 0, {described['1']} with label 1"

    def baseline(self, described: Iterable[Mapping[str, Any]]) -> np.ndarray:
        """The prediction for every row that knows nothing but some labels: their base rate.

        Args:
            described: results of `describe`; their rows count together.

        Returns:
            A prediction of shape ().
        """
        counts = list(described)
        positive = sum(count["1"] for count in counts)
        return np.asarray(positive / (positive + sum(count["0"] for count in counts)))

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """Labels as models are fitted on them."""
        return labels

    def finish(self, pipeline: Any, unseen: pl.DataFrame) -> Any:  # noqa: ARG002
        """A fitted pipeline that answers: it does already."""
        return pipeline

    def predict(self, pipeline: Any, rows: Any) -> np.ndarray:
        """The probability of 1 for each row."""
        known = list(getattr(pipeline, "classes_", (0, 1)))
        probabilities: np.ndarray = pipeline.predict_proba(rows)[:, known.index(1)]
        return probabilities

    def wrong_model(self, pipeline: Any) -> str:
        """Why a pipeline cannot answer; empty if it can."""
        if not hasattr(pipeline, "predict_proba"):
            return "has no predict_proba, and has to give the probability of 1"
        known = list(getattr(pipeline, "classes_", (0, 1)))
        return "" if set(known) == {0, 1} else f"knows the classes {listed(known)}, not 0 and 1"

    def wrong(self, predictions: np.ndarray) -> str:
        """What is wrong with predictions; empty if nothing is."""
        wrong = int((~((predictions >= 0) & (predictions <= 1))).sum())
        return (
            f"{wrong} of {len(predictions)} scores are missing, NaN or outside 0 to 1"
            if wrong
            else ""
        )

    def others(self, predictions: np.ndarray) -> "dict[str, pa.Array]":
        """The decision for each row, if costs are known."""
        import pyarrow as pa

        if self.costs is None:
            return {}
        return {"decision": pa.array(self._decided(predictions), mask=np.isnan(predictions))}

    def explained(self, predictions: np.ndarray, outputs: np.ndarray) -> np.ndarray:  # noqa: ARG002
        """The output of a model that each prediction follows: there is one."""
        return np.zeros(len(predictions), np.int64)

    def _decided(self, predictions: np.ndarray) -> np.ndarray:
        """Whether to act on each row: where that is expected to cost less.

        Elkan, The Foundations of Cost-Sensitive Learning, 2001.
        """
        assert self.costs is not None
        false_alarm, miss = self.costs
        decided: np.ndarray = predictions >= np.float32(false_alarm / (false_alarm + miss))
        return decided

    def _cost(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        if self.costs is None:
            return {}
        false_alarm, miss = self.costs
        decided = self._decided(predictions)
        paid = np.where(decided, false_alarm * (labels == 0), miss * (labels == 1))
        return {"cost": float(paid.mean())}

    def combine(
        self, predictions: Mapping[str, np.ndarray], shares: Mapping[str, float]
    ) -> np.ndarray:
        """The weighted average (a linear opinion pool; Stone, 1961)."""
        # Sorted by name, because a sum of floats depends on its order.
        average = sum(
            shares[name] * predictions[name].astype(np.float64) for name in sorted(predictions)
        )
        return np.clip(np.asarray(average), 0, 1).astype(np.float32)

    def from_output(self, values: np.ndarray, rows: int) -> np.ndarray:
        """Predictions from a model server's tensor: one number a row, or the last of two.

        Raises:
            ValueError: it has another shape.
        """
        if values.shape not in ((rows,), (rows, 1), (rows, 2)):
            raise ValueError(f"has the shape {values.shape} for {rows} rows")
        predictions: np.ndarray = values.reshape(rows, -1)[:, -1].astype(np.float32)
        return predictions

    def losses(self, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Log-loss of each row in nats, of shape (rows,)."""
        likely = np.where(labels == 1, predictions, 1 - predictions.astype(np.float64))
        return -np.log(np.clip(likely, LEAST_PROBABILITY, 1))

    def expected_losses(self, predictions: np.ndarray) -> np.ndarray:
        """The loss to be expected of each row if its probability is right: its entropy.

        The idea of confidence-based performance estimation (Guillory et al., Predicting with
        Confidence on Unseen Distributions, 2021).
        """
        yes = np.clip(predictions.astype(np.float64), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        return -yes * np.log(yes) - (1 - yes) * np.log1p(-yes)

    def figures(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, Any]:
        """Metrics of predictions; None if they need two classes and the rows have one.

        Returns:
            `rows`; `rate`, the share of rows with the label 1; `mean_score`, the mean prediction,
            which estimates that share; `log_loss` in nats per row; `brier`, the mean squared error;
            `calibration_error`, see there; `roc_auc` and `average_precision`; `cost`, the mean cost
            of a decision, if costs are known.
        """
        from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

        both = 0 < labels.sum() < len(labels)
        return {
            "rows": len(labels),
            "rate": float(labels.mean()),
            "mean_score": float(predictions.mean()),
            "log_loss": float(self.losses(labels, predictions).mean()),
            "brier": float(brier_score_loss(labels, predictions, pos_label=1)),
            "calibration_error": calibration_error(labels, predictions),
            "roc_auc": float(roc_auc_score(labels, predictions)) if both else None,
            "average_precision": (
                float(average_precision_score(labels, predictions)) if both else None
            ),
            **self._cost(labels, predictions),
        }

    def outcome_plots(
        self,
    ) -> "dict[str, Callable[[np.ndarray, Mapping[str, np.ndarray]], Figure | str]]":
        """Title → function that draws predictions whose truth is known, or says why it cannot."""
        from include.targets import binary_plots

        return {
            "Predictions by outcome": binary_plots.by_outcome,
            "Calibration": binary_plots.calibration_of_outcomes,
        }

    def plots(
        self, labels: np.ndarray, predictions: Mapping[str, np.ndarray]
    ) -> dict[str, "Figure"]:
        """Name → plot of some models' predictions of the same rows."""
        from include.targets import binary_plots

        return {
            "calibration": binary_plots.calibration(labels, predictions),
            "roc": binary_plots.roc(labels, predictions),
        }


def calibration_error(labels: np.ndarray, scores: np.ndarray) -> float:
    """Expected calibration error over bins with equal numbers of rows.

    The mean, over rows, of the distance between the mean score and the observed rate of the row's
    bin (Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, 2015; equal
    bins as in Nixon et al., Measuring Calibration in Deep Learning, 2019).
    """
    inner = np.quantile(scores, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1])
    bins = np.searchsorted(inner, scores, side="right")
    gaps = np.bincount(bins, weights=labels - scores.astype(np.float64))
    return float(np.abs(gaps).sum() / len(labels))
