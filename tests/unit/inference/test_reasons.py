"""Reason codes: contributions that add up to the model's output, the largest one first."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler
from xgboost import XGBClassifier, XGBRegressor

from include.encoder import FeatureEncoder
from include.inference import reasons
from include.lake.files import to_arrow
from include.lake.tables import Lake
from include.messages import ModelVersion
from include.targets import Multiclass, Regression
from include.usecase import UseCase
from include.usecases.flight_delays.features import FEATURES
from tests.case import CASE, with_target
from tests.unit.conftest import OLD_DAY, History
from tests.unit.helpers import infer

NUMBERS, TEXTS = ["first", "second"], ["third"]
RANDOM = np.random.default_rng(7)
ROWS = pl.DataFrame(
    {
        "first": RANDOM.normal(size=300).astype(np.float32),
        "second": RANDOM.normal(5, 3, 300).astype(np.float32),
        "third": RANDOM.choice(["a", "b", "c"], 300),
    }
)
TYPICAL = {"first": 0.1, "second": 5.0, "third": "b"}
LABELS = (ROWS["first"] + 0.2 * ROWS["second"] + (ROWS["third"] == "a")).to_numpy()


def fitted(*steps: object, labels: np.ndarray = LABELS) -> Pipeline:
    return make_pipeline(FeatureEncoder(NUMBERS, TEXTS), *steps).fit(ROWS, labels)


def explained(pipeline: Pipeline, case: UseCase = CASE) -> pl.DataFrame:
    """The reasons for predictions of `ROWS`."""
    [batch] = to_arrow(ROWS).combine_chunks().to_batches()
    explain = reasons.explainer(case, pipeline, TYPICAL, 3)
    columns = explain(batch, case.target.predict(pipeline, batch))
    names = [field.name for field in reasons.fields(3)]
    return pl.DataFrame(pl.from_arrow(pa.table(columns, names)))


def regression() -> UseCase:
    return with_target(CASE, Regression("points", error="squared"))


@pytest.fixture(autouse=True)
def three_reasons(configure: Callable[..., None]) -> None:
    configure(reason_codes=3)


def total(found: pl.DataFrame) -> np.ndarray:
    columns = [name for name in found.columns if name.startswith("contribution_")]
    return found.select(pl.sum_horizontal(columns)).to_series().to_numpy()


def test_contributions_of_trees_add_up_to_the_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasons, "MOST_NUMBERS", 30)  # ten rows at once
    types = ["q", "q", "c"]
    trees = XGBClassifier(n_estimators=20, enable_categorical=True, feature_types=types)
    pipeline = fitted(trees, labels=LABELS > 1)
    found = explained(pipeline)
    matrix = xgboost.DMatrix(
        pipeline[0].transform(ROWS), feature_types=types, enable_categorical=True
    )
    margins = pipeline[-1].get_booster().predict(matrix, output_margin=True)
    apart = margins - total(found)
    np.testing.assert_allclose(apart, apart[0], atol=1e-4)


def test_the_largest_contribution_comes_first_and_names_its_feature() -> None:
    found = explained(fitted(StandardScaler(), LinearRegression()), regression())
    sizes = np.abs(found.select("contribution_1", "contribution_2", "contribution_3").fill_null(0))
    assert (np.diff(sizes, axis=1) <= 0).all()
    named = found.select("reason_1", "reason_2", "reason_3").cast(pl.String)
    for row in named.iter_rows():
        assert set(filter(None, row)) == (
            {*NUMBERS, *TEXTS} - ({"third"} if row[2] is None else set())
        )


def usual(pipeline: Pipeline) -> np.ndarray:
    """A linear model's outputs for a typical row."""
    return np.ravel(pipeline.decision_function(pl.DataFrame(TYPICAL)))


def test_terms_of_a_linear_model_add_up_to_its_output_whatever_prepares_them() -> None:
    prepare = ColumnTransformer(
        [("numbers", StandardScaler(), [0, 1]), ("texts", OneHotEncoder(), [2])]
    )
    pipeline = fitted(prepare, LogisticRegression(), labels=LABELS > 1)
    apart = pipeline.decision_function(ROWS) - total(explained(pipeline))
    np.testing.assert_allclose(apart, usual(pipeline)[0], atol=1e-4)


def test_the_class_that_is_published_is_explained() -> None:
    case = with_target(CASE, Multiclass(["low", "middle", "high"]))
    places = np.digitize(LABELS, [0.8, 1.6])
    pipeline = fitted(StandardScaler(), LogisticRegression(), labels=places)
    outputs = pipeline.decision_function(ROWS)
    chosen = pipeline.predict(ROWS)
    expected = outputs[np.arange(len(chosen)), chosen] - usual(pipeline)[chosen]
    np.testing.assert_allclose(total(explained(pipeline, case)), expected, atol=1e-4)


@pytest.mark.parametrize("quantiles", [[0.1, 0.5, 0.9], [0.5, 0.1, 0.9]])
def test_the_middle_one_of_three_quantiles_is_explained(quantiles: list[float]) -> None:
    trees = XGBRegressor(objective="reg:quantileerror", quantile_alpha=quantiles, n_estimators=20)
    pipeline = fitted(trees)
    middle = np.sort(pipeline.predict(ROWS), axis=1)[:, 1]
    apart = middle - total(explained(pipeline, regression()))
    assert len(np.unique(apart.round(3))) <= 3  # each output has its own mean


