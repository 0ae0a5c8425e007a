"""Will a flight out of New York be on time, late, very late, or not fly at all? Four classes.

It shares its source, its contracts and its features with `flight_delays`.
"""

from include.usecase import Member, UseCase

USECASE = UseCase(
    name="flight_outcomes",
    first_window=("2013-01-01", "2013-02-28"),
    members=[
        Member("trees", "registry"),
        Member("linear", "registry"),
        Member("remote", "remote", slots=2, connection="model_server", model="flight_outcomes"),
    ],
    own_settings={"decay_min_skill": 0.02},
)
