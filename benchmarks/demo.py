"""Once installed, the demo ends within five minutes on two cores and in 4 GB.

It runs on an empty data folder, and is limited to two cores. Memory is the sum of the proportional
set sizes of all its processes, sampled every second.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from benchmarks.common import REPO, Claim, at_most, free_port, program, say, scratch_folder

MAX_SECONDS, MAX_GIGABYTES = 300, 4


def two_cores() -> None:
    """Limit this process and its children to two cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])


def gigabytes_below(data: Path) -> float:
    """Memory of every process that works on a data folder (10^9 B)."""
    total = 0
    for process in psutil.process_iter():
        try:
            if process.environ().get("ML_DATA_DIR") == str(data):
                memory = process.memory_full_info()
                total += getattr(memory, "pss", memory.uss)
        except psutil.Error:
            continue
    return total / 1e9


def main(size: str) -> list[Claim]:
    """Run the demo once, whatever the size, stop it, and report its time and memory."""
    with scratch_folder() as folder:
        environment = {**os.environ, "ML_DATA_DIR": str(folder)}
        say("Running the demo on an empty data folder")
        started, most = time.monotonic(), 0.0
        demo = subprocess.Popen(
            [sys.executable, "-m", "local.demo", "--port", str(free_port())],
            cwd=REPO, env=environment, preexec_fn=two_cores,
        )  # fmt: skip
        try:
            while demo.poll() is None:
                most = max(most, gigabytes_below(folder))
                time.sleep(1)
            seconds = time.monotonic() - started
        finally:
            stop = [sys.executable, "-m", "local.embedded", "stop"]
            subprocess.run(stop, cwd=REPO, env=environment, check=True, capture_output=True)
        if demo.returncode != 0:
            raise SystemExit(f"The demo ended with code {demo.returncode}")
    return [
        at_most("demo", seconds, "s", MAX_SECONDS, "from an empty data folder, two cores"),
        at_most("demo memory", most, "GB", MAX_GIGABYTES, "all its processes together"),
    ]


if __name__ == "__main__":
    sys.exit(program(main))
