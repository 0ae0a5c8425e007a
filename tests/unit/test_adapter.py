"""Dataclasses become plain JSON and back, also those that another release wrote."""

import pytest

from include.adapter import adapter
from include.messages import ModelVersion, Rival

MODEL = {"name": "a", "version": "1", "run_id": "r"}


def test_dataclasses_within_lists_and_dataclasses_come_back() -> None:
    rivals = [Rival(ModelVersion("a", "1", "r"), None), Rival(ModelVersion("b", "2", "s"), "day")]
    written = adapter(list[Rival]).dump_json(rivals)
    assert adapter(list[Rival]).validate_json(written) == rivals


def test_a_field_that_only_a_newer_release_knows_is_ignored() -> None:
    assert adapter(ModelVersion).validate_python({**MODEL, "new": 1}) == ModelVersion(**MODEL)


def test_a_field_that_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="run_id"):
        adapter(ModelVersion).validate_python({"name": "a", "version": "1"})
