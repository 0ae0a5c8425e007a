"""The models of the use case, each a complete scikit-learn pipeline over the table of features."""

from collections.abc import Callable, Sequence
from functools import partial

from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from xgboost import XGBClassifier

from include.encoder import FeatureEncoder

from .features import CATEGORICAL, GROUPS, NUMERIC

TRUSTED_TYPES = [
    "functools.partial",  # only for functions that are themselves trusted
    "include.encoder.FeatureEncoder",
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.utils.validation.check_array",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
]
"""Types that a model file may contain beyond those that skops trusts; nothing else is loaded.

None of them runs code from the file. Both libraries read trees without bounds checks, so a
malicious file can crash the process that predicts with it, but no more.
"""

NUMERIC_COLUMNS = list(range(len(NUMERIC)))
CATEGORICAL_COLUMNS = list(range(len(NUMERIC), len(NUMERIC) + len(CATEGORICAL)))


def xgboost(seed: int, without: Sequence[str] = ()) -> Pipeline:
    """Gradient-boosted trees with native categories and missing values.

    Args:
        seed: seed for the subsamples.
        without: features to leave out.
    """
    numeric = [name for name in NUMERIC if name not in without]
    categorical = [name for name in CATEGORICAL if name not in without]
    classifier = XGBClassifier(
        n_estimators=200,
        max_depth=6,
        learning_rate=0.05,
        min_child_weight=20,
        subsample=0.8,
        colsample_bytree=0.8,
        enable_categorical=True,
        feature_types=["q"] * len(numeric) + ["c"] * len(categorical),
        random_state=seed,
    )
    return Pipeline([("encode", FeatureEncoder(numeric, categorical)), ("classify", classifier)])


def hist_gradient_boosting(seed: int) -> Pipeline:
    """scikit-learn's own boosted trees, with native categories and missing values."""
    classifier = HistGradientBoostingClassifier(
        max_iter=200,
        learning_rate=0.05,
        min_samples_leaf=40,
        l2_regularization=1.0,
        categorical_features=CATEGORICAL_COLUMNS,
        early_stopping=False,
        random_state=seed,
    )
    return _pipeline(("classify", classifier))


def logistic_regression(seed: int) -> Pipeline:
    """A linear model of standardized numbers and frequent categories."""
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    categories = make_pipeline(
        SimpleImputer(strategy="constant", fill_value=-1),
        OneHotEncoder(handle_unknown="ignore", min_frequency=20),
    )
    prepare = ColumnTransformer(
        [("numbers", numbers, NUMERIC_COLUMNS), ("categories", categories, CATEGORICAL_COLUMNS)]
    )
    classifier = LogisticRegression(C=0.1, max_iter=300, random_state=seed)
    return _pipeline(("prepare", prepare), ("classify", classifier))


def _pipeline(*steps: tuple[str, BaseEstimator]) -> Pipeline:
    return Pipeline([("encode", FeatureEncoder(NUMERIC, CATEGORICAL)), *steps])


CANDIDATES: dict[str, Callable[[int], Pipeline]] = {
    "xgboost": xgboost,
    "hist_gradient_boosting": hist_gradient_boosting,
    "logistic_regression": logistic_regression,
}
"""The models of each retraining, by name; each function takes a seed for all randomness."""

WITHOUT: dict[str, Callable[[int], Pipeline]] = {
    group.path: partial(xgboost, without=group.features) for group in GROUPS
}
"""The models for rows that lack a group of features, if the setting `group_models` is on. They are
trained on all rows, because rows that lack the group may be rare."""
