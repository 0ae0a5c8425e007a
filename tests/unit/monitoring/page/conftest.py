"""Fixtures of the tests of pages."""

from pathlib import Path

import pytest

from include.lake.tables import Lake


@pytest.fixture
def empty(tmp_path: Path) -> Lake:
    """A lake without a file."""
    return Lake(str(tmp_path / "empty"))
