"""A full lake, a read-only lake and a full MLflow: real disks, mounted by a child for itself."""

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

from include.settings import PROJECT
from tests.unit.conftest import History

UNSHARE = ["unshare", "--map-root-user", "--mount"]


@pytest.fixture(scope="module")
def outcomes(history: History, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    place = tmp_path_factory.mktemp("disk")
    can = [*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", str(place)]
    if not shutil.which("unshare") or subprocess.run(can, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a disk (unshare --map-root-user --mount)")
    child = [sys.executable, "-m", "tests.unit.small_disk", place, history.folder, history.snapshot]
    done = subprocess.run(
        [*UNSHARE, *child],
        cwd=PROJECT,
        env=os.environ | {"MLFLOW_TRACKING_URI": history.registry},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("what", ["land", "validate", "infer"])
def test_a_full_lake_is_a_dependency_that_is_down_and_publishes_nothing(
    what: str, outcomes: list[dict[str, Any]]
) -> None:
    tried = [
        found for found in outcomes if found.get("what") == what and found.get("free") is not None
    ]
    assert tried[0]["free"] == 0
    assert "No space left on device at " in tried[0]["message"]
    assert all(found["same"] for found in tried if found["message"])
    assert len({found["message"].partition("date=")[0] for found in tried}) > 1, "one way to fail"


def test_a_lake_with_room_again_goes_on(outcomes: list[dict[str, Any]]) -> None:
    (found,) = [found for found in outcomes if found.get("free", 0) is None]
    assert (found["message"], found["same"]) == ("", False)


@pytest.mark.parametrize("what", ["land", "validate", "infer"])
def test_a_read_only_lake_is_a_dependency_that_is_down_and_publishes_nothing(
    what: str, outcomes: list[dict[str, Any]]
) -> None:
    (found,) = [found for found in outcomes if found.get("read-only") and found["what"] == what]
    assert found["same"]
    assert "The lake cannot be written: Read-only file system" in found["message"]


@pytest.mark.parametrize(
    ("database", "words"),
    [
        (False, ["No space left on device", "Free space or give write access"]),
        (True, ["database or disk is full", "Check the registry"]),
    ],
)
def test_a_training_that_finds_no_room_in_mlflow_leaves_the_champion_and_can_be_tried_again(
    database: bool, words: list[str], outcomes: list[dict[str, Any]]
) -> None:
    full, almost, later = [found for found in outcomes if found.get("database") is database]
    assert all(found["same"] for found in (full, almost, later))
    assert all(word in found["message"] for word in words for found in (full, almost))
    assert later["message"] == ""
