"""Two models, each a complete scikit-learn pipeline over the table of features."""

from collections.abc import Callable

from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from xgboost import XGBRegressor

from include.encoder import FeatureEncoder

from .features import CATEGORICAL, NUMERIC

TRUSTED_TYPES = [
    "include.encoder.FeatureEncoder",
    "numpy.dtype",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBRegressor",
]

NUMERIC_COLUMNS = list(range(len(NUMERIC)))
CATEGORICAL_COLUMNS = list(range(len(NUMERIC), len(NUMERIC) + len(CATEGORICAL)))


def boosted_trees(seed: int) -> Pipeline:
    """Gradient-boosted trees with native categories and missing values."""
    regressor = XGBRegressor(
        n_estimators=150,
        max_depth=5,
        learning_rate=0.1,
        subsample=0.8,
        enable_categorical=True,
        feature_types=["q"] * len(NUMERIC) + ["c"] * len(CATEGORICAL),
        random_state=seed,
    )
    return Pipeline([("encode", FeatureEncoder(NUMERIC, CATEGORICAL)), ("regress", regressor)])


def straight_line(seed: int) -> Pipeline:
    """A linear model of standardized numbers and of each category."""
    prepare = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), NUMERIC_COLUMNS),
            ("categories", OneHotEncoder(handle_unknown="ignore"), CATEGORICAL_COLUMNS),
        ]
    )
    return Pipeline(
        [
            ("encode", FeatureEncoder(NUMERIC, CATEGORICAL)),
            ("prepare", prepare),
            ("regress", Ridge(random_state=seed)),
        ]
    )


CANDIDATES = {"boosted_trees": boosted_trees, "straight_line": straight_line}

WITHOUT: dict[str, Callable[[int], Pipeline]] = {}
