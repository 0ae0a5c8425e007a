"""Profiles of columns, computed in one pass, and mergeable from days to weeks.

The distribution of a number is a histogram: a value is rounded to nine significant bits, so it is
off by at most 2**-9 of itself (0.2 %), and integers up to 512 are exact. This is DDSketch with its
bitwise, linearly interpolated mapping (Masson, Rim, Lee, DDSketch, VLDB 2019). Merging two
histograms is exact, associative and deterministic. The KLL sketch and the t-digest of the library
datasketches are not, and were slower: 34 and 89 ns per value, compared with 6 ns here, including
the moments.

A text column keeps its `MOST_CATEGORIES` most frequent values; all others are counted in
`Column.others`. A column that ever had more values (ids) is approximate: a count misses the batches
and days in which the value was not among the most frequent.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from include.errors import BadData

MOST_CATEGORIES = 200
LARGEST = float(np.finfo(np.float32).max)
"""Larger numbers, infinities included, count as this one, so every figure is finite."""

MERGED_AT_ONCE = 32
"""Number of batches whose profiles a profiler holds."""

_DROPPED_BITS = 15  # of the 23 of a float32's mantissa
_BINS = 1 << (32 - _DROPPED_BITS)
_NEGATIVE_ZERO = _BINS // 2
_FACTS: dict[str, Any] = {
    "name": pl.String,
    "rows": pl.Int64,
    "nulls": pl.Int64,
    "mean": pl.Float64,
    "squares": pl.Float64,
    "least": pl.Float64,
    "most": pl.Float64,
}
_LISTS: dict[str, Any] = {
    "numbers": pl.List(pl.Float32),
    "categories": pl.List(pl.String),
    "counts": pl.List(pl.Int64),
}


@dataclass(frozen=True)
class Column:
    """One column's profile.

    Attributes:
        nulls: rows without a value, NaN included.
        mean: mean of the values; 0 for text and without values.
        squares: sum of squared deviations from the mean; 0 for text and without values.
        least: the exact minimum; None for text and without values.
        most: the exact maximum; None for text and without values.
        values: distinct values in ascending order: float64, rounded to nine significant bits, or
            `object` for text.
        counts: rows with each value, int64 of the same shape.
    """

    name: str
    rows: int
    nulls: int
    mean: float
    squares: float
    least: float | None
    most: float | None
    values: np.ndarray
    counts: np.ndarray

    @property
    def is_number(self) -> bool:
        """Whether it is numeric instead of text."""
        return self.values.dtype != object

    @property
    def others(self) -> int:
        """Rows whose value is not in `values`; always 0 for numbers."""
        return self.rows - self.nulls - int(self.counts.sum())

    @property
    def null_rate(self) -> float:
        """Share of rows without a value; 0 without rows."""
        return self.nulls / self.rows if self.rows else 0.0

    @property
    def standard_deviation(self) -> float:
        """Population standard deviation (divided by n); 0 without values."""
        return math.sqrt(self.squares / max(self.rows - self.nulls, 1))

    def quantile(self, share: float) -> float | None:
        """The smallest value that `share` of all values do not exceed, off by at most 2**-9.

        None for text and without values.
        """
        if not self.is_number or not len(self.values):
            return None
        return float(self.values[ranks(self.counts, np.array([share]))[0]])


Profile = dict[str, Column]


def ranks(counts: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Indices of the sorted values, with `counts` rows each, at which shares of the rows end."""
    cumulated = np.cumsum(counts)
    found: np.ndarray = np.searchsorted(cumulated, shares * cumulated[-1])
    return np.minimum(found, len(counts) - 1)


def clean(values: pl.Series) -> pl.Series:
    """A column as float64, with null instead of NaN, and numbers limited to `LARGEST`."""
    return values.cast(pl.Float64).fill_nan(None).clip(-LARGEST, LARGEST)


def rounded(values: np.ndarray) -> np.ndarray:
    """Numbers rounded as in a profile: float64 of the same shape and order, with more ties."""
    return _representatives(_bins(values))


