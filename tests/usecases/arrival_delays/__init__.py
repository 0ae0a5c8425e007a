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
    # Hours ahead, the median delay is hardly predictable: a skill of .02, which varies by the week.
    own_settings={
        "decay_min_skill": 0.0,
        "gate_confidence": 0.6,
        "gate_max_slice_skill_loss": 0.1,
        "gate_max_calibration_error": 0.12,
    },
)
