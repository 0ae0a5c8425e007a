"""The models of the use case, each a complete scikit-learn pipeline over the table of features."""

from sklearn.pipeline import Pipeline
from xgboost import XGBClassifier

from include.encoder import FeatureEncoder
from include.usecase.features import CATEGORICAL, NUMERIC

TRUSTED_TYPES = [
    "include.encoder.FeatureEncoder",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
]
"""Types, beyond scikit-learn's own, that a model file may hold: nothing else is ever loaded."""


def make_pipeline(seed: int) -> Pipeline:
    """Gradient-boosted trees with native categories and missing values."""
    classifier = XGBClassifier(
        n_estimators=200,
        max_depth=6,
        learning_rate=0.05,
        min_child_weight=20,
        subsample=0.8,
        colsample_bytree=0.8,
        enable_categorical=True,
        feature_types=["q"] * len(NUMERIC) + ["c"] * len(CATEGORICAL),
        random_state=seed,
    )
    return Pipeline([("encode", FeatureEncoder(NUMERIC, CATEGORICAL)), ("classify", classifier)])
