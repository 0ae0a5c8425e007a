"""The use case that most tests are about, and the same one with its tables elsewhere."""

from dataclasses import replace

from include.lake.tables import Lake
from include.usecase import UseCase
from include.usecases.flight_delays import USECASE as CASE

__all__ = ["CASE", "at"]


def at(lake: Lake) -> UseCase:
    """The use case with its tables in another lake."""
    return replace(CASE, own_settings={**CASE.own_settings, "lake_root": str(lake.root)})
