"""Drift: the figures are SciPy's, a profile's as near as promised, and bad samples have some."""

import math
from dataclasses import asdict

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import special, stats
from scipy.spatial import distance

from include.errors import BadData
from include.inference import scoring
from include.statistics import drift, profile
from include.statistics.drift import Distribution, Drift, compare, distribution, of_column
from tests.case import CASE

RANDOM = np.random.default_rng(3)
REFERENCE = RANDOM.gamma(2, 20, 25_000)
SHARE = 2**-9 + 2**-23
"""By how much of itself a profile moves a value, float32's rounding included."""

NUMBERS = st.floats(-1000, 1000) | st.integers(-3, 3).map(float)
SAMPLES = arrays.arrays(np.float64, st.integers(1, 80), elements=NUMBERS)
TEXTS = st.lists(st.none() | st.sampled_from("abcdefghijklmnopqrst"), min_size=1, max_size=80)


def series(values: object) -> pl.Series:
    return pl.Series("x", values)


def exact(reference: object, current: object) -> Drift:
    return compare(distribution(series(reference)), distribution(series(current)))


def profiled(values: object) -> Distribution:
    return of_column(profile.profile_of(series(values).to_frame())["x"])


def biggest_share(sample: Distribution) -> float:
    return float(sample.counts.max() / sample.counts.sum())


# --- The figures are SciPy's --------------------------------------------------------------------


@given(SAMPLES, SAMPLES)
def test_distances_of_numbers_are_those_of_scipy(one: np.ndarray, other: np.ndarray) -> None:
    found = exact(one, other)
    ks = stats.ks_2samp(one, other).statistic
    assert found.kolmogorov_smirnov == pytest.approx(ks, abs=1e-9)
    moved = stats.wasserstein_distance(one, other)
    assert found.wasserstein == pytest.approx(moved, rel=1e-9, abs=1e-9)


@given(SAMPLES, SAMPLES, st.data())
def test_counts_are_weights(one: np.ndarray, other: np.ndarray, data: st.DataObject) -> None:
    one, other = np.unique(one), np.unique(other)
    weights = [
        np.array(data.draw(st.lists(st.integers(1, 9), min_size=len(v), max_size=len(v))))
        for v in (one, other)
    ]
    found = compare(Distribution(one, weights[0], 0), Distribution(other, weights[1], 0))
    moved = stats.wasserstein_distance(one, other, *weights)
    assert found.wasserstein == pytest.approx(moved, rel=1e-9, abs=1e-9)
    assert found == exact(np.repeat(one, weights[0]), np.repeat(other, weights[1]))


def assert_those_of_scipy(reference: Distribution, current: Distribution) -> None:
    """What is computed from the bins, from the bins."""
    found = compare(reference, current)
    expected, counted = drift.binned(reference, current)
    p, q = expected / expected.sum(), counted / counted.sum()
    js = distance.jensenshannon(p, q, base=2)
    assert found.jensen_shannon == pytest.approx(np.nan_to_num(js), abs=1e-7)
    assert found.jensen_shannon**2 == pytest.approx(np.nan_to_num(js) ** 2, abs=1e-9)
    table = stats.chi2_contingency([expected, counted], correction=False)
    assert found.chi_square == pytest.approx(table.statistic, rel=1e-9, abs=1e-9)
    p, q = ((one + 0.5) / (one + 0.5).sum() for one in (expected, counted))
    psi = special.rel_entr(p, q).sum() + special.rel_entr(q, p).sum()
    assert found.psi == pytest.approx(psi, rel=1e-9, abs=1e-9)
    assert (found.reference_rows, found.rows) == (expected.sum(), counted.sum())


@given(SAMPLES, SAMPLES)
def test_figures_on_bins_of_numbers_are_those_of_scipy(one: np.ndarray, other: np.ndarray) -> None:
    assert_those_of_scipy(distribution(series(one)), distribution(series(other)))


@given(TEXTS, TEXTS)
def test_figures_on_bins_of_text_are_those_of_scipy(one: list, other: list) -> None:
    text = [distribution(pl.Series(values, dtype=pl.String)) for values in (one, other)]
    assert_those_of_scipy(*text)


def test_the_stability_index_is_that_of_scoring() -> None:
    one, other = RANDOM.uniform(size=1000), RANDOM.uniform(size=500) ** 2
    inner = np.nextafter(drift.edges(distribution(series(one))), 1)  # theirs belong to the right
    edges = [0.0, *inner, 1.0]
    shares = (np.histogram(one, edges)[0] + 0.5) / (1000 + 10 * 0.5)
    theirs = scoring.population_stability(CASE, other, {"edges": edges, "shares": shares.tolist()})
    assert exact(one, other).psi == pytest.approx(theirs, abs=1e-12)


