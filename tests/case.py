"""The use case that most tests are about, and the same one with its tables elsewhere."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from include import usecases
from include.lake.tables import Lake
from include.targets import Target
from include.usecase import Input, UseCase
from tests.conftest import FLIGHTS

CASE = usecases.load(FLIGHTS)

SECOND = Path(__file__).parent / "usecases" / "doctor_visits"
"""Folder of another use case."""

BOTH = f"{FLIGHTS},{SECOND}"
"""Enables both use cases, as the value of `ML_USECASES`."""


def at(lake: Lake) -> UseCase:
    """The use case with its tables in another lake."""
    return replace(CASE, own_settings={**CASE.own_settings, "lake_root": str(lake.root)})


def with_target(case: UseCase, target: Target) -> UseCase:
    """The use case, asking another question."""
    changed = replace(case)
    changed.__dict__["features"] = SimpleNamespace(**{**vars(case.features), "TARGET": target})
    return changed


def with_inputs(case: UseCase, *inputs: Input) -> UseCase:
    """The use case with other inputs."""
    changed = replace(case)
    schema = SimpleNamespace(KEY=inputs[0].key, INPUTS=list(inputs), TRUTH=case.truth)
    changed.__dict__["schema"] = schema
    return changed