def _bins(values: np.ndarray) -> np.ndarray:
    """Bins of finite numbers: float32's bits, rounded to the first bits of the mantissa."""
    bits = values.astype(np.float32).view(np.uint32)
    bits += 1 << (_DROPPED_BITS - 1)
    bits >>= _DROPPED_BITS
    return bits


def _representatives(bins: np.ndarray) -> np.ndarray:
    values = (bins.astype(np.uint32) << _DROPPED_BITS).view(np.float32).astype(np.float64)
    return np.clip(values, -LARGEST, LARGEST) + 0.0  # turns -0.0 into 0.0


def _histogram(tally: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and counts of the bins with rows, from the rows of all bins."""
    tally[0] += tally[_NEGATIVE_ZERO]
    tally[_NEGATIVE_ZERO] = 0
    negative = np.flatnonzero(tally[_NEGATIVE_ZERO:])[::-1] + _NEGATIVE_ZERO
    used = np.concatenate([negative, np.flatnonzero(tally[:_NEGATIVE_ZERO])])
    return _representatives(used), tally[used]


def profile_of(rows: pl.DataFrame) -> Profile:
    """Profile the columns that are numbers, booleans (as 0 and 1) or text, not dates and times."""
    kinds = {name: _is_number(dtype) for name, dtype in rows.schema.items()}
    numbers = [name for name, is_number in kinds.items() if is_number]
    floats = rows.select(pl.col(numbers).cast(pl.Float64))
    moments = floats.select(_moments(name) for name in numbers).row(0) if numbers else ()
    found = dict(zip(numbers, moments, strict=True))
    return {
        name: _of_number(floats[name], found[name]) if is_number else _of_text(rows[name])
        for name, is_number in kinds.items()
        if is_number is not None
    }


def _is_number(dtype: pl.DataType) -> bool | None:
    """True for numbers, False for text, None for other types."""
    if dtype.is_numeric() or dtype in (pl.Boolean, pl.Null):
        return True
    return False if dtype in (pl.String, pl.Categorical, pl.Enum) else None


def _moments(name: str) -> pl.Expr:
    one = pl.col(name)
    return pl.struct(
        one.null_count().alias("nulls"),
        one.mean().alias("mean"),
        one.var(ddof=0).alias("variance"),
        one.min().alias("least"),
        one.max().alias("most"),
    ).alias(name)


def _of_number(values: pl.Series, moments: dict[str, float]) -> Column:
    mean, least, most = (moments[name] for name in ("mean", "least", "most"))
    if mean is not None and not (math.isfinite(mean) and -LARGEST <= least <= most <= LARGEST):
        values = clean(values)
        moments = values.to_frame().select(_moments(values.name)).row(0)[0]
    nulls = int(moments["nulls"])
    tally = np.bincount(_bins(values.drop_nulls().to_numpy()), minlength=_BINS)
    return Column(
        values.name,
        len(values),
        nulls,
        moments["mean"] or 0.0,
        (moments["variance"] or 0.0) * (len(values) - nulls),
        moments["least"],
        moments["most"],
        *_histogram(tally),
    )


def _of_text(values: pl.Series) -> Column:
    text = values.cast(pl.String).alias("value")
    tally = text.drop_nulls().value_counts(name="count")
    return Column(
        values.name, len(values), values.null_count(), 0.0, 0.0, None, None, *_frequent(tally)
    )


def _frequent(tally: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The most frequent values and their counts; ties are broken alphabetically."""
    if len(tally) > MOST_CATEGORIES:
        tally = tally.sort(["count", "value"], descending=[True, False]).head(MOST_CATEGORIES)
    tally = tally.sort("value")
    values = np.array(tally["value"].to_list(), dtype=object)
    return values, tally["count"].to_numpy().astype(np.int64)


class Profiler:
    """Profiles a table in batches, in constant memory."""

    def __init__(self) -> None:
        self._profiles: list[Profile] = []

    def add(self, rows: pl.DataFrame) -> None:
        """Count the rows of a batch; every batch has the same columns."""
        self._profiles.append(profile_of(rows))
        if len(self._profiles) == MERGED_AT_ONCE:
            self._profiles = [self.result()]

    def result(self) -> Profile:
        """The profile of all rows so far."""
        return merge(self._profiles)


def merge(profiles: Iterable[Profile]) -> Profile:
    """The profile of all rows of several profiles, which may have different columns.

    Raises:
        BadData: a column has numbers in one profile and text in another.
    """
    columns: dict[str, list[Column]] = {}
    for profile in profiles:
        for name, column in profile.items():
            columns.setdefault(name, []).append(column)
    return {name: _merged(several) for name, several in columns.items()}


def _merged(columns: list[Column]) -> Column:
    if len(columns) == 1:
        return columns[0]
    valued = [column for column in columns if len(column.values)] or columns[:1]
    name, is_number = columns[0].name, valued[0].is_number
    if any(column.is_number != is_number for column in valued):
        raise BadData(
            f"Column {name!r} has numbers in one profile and text in another, so they cannot be "
            "merged. Fix the data with the wrong type and profile it again."
        )
    rows, nulls = sum(column.rows for column in columns), sum(column.nulls for column in columns)
    values = np.concatenate([column.values for column in valued])
    counts = np.concatenate([column.counts for column in valued])
    if not is_number:
        pairs = pl.DataFrame({"value": pl.Series(values, dtype=pl.String), "count": counts})
        summed = pairs.group_by("value").agg(pl.col("count").sum())
        return Column(name, rows, nulls, 0.0, 0.0, None, None, *_frequent(summed))
    tally = np.zeros(_BINS, np.int64)
    np.add.at(tally, _bins(values), counts)
    # Chan, Golub, LeVeque, Algorithms for Computing the Sample Variance, 1983.
    sizes = np.array([column.rows - column.nulls for column in valued])
    means = np.array([column.mean for column in valued])
    mean = float(sizes @ means / max(sizes.sum(), 1))
    squares = sum(column.squares for column in valued) + float(sizes @ (means - mean) ** 2)
    least = min((column.least for column in valued if column.least is not None), default=None)
    most = max((column.most for column in valued if column.most is not None), default=None)
    return Column(name, rows, nulls, mean, squares, least, most, *_histogram(tally))


def to_frame(profile: Profile) -> pl.DataFrame:
    """A profile as a table with one row per column."""
    columns = profile.values()
    data = {name: [getattr(column, name) for column in columns] for name in _FACTS} | {
        "numbers": [column.values.tolist() if column.is_number else None for column in columns],
        "categories": [None if column.is_number else list(column.values) for column in columns],
        "counts": [column.counts.tolist() for column in columns],
    }
    return pl.DataFrame(data, _FACTS | _LISTS)


def from_frame(frame: pl.DataFrame) -> Profile:
    """The inverse of `to_frame`."""
    facts = frame.select(_FACTS.keys()).iter_rows(named=True)
    lists = zip(*(frame[name] for name in _LISTS), strict=True)
    return {
        about["name"]: Column(
            values=np.array(categories.to_list(), object)
            if numbers is None
            else numbers.to_numpy().astype(np.float64),
            counts=counts.to_numpy(),
            **about,
        )
        for about, (numbers, categories, counts) in zip(facts, lists, strict=True)
    }


def outliers(column: Column, reference: Column) -> int:
    """Values beyond a reference's outer fences, 3 interquartile ranges outside its quartiles.

    Tukey, Exploratory Data Analysis, 1977. If the reference's quartiles are equal, or the column is
    text, there are no outliers.
    """
    low, high = reference.quantile(0.25), reference.quantile(0.75)
    if low is None or high is None or low == high or not column.is_number:
        return 0
    reach = 3 * (high - low)
    beyond = (column.values < low - reach) | (column.values > high + reach)
    return int(column.counts[beyond].sum())