UNEXPLAINED = {
    "boosted trees of scikit-learn": [HistGradientBoostingRegressor(max_iter=5)],
    "trees after another step": [StandardScaler(), XGBRegressor(n_estimators=5)],
    "trees of many outputs": [XGBRegressor(
        objective="reg:quantileerror", quantile_alpha=[0.1, 0.5, 0.9], n_estimators=5,
        multi_strategy="multi_output_tree", tree_method="hist",
    )],
}  # fmt: skip


@pytest.mark.parametrize("steps", UNEXPLAINED.values(), ids=UNEXPLAINED)
def test_a_model_that_has_no_reasons_to_give_is_still_scored(steps: list[Any]) -> None:
    found = explained(fitted(*steps), regression())
    assert found.null_count().row(0) == (300,) * 6


WORKING = {
    "a category that stops an encoder": [OneHotEncoder(handle_unknown="error")],
    "a step that does nothing": ["passthrough"],
    "pandas inside": [StandardScaler().set_output(transform="pandas")],
    "mixed features": [PolynomialFeatures(2)],
}


@pytest.mark.parametrize("steps", WORKING.values(), ids=WORKING)
def test_whatever_a_pipeline_does_before_a_linear_model_there_is_a_column_for_each_reason(
    steps: list[Any],
) -> None:
    named = [(str(place), step) for place, step in enumerate(steps)]
    pipeline = Pipeline(
        [("encode", FeatureEncoder(NUMBERS, TEXTS)), *named, ("regress", LinearRegression())]
    ).fit(ROWS, LABELS)
    assert len(explained(pipeline, regression())) == 300


def test_a_large_constant_is_no_reason() -> None:
    year = ROWS.with_columns(second=2013 + pl.col("second").round() / 100)
    pipeline = make_pipeline(FeatureEncoder(NUMBERS, TEXTS), LinearRegression()).fit(year, LABELS)
    [batch] = to_arrow(year).combine_chunks().to_batches()
    typical = {**TYPICAL, "second": 2013.05}
    explain = reasons.explainer(regression(), pipeline, typical, 1)
    [named, _] = explain(batch, regression().target.predict(pipeline, batch))
    assert pl.Series(named.cast(pa.string())).value_counts(sort=True)[0, 0] != "second"


def test_a_feature_without_influence_is_no_reason() -> None:
    pipeline = fitted(LinearRegression(), labels=3 * ROWS["first"].to_numpy())
    pipeline[-1].coef_[1:] = 0
    found = explained(pipeline, regression())
    assert found["reason_1"].cast(pl.String).drop_nulls().unique().to_list() == ["first"]
    assert found["reason_2"].null_count() == 300


def test_the_typical_row_is_that_of_the_models_training_days(lake: Lake, history: History) -> None:
    rows = history.lake.version(history.snapshot)
    train = pl.concat([rows.read(part) for part in ("training", "holdout")])
    found = reasons.typical_row(CASE, history.champion)
    assert found.keys() >= set(FEATURES) - {"seats", "plane_age"}
    assert found["distance"] == pytest.approx(train["distance"].mean())
    assert found["origin"] == train["origin"].value_counts(sort=True)[0, 0]


def test_without_its_snapshot_a_linear_model_gives_no_reasons() -> None:
    pipeline = fitted(LinearRegression())
    [batch] = to_arrow(ROWS).combine_chunks().to_batches()
    columns = reasons.explainer(regression(), pipeline, {}, 1)(batch, np.zeros((300, 3)))
    assert [column.null_count for column in columns] == [300, 300]


def test_reasons_are_published_beside_the_score(
    lake: Lake, history: History, configure: Callable[..., None]
) -> None:
    configure(reason_codes=0)
    before = infer(lake, OLD_DAY, history.champion)
    configure(reason_codes=2, chunk_rows=100, batch_rows=64)
    found = infer(lake, OLD_DAY, history.champion)
    assert found.select(before.columns).equals(before)
    assert set(found["reason_1"].cast(pl.String)) <= set(FEATURES)
    assert (found["contribution_1"].abs() >= found["contribution_2"].abs()).all()
    assert found["contribution_2"].null_count() == 0


def test_a_model_without_contributions_is_published_without_reasons(
    lake: Lake, history: History, challenger: ModelVersion
) -> None:
    found = infer(lake, OLD_DAY, challenger)
    assert found["score"].null_count() == 0
    assert found["reason_1"].null_count() == len(found)


def test_each_row_has_the_reasons_of_the_model_that_scored_it(
    lake: Lake, history: History, challenger: ModelVersion, configure: Callable[..., None]
) -> None:
    configure(reason_codes=3, experiment="ab", ab_share=0.5)
    found = infer(lake, OLD_DAY, history.champion)
    explained = found.group_by(pl.col("path").cast(pl.String)).agg(pl.col("reason_1").count())
    champions = found["path"].cast(pl.String).eq("champion").sum()
    assert dict(explained.iter_rows()) == {"champion": champions, "challenger": 0}
