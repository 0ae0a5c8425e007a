"""Training from disk against training in memory: the same rows, the use case's XGBoost.

Both sides are `fitting.fit`, once with all the memory it needs and once with too little, each run
in a process of its own, in turns. The clock starts when the libraries are imported and covers
reading the file. Both models are judged on rows that they have not seen.
"""

from collections.abc import Callable
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import (
    Claim,
    Clock,
    alternate,
    at_most,
    best,
    child,
    peak_gigabytes,
    program,
    say,
    scratch_folder,
    usecase,
)

if TYPE_CHECKING:
    from include.usecase import UseCase

ROWS = {"small": 2_000_000, "full": 5_000_000}
TREES = {"small": 10, "full": 50}
REPEATS = 2
HOLDOUT_ROWS = 200_000
MAX_MEMORY = {"small": 0.7, "full": 0.5}  # a quarter GB are imports
MAX_TIME = 2.0
MAX_LOSS = 0.001


def main(size: str) -> list[Claim]:
    """Make the rows, then train on them, alternating between both sides."""
    rows, trees = ROWS[size], TREES[size]
    with scratch_folder() as folder:
        env = {"ML_DATA_DIR": str(folder)}
        path, holdout = str(folder / "rows.parquet"), str(folder / "holdout.parquet")

        def run(step: Callable[..., dict[str, Any]]) -> dict[str, Any]:
            found = child(step, env, path=path, holdout=holdout, trees=trees)
            say(
                f"  {found['method']:15} {found['seconds']:7.2f} s ({found['cpu_seconds']:.2f} "
                f"CPU-s) {found['peak']:.3f} GB, log-loss {found['log_loss']:.5f}"
            )
            return found

        say(f"Making {rows:,} rows, resampled from real ones")
        features = child(generate, env, path=path, rows=rows, seed=1)["features"]
        child(generate, env, path=holdout, rows=HOLDOUT_ROWS, seed=2)
        say(f"Training {trees} trees on {rows:,} rows x {features} features, in turns")
        sides = {step.__name__: partial(run, step) for step in (in_memory, from_disk)}
        runs = alternate(sides, REPEATS)
    seconds = best(runs, "seconds")
    peaks = {side: max(one["peak"] for one in found) for side, found in runs.items()}
    losses = {side: found[0]["log_loss"] for side, found in runs.items()}
    size_of = f"(best of {REPEATS}, {rows:,} rows x {features}, {trees} trees)"
    return [
        at_most(
            "training from disk, memory", peaks["from_disk"] / peaks["in_memory"], "x peak RSS",
            MAX_MEMORY[size], f"in memory: {peaks['in_memory']:.3f} GB, from disk "
            f"{peaks['from_disk']:.3f} GB, imports included",
        ),
        at_most(
            "training from disk, time", seconds["from_disk"] / seconds["in_memory"], "x time",
            MAX_TIME, f"in memory: {seconds['in_memory']:.1f} s, from disk "
            f"{seconds['from_disk']:.1f} s {size_of}",
        ),
        at_most(
            "training from disk, quality", losses["from_disk"] - losses["in_memory"],
            "more log-loss", MAX_LOSS, f"in memory: {losses['in_memory']:.5f} on "
            f"{HOLDOUT_ROWS:,} rows",
        ),
    ]  # fmt: skip


def generate(path: str, rows: int, seed: int) -> dict[str, Any]:
    """Write real rows drawn at random, each number up to 1 % away from a real one."""
    case = usecase()
    import numpy as np
    import polars as pl

    from include.lake.files import to_arrow, write_parquet

    days = []
    for number in range(0, 360, 3):
        day = date(2013, 1, 1) + timedelta(days=number)
        inputs = {name: case.source.fetch(name, day) for name in ("flights", "weather", "actuals")}
        known = {name: frame for name, frame in inputs.items() if frame is not None}
        labels = case.features.build_labels(known.pop("actuals"))
        days.append(case.features.build_features(known).join(labels, on=case.key))
    real, random = (
        pl.concat(days).select(*case.features.FEATURES, "label"),
        np.random.default_rng(seed),
    )

    def drawn(count: int) -> Any:
        noise = [
            pl.Series(name, 1 + random.uniform(-0.01, 0.01, count).round(3))
            for name in case.features.NUMERIC
        ]
        return real[random.integers(0, len(real), count)].with_columns(
            (pl.col(factor.name) * factor).round(2).cast(pl.Float32) for factor in noise
        )

    with write_parquet(Path(path), to_arrow(real).schema) as writer:
        for start in range(0, rows, 65_536):
            writer.write_table(to_arrow(drawn(min(65_536, rows - start))))
    return {"features": len(case.features.FEATURES)}


def in_memory(path: str, holdout: str, trees: int) -> dict[str, Any]:
    """Train with more memory than needed."""
    case = usecase()
    return _fit(case, path, holdout, trees, memory_bytes=10**15)


def from_disk(path: str, holdout: str, trees: int) -> dict[str, Any]:
    """Train with less memory than the rows need."""
    case = usecase()
    return _fit(case, path, holdout, trees, memory_bytes=1)


def _fit(case: "UseCase", path: str, holdout: str, trees: int, memory_bytes: int) -> dict[str, Any]:
    import pyarrow.parquet as pq
    from sklearn.metrics import log_loss

    from include.lake.files import open_parquet
    from include.training import fitting

    pipeline = case.models.CANDIDATES["xgboost"](7).set_params(classify__n_estimators=trees)
    clock = Clock()
    with open_parquet(Path(path)) as file:
        found = fitting.fit(pipeline, [file], memory_bytes, seed=7)
    spent, peak = clock.read(), peak_gigabytes()
    unseen = pq.read_table(holdout)
    loss = float(log_loss(unseen["label"].to_numpy(), pipeline.predict_proba(unseen)[:, 1]))
    return {"method": found.method, **spent, "peak": peak, "log_loss": loss}


if __name__ == "__main__":
    raise SystemExit(program(main, generate, in_memory, from_disk))
