"""How often the gate is right: bad challengers that it refuses, and honest ones that it promotes.

Three questions about the same real flights. In windows spread over 2013, the champion was trained
four weeks earlier than its challengers: an honest one, and those whose data has a fault. The
functions are those of the DAG `model_retraining`: snapshot, training, evaluation and verdict.
"""

import json
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from benchmarks.common import (
    CHOSEN,
    REPO,
    Claim,
    at_most,
    child,
    program,
    say,
    scratch_folder,
)  # fmt: skip

if TYPE_CHECKING:
    import polars as pl

    from include.usecase import UseCase

USECASES = ("flight_delays", "flight_outcomes", "arrival_delays")
WINDOWS = {"small": 1, "full": 15}
TRAINING, HOLDOUT, OLDER = timedelta(days=56), timedelta(days=14), timedelta(days=28)
FIRST_DAY, LAST_DAY = date(2013, 1, 1), date(2013, 12, 30)
LEAK_NOISE = (0.1, 0.5, 1.0)
"""Standard deviations of the noise on a leaked label, relative to that of the labels."""

HONEST = "honest"


def main(size: str) -> list[Claim]:
    """Count the promotions for each use case."""
    claims = []
    for name in USECASES:
        [folder] = (found.parent for found in REPO.glob(f"*/usecases/{name}/__init__.py"))
        with scratch_folder() as scratch:
            env = {
                CHOSEN: str(folder), "ML_DATA_DIR": str(scratch), "MLFLOW_LOGGING_LEVEL": "WARNING"
            }  # fmt: skip
            found = child(judge, env, windows=WINDOWS[size])
        for kind, refusals in found["refusals"].items():
            say(f"  {name}, {kind}: {json.dumps(refusals)}")
        bad = {kind: number for kind, number in found["promoted"].items() if kind != HONEST}
        told = ", ".join(f"{kind} {number}" for kind, number in bad.items())
        tried = WINDOWS[size] * len(bad)
        claims.append(
            at_most(f"bad challengers, {name}", sum(bad.values()), f"promoted of {tried}", 0, told)
        )
        share = found["promoted"].get(HONEST, 0) / WINDOWS[size]
        against = f"{WINDOWS[size]} windows, champion four weeks older"
        claims.append(
            Claim(f"honest challengers, {name}", share, "share promoted", against, "none", None)
        )
    return claims


def judge(windows: int) -> dict[str, Any]:
    """Promotions by kind of challenger, and how often each rule refused each kind."""
    import logging

    import polars as pl

    from benchmarks.common import real_days, usecase
    from include.preprocess import is_usable
    from include.registry import promotion, registry
    from include.training import evaluation, gate, training

    logging.disable(logging.WARNING)
    case, champion = usecase(), None
    kind = next(iter(case.models.CANDIDATES))
    earliest = FIRST_DAY + TRAINING + HOLDOUT + OLDER
    ends = [
        earliest + (LAST_DAY - earliest) * number // max(windows - 1, 1)
        for number in range(windows)
    ]
    rows = real_days(case, FIRST_DAY, ends[-1])
    rows = rows.filter(is_usable(case), pl.col("label").is_not_null())
    registry.create_store(case)
    promoted: Counter[str] = Counter()
    refusals: dict[str, Counter[str]] = {}
    for number, end in enumerate(ends):
        old = _keep(case, *_split(rows, end - OLDER))
        version = registry.register(case, training.train(case, old, kind, "benchmark"))
        promotion.promote(case, version, champion, "benchmark")
        champion = version
        for name, change in CHALLENGERS.items():
            snapshot = _keep(case, *change(*_split(rows, end), number))
            rival = evaluation.find_rival(case, snapshot)
            run = training.train(case, snapshot, kind, name)
            judged = evaluation.evaluate_run(case, snapshot, run, kind, rival)
            known = evaluation.evaluate_champion(case, snapshot, rival)
            verdict = gate.judge(case, snapshot, known, [judged])
            promoted[name] += verdict.challenger is not None
            broken = (rule.name for rule in verdict.rules[kind] if not rule.passed)
            refusals.setdefault(name, Counter()).update(broken)
    return {"promoted": promoted, "refusals": refusals}


