"""What one command has started, another one finds again: whatever the clock says by then."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import psutil
import pytest

from local.processes import Leader, alive


@pytest.fixture
def leader() -> Iterator[Leader]:
    """A process that leads a session and has a worker."""
    program = (
        "import multiprocessing, time\n"
        "worker = multiprocessing.get_context('spawn').Process(target=time.sleep, args=(60,))\n"
        "worker.start(); print(worker.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], start_new_session=True, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    yield Leader.of(process.pid)
    for pid in (process.pid, worker):
        if psutil.pid_exists(pid):
            os.kill(pid, 9)
    process.wait()
    process.stdout.close()


def test_a_process_is_found_after_the_clock_was_set(leader: Leader) -> None:
    assert leader.alive()
    assert replace(leader, created=leader.created - 3600).alive()
    assert replace(leader, after_boot=leader.after_boot + 3600).alive()


def test_another_process_with_the_pid_is_left_alone(leader: Leader) -> None:
    other = Leader(leader.pid, leader.created - 3600, leader.after_boot - 3600)
    assert other.process() is None
    assert other.session() == []
    assert Leader(leader.pid, leader.created - 3600).process() is None


def test_workers_of_a_killed_leader_are_found_even_without_a_title(leader: Leader) -> None:
    process = leader.process()
    assert process is not None
    before = {found.pid for found in leader.followers()}
    process.kill()
    process.wait()
    assert {found.pid for found in leader.session() if alive(found)} == before != set()
