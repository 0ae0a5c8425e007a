"""What a figure of a target means, for tables, boards and pages."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A figure that a target computes from labels and predictions.

    Attributes:
        title: its name in a sentence.
        unit: what it is counted in: `share` of rows, `ratio` (a number without a unit), or a unit
            such as `nats` or `minutes`.
    """

    title: str
    unit: str

    def text(self, value: float) -> str:
        """A value with its unit."""
        if self.unit == "share":
            return f"{value:.1%}"
        return f"{value:.3f}" if self.unit == "ratio" else f"{value:,.4g} {self.unit}"
