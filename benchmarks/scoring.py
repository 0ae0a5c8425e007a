"""The pipeline's chunk function compared with a tight script that reads, predicts and writes.

Both sides score the same published features with the same model, each run in a process of its
own, in turns. The clock of both starts when their libraries are imported and covers loading the
model. The tight script does nothing else: no key, no model version, no
check of what is already scored, no atomic file. Their scores must be equal.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import (
    REPEATS,
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
    usecase,
)
from include.messages import Chunk

if TYPE_CHECKING:
    from include.usecase import UseCase

ROWS = {"small": (500_000, 2_000_000), "full": (5_000_000, 20_000_000)}
MIN_RATIO = 0.9
MAX_GIGABYTES = 0.6
MAX_GROWTH = 1.1
KEY = "2013-03-01"


def main(size: str) -> list[Claim]:
    """Make the data, run both sides in turns, then the pipeline on four times the rows."""
    rows, more_rows = ROWS[size]
    with scratch_folder() as folder:
        env = {
            "ML_DATA_DIR": str(folder),
            "ML_CHUNK_ROWS": str(10 * more_rows),
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

        def run(step: Callable[..., dict[str, Any]], **arguments: Any) -> dict[str, Any]:
            found = child(step, env, folder=str(folder), **arguments)
            if "seconds" in found:
                say(
                    f"  {step.__name__:9}{found['rows']:>11,} rows {found['seconds']:7.2f} s "
                    f"({found['cpu_seconds']:.2f} CPU-s) "
                    f"{found['rows'] / found['seconds']:>10,.0f} rows/s {found['peak']:.3f} GB"
                )
            return found

        say(f"Training the use case's model; features of {rows:,} rows, resampled from real ones")
        run(train)
        made = run(generate, rows=rows)
        say(f"  {made['bytes_per_row']:.0f} bytes a row (real days: {made['real']:.0f})")
        say(f"Scoring {rows:,} rows as one chunk, in turns")
        chunk = made["chunk"]
        sides = {step.__name__: partial(run, step, chunk=chunk) for step in (pipeline, tight)}
        runs = alternate(sides, REPEATS[size])
        run(compare, chunk=chunk)
        say(f"Scoring {more_rows:,} rows as one chunk")
        more = run(pipeline, chunk=run(generate, rows=more_rows)["chunk"])
    speed = {side: rows / seconds for side, seconds in best(runs, "seconds").items()}
    peak = max(one["peak"] for one in runs["pipeline"])
    return [
        at_least(
            "scoring speed", speed["pipeline"] / speed["tight"], "x rows/s of the peer", MIN_RATIO,
            f"tight script: {speed['tight']:,.0f} rows/s, pipeline {speed['pipeline']:,.0f} "
            f"(best of {len(runs['tight'])}, {rows:,} rows)",
        ),
        at_most(
            "scoring memory", peak, "GB peak RSS", MAX_GIGABYTES,
            "a fixed limit, imports included; tight script: "
            f"{max(one['peak'] for one in runs['tight']):.3f} GB",
        ),
        at_most(
            "scoring memory growth", more["peak"] / peak, "x peak RSS", MAX_GROWTH,
            f"itself: {more_rows:,} rows against {rows:,}",
        ),
    ]  # fmt: skip


def train(folder: str) -> dict[str, Any]:
    """Train the use case's pipeline on two real months, register it, and keep it for the peer."""
    case = usecase()
    import polars as pl

    from include.registry import promotion, registry
    from include.usecases.flight_delays.models import xgboost

    days = [date(2013, 1, 1) + timedelta(days=number) for number in range(59)]
    truth = [rows for day in days if (rows := case.source.fetch("actuals", day)) is not None]
    labels = case.features.build_labels(pl.concat(truth))
    rows = pl.concat([_real_features(case, day) for day in days]).join(labels, on=case.key)
    pipeline = xgboost(seed=7).fit(rows, rows["label"].to_numpy())
    model = registry.register(
        case, registry.log_training(case, pipeline, {}, {"reason": "benchmark"})
    )
    promotion.promote(case, model, None, "benchmark")
    pipeline[1].get_booster().save_model(Path(folder) / "model.ubj")
    (Path(folder) / "categories.json").write_text(json.dumps(pipeline[0].categories_))
    return {}


