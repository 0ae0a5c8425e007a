"""Shared by the benchmark programs: sizes, measured child processes, and claims.

This module imports nothing heavy: a child's peak memory includes that of its parent at the start of
the child, so programs that start children stay small.
"""

import argparse
import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import polars as pl

    from include.usecase import UseCase

REPO = Path(__file__).resolve().parent.parent

_found = list(REPO.glob("*/usecases/flight_delays/__init__.py"))  # a fork may move them to tests/
if len(_found) != 1:
    raise SystemExit(
        "The benchmarks measure the use case flight_delays, which must be in include/usecases or "
        f"in tests/usecases: found {len(_found)} of them. Nothing was measured."
    )
CHOSEN = "BENCHMARK_USECASE"
"""Variable with the folder of another use case, for this process and those that it starts."""

os.environ["ML_USECASES"] = os.environ.get(CHOSEN) or str(_found[0].parent)

SIZES = ["small", "full"]
REPEATS = {"small": 3, "full": 5}

T = TypeVar("T")


@dataclass(frozen=True)
class Claim:
    """A measurement, what it was compared with, and whether the target was met."""

    name: str
    figure: float
    unit: str
    against: str
    target: str
    met: bool | None


def at_most(name: str, figure: float, unit: str, limit: float | None, against: str) -> Claim:
    """A claim that a figure does not exceed a limit; without a limit, for information only."""
    if limit is None:
        return Claim(name, round(figure, 3), unit, against, "none", None)
    return Claim(name, round(figure, 3), unit, against, f"<= {limit:g}", figure <= limit)


def at_least(name: str, figure: float, unit: str, limit: float, against: str) -> Claim:
    """A claim that a figure reaches a limit."""
    return Claim(name, round(figure, 3), unit, against, f">= {limit:g}", figure >= limit)


def program(main: Callable[[str], list[Claim]], *steps: Callable[..., dict[str, Any]]) -> int:
    """Run a benchmark program: `main` with the requested size, or one of its steps.

    Args:
        main: measures on a size, `small` or `full`, and returns its claims.
        steps: functions that `child` runs in their own process, with JSON arguments and results.

    Returns:
        The exit code: 1 if a target was not met.
    """
    described = (sys.modules["__main__"].__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=described)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--arguments", type=json.loads, default={}, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step = {one.__name__: one for one in steps}[options.step]
        print(json.dumps(step(**options.arguments)), flush=True)
        return 0
    claims = main(options.size)
    for claim in claims:
        print(json.dumps(asdict(claim)), flush=True)
    return 1 if any(claim.met is False for claim in claims) else 0


def say(text: str) -> None:
    """Print a line of progress at once."""
    print(text, flush=True)


def free_port() -> int:
    """A port that nothing listens on now, so that the usual one stays free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for this run, deleted when the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def child(
    step: Callable[..., dict[str, Any]], env: Mapping[str, str], **arguments: Any
) -> dict[str, Any]:
    """Run one step of the running program in its own process; returns its result.

    Args:
        step: one of the steps passed to `program`.
        env: additional environment variables.
        arguments: the step's arguments.
    """
    spec = sys.modules["__main__"].__spec__
    assert spec is not None, "run it as `python -m benchmarks.<name>`"
    command = [sys.executable, "-m", spec.name, "--step", step.__name__]
    command += ["--arguments", json.dumps(arguments)]
    # Without bytecode files every process would compile what it imports.
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        command, env={**inherited, **env}, cwd=REPO, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise SystemExit(f"{spec.name} {step.__name__} ended with {done.returncode}\n{done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def real_days(case: "UseCase", first: date, last: date) -> "pl.DataFrame":
    """The features of real days, with `label` (null where the truth is not known) and `day`."""
    import polars as pl

    days = []
    for number in range((last - first).days + 1):
        day = first + timedelta(days=number)
        found = {one.name: case.source.fetch(one.name, day) for one in [*case.inputs, case.truth]}
        known = {name: rows for name, rows in found.items() if rows is not None}
        labels = case.features.build_labels(known.pop(case.truth.name))
        labels = labels.with_columns(label=case.target.codes(labels["label"]))
        rows = case.features.build_features(known).join(
            labels, on=case.key, how="left", maintain_order="left"
        )
        days.append(rows.with_columns(day=pl.lit(day)))
    return pl.concat(days)


def usecase() -> "UseCase":
    """The measured use case."""
    from include import usecases

    [case] = usecases.enabled()
    return case


class Clock:
    """Seconds since it was created: wall-clock time, and this process's CPU time."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """`seconds` and `cpu_seconds` so far."""
        return {
            "seconds": time.perf_counter() - self._wall,
            "cpu_seconds": time.process_time() - self._cpu,
        }


def peak_gigabytes() -> float:
    """Peak memory of this process, including interpreter and libraries (10^9 B)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9


def alternate(sides: Mapping[str, Callable[[], T]], repeats: int) -> dict[str, list[T]]:
    """Alternate between the sides, every other time in reverse, so that drift affects both."""
    results: dict[str, list[T]] = {name: [] for name in sides}
    for number in range(repeats):
        for name in reversed(list(sides)) if number % 2 else sides:
            results[name].append(sides[name]())
    return results


def best(results: Mapping[str, list[dict[str, Any]]], figure: str) -> dict[str, float]:
    """The minimum of a figure for each side, because other load only ever adds to it."""
    return {name: min(one[figure] for one in runs) for name, runs in results.items()}
