"""Runs the benchmark programs in sequence and prints their results as one table.

    python -m benchmarks [--size small|full] [name …]

Each program runs in its own process, so that its peak memory can be measured. The exit code is 1 if
a target was missed, and 2 if a program failed.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.common import REPO, SIZES, say

PROGRAMS = sorted(
    path.stem
    for path in Path(__file__).parent.glob("*.py")
    if path.stem not in ("__init__", "__main__", "common", "replay")  # that one: `make replay`
)
COLUMNS = ("name", "figure", "unit", "target", "met", "against")


def main() -> int:
    """Run the named benchmarks, by default all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of: {', '.join(PROGRAMS)}")
    parser.add_argument("--size", choices=SIZES, default="full")
    options = parser.parse_args()
    if unknown := set(options.names) - set(PROGRAMS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; of: {', '.join(PROGRAMS)}")
    claims: list[dict[str, Any]] = []
    failed: list[str] = []
    for name in options.names or PROGRAMS:
        began = time.monotonic()
        say(f"== {name} ({options.size})")
        found = run(name, options.size)
        claims += found
        if not found:
            failed.append(name)
        say(f"== {name}: {time.monotonic() - began:.0f} s\n")
    print_table(claims)
    for name in failed:
        say(f"{name} failed: see above")
    if failed:
        return 2
    return 1 if any(claim["met"] is False for claim in claims) else 0


def run(name: str, size: str) -> list[dict[str, Any]]:
    """Run one program, show what it prints, and return its claims: its lines of JSON."""
    claims = []
    command = [sys.executable, "-m", f"benchmarks.{name}", "--size", size]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith('{"name"'):
                claims.append(json.loads(line))
    return claims


def print_table(claims: list[dict[str, Any]]) -> None:
    """Print claims in aligned columns."""
    marks = {True: "yes", False: "NO", None: "-"}
    rows = [COLUMNS, *(tuple(_cell(claim[name], marks) for name in COLUMNS) for claim in claims)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS) - 1)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        say("  ".join([*cells, row[-1]]))


def _cell(value: Any, marks: dict[Any, str]) -> str:
    if value is None or isinstance(value, bool):
        return marks[value]
    return f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    raise SystemExit(main())