def _split(rows: "pl.DataFrame", end: date) -> "tuple[pl.DataFrame, pl.DataFrame]":
    """Training days and holdout of a window with this last day."""
    import polars as pl

    middle, day = end - HOLDOUT, pl.col("day")
    return (
        rows.filter(day > middle - TRAINING, day <= middle),
        rows.filter(day > middle, day <= end),
    )


def _keep(case: "UseCase", train: "pl.DataFrame", holdout: "pl.DataFrame") -> str:
    """Publish rows as a snapshot."""
    version = case.lake.new_version("training", str(holdout["day"].max()))
    parts = {"training": train, "holdout": holdout}
    for part, rows in parts.items():
        version.write_frame(part, rows)
    described = {p: case.target.describe(rows["label"].to_numpy()) for p, rows in parts.items()}
    facts = {
        "start": str(train["day"].min()), "end": version.key, "holdout_days": HOLDOUT.days,
        "labels": described, "sources": {},
    }  # fmt: skip
    version.publish(list(parts), facts)
    return str(version)


Change = Callable[["pl.DataFrame", "pl.DataFrame", int], "tuple[pl.DataFrame, pl.DataFrame]"]
"""Takes training days, holdout and the window's number, and returns the former two with a fault."""


def _honest(
    train: "pl.DataFrame", holdout: "pl.DataFrame", number: int
) -> "tuple[pl.DataFrame, pl.DataFrame]":
    return train, holdout


def _leak(
    train: "pl.DataFrame", holdout: "pl.DataFrame", number: int
) -> "tuple[pl.DataFrame, pl.DataFrame]":
    """A feature knows the label, more or less exactly."""
    import numpy as np
    import polars as pl

    random = np.random.default_rng(number)
    noise = LEAK_NOISE[number % len(LEAK_NOISE)] * float(np.std(train["label"].to_numpy()))

    def leaked(rows: pl.DataFrame) -> pl.DataFrame:
        known = rows["label"].to_numpy() + noise * random.standard_normal(len(rows))
        return rows.with_columns(plane_age=pl.Series(known.astype(np.float32)))

    return leaked(train), leaked(holdout)


def _shuffled(
    train: "pl.DataFrame", holdout: "pl.DataFrame", number: int
) -> "tuple[pl.DataFrame, pl.DataFrame]":
    """The labels of the training days belong to other rows."""
    return train.with_columns(train["label"].shuffle(seed=number)), holdout


def _wrong_unit(
    train: "pl.DataFrame", holdout: "pl.DataFrame", number: int
) -> "tuple[pl.DataFrame, pl.DataFrame]":
    """Training days or holdout have a feature, or numbers as labels, in another unit."""
    import polars as pl

    celsius = ((pl.col("temp") - 32) * 5 / 9).cast(pl.Float32)
    kilometres = (pl.col("distance") * 1.609).cast(pl.Float32)
    hours = pl.col("block_minutes") / 60
    if number % 2 and train["label"].dtype.is_float():
        seconds = pl.col("label") * 60
        whole = number % 4 == 1
        return train.with_columns(seconds), holdout.with_columns(seconds) if whole else holdout
    if number % 3 == 0:
        return train.with_columns(temp=celsius), holdout
    changed = {"distance": kilometres} if number % 3 == 1 else {"block_minutes": hours}
    return train, holdout.with_columns(**changed)


CHALLENGERS: dict[str, Change] = {
    HONEST: _honest, "leak": _leak, "shuffled labels": _shuffled, "wrong unit": _wrong_unit,
}  # fmt: skip

if __name__ == "__main__":
    raise SystemExit(program(main, judge))
