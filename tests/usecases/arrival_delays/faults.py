"""The faults of `flight_delays`, which has the same inputs: for `make replay`."""

from include.usecases.flight_delays.faults import FAULTS

__all__ = ["FAULTS"]
