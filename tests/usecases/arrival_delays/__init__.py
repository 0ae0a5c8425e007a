"""By how many minutes will a flight out of New York arrive late? A regression with an interval.

It shares its source, its contracts and its features with `flight_delays`.
"""

from include.usecase import Member, UseCase

USECASE = UseCase(
    name="arrival_delays",
    first_window=("2013-01-01", "2013-02-28"),
    members=[
        Member("median_trees", "registry"),
        Member("quantile_trees", "registry"),
        Member("remote", "remote", slots=2, connection="model_server", model="arrival_delays"),
    ],
    own_settings={"decay_min_skill": 0.02},
)