# --- Bins ---------------------------------------------------------------------------------------


def test_numbers_are_binned_at_the_deciles_and_nulls_apart() -> None:
    bins = drift.binned(
        distribution(series([*range(100), None])), distribution(series([-5, 9, 10, 1000, None]))
    )
    assert [counts.tolist() for counts in bins] == [[10] * 10 + [1], [2, 1, *[0] * 7, 1, 1]]


def test_text_is_binned_as_frequent_other_never_seen_and_null() -> None:
    letters = "abcdefghijklm"
    reference = distribution(series([*letters, *letters[:12], "n", None]))
    current = distribution(series(["a", "m", "n", "new", "newer", None]))
    expected, found = drift.binned(reference, current)
    assert expected.tolist() == [2] * 12 + [2, 0, 1]
    assert found.tolist() == [1] + [0] * 11 + [2, 2, 1]


def test_what_a_short_list_may_have_left_out_is_not_called_new() -> None:
    numbers = [f"{number:03}" for number in range(300)]
    reference = profiled([*numbers, *numbers[:100]])
    assert exact([*numbers, *numbers[:100]], numbers).psi == pytest.approx(
        compare(reference, profiled(numbers)).psi
    )


# --- A profile's figures ------------------------------------------------------------------------


@given(SAMPLES, SAMPLES)
def test_a_profile_gives_the_figures_of_the_rounded_values(
    one: np.ndarray, other: np.ndarray
) -> None:
    found = asdict(compare(profiled(one), profiled(other)))
    assert found == asdict(exact(profile.rounded(one), profile.rounded(other)))


@given(SAMPLES, SAMPLES)
def test_against_a_profile_an_exact_sample_is_rounded_too(
    one: np.ndarray, other: np.ndarray
) -> None:
    reference, current = distribution(series(one)), distribution(series(other))
    # A sum of floats may differ in its last digit.
    expected = pytest.approx(asdict(compare(profiled(one), profiled(other))), rel=1e-12)
    assert asdict(compare(reference, profiled(other))) == expected
    assert asdict(compare(profiled(one), current)) == expected


@given(SAMPLES, SAMPLES)
def test_rounding_changes_distances_by_no_more_than_promised(
    one: np.ndarray, other: np.ndarray
) -> None:
    reference, current, truth = profiled(one), profiled(other), exact(one, other)
    found = compare(reference, current)
    ks_limit = max(biggest_share(reference), biggest_share(current))
    assert abs(found.kolmogorov_smirnov - truth.kolmogorov_smirnov) <= ks_limit + 1e-12
    moved_limit = SHARE * (abs(one).mean() + abs(other).mean())
    assert abs(found.wasserstein - truth.wasserstein) <= moved_limit + 1e-9


def test_bins_of_a_profile_cut_the_raw_values_where_its_bins_end() -> None:
    one, other = REFERENCE.astype(np.float32), REFERENCE[:900].astype(np.float32) * 1.1
    reference, current = profiled(one), profiled(other)
    edges = drift.edges(reference).astype(np.float32)
    ends = (edges.view(np.uint32) + (1 << 14)).view(np.float32)
    counted = [np.bincount(np.searchsorted(ends, raw, side="right")) for raw in (one, other)]
    assert np.array_equal(counted, drift.binned(reference, current))


# --- What chance gives --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "smallest"), [(10, 2.2), (100, 0.22), (900, 0.025), (6300, 0.0043), (25_000, 0.0017)]
)
def test_chance_levels_are_those_in_the_modules_docstring(rows: int, smallest: float) -> None:
    found = drift.psi_by_chance(rows, 25_000, 10)
    assert found == pytest.approx(smallest, rel=0.03)
    assert found == pytest.approx(stats.chi2.ppf(0.99, 9) * (1 / rows + 1 / 25_000))
    assert f"{smallest:g} for {rows:,}".lstrip("0") in (drift.__doc__ or "").replace("\n", " ")


