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

from include.lake.files import list_folder, put_text, read_text
from include.lake.tables import Lake
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
    tmp_path: Path, start: Callable[..., Any]
) -> None:
    def write(content: int) -> Any:
        return start(children.write_until_step, {}, root, content, content, functions)

    root, functions = str(tmp_path / "lake"), {"atomic_file", "publish"}
    published = killed_at_each_step(Lake(root), write, pause=0.01)
    assert sorted(published) == published, "killed before the moment of publishing, or after it"
    assert (published.count(False), published.count(True)) > (6, 0)


@pytest.mark.exhaustive
def test_a_writer_killed_between_any_requests_to_s3_leaves_the_old_version_or_the_new_one(
    s3_root: str, s3_server: dict[str, str], start: Callable[..., Any]
) -> None:
    def write(content: int) -> Any:
        return start(children.write_until_request, s3_server, s3_root, content, content)

    published = killed_at_each_step(Lake(s3_root), write, pause=0.2)
    requests = ["first", "second", "manifest", "current"]  # each is a step before and one after
    assert published == [False] * (2 * len(requests) - 1) + [True]


def killed_at_each_step(lake: Lake, write: Callable[[int], Any], pause: float) -> list[bool]:
    """Publish 1, 2, 3, … of which each is killed a step later, until one is not: the last.

    Returns:
        Of each that was killed, whether it had been published.
    """
    children.write_version(lake, 0)
    published, last = [], 0
    with watched(lambda: content(lake), pause):
        for step in range(1, 200):
            child = write(step)
            child.join()
            if child.exitcode == 0:
                break
            assert child.exitcode == -signal.SIGKILL
            assert content(lake) in (last, step)
            published.append(content(lake) == step)
            last = content(lake)
    assert content(lake) == step
    return published


@pytest.mark.exhaustive
def test_an_upload_in_parts_that_is_cut_off_leaves_what_was_there(
    s3_root: str, s3_server: dict[str, str], tmp_path: Path, start: Callable[..., Any]
) -> None:
    size = 101 << 20  # s3fs sends files of 100 MiB and more in three parts: five requests in all
    path = Lake(s3_root).root / "file"
    put_text(path, "what was there")
    environment = {**s3_server, "TMPDIR": str(tmp_path)}
    for step in (2, 5, 8, 9):
        child = start(children.put_until_request, environment, s3_root, size, step)
        child.join()
        assert child.exitcode == -signal.SIGKILL
        assert read_text(path) == "what was there"
        assert [found.name for found in list_folder(path.parent)] == ["file"]
    child = start(children.put_until_request, environment, s3_root, size, 11)
    child.join()
    assert child.exitcode == 0
    assert path.fs.info(path.path)["size"] == size


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
