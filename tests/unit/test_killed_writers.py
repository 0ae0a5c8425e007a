"""Publishing is all or nothing, proven by killing the writer: readers see one whole version.

Each version consists of two parts that are full of one number, the version's own. Whole means:
every part is as the manifest says (rows, bytes, hash), and all of them hold the same number.
"""

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from include.lake import Lake
from tests.unit import children
from tests.unit.helpers import watched

content, DAY = children.content, children.DAY


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, str]]:
    """The root of an empty lake, and the environment of a process that can open it."""
    if request.param == "folder":
        return str(tmp_path / "lake"), {}
    return request.getfixturevalue("s3_root"), request.getfixturevalue("s3_server")


@pytest.mark.exhaustive
def test_a_writer_killed_at_any_step_leaves_the_old_version_or_the_new_one(
    place: tuple[str, dict[str, str]], start: Callable[..., Any]
) -> None:
    root, environment = place
    functions = {"_put"} if environment else {"atomic_file", "publish"}
    lake = Lake(root)
    children.write_version(lake, 0)
    published, last = [], 0
    with watched(lambda: content(lake), pause=0.2 if environment else 0.01):
        for step in range(1, 200):
            child = start(children.write_until_step, environment, root, step, step, functions)
            child.join()
            if child.exitcode == 0:
                break
            assert child.exitcode == -signal.SIGKILL
            assert content(lake) in (last, step)
            published.append(content(lake) == step)
            last = content(lake)
    assert content(lake) == step
    assert sorted(published) == published, "killed before the moment of publishing, or after it"
    assert (published.count(False), published.count(True)) > (6, 0)


@pytest.mark.exhaustive
def test_a_writer_killed_at_any_moment_leaves_a_whole_version(
    place: tuple[str, dict[str, str]], start: Callable[..., Any]
) -> None:
    root, environment = place
    lake = Lake(root)
    children.write_version(lake, 0)
    moments = random.Random(7)
    with watched(lambda: content(lake), pause=0.2 if environment else 0.01):
        for _ in range(3 if environment else 15):
            child = start(children.write_forever, environment, root, [1, 2])
            before = lake.current("table", DAY).name
            while lake.current("table", DAY).name == before:
                assert child.is_alive()
            time.sleep(moments.uniform(0, 0.1))
            child.kill()
            child.join()
            assert content(lake) in (1, 2)