@pytest.mark.parametrize(
    ("reference_rows", "rows"),
    [(25_000, 900), (70, 900), pytest.param(70, 14 * 900, id="a tenth of a small holdout")],
)
@pytest.mark.parametrize("decimals", [9, 1], ids=["all different", "many alike"])
def test_chance_alone_stays_under_its_limit_in_99_of_100_samples(
    reference_rows: int, rows: int, decimals: int
) -> None:
    random = np.random.default_rng(5)

    def sample(size: int) -> drift.Distribution:
        return distribution(series(random.beta(2, 5, size).round(decimals)))

    found = [compare(sample(reference_rows), sample(rows)) for _ in range(200)]
    assert 0.97 <= np.mean([one.psi <= one.psi_by_chance for one in found]) <= 1
    assert max(one.psi / one.psi_by_chance for one in found) > 0.6, "the limit is not much too high"


def test_a_shift_of_a_third_shows_in_900_rows() -> None:
    found = exact(REFERENCE, REFERENCE[:900] * 1.3)
    assert found.psi > 3 * found.psi_by_chance


# --- Bad samples --------------------------------------------------------------------------------


def test_equal_samples_have_no_drift() -> None:
    for values in ([1.0, 2.0, 2.0, None], ["a", "b", None], [True, False]):
        found = exact(values, values)
        assert (found.psi, found.jensen_shannon, found.chi_square) == pytest.approx((0, 0, 0))
        assert not found.kolmogorov_smirnov
        assert not found.wasserstein


def test_ten_rows() -> None:
    found = exact(REFERENCE, REFERENCE[:10])
    assert 0 < found.psi < found.psi_by_chance
    assert 0 < found.kolmogorov_smirnov < 0.5


@pytest.mark.parametrize("moved_to", [4.0, 6.0])
def test_a_constant_that_becomes_another(moved_to: float) -> None:
    found = exact([5.0] * 100, [moved_to] * 100)
    assert (found.kolmogorov_smirnov, found.wasserstein) == (1, 1)
    assert found.jensen_shannon == pytest.approx(1)
    assert found.psi > 5
    assert exact([5.0] * 100, [5.0] * 90).psi == 0


@pytest.mark.parametrize("values", [[1.0, 2.0], ["a", "b"]])
def test_all_null_on_either_side(values: list) -> None:
    nulls = pl.Series([None] * 2, dtype=pl.Float64)
    for found in (exact(values, nulls), exact(nulls, values)):
        assert found.psi > 1
        assert found.jensen_shannon == pytest.approx(1)
        assert found.chi_square == pytest.approx(4)
        assert (found.kolmogorov_smirnov, found.wasserstein) == (None, None)
    assert exact(nulls, nulls).psi == 0


@pytest.mark.parametrize("values", [[1.0, 2.0], ["a", "b"], [None]])
def test_no_rows(values: list) -> None:
    nothing = pl.Series([], dtype=pl.Float64)
    assert exact(values, nothing) == Drift(None, None, None, None, None, 0, len(values), None)
    assert exact(nothing, values) == Drift(None, None, None, None, None, len(values), 0, None)


def test_a_category_never_seen() -> None:
    found = exact(["a"] * 50 + ["b"] * 50, ["a"] * 50 + ["new"] * 50)
    assert found.psi > 2
    assert (found.kolmogorov_smirnov, found.wasserstein) == (None, None)


def test_infinities_give_finite_figures() -> None:
    found = exact([math.inf, 1.0, 2.0], [-math.inf, 1e300, math.nan])
    assert all(math.isfinite(value) for value in asdict(found).values())
    assert found == compare(profiled([math.inf, 1.0, 2.0]), profiled([-math.inf, 1e300, math.nan]))


def test_numbers_have_no_distance_to_text() -> None:
    with pytest.raises(BadData, match="no distance"):
        exact([1.0], ["a"])


# --- Many features ------------------------------------------------------------------------------


def test_a_feature_is_as_rare_as_days_whose_largest_reaches_it() -> None:
    earlier = [{"a": 0.1, "b": 3.0}, {"a": 0.2, "b": 0.1}, {"a": 0.9, "b": 0.3}]
    found = drift.family_wise({"a": 0.9, "b": 5.0}, earlier)
    assert found == {"a": 3 / 4, "b": 1 / 4}


def test_without_earlier_days_nothing_is_rare() -> None:
    assert drift.family_wise({"a": 9.0}, []) == {"a": 1.0}


def test_one_of_twenty_quiet_days_is_called_rare_whatever_the_number_of_features() -> None:
    days = [dict(enumerate(day)) for day in np.abs(RANDOM.normal(size=(400, 30)))]
    named = [{str(name): float(value) for name, value in day.items()} for day in days]
    alarms = [min(drift.family_wise(day, named[:200]).values()) <= 0.05 for day in named[200:]]
    assert 0.01 <= np.mean(alarms) <= 0.1
