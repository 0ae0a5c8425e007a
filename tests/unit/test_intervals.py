"""Intervals hold what they promise on rows like those that they were calibrated on."""

import numpy as np
import polars as pl
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, QuantileRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from include.errors import BadData
from include.intervals import IntervalPipeline
from include.targets import Regression


def rows_of(seed: int, rows: int, skewed: bool = False) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    features = random.uniform(0, 10, (rows, 1))
    noise = random.exponential(5, rows) if skewed else random.normal(0, 1 + features[:, 0], rows)
    return features, 3 * features[:, 0] + noise


def fitted(seed: int = 0) -> Pipeline:
    steps = [("scale", StandardScaler()), ("regress", LinearRegression())]
    return Pipeline(steps).fit(*rows_of(seed, 200))


@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.8, 0.95]), st.booleans())
@settings(max_examples=25)
def test_the_promised_share_is_covered_whatever_the_noise(
    seed: int, share: float, skewed: bool
) -> None:
    whole = IntervalPipeline(fitted().steps, share=share)
    whole.calibrate(*rows_of(seed, 2_000, skewed))
    features, labels = rows_of(seed + 1, 20_000, skewed)
    _, lower, upper = whole.predict(features).T
    covered = ((labels >= lower) & (labels <= upper)).mean()
    # Five standard deviations of the share among as many rows as it was calibrated on.
    margin = 5 * np.sqrt(share * (1 - share) / 2_000) + 0.005
    assert covered >= share - margin
    if not skewed:  # else the interval may be wider, to contain the value
        assert covered <= share + margin


def test_on_average_no_fewer_than_promised_are_covered_even_if_few_rows_calibrate() -> None:
    covered = []
    for seed in range(400):
        whole = IntervalPipeline(fitted().steps, share=0.8).calibrate(*rows_of(seed, 19))
        features, labels = rows_of(seed + 1_000, 500)
        _, lower, upper = whole.predict(features).T
        covered.append(((labels >= lower) & (labels <= upper)).mean())
    assert np.mean(covered) >= 0.8


class Quantiles(QuantileRegressor):
    """Three quantiles that are too near to each other."""

    def predict(self, X: np.ndarray) -> np.ndarray:
        middle = super().predict(X)
        return np.column_stack([middle - X[:, 0] / 2, middle, middle + X[:, 0] / 2])


def test_quantiles_are_widened_and_stay_wider_where_the_model_is_less_sure() -> None:
    features, labels = rows_of(1, 500)
    pipeline = Pipeline([("regress", Quantiles(alpha=0))]).fit(features, labels)
    whole = IntervalPipeline(pipeline.steps, share=0.8).calibrate(*rows_of(2, 2_000))
    features, labels = rows_of(3, 20_000)
    _, lower, upper = whole.predict(features).T
    assert ((labels >= lower) & (labels <= upper)).mean() == pytest.approx(0.8, abs=0.04)
    widths = upper - lower
    assert np.corrcoef(widths, features[:, 0])[0, 1] > 0.9


def test_too_few_rows_cannot_keep_the_promise() -> None:
    target = Regression("m")
    rows = pl.DataFrame({"x": np.arange(8.0), "label": np.arange(8.0)})
    pipeline = Pipeline([("regress", LinearRegression())]).fit(rows.select("x"), rows["label"])
    with pytest.raises(BadData, match=r"80% needs 9 rows that the model has not seen.*are 8"):
        target.finish(pipeline, rows)


def test_a_value_is_inside_its_interval_and_both_inside_the_bounds() -> None:
    whole = IntervalPipeline(fitted().steps, share=0.5, least=0, most=20)
    whole.calibrate(*rows_of(1, 100))
    value, lower, upper = whole.predict(np.linspace(-50, 50, 200)[:, None]).T
    assert (lower <= value).all()
    assert (value <= upper).all()
    assert lower.min() == 0
    assert upper.max() == 20


def test_after_a_logarithm_the_interval_is_relative() -> None:
    target = Regression("dollars", log=True, least=0)
    features, noise = rows_of(1, 2_000)
    labels = np.expm1(np.abs(noise) / 5)
    pipeline = Pipeline([("regress", LinearRegression())]).fit(features, target.encode(labels))
    whole = IntervalPipeline(pipeline.steps, share=0.8, log=True, least=0)
    whole.calibrate(features, labels)
    value, lower, upper = whole.predict(features).T
    assert ((labels >= lower) & (labels <= upper)).mean() == pytest.approx(0.8, abs=0.02)
    ratio = (upper + 1) / (value + 1)
    assert ratio.std() == pytest.approx(0, abs=1e-9)


def test_it_is_stored_and_loaded_without_running_its_code() -> None:
    whole = IntervalPipeline(fitted().steps, share=0.8).calibrate(*rows_of(1, 100))
    again = skops.io.loads(skops.io.dumps(whole), trusted=Regression("m").trusted_types)
    features, _ = rows_of(2, 50)
    np.testing.assert_array_equal(again.predict(features), whole.predict(features))
    assert type(again).__module__ == "include.intervals", "stored models name this module"
