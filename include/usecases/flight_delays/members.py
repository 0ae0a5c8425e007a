"""The members of the ensemble. Read when a DAG file is parsed: nothing heavy is imported here."""

from include.contract import Member
from include.usecase import NAME

MEMBERS = [
    Member("xgboost", "registry"),
    Member("hist_gradient_boosting", "registry"),
    Member("logistic_regression", "registry"),
    Member("remote", "remote", slots=2, connection="model_server", model=NAME),
]
"""Who is asked. With equal weights: a plain average beat learned ones on the flights of 2013."""
