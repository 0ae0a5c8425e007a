"""The models to train, each a complete scikit-learn pipeline over the table of features."""

from collections.abc import Callable

from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from include.encoder import FeatureEncoder

from .features import CATEGORICAL, NUMERIC

TRUSTED_TYPES = [
    "functools.partial",
    "include.encoder.FeatureEncoder",
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.utils.validation.check_array",
]
"""Types that a model's file may contain beyond those that are always trusted."""


def trees(seed: int) -> Pipeline:
    """Boosted trees, which need no scaling and take nulls."""
    classifier = HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=6, early_stopping=False, random_state=seed
    )
    return Pipeline([("encode", FeatureEncoder(NUMERIC, CATEGORICAL)), ("classify", classifier)])


def line(seed: int) -> Pipeline:
    """A linear model of standardized numbers, including the categories' codes."""
    return Pipeline(
        [
            ("encode", FeatureEncoder(NUMERIC, CATEGORICAL)),
            ("fill", SimpleImputer()),
            ("scale", StandardScaler()),
            ("classify", LogisticRegression(random_state=seed)),
        ]
    )


CANDIDATES: dict[str, Callable[[int], Pipeline]] = {"trees": trees, "line": line}
"""The models of each retraining, by name; each function takes a seed for all randomness."""

WITHOUT: dict[str, Callable[[int], Pipeline]] = {}
"""For each of `GROUPS`, the model for rows that lack it."""
