"""Trees that predict the median, alone or with the quantiles of the interval."""

from collections.abc import Callable

from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.pipeline import Pipeline
from xgboost import XGBRegressor

from include.encoder import FeatureEncoder

from .features import CATEGORICAL, NUMERIC

TRUSTED_TYPES = [
    "include.encoder.FeatureEncoder",
    "numpy.dtype",
    "functools.partial",
    "sklearn._loss.link.IdentityLink",
    "sklearn._loss.link.Interval",
    "sklearn._loss.loss.AbsoluteError",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.utils.validation.check_array",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBRegressor",
]

CATEGORICAL_COLUMNS = list(range(len(NUMERIC), len(NUMERIC) + len(CATEGORICAL)))


def quantile_trees(seed: int) -> Pipeline:
    """Gradient-boosted trees for three quantiles: the interval's ends and the median."""
    regressor = XGBRegressor(
        objective="reg:quantileerror",
        quantile_alpha=[0.1, 0.5, 0.9],
        n_estimators=120,
        max_depth=5,
        learning_rate=0.08,
        min_child_weight=20,
        subsample=0.8,
        colsample_bytree=0.8,
        enable_categorical=True,
        feature_types=["q"] * len(NUMERIC) + ["c"] * len(CATEGORICAL),
        random_state=seed,
    )
    return Pipeline([("encode", FeatureEncoder(NUMERIC, CATEGORICAL)), ("regress", regressor)])


def median_trees(seed: int) -> Pipeline:
    """scikit-learn's boosted trees for the median; the interval is equally wide everywhere."""
    regressor = HistGradientBoostingRegressor(
        loss="absolute_error",
        max_iter=80,
        learning_rate=0.1,
        min_samples_leaf=40,
        categorical_features=CATEGORICAL_COLUMNS,
        early_stopping=False,
        random_state=seed,
    )
    return Pipeline([("encode", FeatureEncoder(NUMERIC, CATEGORICAL)), ("regress", regressor)])


CANDIDATES = {"quantile_trees": quantile_trees, "median_trees": median_trees}

WITHOUT: dict[str, Callable[[int], Pipeline]] = {}
