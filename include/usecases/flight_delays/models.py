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
    "functools.partial",  # only of functions that are trusted themselves
    "include.encoder.FeatureEncoder",
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.utils.validation.check_array",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
]
"""Types, beyond those that skops trusts, that a model file may hold: nothing else is ever loaded.

None of them runs code from the file. The trees of both libraries are read without bounds checks: a
file that was made to do so can crash the process that predicts with it, no more.
"""

NUMERIC_COLUMNS = list(range(len(NUMERIC)))
CATEGORICAL_COLUMNS = list(range(len(NUMERIC), len(NUMERIC) + len(CATEGORICAL)))


def xgboost(seed: int, without: Sequence[str] = ()) -> Pipeline:
    """Gradient-boosted trees with native categories and missing values.

    Args:
        seed: of the subsamples.
        without: features that are not read.
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
    """A linear model of standardized numbers and of categories that are not rare."""
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
"""What is trained at each retraining, by name; each is made from the seed of all its chance."""

WITHOUT: dict[str, Callable[[int], Pipeline]] = {
    group.path: partial(xgboost, without=group.features) for group in GROUPS
}
"""What is trained beside them for rows that lack a group of features, if the setting
`group_models` is on: on all rows, so that it is no worse where such rows are rare."""