def generate(folder: str, rows: int) -> dict[str, Any]:
    """Publish features of a number of rows in batches; returns the chunk to score."""
    case = usecase()
    import numpy as np
    import polars as pl

    from include.inference import scoring
    from include.lake.files import to_arrow
    from include.registry import registry
    from include.settings import settings

    days = [
        _real_features(case, date(2013, 1, 1) + timedelta(days=number)) for number in range(365)
    ]
    real, lake = pl.concat(days), case.lake
    sample = lake.new_version("features", "2012-12-31")
    sample.write_frame("features", real)
    version = lake.new_version("features", KEY)
    with version.write("features", to_arrow(real).schema) as writer:
        rng = np.random.default_rng(1)
        for batch in _resampled(real, case.features.NUMERIC, rows, settings().batch_rows, rng):
            writer.write_table(to_arrow(batch))
    version.publish(["features"])
    return {
        "chunk": asdict(scoring.plan_chunks(case, str(version), registry.champion(case))[0]),
        "bytes_per_row": version.describe("features").bytes / rows,
        "real": sample.describe("features").bytes / len(real),
    }


def _resampled(
    real: Any, numeric: list[str], rows: int, batch_rows: int, rng: Any
) -> Iterator[Any]:
    """Real rows drawn at random, all of one date, each number up to 1 % away from a real one."""
    import polars as pl

    for start in range(0, rows, batch_rows):
        drawn = real[rng.integers(0, len(real), min(batch_rows, rows - start))]
        noise = [
            pl.Series(name, 1 + rng.uniform(-0.01, 0.01, len(drawn)).round(3)) for name in numeric
        ]
        yield drawn.with_columns(
            pl.lit(date.fromisoformat(KEY)).alias("date"),
            *((pl.col(factor.name) * factor).round(2).cast(pl.Float32) for factor in noise),
        )


def _real_features(case: "UseCase", day: date) -> Any:
    found = {name: case.source.fetch(name, day) for name in ("flights", "weather")}
    return case.features.build_features(
        {name: rows for name, rows in found.items() if rows is not None}
    )


def pipeline(folder: str, chunk: dict[str, Any]) -> dict[str, Any]:
    """Score by the pipeline's own function, as its mapped task does."""
    case = usecase()
    from include.inference import scoring
    from include.registry import registry

    # MLflow imports half of itself on first use.
    registry.load(case, registry.champion(case))
    clock = Clock()
    path = scoring.score_chunk(case, Chunk(**chunk))
    spent = clock.read()
    # Next time it must be scored again; the scores stay for the comparison.
    Path(path).replace(Path(folder) / "pipeline.parquet")
    return {"rows": chunk["rows"], **spent, "peak": peak_gigabytes()}


def tight(folder: str, chunk: dict[str, Any]) -> dict[str, Any]:
    """Read, predict, write: a script for this file and this model only."""
    case = usecase()
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    import xgboost as xgb

    from include.settings import settings

    source = case.lake.version(chunk["features"]).part_path("features")
    batch_rows = settings().batch_rows
    known = json.loads((Path(folder) / "categories.json").read_text())
    values = {name: pa.array(categories) for name, categories in known.items()}
    schema = pa.schema([("score", pa.float32())])

    clock = Clock()
    booster = xgb.Booster(model_file=Path(folder) / "model.ubj")
    matrix = np.empty((batch_rows, len(case.features.FEATURES)), np.float32)
    with (
        pq.ParquetFile(source) as file,
        pq.ParquetWriter(Path(folder) / "tight.parquet", schema) as writer,
    ):
        for batch in file.iter_batches(batch_rows, columns=case.features.FEATURES):
            for position, name in enumerate(case.features.FEATURES):
                column = batch.column(name)
                if name not in case.features.NUMERIC:
                    column = pc.index_in(column, value_set=values[name])
                matrix[: batch.num_rows, position] = column.to_numpy(zero_copy_only=False)
            scores = booster.inplace_predict(matrix[: batch.num_rows])
            writer.write_batch(pa.record_batch([pa.array(scores)], schema=schema))
    spent = clock.read()
    return {"rows": chunk["rows"], **spent, "peak": peak_gigabytes()}


def compare(folder: str, chunk: dict[str, Any]) -> dict[str, Any]:
    """Check that both sides gave every row the same score."""
    import pyarrow.parquet as pq

    ours, theirs = (
        pq.read_table(Path(folder) / f"{side}.parquet", columns=["score"])
        for side in ("pipeline", "tight")
    )
    assert len(ours) == chunk["rows"], "rows were lost"
    assert ours.equals(theirs), "the two sides' scores differ"
    return {}


if __name__ == "__main__":
    raise SystemExit(program(main, train, generate, pipeline, tight, compare))
