"""How far apart two samples of a column are: effect sizes, compared with chance.

The same code handles raw samples and profiles. A profile rounds values but keeps their order:
Kolmogorov–Smirnov is off by at most the share of the fullest bin of either side, Wasserstein by at
most 2**-9 of the sum of both sides' mean absolute value (and the 2**-24 of float32), and the
figures on bins (PSI, Jensen–Shannon, chi-square) are exact for the rounded values.

What a window of n rows can show is limited by chance. The PSI that two samples of one distribution
stay under in 99 % of cases, with ten bins against 25,000 rows: 2.2 for 10 rows, .22 for 100, .025
for 900, .0043 for 6,300, .0017 for 25,000 (`psi_by_chance`). This assumes independent rows. Rows of
one day are not independent, so a day is judged by how much earlier days varied (`family_wise`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import polars as pl
from scipy.special import chdtri, rel_entr

from include.errors import BadData
from include.statistics.profile import Column, clean, ranks, rounded

TOP = 12
"""Number of categories with their own bin."""

DECILES = np.arange(1, 10)
CHANCE = 0.01


@dataclass(frozen=True)
class Distribution:
    """The values of a sample.

    Attributes:
        values: in ascending order, rarely with duplicates: float64, or `object` for text.
        counts: rows per value, int64 of the same shape.
        nulls: rows without a value.
        others: rows whose text is not in `values`.
        is_rounded: whether numbers are rounded as in a profile.
    """

    values: np.ndarray
    counts: np.ndarray
    nulls: int
    others: int = 0
    is_rounded: bool = False

    @property
    def is_number(self) -> bool:
        """Whether it has numbers instead of text."""
        return self.values.dtype != object

    @property
    def rows(self) -> int:
        """All rows, with and without a value."""
        return int(self.counts.sum()) + self.nulls + self.others


@dataclass(frozen=True)
class Drift:
    """How far a sample is from its reference; None if there is nothing to compare.

    Attributes:
        psi: population stability index; 0 is equal, no upper limit.
        jensen_shannon: distance, 0 (equal) to 1 (nothing in common).
        kolmogorov_smirnov: largest distance of the cumulative shares, 0 to 1; None for text.
        wasserstein: mean distance by which values have moved, in the column's units; None for text.
        chi_square: statistic of the two samples' counts in the same bins.
        psi_by_chance: bound that `psi` stays under in 99 % of cases if nothing has changed and
            rows are independent.
    """

    psi: float | None
    jensen_shannon: float | None
    kolmogorov_smirnov: float | None
    wasserstein: float | None
    chi_square: float | None
    rows: int
    reference_rows: int
    psi_by_chance: float | None


def distribution(values: pl.Series) -> Distribution:
    """The exact distribution of numbers, booleans (as 0 and 1) or text; NaN is null.

    Numbers beyond float32, infinities included, count as its largest: every figure is finite.
    """
    if values.dtype in (pl.String, pl.Categorical, pl.Enum):
        text = values.cast(pl.String).alias("value").drop_nulls()
        tally = text.value_counts(name="count").sort("value")
        names = np.array(tally["value"].to_list(), dtype=object)
        return Distribution(names, tally["count"].to_numpy().astype(np.int64), values.null_count())
    runs = values.cast(pl.Float64).sort().rle().struct
    tally = pl.DataFrame({"value": clean(runs.field("value")), "count": runs.field("len")})
    tally = tally.drop_nulls()
    counts = tally["count"].to_numpy().astype(np.int64)
    return Distribution(tally["value"].to_numpy(), counts, len(values) - int(counts.sum()))


def of_column(column: Column) -> Distribution:
    """The distribution in a profile."""
    return Distribution(column.values, column.counts, column.nulls, column.others, column.is_number)


def compare(reference: Distribution, current: Distribution) -> Drift:
    """How far a sample is from its reference; if one is from a profile, the other is rounded too.

    Raises:
        BadData: one has numbers and the other text.
    """
    if len(reference.values) and len(current.values) and reference.is_number != current.is_number:
        raise BadData("A column of numbers has no distance to a column of text. Fix its type.")
    if reference.is_rounded != current.is_rounded:
        reference, current = _rounded(reference), _rounded(current)
    rows, reference_rows = current.rows, reference.rows
    if not rows or not reference_rows:
        return Drift(None, None, None, None, None, rows, reference_rows, None)
    expected, found = binned(reference, current)
    return Drift(
        population_stability(expected, found),
        jensen_shannon(expected, found),
        *_distances(reference, current),
        chi_square(expected, found),
        rows,
        reference_rows,
        psi_by_chance(rows, reference_rows, len(expected)),
    )


def _rounded(sample: Distribution) -> Distribution:
    return replace(sample, values=rounded(sample.values)) if sample.is_number else sample


def binned(reference: Distribution, current: Distribution) -> tuple[np.ndarray, np.ndarray]:
    """Rows of both per bin, for bins with any rows, of shape (bins,) each.

    Numbers: between the reference's deciles, upper end included; if the first decile is the
    minimum, smaller values have their own bin. Text: the reference's `TOP` most frequent values,
    its other ones, and those that it never had; if a profile has shortened the reference's list,
    values that are not on it count as others. Nulls have a bin, too.
    """
    is_number = reference.is_number if len(reference.values) else current.is_number
    counts = _number_counts if is_number else _text_counts
    pair = [counts(reference, side) for side in (reference, current)]
    expected, found = (np.array([*bins, side.nulls], np.int64)
                       for bins, side in zip(pair, (reference, current), strict=True))  # fmt: skip
    either = expected + found > 0
    return expected[either], found[either]


def edges(reference: Distribution) -> np.ndarray:
    """Bin edges of a numeric reference: a bin is above one edge, up to and including the next."""
    if not len(reference.values):
        return np.array([])
    deciles = np.unique(reference.values[ranks(reference.counts, DECILES / 10)])
    if deciles[0] > reference.values[0]:
        return deciles
    return np.concatenate([[np.nextafter(deciles[0], -np.inf)], deciles])


def _number_counts(reference: Distribution, side: Distribution) -> list[int]:
    if not len(side.values):
        return [0] * (len(edges(reference)) + 1)
    cuts = np.searchsorted(side.values, edges(reference), side="right")
    return [int(side.counts[a:b].sum()) for a, b in pairwise([0, *cuts, len(side.values)])]


def _text_counts(reference: Distribution, side: Distribution) -> list[int]:
    known = set(reference.values)
    order = np.argsort(-reference.counts, kind="stable")
    top = {reference.values[place]: number for number, place in enumerate(order[:TOP])}
    bins = np.zeros(TOP + 2, np.int64)
    never_seen = TOP if reference.others else TOP + 1
    for value, count in zip(side.values, side.counts, strict=True):
        bins[top.get(value, TOP if value in known else never_seen)] += count
    bins[TOP if side is reference else never_seen] += side.others
    return list(bins)


def population_stability(expected: np.ndarray, found: np.ndarray) -> float:
    """Population stability index of counts in the same bins (Siddiqi, 2006)."""
    return stability_of(*(smoothed(counts) for counts in (found, expected)))


def smoothed(counts: np.ndarray) -> np.ndarray:
    """Shares of counts, with half a row added to each, so that empty bins give finite results."""
    shares: np.ndarray = (counts + 0.5) / (counts + 0.5).sum()
    return shares


def stability_of(shares: np.ndarray, expected: np.ndarray) -> float:
    """The population stability index of shares: the sum over bins of (p - q) ln(p / q).

    Siddiqi, Credit Risk Scorecards, 2006.
    """
    return float(((shares - expected) * np.log(shares / expected)).sum())


def jensen_shannon(expected: np.ndarray, found: np.ndarray) -> float:
    """Jensen–Shannon distance of counts in the same bins, to base 2 (Endres, Schindelin, 2003)."""
    p, q = expected / expected.sum(), found / found.sum()
    mean = (p + q) / 2
    divergence = (rel_entr(p, mean).sum() + rel_entr(q, mean).sum()) / 2 / np.log(2)
    return float(np.sqrt(np.clip(divergence, 0, 1)))


def chi_square(expected: np.ndarray, found: np.ndarray) -> float:
    """Pearson's statistic of the table of two samples' counts in the same bins."""
    table = np.array([expected, found], np.float64)
    independent = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return float(((table - independent) ** 2 / independent).sum())


def psi_by_chance(rows: int, reference_rows: int, bins: int) -> float:
    """Bound that the PSI of two samples of one distribution stays under in 99 % of cases.

    chi2.ppf(.99, bins - 1) (1 / n + 1 / m), Yurdakul, Statistical Properties of Population
    Stability Index, 2018. 0 with one bin.
    """
    quantile = chdtri(bins - 1, CHANCE) if bins > 1 else 0.0
    return float(quantile * (1 / rows + 1 / reference_rows))


def _distances(one: Distribution, other: Distribution) -> tuple[float | None, float | None]:
    """Kolmogorov–Smirnov and Wasserstein distance; None unless both sides have numbers.

    The largest gap between the cumulative shares, and the area between them (Vallender, 1974). The
    smaller sample is merged into the larger, so that gaps are whole numbers of 1 / (n m).
    """
    if not len(one.values) or not len(other.values) or not one.is_number:
        return None, None
    few, many = sorted((one, other), key=lambda side: len(side.values))
    size = len(few.values) + len(many.values)
    places = np.searchsorted(many.values, few.values) + np.arange(len(few.values))
    of_many = np.ones(size, bool)
    of_many[places] = False
    values, gaps = np.empty(size), np.empty(size, np.int64)
    values[places], values[of_many] = few.values, many.values
    few_rows, many_rows = int(few.counts.sum()), int(many.counts.sum())
    gaps[places], gaps[of_many] = few.counts * many_rows, -few_rows * many.counts
    gaps = np.abs(np.cumsum(gaps, out=gaps), out=gaps)[:-1]
    widths = np.diff(values)
    whole = few_rows * many_rows
    return int(np.max(gaps[widths > 0], initial=0)) / whole, float(gaps @ widths / whole)


def family_wise(
    today: Mapping[str, float], earlier: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """P-values corrected for testing all features: how rare is today's value as a day's largest?

    Single-step maxT of Westfall and Young, Resampling-Based Multiple Testing, 1993, with earlier
    days as the resamples: (1 + days whose largest value is at least as large) / (1 + days).

    Args:
        today: feature → its drift, in units of its own threshold.
        earlier: the same for each earlier day.
    """
    largest = np.array([max(day.values(), default=-np.inf) for day in earlier])
    return {
        name: (1 + int((largest >= value).sum())) / (1 + len(largest))
        for name, value in today.items()
    }
