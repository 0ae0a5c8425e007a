"""Which one of several? Labels are classes, and a prediction is a probability of each."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import polars as pl

from include.targets.binary import LEAST_PROBABILITY, calibration_error
from include.targets.measures import Measure
from include.wording import listed

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

TOLERANCE = 1e-3
"""How far the sum of a row's probabilities may be from 1."""


@dataclass(frozen=True)
class Multiclass:
    """A target of several classes. Predictions have the shape (rows, classes).

    The library computes with the classes' positions in `classes`; labels are their names. Costs
    choose which class is published, not what models learn: the numbers stay probabilities.

    Attributes:
        classes: names of the classes, at least three.
        costs: class → what it costs to take one of its rows for another class; 1 for the others.
            With them, the cost per row is a figure.
    """

    classes: Sequence[str]
    costs: Mapping[str, float] = field(default_factory=dict)

    range: ClassVar[tuple[float, float]] = (0, 1)
    output: ClassVar[str] = "probabilities"
    unit: ClassVar[str] = "probability"
    loss: ClassVar[str] = "log_loss"
    calibration: ClassVar[str] = "calibration_error"
    headline: ClassVar[str] = "accuracy"
    baseline_name: ClassVar[str] = "class shares"
    trusted_types: ClassVar[list[str]] = []
    calibrates: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse what could never work."""
        names = [] if isinstance(self.classes, str) else list(self.classes)
        if len(names) < 3 or len(set(names)) < len(names):
            raise ValueError(
                f"Multiclass: {listed(names) or 'no classes'}: name three different ones or more; "
                "for two classes use Binary"
            )
        if wrong := [name for name in names if not re.fullmatch(r"[A-Za-z]\w*", str(name), re.A)]:
            raise ValueError(
                f"Multiclass: {listed(map(repr, wrong))}: a class becomes part of a column's name, "
                "and must be letters, digits and underscores, beginning with a letter"
            )
        if unknown := sorted(set(self.costs) - set(names)):
            raise ValueError(
                f"Multiclass: costs names {listed(unknown)}, not one of {listed(names)}"
            )
        if wrong := [name for name, cost in self.costs.items() if not 0 < cost < np.inf]:
            raise ValueError(f"Multiclass: the cost of {listed(wrong)} is not a number above 0")

    @property
    def name(self) -> str:
        """The kind of target, and what models have to agree on."""
        return f"multiclass of {', '.join(self.classes)}"

    @property
    def columns(self) -> tuple[str, ...]:
        """The probability of each class."""
        return tuple(f"probability_{name}" for name in self.classes)

    @property
    def watched(self) -> tuple[str, ...]:
        """All of them."""
        return self.columns

    @property
    def other_columns(self) -> dict[str, "pa.DataType"]:
        """The class to act on: the most probable one, or that which costs least."""
        import pyarrow as pa

        return {"class": pa.dictionary(pa.int16(), pa.string())}

    @property
    def axis(self) -> str:
        """What the first column is."""
        return f"Probability of {self.classes[0]}"

    @property
    def measures(self) -> dict[str, Measure]:
        """Figure → what it means."""
        decided = {"cost": Measure("cost", "per row")} if self.costs else {}
        return {
            "log_loss": Measure("log-loss", "nats"),
            **decided,
            "accuracy": Measure("accuracy", "share"),
            "balanced_accuracy": Measure("balanced accuracy", "share"),
            "roc_auc": Measure("AUC, one class against the rest", "ratio"),
            "brier": Measure("Brier score", "ratio"),
            "calibration_error": Measure("calibration error", "share"),
        }

    def wrong_labels(self, labels: pl.Series) -> str:
        """What is wrong with labels; empty if nothing is."""
        if labels.dtype != pl.String or labels.null_count():
            nulls = f" with {labels.null_count()} nulls" if labels.null_count() else ""
            return f"has to be String, and never null: it is {labels.dtype}{nulls}"
        if strange := sorted(set(labels.unique()) - set(self.classes)):
            return f"has to be one of {listed(self.classes)}: there are {listed(strange, 5)}, too"
        return ""

    def possible(self, labels: pl.Series) -> pl.Series:
        """Which labels are one of the classes."""
        return labels.cast(pl.String, strict=False).is_in(list(self.classes)).fill_null(False)

    def codes(self, labels: pl.Series) -> pl.Series:
        """The positions of labels in `classes`."""
        return labels.replace_strict(
            list(self.classes), range(len(self.classes)), return_dtype=pl.Int16
        )

    def describe(self, labels: np.ndarray) -> dict[str, Any]:
        """The number of rows of each class."""
        counts = np.bincount(labels.astype(np.int64), minlength=len(self.classes))
        return dict(zip(self.classes, counts.tolist(), strict=True))

    def lacking(self, described: Mapping[str, Any], training: bool = True) -> str:
        """What labels lack that a model could learn from, or be judged on; empty if nothing.

        Args:
            training: whether a model learns from them; then every class must be there.
        """
        missing = [name for name in self.classes if not described[name]]
        if len(missing) == len(self.classes):
            return "no labelled row"
        if len(missing) == len(self.classes) - 1:
            return "only one class"
        return f"no row of {listed(missing)}" if missing and training else ""

    def baseline(self, described: Iterable[Mapping[str, Any]]) -> np.ndarray:
        """The prediction for every row that knows nothing but some labels: their shares.

        Returns:
            A prediction of shape (classes,).
        """
        known = list(described)
        counts = np.array([sum(one[name] for one in known) for name in self.classes], float)
        return np.asarray(counts / counts.sum())

    def wrong_model(self, pipeline: Any) -> str:
        """Why a pipeline cannot answer; empty if it can."""
        if not hasattr(pipeline, "predict_proba"):
            return "has no predict_proba, and has to give the probability of each class"
        known = getattr(pipeline, "classes_", range(len(self.classes)))
        if not set(known) <= set(range(len(self.classes))):
            return f"knows the classes {listed(known)}, and not positions in {listed(self.classes)}"
        return ""

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """Labels as models are fitted on them."""
        return labels

    def finish(self, pipeline: Any, unseen: pl.DataFrame) -> Any:  # noqa: ARG002
        """A fitted pipeline that answers: it does already."""
        return pipeline

    def predict(self, pipeline: Any, rows: Any) -> np.ndarray:
        """The probability of each class, in the order of `classes`."""
        given = pipeline.predict_proba(rows)
        found = np.zeros((len(given), len(self.classes)))
        found[:, np.asarray(pipeline.classes_, dtype=int)] = given
        return found

    def wrong(self, predictions: np.ndarray) -> str:
        """What is wrong with predictions; empty if nothing is."""
        if predictions.shape[1:] != (len(self.classes),):
            return f"predictions have the shape {predictions.shape}: a column for each class is due"
        if wrong := int((~((predictions >= 0) & (predictions <= 1))).any(axis=1).sum()):
            what = "a probability that is missing, NaN or outside 0 to 1"
            return f"{wrong} of {len(predictions)} rows have {what}"
        sums = predictions.astype(np.float64).sum(axis=1)
        if wrong := int((np.abs(sums - 1) > TOLERANCE).sum()):
            return f"the probabilities of {wrong} of {len(predictions)} rows do not sum to 1"
        return ""

    def others(self, predictions: np.ndarray) -> dict[str, "pa.Array"]:
        """The class of each row."""
        import pyarrow as pa

        places = self._decided(predictions).astype(np.int16)
        return {"class": pa.DictionaryArray.from_arrays(places, pa.array(list(self.classes)))}

    def explained(self, predictions: np.ndarray, outputs: np.ndarray) -> np.ndarray:  # noqa: ARG002
        """The output of a model that each prediction follows: that of the published class."""
        return self._decided(predictions)

    def _decided(self, predictions: np.ndarray) -> np.ndarray:
        """The class of each row with the lowest expected cost.

        A wrong class costs as much as the true one is worth, so it is the class with the greatest
        product of probability and cost.
        """
        decided: np.ndarray = (predictions * self._weights).argmax(axis=1)
        return decided

    @property
    def _weights(self) -> np.ndarray:
        return np.array([self.costs.get(name, 1.0) for name in self.classes], np.float32)

    def combine(
        self, predictions: Mapping[str, np.ndarray], shares: Mapping[str, float]
    ) -> np.ndarray:
        """The weighted average (a linear opinion pool; Stone, 1961)."""
        # Sorted by name, because a sum of floats depends on its order.
        average = sum(
            shares[name] * predictions[name].astype(float) for name in sorted(predictions)
        )
        clipped = np.clip(np.asarray(average), 0, 1)
        return (clipped / clipped.sum(axis=1, keepdims=True)).astype(np.float32)

    def from_output(self, values: np.ndarray, rows: int) -> np.ndarray:
        """Predictions from a model server's tensor: a probability of each class, in their order.

        Raises:
            ValueError: it has another shape.
        """
        if values.shape != (rows, len(self.classes)):
            raise ValueError(
                f"has the shape {values.shape} for {rows} rows and {len(self.classes)} classes"
            )
        return values.astype(np.float32)

    def losses(self, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Log-loss of each row in nats, of shape (rows,)."""
        places = labels.astype(np.int64)
        likely = predictions[np.arange(len(places)), places].astype(np.float64)
        return -np.log(np.clip(likely, LEAST_PROBABILITY, 1))

    def expected_losses(self, predictions: np.ndarray) -> np.ndarray:
        """The loss to be expected of each row if its probabilities are right."""
        likely = np.clip(predictions.astype(np.float64), LEAST_PROBABILITY, 1)
        found: np.ndarray = -(likely * np.log(likely)).sum(axis=1)
        return found

    def figures(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, Any]:
        """Metrics of predictions; None if they need several classes and the rows have one.

        Returns:
            `rows`; `log_loss` in nats per row; `accuracy`, `balanced_accuracy` and, if costs are
            known, mean `cost` of the published class; `roc_auc`, the mean of each class against the
            rest, of classes that are there; `calibration_error`, how far the probability of the
            most probable class is from how often it is right (Guo et al., On Calibration of Modern
            Neural Networks, 2017); `brier`, the squared error summed over classes.
        """
        from sklearn.metrics import recall_score, roc_auc_score

        places, chosen = labels.astype(np.int64), self._decided(predictions)
        truth = np.eye(len(self.classes))[places]
        there = [place for place in np.unique(places) if not (places == place).all()]
        probabilities = predictions.astype(np.float64)
        aucs = [roc_auc_score(truth[:, place], probabilities[:, place]) for place in there]
        likely = probabilities.argmax(axis=1)
        confidence = probabilities[np.arange(len(places)), likely]
        return {
            "rows": len(labels),
            "log_loss": float(self.losses(labels, predictions).mean()),
            "accuracy": float((chosen == places).mean()),
            "balanced_accuracy": (
                float(recall_score(places, chosen, labels=there, average="macro"))
                if len(there) > 1
                else None
            ),
            "roc_auc": float(np.mean(aucs)) if aucs else None,
            "brier": float(((truth - probabilities) ** 2).sum(axis=1).mean()),
            "calibration_error": calibration_error(places == likely, confidence),
            **(
                {"cost": float(((chosen != places) * self._weights[places]).mean())}
                if self.costs
                else {}
            ),
        }

    def plots(
        self, labels: np.ndarray, predictions: Mapping[str, np.ndarray]
    ) -> dict[str, "Figure"]:
        """Name → plot of some models' predictions of the same rows."""
        return {name: draw(labels, predictions) for name, draw in self._drawn().items()}

    def outcome_plots(
        self,
    ) -> dict[str, Callable[[np.ndarray, Mapping[str, np.ndarray]], "Figure | str"]]:
        """Title → function that draws predictions whose truth is known."""
        return {name.capitalize(): draw for name, draw in self._drawn().items()}

    def _drawn(self) -> dict[str, Callable[[np.ndarray, Mapping[str, np.ndarray]], Any]]:
        from functools import partial

        from include.targets import multiclass_plots

        classes = list(self.classes)
        return {
            "confusion": partial(multiclass_plots.confusion, classes=classes, decide=self._decided),
            "calibration": partial(multiclass_plots.calibration, classes=classes),
        }
