"""Profile and drift of a table against a reference, and Evidently's preset on the same files.

Both sides read two Parquet files of 20 float columns, ten times as many rows in one as in the
other. `exact` profiles each column and computes every figure of `drift` from the values as they
are; `profiles` does so from one-pass profiles, as the daily pipeline does. Evidently computes one
figure a column (its default, the normed Wasserstein distance, which must be equal) and histograms,
in an environment of its own, because it cannot be imported with pandas 3. Each run has a process of
its own, sides in turns; imports are not timed. The year is 365 stored profiles of 20 columns.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import (
    REPEATS,
    REPO,
    Claim,
    Clock,
    alternate,
    at_least,
    at_most,
    best,
    child,
    peak_gigabytes,
    program,
    say,
    scratch_folder,
)

ROWS = {"small": 500_000, "full": 5_000_000}
PEER_REPEATS = {"small": 3, "full": 1}  # a run takes minutes
ENVIRONMENT = REPO / "data" / "benchmarks" / "evidently"
SLICE_ROWS = 262_144  # as in validation
REQUIREMENTS = ["evidently==0.7.23", "pandas<3", "pyarrow"]
COLUMNS = [f"column_{number:02}" for number in range(20)]
MIN_RATIO = {"small": 20, "full": 40}  # each column has a fixed cost
MAX_GIGABYTES = 0.6
MAX_YEAR_SECONDS = 1
DAYS, ROWS_A_DAY = 365, 1_000


def main(size: str) -> list[Claim]:
    """Run both sides on the same files; then with columns of distinct values; then the year."""
    rows = ROWS[size]
    make_environment()
    with scratch_folder() as scratch:
        folder = str(scratch)

        def run(step: Callable[..., dict[str, Any]]) -> dict[str, Any]:
            found = (peer if step is evidently else child)(step, {}, folder=folder)
            say(
                f"  {step.__name__:9}{found['seconds']:8.2f} s "
                f"({found['cpu_seconds']:.2f} CPU-s) {found['peak']:.3f} GB"
            )
            return found

        def sides(*steps: Callable[..., dict[str, Any]]) -> dict[str, Callable[[], dict[str, Any]]]:
            return {step.__name__: partial(run, step) for step in steps}

        made = child(generate, {}, folder=folder, rows=rows, decimals=2)
        say(f"{rows:,} rows x 20 columns ({made['megabytes']:.0f} MB) against {rows // 10:,}")
        runs = alternate(sides(exact, profiles, evidently), PEER_REPEATS[size])
        more = alternate(sides(exact, profiles), REPEATS[size] - PEER_REPEATS[size])
        for side, found in more.items():
            runs[side] += found
        for column, theirs in runs["evidently"][0]["distances"].items():
            ours = runs["exact"][0]["distances"][column]
            assert abs(ours - theirs) < 1e-9, f"{column}: {ours} is not Evidently's {theirs}"
        say("The same with columns of distinct values")
        child(generate, {}, folder=folder, rows=rows, decimals=None)
        distinct = alternate(sides(exact, profiles), PEER_REPEATS[size])
        say(f"A year of {DAYS} profiles")
        child(generate_year, {}, folder=folder)
        year = alternate(sides(merge_year), REPEATS[size])
    return [*_claims(rows, runs, MIN_RATIO[size]), *_more_claims(rows, distinct, year)]


def _claims(rows: int, runs: dict[str, list[dict[str, Any]]], min_ratio: float) -> list[Claim]:
    seconds = best(runs, "seconds")
    peaks = {side: max(one["peak"] for one in found) for side, found in runs.items()}
    claims = []
    for side in ("exact", "profiles"):
        against = (
            f"Evidently: {seconds['evidently']:.1f} s (best of {len(runs['evidently'])}), "
            f"{side} {seconds[side]:.2f} s (best of {len(runs[side])}, {rows:,} rows)"
        )
        ratio = seconds["evidently"] / seconds[side]
        claims += [
            at_least(f"drift speed, {side}", ratio, "x faster than the peer", min_ratio, against),
            at_most(
                f"drift memory, {side}", peaks[side], "GB peak RSS", MAX_GIGABYTES,
                f"a fixed limit, imports included; Evidently: {peaks['evidently']:.3f} GB",
            ),
        ]  # fmt: skip
    return claims


def _more_claims(
    rows: int, distinct: dict[str, list[dict[str, Any]]], year: dict[str, list[dict[str, Any]]]
) -> list[Claim]:
    seconds, peak = best(distinct, "seconds"), max(one["peak"] for one in distinct["exact"])
    return [
        at_most(
            "drift time, exact, all values distinct", seconds["exact"], "s", None,
            f"profiles: {seconds['profiles']:.2f} s; exact took {peak:.3f} GB ({rows:,} rows)",
        ),
        at_most(
            "a year's profiles", best(year, "seconds")["merge_year"], "s", MAX_YEAR_SECONDS,
            f"{DAYS} Parquet files read and merged, each the profile of {ROWS_A_DAY:,} rows",
        ),
    ]  # fmt: skip


def make_environment() -> None:
    """Install the peer, once."""
    python, uv = ENVIRONMENT / "bin" / "python", Path(sys.executable).parent / "uv"
    if (ENVIRONMENT / "complete").exists():
        return
    say(f"Installing {', '.join(REQUIREMENTS)} into {ENVIRONMENT}")
    subprocess.run([uv, "venv", "-q", "--clear", "-p", sys.executable, ENVIRONMENT], check=True)
    subprocess.run([uv, "pip", "install", "-q", "-p", python, *REQUIREMENTS], check=True)
    (ENVIRONMENT / "complete").touch()


def peer(
    step: Callable[..., dict[str, Any]], env: dict[str, str], **arguments: Any
) -> dict[str, Any]:
    """Run one step in the peer's environment."""
    command = [str(ENVIRONMENT / "bin" / "python"), "-m", "benchmarks.drift"]
    command += ["--step", step.__name__, "--arguments", json.dumps(arguments)]
    quiet = {"DO_NOT_TRACK": "1", **env}
    done = subprocess.run(
        command, cwd=REPO, env={**os.environ, **quiet}, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{step.__name__} ended with {done.returncode}\n{done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def generate(folder: str, rows: int, decimals: int | None) -> dict[str, Any]:
    """Write the reference and a table whose columns have moved, each more than the one before.

    Args:
        rows: rows of the table; the reference has a tenth of them.
        decimals: decimals of the values; None for columns of distinct values.
    """
    import numpy as np
    import polars as pl

    from include.lake.files import to_arrow, write_parquet

    rng = np.random.default_rng(1)
    for name, size in {"reference": rows // 10, "current": rows}.items():
        moved = 0.01 if name == "current" else 0
        batch_rows = 1 << 20
        schema = to_arrow(pl.DataFrame(schema=dict.fromkeys(COLUMNS, pl.Float64))).schema
        with write_parquet(Path(folder) / f"{name}.parquet", schema) as writer:
            for start in range(0, size, batch_rows):
                batch = {}
                for number, column in enumerate(COLUMNS):
                    values = rng.normal(50, 20, min(batch_rows, size - start)) + number * moved * 20
                    batch[column] = values if decimals is None else values.round(decimals)
                writer.write_table(to_arrow(pl.DataFrame(batch)), batch_rows)
    return {"megabytes": (Path(folder) / "current.parquet").stat().st_size / 1e6}


def exact(folder: str) -> dict[str, Any]:
    """Profile and every figure of each column, from its values, one column at a time."""
    import polars as pl

    from include.lake.files import open_parquet
    from include.statistics.drift import compare, distribution
    from include.statistics.profile import Profiler, profile_of

    def read(name: str, column: str) -> pl.DataFrame:
        with open_parquet(Path(folder) / f"{name}.parquet") as file:
            return pl.DataFrame(pl.from_arrow(file.read(columns=[column])))

    clock = Clock()
    distances = {}
    for column in COLUMNS:
        profiler = Profiler()
        reference, current = read("reference", column), read("current", column)
        base = profile_of(reference)[column]
        for rows in current.iter_slices(SLICE_ROWS):
            profiler.add(rows)
        profiler.result()
        drift = compare(distribution(reference[column]), distribution(current[column]))
        assert drift.wasserstein is not None
        distances[column] = drift.wasserstein / base.standard_deviation
    return {**clock.read(), "peak": peak_gigabytes(), "distances": distances}


def profiles(folder: str) -> dict[str, Any]:
    """The same from one-pass profiles, in batches as validation reads them."""
    import polars as pl

    from include.lake.files import open_parquet
    from include.statistics.drift import compare, of_column
    from include.statistics.profile import Profile, Profiler

    def read(name: str) -> Profile:
        profiler = Profiler()
        with open_parquet(Path(folder) / f"{name}.parquet") as file:
            for batch in file.iter_batches(SLICE_ROWS):
                profiler.add(pl.DataFrame(pl.from_arrow(batch)))
        return profiler.result()

    clock = Clock()
    reference, current = read("reference"), read("current")
    for column in COLUMNS:
        compare(of_column(reference[column]), of_column(current[column]))
    return {**clock.read(), "peak": peak_gigabytes()}


def evidently(folder: str) -> dict[str, Any]:
    """Evidently's preset for data drift."""
    from importlib import import_module

    import pandas as pd

    # Unknown to the type checker, whose environment does not have it.
    report: Any = import_module("evidently").Report
    preset: Any = import_module("evidently.presets").DataDriftPreset

    clock = Clock()
    reference, current = (
        pd.read_parquet(Path(folder) / f"{name}.parquet") for name in ("reference", "current")
    )
    found = report([preset()]).run(current, reference).dict()
    spent = clock.read()
    distances = {
        metric["config"]["column"]: float(metric["value"])
        for metric in found["metrics"]
        if "column" in metric["config"]
    }
    return {**spent, "peak": peak_gigabytes(), "distances": distances}


def generate_year(folder: str) -> dict[str, Any]:
    """Write a profile a day."""
    import numpy as np
    import polars as pl

    from include.statistics.profile import profile_of, to_frame

    rng = np.random.default_rng(1)
    for day in range(DAYS):
        values = {column: rng.normal(50, 20, ROWS_A_DAY).round(2) for column in COLUMNS}
        kept = to_frame(profile_of(pl.DataFrame(values)))
        kept.write_parquet(Path(folder) / f"day-{day:03}.parquet")
    return {}


def merge_year(folder: str) -> dict[str, Any]:
    """Read and merge them."""
    import polars as pl

    from include.statistics.profile import from_frame, merge

    clock = Clock()
    found = merge(from_frame(pl.read_parquet(path)) for path in Path(folder).glob("day-*.parquet"))
    spent = clock.read()
    assert all(column.rows == DAYS * ROWS_A_DAY for column in found.values())
    return {**spent, "peak": peak_gigabytes()}


if __name__ == "__main__":
    raise SystemExit(program(main, generate, exact, profiles, evidently, generate_year, merge_year))
