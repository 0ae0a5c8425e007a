"""Two small models, each a complete scikit-learn pipeline over the table of features."""

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


def shallow_trees(seed: int) -> Pipeline:
    """Boosted trees of few leaves."""
    classifier = HistGradientBoostingClassifier(
        max_iter=60,
        learning_rate=0.1,
        max_leaf_nodes=6,
        early_stopping=False,
        random_state=seed,
    )
    return Pipeline([("encode", FeatureEncoder(NUMERIC, CATEGORICAL)), ("classify", classifier)])


def straight_line(seed: int) -> Pipeline:
    """A linear model of standardized numbers, the categories' codes among them."""
    return Pipeline(
        [
            ("encode", FeatureEncoder(NUMERIC, CATEGORICAL)),
            ("fill", SimpleImputer()),
            ("scale", StandardScaler()),
            ("classify", LogisticRegression(random_state=seed)),
        ]
    )


CANDIDATES = {"shallow_trees": shallow_trees, "straight_line": straight_line}

WITHOUT: dict[str, Callable[[int], Pipeline]] = {}
