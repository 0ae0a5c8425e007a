"""Reason codes: contributions that add up to the model's output, largest first, none made up."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import xgboost
from sklearn.compose import ColumnTransformer
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
LABELS = (ROWS["first"] + 0.2 * ROWS["second"] + (ROWS["third"] == "a")).to_numpy()


def fitted(*steps: object, labels: np.ndarray = LABELS) -> Pipeline:
    return make_pipeline(FeatureEncoder(NUMBERS, TEXTS), *steps).fit(ROWS, labels)


def explained(pipeline: Pipeline, case: UseCase = CASE) -> pl.DataFrame:
    """The reasons for predictions of `ROWS`."""
    [batch] = to_arrow(ROWS).combine_chunks().to_batches()
    columns = reasons.explainer(case, pipeline)(batch, case.target.predict(pipeline, batch))
    names = [field.name for field in reasons.fields(case)]
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
    sizes = np.abs(found.select("contribution_1", "contribution_2", "contribution_3").to_numpy())
    assert (np.diff(sizes, axis=1) <= 0).all()
    named = found.select("reason_1", "reason_2", "reason_3").cast(pl.String).to_numpy()
    assert all(set(row) == {*NUMBERS, *TEXTS} for row in named)


def test_terms_of_a_linear_model_add_up_to_its_output_whatever_prepares_them() -> None:
    prepare = ColumnTransformer(
        [("numbers", StandardScaler(), [0, 1]), ("texts", OneHotEncoder(), [2])]
    )
    pipeline = fitted(prepare, LogisticRegression(), labels=LABELS > 1)
    apart = pipeline.decision_function(ROWS) - total(explained(pipeline))
    np.testing.assert_allclose(apart, pipeline[-1].intercept_[0], atol=1e-4)


def test_the_class_that_is_published_is_explained() -> None:
    case = with_target(CASE, Multiclass(["low", "middle", "high"]))
    places = np.digitize(LABELS, [0.8, 1.6])
    pipeline = fitted(StandardScaler(), LogisticRegression(), labels=places)
    outputs = pipeline.decision_function(ROWS)
    chosen = pipeline.predict(ROWS)
    intercepts = pipeline[-1].intercept_[chosen]
    expected = outputs[np.arange(len(chosen)), chosen] - intercepts
    np.testing.assert_allclose(total(explained(pipeline, case)), expected, atol=1e-4)


def test_the_middle_one_of_three_quantiles_is_explained() -> None:
    trees = XGBRegressor(
        objective="reg:quantileerror", quantile_alpha=[0.1, 0.5, 0.9], n_estimators=20
    )
    pipeline = fitted(trees)
    apart = pipeline.predict(ROWS)[:, 1] - total(explained(pipeline, regression()))
    np.testing.assert_allclose(apart, apart[0], atol=1e-4)


def test_a_model_that_mixes_features_gives_no_reasons() -> None:
    found = explained(fitted(PolynomialFeatures(2), LinearRegression()), regression())
    assert found.null_count().row(0) == (300,) * 6


def test_a_feature_without_influence_is_no_reason() -> None:
    pipeline = fitted(LinearRegression(), labels=3 * ROWS["first"].to_numpy())
    pipeline[-1].coef_[1:] = 0
    found = explained(pipeline, regression())
    assert found["reason_1"].cast(pl.String).unique().to_list() == ["first"]
    assert found["reason_2"].null_count() == 300


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
