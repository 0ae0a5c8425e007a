"""Scoring for each kind of target, compared with a tight script that predicts and writes the same.

Both sides predict with the same fitted model of scikit-learn on the same features, in one process,
in turns; only the pipeline checks predictions and keeps each row's key and model. Reason to measure
it beside `scoring`: a prediction of several numbers is several columns.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import (
    Claim,
    at_most,
    child,
    peak_gigabytes,
    program,
    say,
    scratch_folder,
)  # fmt: skip

ROWS = {"small": 100_000, "full": 1_000_000}
REPEATS = {"small": 3, "full": 5}
BATCH_ROWS = 65_536
CLASSES = 7
MAX_RATIO = 1.2
MAX_GIGABYTES = 0.8
REASONS = 3


def main(size: str) -> list[Claim]:
    """Measure a regression with intervals, a target of seven classes, and reasons."""
    claims = []
    for kind in ("regression", "multiclass", "reasons"):
        with scratch_folder() as folder:
            env = {"ML_DATA_DIR": str(folder), "OMP_NUM_THREADS": "1"}
            few = kind == "reasons"  # SHAP values take far longer than predictions
            found = child(
                measure, env, kind=kind, folder=str(folder),
                rows=ROWS[size] // 20 if few else ROWS[size],
                repeats=1 if few else REPEATS[size],
            )  # fmt: skip
        against = f"tight script: {found['tight']:.2f} CPU-s, pipeline {found['pipeline']:.2f}"
        say(f"  {kind:11}{against}")
        ratio = found["pipeline"] / found["tight"]
        if kind == "reasons":
            against = f"the same without: {found['tight']:.2f} CPU-s, with {found['pipeline']:.2f}"
        limit = None if kind == "reasons" else MAX_RATIO
        claims.append(at_most(f"scoring, {kind}", ratio, "x CPU-s of the peer", limit, against))
        if kind == "reasons":
            peak = found["peak"]
            claims.append(at_most("memory of reasons", peak, "GB peak RSS", MAX_GIGABYTES, against))
    return claims


def measure(kind: str, folder: str, rows: int, repeats: int) -> dict[str, float]:
    """CPU-seconds of both sides, each at its best, and the process's peak memory."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from include.inference import reasons, scoring
    from include.messages import Chunk

    features, case, pipeline = _made(kind, rows)
    source = Path(folder) / "features.parquet"
    pq.write_table(features, source, row_group_size=BATCH_ROWS)
    target, names = case.target, case.features.FEATURES

    def tight() -> None:
        schema = pa.schema([pa.field(name, pa.float32()) for name in target.columns])
        with pq.ParquetWriter(Path(folder) / "tight.parquet", schema) as writer:
            for batch in pq.ParquetFile(source).iter_batches(BATCH_ROWS, columns=names):
                if kind == "regression":
                    found = pipeline.predict(batch)
                else:
                    found = pipeline.predict_proba(batch)
                columns = [pa.array(one) for one in found.astype(np.float32).T]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))

    explain = reasons.explainer(case, pipeline, {}, REASONS)

    def own(wanted: int = 0, explain: Any = None) -> None:
        with pq.ParquetFile(source) as file:
            groups = list(range(file.num_row_groups))
            chunk = Chunk("", "model", "1", "", 0, rows, 0, len(groups), "", "", reasons=wanted)
            scoring.score_file(
                case, file, groups, lambda batch: target.predict(pipeline, batch),
                Path(folder) / "own.parquet", chunk, explain,
            )  # fmt: skip

    sides: dict[str, Callable[[], None]] = {"tight": tight, "pipeline": own}
    if kind == "reasons":
        sides = {"tight": own, "pipeline": lambda: own(REASONS, explain)}
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(repeats):
        for name, side in sides.items():
            began = time.process_time()
            side()
            best[name] = min(best[name], time.process_time() - began)
    return {**best, "peak": peak_gigabytes()}


def _made(kind: str, rows: int) -> tuple[Any, Any, Any]:
    """Features with a key, a use case with the target, and a fitted model."""
    from dataclasses import replace
    from types import SimpleNamespace

    import numpy as np
    import polars as pl
    import pyarrow as pa
    import xgboost
    from sklearn.pipeline import Pipeline

    from benchmarks.common import usecase
    from include.encoder import FeatureEncoder
    from include.targets import Multiclass, Regression, Target

    numeric = [f"x{number}" for number in range(20)]
    random = np.random.default_rng(7)
    values = random.normal(size=(rows, len(numeric))).astype(np.float32)
    table = pa.table({name: values[:, place] for place, name in enumerate(numeric)})
    table = table.append_column("row", pa.array(np.arange(rows)))
    known = values[:20_000]
    signal = known[:, 0] + 0.5 * known[:, 1] + random.normal(size=len(known))
    target: Target
    if kind == "regression":
        target, labels = Regression("units"), signal
        model: Any = xgboost.XGBRegressor(
            objective="reg:quantileerror", quantile_alpha=[0.1, 0.5, 0.9], n_estimators=100
        )
    else:
        target = Multiclass([f"class_{number}" for number in range(CLASSES)])
        labels = np.clip((signal + 3) / 6 * CLASSES, 0, CLASSES - 1).astype(np.int64)
        model = xgboost.XGBClassifier(n_estimators=40)
    fitted = Pipeline([("encode", FeatureEncoder(numeric, [])), ("model", model)])
    head = table.slice(0, len(known))
    fitted.fit(head, labels)
    seen = pl.DataFrame(pl.from_arrow(head)).with_columns(label=pl.Series(labels))
    fitted = target.finish(fitted, seen)
    case = replace(usecase())
    own = SimpleNamespace(NUMERIC=numeric, CATEGORICAL=[], FEATURES=numeric, TARGET=target)
    case.__dict__["features"] = own
    case.__dict__["schema"] = SimpleNamespace(KEY=["row"], INPUTS=[], TRUTH=None)
    return table, case, fitted


if __name__ == "__main__":
    raise SystemExit(program(main, measure))
