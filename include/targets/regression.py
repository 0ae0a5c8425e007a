"""How much? Labels are numbers, and a prediction is a value with an interval."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import polars as pl

from include.errors import BadData
from include.targets.measures import Measure
from include.wording import listed

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

LOSSES = {
    "absolute": "mean_absolute_error",
    "squared": "mean_squared_error",
    "pinball": "mean_pinball_loss",
}


@dataclass(frozen=True)
class Regression:
    """A target that is a number. Predictions have the shape (rows, 3): value, lower and upper.

    Attributes:
        unit: what the number counts, such as `minutes`.
        error: the loss of a row: `absolute`, `squared` or `pinball`.
        quantile: the quantile that the pinball loss asks for, between 0 and 1.
        interval: share of rows that the interval should cover, between 0 and 1.
        log: whether models are fitted on log(1 + label), for numbers that vary by factors.
        least: the least honest prediction.
        most: the greatest honest prediction.
    """

    unit: str
    error: Literal["absolute", "squared", "pinball"] = "absolute"
    quantile: float = 0.5
    interval: float = 0.8
    log: bool = False
    least: float = -np.inf
    most: float = np.inf

    columns: ClassVar[tuple[str, ...]] = ("value", "lower", "upper")
    watched: ClassVar[tuple[str, ...]] = ("value",)
    other_columns: ClassVar[dict[str, "pa.DataType"]] = {}
    output: ClassVar[str] = "prediction"
    calibration: ClassVar[str] = "coverage_error"
    headline: ClassVar[str] = "mean_absolute_error"
    baseline_name: ClassVar[str] = "baseline"
    trusted_types: ClassVar[list[str]] = ["include.intervals.IntervalPipeline"]
    calibrates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse what could never work."""
        if self.unit in ("", "share", "ratio"):
            raise ValueError(f"Regression: unit is {self.unit!r}, and says what numbers count")
        if self.error not in LOSSES:
            raise ValueError(f"Regression: error is {self.error!r}, not {' or '.join(LOSSES)}")
        for what in ("quantile", "interval"):
            if not 0 < getattr(self, what) < 1:
                raise ValueError(
                    f"Regression: {what} is {getattr(self, what)}, not between 0 and 1"
                )
        if not self.least < self.most:
            raise ValueError(f"Regression: least is {self.least}, not below most, {self.most}")
        if self.log and self.least < 0:
            raise ValueError("Regression: log needs numbers of 0 or more: set least=0")

    @property
    def name(self) -> str:
        """The kind of target, and what models have to agree on."""
        share = f" at {self.quantile:g}" if self.error == "pinball" else ""
        log = ", logarithmic" if self.log else ""
        return f"regression in {self.unit} ({self.error} error{share}, {self.interval:.0%}{log})"

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest honest prediction."""
        return self.least, self.most

    @property
    def axis(self) -> str:
        """What a value is, with its unit."""
        return f"Prediction, {self.unit}"

    @property
    def loss(self) -> str:
        """The figure that is the mean loss of a row."""
        return LOSSES[self.error]

    @property
    def measures(self) -> dict[str, Measure]:
        """Figure → what it means."""
        own = {
            "absolute": {},
            "squared": {"mean_squared_error": Measure("squared error", f"{self.unit}²")},
            "pinball": {
                "mean_pinball_loss": Measure(f"pinball loss at {self.quantile:g}", self.unit)
            },
        }
        return {
            **own[self.error],
            "mean_absolute_error": Measure("absolute error", self.unit),
            "root_mean_squared_error": Measure("root mean squared error", self.unit),
            "r2": Measure("R²", "ratio"),
            "bias": Measure("bias", self.unit),
            "coverage": Measure(f"coverage of the {self.interval:.0%} interval", "share"),
            "coverage_error": Measure("coverage error", "share"),
            "interval_width": Measure("width of the interval", self.unit),
        }

    @property
    def _share(self) -> float | None:
        """The quantile of labels that the loss asks for; None if it asks for their mean."""
        return {"absolute": 0.5, "squared": None, "pinball": self.quantile}[self.error]

    def wrong_labels(self, labels: pl.Series) -> str:
        """What is wrong with labels; empty if nothing is."""
        if labels.dtype not in (pl.Float32, pl.Float64) or labels.null_count():
            nulls = f" with {labels.null_count()} nulls" if labels.null_count() else ""
            return f"has to be Float64, and never null: it is {labels.dtype}{nulls}"
        strange = labels.filter(~self.possible(labels)).unique()
        if len(strange):
            bounds = f" of {self.least:g} or more" if np.isfinite(self.least) else ""
            if np.isfinite(self.most):
                bounds = (
                    f" from {self.least:g} to {self.most:g}"
                    if bounds
                    else (f" of {self.most:g} or less")
                )
            return f"has to be a finite number{bounds}: there are {listed(sorted(strange), 5)}, too"
        return ""

    def possible(self, labels: pl.Series) -> pl.Series:
        """Which labels are finite numbers within the bounds."""
        numbers = labels.cast(pl.Float64, strict=False)
        within = numbers.is_finite() & (numbers >= self.least) & (numbers <= self.most)
        return within.fill_null(False)

    def codes(self, labels: pl.Series) -> pl.Series:
        """Labels as the library computes with them."""
        return labels.cast(pl.Float64)

    def describe(self, labels: np.ndarray) -> dict[str, Any]:
        """Number, mean and quantiles of labels."""
        if not len(labels):
            return {"rows": 0}
        low, high = (1 - self.interval) / 2, (1 + self.interval) / 2
        least, lower, median, own, upper, most = np.quantile(
            labels, [0, low, 0.5, self.quantile, high, 1]
        ).tolist()
        return {
            "rows": len(labels), "mean": float(np.mean(labels)), "median": median, "quantile": own,
            "lower": lower, "upper": upper, "least": least, "most": most,
        }  # fmt: skip

    def lacking(self, described: Mapping[str, Any], training: bool = True) -> str:  # noqa: ARG002
        """What labels lack that a model could learn from; empty if nothing."""
        if not described["rows"]:
            return "no labelled row"
        if described["least"] == described["most"]:
            return f"only the label {described['least']:g} in {described['rows']} rows"
        return ""

    def baseline(self, described: Iterable[Mapping[str, Any]]) -> np.ndarray:
        """The prediction for every row that knows nothing but some labels.

        It is what the loss asks for: their median, mean or quantile, with the quantiles of the
        interval. Of several results of `describe`, it is the mean, weighted by their rows.

        Returns:
            A prediction of shape (3,).
        """
        centre = {"absolute": "median", "squared": "mean", "pinball": "quantile"}[self.error]
        known = [one for one in described if one["rows"]]
        weights = [one["rows"] for one in known]
        value, lower, upper = (
            float(np.average([one[name] for one in known], weights=weights))
            for name in (centre, "lower", "upper")
        )
        return np.array([value, min(value, lower), max(value, upper)])

    def wrong_model(self, pipeline: Any) -> str:
        """Why a pipeline cannot answer; empty if it can."""
        if hasattr(pipeline, "predict") and not hasattr(pipeline, "predict_proba"):
            return ""
        return "is no regressor, and has to predict a number"

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """Labels as models are fitted on them."""
        return np.log1p(labels) if self.log else labels

    def finish(self, pipeline: Any, unseen: pl.DataFrame) -> Any:
        """Give a fitted pipeline its interval.

        Args:
            unseen: rows with features and label that it was not fitted on.
        """
        from include.intervals import IntervalPipeline

        whole = IntervalPipeline(
            pipeline.steps, share=self.interval, log=self.log, least=self.least, most=self.most
        )
        if len(unseen) < whole.least_rows:
            raise BadData(
                f"An interval of {self.interval:.0%} needs {whole.least_rows} rows that the model "
                f"has not seen, and there are {len(unseen)}. No model was kept; choose a longer "
                "window or holdout."
            )
        return whole.calibrate(unseen, unseen["label"].to_numpy())

    def predict(self, pipeline: Any, rows: Any) -> np.ndarray:
        """Value, lower and upper of each row; NaN for the bounds if the model has no interval."""
        from include.intervals import IntervalPipeline

        found = np.asarray(pipeline.predict(rows), dtype=np.float64)
        if isinstance(pipeline, IntervalPipeline):
            return found
        found = np.expm1(found) if self.log else found
        found = np.clip(found.reshape(len(found), -1), self.least, self.most)
        if found.shape[1] == 3:  # quantiles that were not calibrated
            return np.sort(found, axis=1)[:, [1, 0, 2]]
        if found.shape[1] != 1:
            raise BadData(
                f"The model predicts {found.shape[1]} numbers a row, and has to predict one or "
                "three quantiles. Nothing was scored; change models.py."
            )
        nothing = np.full(len(found), np.nan)
        return np.column_stack([found[:, 0], nothing, nothing])

    def wrong(self, predictions: np.ndarray) -> str:
        """What is wrong with predictions; empty if nothing is."""
        if predictions.shape[1:] != (3,):
            return f"predictions have the shape {predictions.shape}, not value, lower and upper"
        value, lower, upper = predictions.astype(np.float32).T  # as they are published
        least, most = np.float32(self.least), np.float32(self.most)
        given = predictions.astype(np.float32)
        outside = ((given < least) | (given > most) | np.isinf(given)).any(axis=1)
        if wrong := int((outside | np.isnan(value)).sum()):
            bounded = np.isfinite(self.range).any()
            bounds = f"outside {self.least:g} to {self.most:g}" if bounded else "infinite"
            return f"{wrong} of {len(value)} predictions are NaN or {bounds}"
        if wrong := int((np.isnan(lower) != np.isnan(upper)).sum()):
            return f"{wrong} of {len(value)} intervals have only one end"
        if wrong := int(((lower > value) | (upper < value)).sum()):
            return f"{wrong} of {len(value)} predictions are outside their own interval"
        return ""

    def others(self, predictions: np.ndarray) -> dict[str, "pa.Array"]:  # noqa: ARG002
        """Nothing is published beside value and interval."""
        return {}

    def explained(self, predictions: np.ndarray, outputs: np.ndarray) -> np.ndarray:  # noqa: ARG002
        """The output of a model that each value follows: the middle one of three quantiles."""
        middle: np.ndarray = np.argsort(outputs, axis=1, kind="stable")[:, outputs.shape[1] // 2]
        return middle

    def combine(
        self, predictions: Mapping[str, np.ndarray], shares: Mapping[str, float]
    ) -> np.ndarray:
        """The weighted average of values and of bounds.

        A model without bounds moves the average's interval with its value. The average of
        intervals has no guaranteed coverage: it covers as often as its models agree.
        """
        total = np.zeros((3, len(next(iter(predictions.values())))))
        weights = np.zeros_like(total)
        for name in sorted(predictions):  # a sum of floats depends on its order
            columns = predictions[name].T.astype(np.float64)
            known = ~np.isnan(columns)
            total += np.where(known, shares[name] * columns, 0)
            weights += np.where(known, shares[name], 0)
        with np.errstate(invalid="ignore"):
            value, lower, upper = total / weights
            bounded = sum(
                shares[name] * np.where(np.isnan(own[:, 1]), 0, own[:, 0].astype(np.float64))
                for name, own in sorted(predictions.items())
            )
            moved = value - bounded / weights[1]
        lower, upper = (np.clip(end + moved, self.least, self.most) for end in (lower, upper))
        return np.column_stack([value, np.minimum(lower, value), np.maximum(upper, value)]).astype(
            np.float32
        )

    def from_output(self, values: np.ndarray, rows: int) -> np.ndarray:
        """Predictions from a model server's tensor: a number a row, or value, lower and upper.

        Raises:
            ValueError: it has another shape.
        """
        if values.shape == (rows, 3):
            return values.astype(np.float32)
        if values.shape not in ((rows,), (rows, 1)):
            raise ValueError(f"has the shape {values.shape} for {rows} rows")
        nothing = np.full(rows, np.nan, np.float32)
        return np.column_stack([values.reshape(rows).astype(np.float32), nothing, nothing])

    def losses(self, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """The loss of each row, of shape (rows,)."""
        errors = labels.astype(np.float64) - predictions[:, 0]
        if self.error == "squared":
            return errors**2
        if self.error == "pinball":  # Koenker and Bassett, Regression Quantiles, 1978
            return np.maximum(self.quantile * errors, (self.quantile - 1) * errors)
        return np.abs(errors)

    def expected_losses(self, predictions: np.ndarray) -> np.ndarray:
        """The loss to be expected of each row, from the width of its interval.

        As if errors were normal; what they are instead is corrected by the holdout
        (`monitoring.measure`). NaN without an interval.
        """
        from scipy.stats import norm

        _, lower, upper = predictions.astype(np.float64).T
        deviation = (upper - lower) / (2 * norm.ppf((1 + self.interval) / 2))
        if self.error == "squared":
            return np.asarray(deviation**2)
        share = self.quantile if self.error == "pinball" else 0.5
        scale = norm.pdf(norm.ppf(share)) * (1 if self.error == "pinball" else 2)
        return np.asarray(scale * deviation)

    def figures(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, Any]:
        """Metrics of predictions; None if the rows do not define one.

        Returns:
            `rows`; `mean_label` and `mean_prediction`; the mean loss and other errors, named as in
            scikit-learn; `bias`, the mean of prediction - label; `coverage`, the share of labels
            inside their interval; `coverage_error`, its distance from `interval`;
            `interval_width`, the mean.
        """
        from sklearn.metrics import r2_score

        value, lower, upper = predictions.astype(np.float64).T
        known = ~np.isnan(lower)
        covered = (
            float(((labels >= lower) & (labels <= upper))[known].mean()) if known.any() else None
        )
        errors = value - labels
        varies = len(labels) > 1 and labels.min() < labels.max()
        return {
            "rows": len(labels),
            "mean_label": float(labels.mean()),
            "mean_prediction": float(value.mean()),
            self.loss: float(self.losses(labels, predictions).mean()),
            "mean_absolute_error": float(np.abs(errors).mean()),
            "root_mean_squared_error": float(np.sqrt((errors**2).mean())),
            "r2": float(r2_score(labels, value)) if varies else None,
            "bias": float(errors.mean()),
            "coverage": covered,
            "coverage_error": None if covered is None else abs(covered - self.interval),
            "interval_width": float((upper - lower)[known].mean()) if known.any() else None,
        }

    def plots(
        self, labels: np.ndarray, predictions: Mapping[str, np.ndarray]
    ) -> dict[str, "Figure"]:
        """Name → plot of some models' predictions of the same rows."""
        from include.targets import regression_plots

        drawn = {
            "errors": regression_plots.errors(labels, predictions, self.unit),
            "calibration": regression_plots.calibration(
                labels, predictions, self.unit, self._share
            ),
            "coverage": regression_plots.coverage(labels, predictions, self.interval, self.unit),
        }
        return {name: plot for name, plot in drawn.items() if not isinstance(plot, str)}

    def outcome_plots(
        self,
    ) -> dict[str, Callable[[np.ndarray, Mapping[str, np.ndarray]], "Figure | str"]]:
        """Title → function that draws predictions whose truth is known."""
        from functools import partial

        from include.targets import regression_plots

        return {
            "Errors": partial(regression_plots.errors, unit=self.unit),
            "Calibration": partial(regression_plots.calibration, unit=self.unit, share=self._share),
            "Coverage": partial(regression_plots.coverage, interval=self.interval, unit=self.unit),
        }
