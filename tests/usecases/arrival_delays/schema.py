"""The contracts of `flight_delays`, which has the same inputs and the same truth."""

from include.usecases.flight_delays.schema import INPUTS, KEY, TRUTH

__all__ = ["INPUTS", "KEY", "TRUTH"]
