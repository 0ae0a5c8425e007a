"""Trees and a linear model, each a complete scikit-learn pipeline over the table of features."""

from collections.abc import Callable

from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from xgboost import XGBClassifier

from include.encoder import FeatureEncoder

from .features import CATEGORICAL, NUMERIC

TRUSTED_TYPES = [
    "include.encoder.FeatureEncoder",
    "numpy.dtype",
    "sklearn.utils.validation.check_array",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
]


def trees(seed: int) -> Pipeline:
    """Gradient-boosted trees with native categories and missing values."""
    classifier = XGBClassifier(
        n_estimators=80,
        max_depth=4,
        learning_rate=0.1,
        min_child_weight=20,
        subsample=0.8,
        colsample_bytree=0.8,
        enable_categorical=True,
        feature_types=["q"] * len(NUMERIC) + ["c"] * len(CATEGORICAL),
        random_state=seed,
    )
    return Pipeline([("encode", FeatureEncoder(NUMERIC, CATEGORICAL)), ("classify", classifier)])


def linear(seed: int) -> Pipeline:
    """A linear model of standardized numbers and frequent categories."""
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    categories = make_pipeline(
        SimpleImputer(strategy="constant", fill_value=-1),
        OneHotEncoder(handle_unknown="ignore", min_frequency=20),
    )
    places = list(range(len(NUMERIC) + len(CATEGORICAL)))
    prepare = ColumnTransformer(
        [
            ("numbers", numbers, places[: len(NUMERIC)]),
            ("categories", categories, places[len(NUMERIC) :]),
        ]
    )
    classifier = LogisticRegression(C=0.1, max_iter=300, random_state=seed)
    return Pipeline(
        [
            ("encode", FeatureEncoder(NUMERIC, CATEGORICAL)),
            ("prepare", prepare),
            ("classify", classifier),
        ]
    )


CANDIDATES = {"trees": trees, "linear": linear}

WITHOUT: dict[str, Callable[[int], Pipeline]] = {}
