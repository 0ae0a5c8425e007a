"""The flights of `flight_delays`: two use cases may share one source."""

from include.usecases.flight_delays.source import fetch

__all__ = ["fetch"]
