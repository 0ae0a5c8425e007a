"""Will a flight out of New York arrive 15 minutes late or more?

`source` fetches a day, `schema` defines its contract, `features` builds features and labels, and
`models` defines the models. Nothing outside this folder names a flight.
"""

from include.usecase import Member, UseCase

USECASE = UseCase(
    name="flight_delays",
    first_window=("2013-01-01", "2013-02-28"),
    # With equal weights: a plain average beat learned ones on the flights of 2013.
    members=[
        Member("xgboost", "registry"),
        Member("hist_gradient_boosting", "registry"),
        Member("logistic_regression", "registry"),
        Member("remote", "remote", slots=2, connection="model_server", model="flight_delays"),
    ],
)
