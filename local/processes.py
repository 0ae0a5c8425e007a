"""Identifies processes that one command starts and another one stops."""

import contextlib
import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Leader:
    """A process we started as the leader of a session: its pid, and when it was created.

    Attributes:
        created: by the clock at that time, which may have been changed since.
        after_boot: the same, in seconds since the machine was booted.
    """

    pid: int
    created: float
    after_boot: float = math.nan

    @classmethod
    def of(cls, pid: int) -> "Leader":
        """The leader with a pid."""
        created = psutil.Process(pid).create_time()
        return cls(pid, created, created - psutil.boot_time())

    def process(self) -> psutil.Process | None:
        """The process, if it still exists; its pid may have been reused."""
        try:
            process = psutil.Process(self.pid)
            created = process.create_time()
            same = min(
                created - self.created, created - psutil.boot_time() - self.after_boot, key=abs
            )
            return process if abs(same) < 2 else None
        except psutil.Error:
            return None

    def alive(self) -> bool:
        """Whether it still runs."""
        process = self.process()
        return process is not None and alive(process)

    def session(self) -> list[psutil.Process]:
        """All processes in its session: itself, its workers and tasks, including orphans."""
        if psutil.pid_exists(self.pid) and self.process() is None:
            return []
        members = [p for p in psutil.process_iter() if _session_id(p) == self.pid and alive(p)]
        # A pid is not reused while its session has members, but may be after a reboot.
        return members if self.process() else [p for p in members if _is_airflow(p)]

    def followers(self) -> list[psutil.Process]:
        """The session without the process itself."""
        return [process for process in self.session() if process.pid != self.pid]


def alive(process: psutil.Process) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def send(process: psutil.Process, number: int) -> None:
    """Signal a process, unless it has already ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def wait_until_gone(processes: Iterable[psutil.Process], seconds: float) -> None:
    """Wait until all have ended, at most `seconds`."""
    waiting = list(processes)
    deadline = time.monotonic() + seconds
    while any(map(alive, waiting)) and time.monotonic() < deadline:
        time.sleep(0.1)


def _session_id(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except OSError:
        return None


def _is_airflow(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
        # Without forking, a worker has no title, and only its command line identifies it.
        return "airflow" in command or "multiprocessing" in command
    except psutil.Error:
        return False
