"""From a validated day to its published predictions: preprocess, infer in chunks, post-process.

Only `score_chunk` uses the model, one batch of rows at a time. A chunk's file is named after the
content of its rows and the model's version, so a chunk is scored only once.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from include import datasets, metrics
from include.encoder import FeatureEncoder
from include.errors import BadData, Overtaken
from include.inference import reasons
from include.lake.files import blames, exists, open_parquet, to_arrow, write_parquet
from include.lake.tables import Manifest
from include.landed import pieces
from include.messages import CHAMPION, Chunk, ModelVersion, OutputCheck
from include.metrics import Sample
from include.partitions import key_of
from include.preprocess import features_of, is_usable
from include.registry import registry
from include.statistics.drift import smoothed, stability_of
from include.statistics.profile import Profiler, profile_of
from include.statistics.profiles import keep
from include.targets import columns
from include.usecase import UseCase
from include.wording import counted, listed

if TYPE_CHECKING:
    from include.lake.files import AnyPath

Predict = Callable[[pa.RecordBatch], np.ndarray]
"""Takes rows of features and returns their predictions, as `Target.predict` does."""

PATH = "path"
"""Column of predictions with each row's path, if there are several."""

LEAST_ROWS = 20
"""Below this number of rows, constant or unusual scores prove nothing."""

log = logging.getLogger(__name__)


def preprocess(case: UseCase, key: str) -> str:
    """Turn a day's validated rows into features, and reject the rows that lack a required one.

    Returns:
        Reference to the published version of the features.

    Raises:
        MissingData: the day has not been validated.
        BadData: the features have other rows, or too many rows are rejected.
    """
    validated = case.lake.current("validated", key)
    rows = features_of(case, validated)
    known = validated.manifest().parts[case.inputs[0].name].rows
    usable = rows.select(is_usable(case)).to_series()
    rejected = rows.filter(~usable)
    if len(rejected) > case.settings.max_rejected_share * len(rows):
        raise BadData(
            f"{len(rejected)} of {len(rows)} rows of {key} lack a required feature or hold an "
            f"infinite one, more than {case.settings.max_rejected_share:.1%}. Nothing was scored; "
            f"look at the features of {validated}."
        )
    version = case.lake.new_version("features", key)
    group_rows = min(case.settings.batch_rows, case.settings.chunk_rows)
    for part, group in {"features": rows.filter(usable), "rejected": rejected}.items():
        with version.write(part, to_arrow(group.clear()).schema) as writer:
            # An empty day has one row group, so that it has one chunk and the run goes on.
            for piece in [group] if group.is_empty() else pieces(group, group_rows):
                writer.write_table(to_arrow(piece))
    keep(version, "features", profile_of(rows.filter(usable).select(case.features.FEATURES)))
    metrics.send(case.name, "feature_rows_total", len(rows) - len(rejected), result="usable")
    metrics.send(case.name, "feature_rows_total", len(rejected), result="rejected")
    facts = {"validated": str(validated), "rows": known}
    with suppress(Overtaken):  # these features are scored anyway; `publish` decides
        version.publish(["features", "rejected"], facts, made_from=validated.name)
    return str(version)


def plan_chunks(
    case: UseCase, features_reference: str, model: ModelVersion, reason_codes: int = 0
) -> list[Chunk]:
    """Cut a day's features into chunks for a model of the registry.

    Args:
        reason_codes: reasons that are wanted for each prediction.

    Raises:
        BadData: the model expects a feature that is missing.
    """
    version = case.lake.version(features_reference)
    with version.parquet("features") as file:
        check_model(case, model, file.schema_arrow.names, str(version))
    return cut_chunks(case, features_reference, model, reason_codes)


def check_model(case: UseCase, model: ModelVersion, known: list[str], what: str) -> None:
    """Check that a registered model can be loaded and that its columns exist.

    Args:
        known: the columns that there are.
        what: what has them.

    Raises:
        BadData: it is damaged, or expects a column that is missing.
    """
    encoder = registry.load(case, model)[0]
    if not isinstance(encoder, FeatureEncoder):
        raise BadData(
            f"{model.name} version {model.version} does not begin with a FeatureEncoder but with "
            f"a {type(encoder).__name__}: nothing was scored. Train a model with this project."
        )
    try:
        encoder.check_columns(known)
    except BadData as error:
        raise BadData(
            f"{model.name} version {model.version} cannot score {what}: {error}"
        ) from error


def cut_chunks(
    case: UseCase, features_reference: str, model: ModelVersion, reason_codes: int = 0
) -> list[Chunk]:
    """Cut a day's features into chunks of about `chunk_rows` rows, along row groups.

    If there were more chunks than Airflow can map, they are larger.

    Args:
        reason_codes: reasons that are wanted for each prediction.
    """
    version = case.lake.version(features_reference)
    with version.parquet("features") as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    content = version.manifest().parts["features"].sha256
    chunks: list[Chunk] = []
    least_rows = _least_chunk_rows(case, sum(sizes))
    first_group = first_row = rows = 0
    for group, size in enumerate(sizes):
        rows += size
        if rows < least_rows and group < len(sizes) - 1:
            continue
        chunk = Chunk(
            features=features_reference,
            model=model.name,
            version=model.version,
            run_id=model.run_id,
            first_row=first_row,
            rows=rows,
            first_group=first_group,
            last_group=group,
            label=f"rows {first_row:,} to {first_row + rows - 1:,}" if rows else "no rows",
            content=content,
            reasons=reason_codes,
        )
        chunks.append(chunk)
        first_group, first_row, rows = group + 1, first_row + rows, 0
    return chunks


def _least_chunk_rows(case: UseCase, rows: int) -> int:
    """Minimum rows of a chunk, so that Airflow can map all chunks of a day.

    The models beside the champion are mapped over the same chunks, all in one mapped task.
    """
    from airflow.sdk.configuration import conf

    most = conf.getint("core", "max_map_length", fallback=1024)
    models = case.settings.group_models * len(case.features.GROUPS) + (
        case.settings.experiment != "off"
    )
    least_rows = math.ceil(rows / max(1, most // max(1, models)))
    if least_rows <= case.settings.chunk_rows:
        return case.settings.chunk_rows
    log.warning(
        "Chunks have at least %s rows instead of %s (%s): %s rows would need more chunks than "
        "Airflow can map (core.max_map_length is %s)",
        least_rows,
        case.settings.chunk_rows,
        case.settings.where_set("chunk_rows"),
        rows,
        most,
    )
    return least_rows


def score_chunk(case: UseCase, chunk: Chunk, predict: Predict | None = None) -> str:
    """Score a chunk, unless the same rows have been scored by the same version before.

    Args:
        predict: scoring function; by default that of the chunk's registered model.

    Returns:
        Path of the scores.
    """
    path = scores_path(case, chunk)
    if exists(path):
        log.info(
            "Found: chunk %s is already scored by %s version %s: %s",
            chunk.label, chunk.model, chunk.version, path,
        )  # fmt: skip
        return str(path)
    explain = None
    if predict is None:
        model = ModelVersion(chunk.model, chunk.version, chunk.run_id)
        pipeline = registry.load(case, model)
        predict = partial(case.target.predict, pipeline)
        if chunk.reasons:
            typical = reasons.typical_row(case, model)
            explain = reasons.explainer(case, pipeline, typical, chunk.reasons)
    began = time.monotonic()
    source = case.lake.version(chunk.features)
    # Each of many chunks would read the whole day; `plan_chunks` did, and pages have checksums.
    is_whole_day = chunk.rows == source.manifest().parts["features"].rows
    with source.parquet("features", verify=is_whole_day) as file:
        groups = list(range(chunk.first_group, chunk.last_group + 1))
        with metrics.timed(case.name, "inference_seconds", model=chunk.model):
            rows = score_file(case, file, groups, predict, path, chunk, explain)
    metrics.send(case.name, "scored_rows_total", rows, model=chunk.model)
    log.info(
        "Scored: chunk %s, %s rows by %s version %s in %.1f s: %s",
        chunk.label, f"{rows:,}", chunk.model, chunk.version, time.monotonic() - began, path,
    )  # fmt: skip
    return str(path)


def scores_path(case: UseCase, chunk: Chunk) -> "AnyPath":
    """Path of a chunk's scores."""
    target = f"{crc32(repr(case.target).encode()):08x}"  # with its costs, which make columns
    made_by = f"{chunk.model}-{chunk.version}-{chunk.run_id[:8]}"
    folder = f"{chunk.content[:16]}-{made_by}-{target}-{chunk.reasons}"
    name = f"{chunk.first_row:09d}-{chunk.rows:09d}.parquet"
    return case.lake.partition_path("scores", case.lake.version(chunk.features).key) / folder / name


def predictor(case: UseCase, model: ModelVersion) -> Predict:
    """A function that scores with a registered version."""
    return partial(case.target.predict, registry.load(case, model))


def score_file(
    case: UseCase,
    file: pq.ParquetFile,
    groups: list[int],
    predict: Predict,
    path: "AnyPath",
    chunk: Chunk,
    explain: reasons.Explain | None = None,
) -> int:
    """Score some row groups of a file of features into a file of scores, a batch at a time.

    Memory is bounded by `batch_rows` and the bytes of a row group, whatever the number of rows.

    Returns:
        Rows scored.
    """
    wanted = [*case.key, *(name for name in case.features.FEATURES if name not in case.key)]
    rows = 0
    with write_parquet(path, scores_schema(case, file.schema_arrow, chunk.reasons)) as writer:
        for group in groups:  # this bounds the bytes of a batch, which may have few rows
            for batch in file.iter_batches(case.settings.batch_rows, [group], wanted):
                writer.write_batch(score_batch(case, batch, predict, chunk, explain))
                rows += batch.num_rows
    return rows


def score_batch(
    case: UseCase,
    batch: pa.RecordBatch,
    predict: Predict,
    chunk: Chunk,
    explain: reasons.Explain | None = None,
) -> pa.RecordBatch:
    """The key of each row of a batch, its prediction, the reasons for it and its model.

    Raises:
        BadData: a prediction is impossible, so such a prediction is never stored.
    """
    scores = predict(batch).astype(np.float32)
    if wrong := case.target.wrong(scores):
        raise BadData(
            f"{chunk.model} version {chunk.version} gave invalid predictions: {wrong}. Nothing was "
            "kept. Fix the model or its features, or promote another version."
        )
    keys = [batch.column(name) for name in case.key]
    count = batch.num_rows
    why = explain(batch, scores) if explain else reasons.unexplained(chunk.reasons, count)
    names = [repeat(name, count) for name in (chunk.model, chunk.version)]
    return pa.RecordBatch.from_arrays(
        [*keys, *columns.arrays(case.target, scores), *why, *names],
        schema=scores_schema(case, batch.schema, chunk.reasons),
    )


def scores_schema(case: UseCase, feature_schema: pa.Schema, count: int) -> pa.Schema:
    """Columns of a file of scores: the key as in the features, prediction, reasons and model.

    Args:
        count: number of reasons.
    """
    name = pa.dictionary(pa.int8(), pa.string())
    return pa.schema(
        [
            *(feature_schema.field(column) for column in case.key),
            *columns.fields(case.target),
            *reasons.fields(count),
            pa.field("model", name),
            pa.field("model_version", name),
        ]
    )


def repeat(value: str, times: int) -> pa.DictionaryArray:
    """A column of one repeated text, in one byte per row."""
    return pa.DictionaryArray.from_arrays(np.zeros(times, np.int8), pa.array([value]))


def assemble(case: UseCase, features_reference: str, chunks: list[Chunk]) -> str:
    """Concatenate the chunks' scores in the order of the rows.

    Returns:
        Reference to a version of the predictions that is not published yet.

    Raises:
        BadData: the chunks do not add up to the rows of the features.
    """
    with case.lake.version(features_reference).parquet("features") as file:
        schema = scores_schema(case, file.schema_arrow, chunks[0].reasons if chunks else 0)
        rows = file.metadata.num_rows

    def batches() -> Iterator[pa.RecordBatch]:
        for chunk in chunks:
            with open_scores(case, chunk) as scores:
                for batch in scores.iter_batches(case.settings.batch_rows):
                    yield batch.cast(schema)

    return write_predictions(case, features_reference, schema, rows, batches())


def write_predictions(
    case: UseCase,
    features_reference: str,
    schema: pa.Schema,
    expected: int,
    batches: Iterable[pa.RecordBatch],
) -> str:
    """Write a day's predictions, unpublished, and the profile of the champion's scores.

    Args:
        expected: number of feature rows.

    Returns:
        Reference to the predictions.

    Raises:
        BadData: they do not add up to the rows of the features.
    """
    version = case.lake.new_version("predictions", key_of(features_reference))
    written, profiler = 0, Profiler()
    with version.write("predictions", schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            wanted = [*case.target.watched, PATH]
            given = batch.select([name for name in wanted if name in schema.names])
            if len(own := champions(pl.DataFrame(pl.from_arrow(given)))):
                profiler.add(own.select(case.target.watched))
            written += batch.num_rows
    keep(version, "predictions", profiler.result())
    if written != expected:
        raise BadData(
            f"{written} scores for {expected} rows of {features_reference}. Nothing was published; "
            "clear this run from `plan_chunks`."
        )
    return str(version)


def read_scores(case: UseCase, chunk: Chunk) -> np.ndarray:
    """The predictions of a chunk, float32."""
    with open_scores(case, chunk) as file:
        table = file.read(list(case.target.columns))
    return columns.read(case.target, pl.DataFrame(pl.from_arrow(table)))


def read_reasons(case: UseCase, chunk: Chunk) -> pl.DataFrame:
    """The reasons for the predictions of a chunk: no columns unless they are asked for."""
    with open_scores(case, chunk) as file:
        table = file.read([field.name for field in reasons.fields(chunk.reasons)])
    found = pl.DataFrame(pl.from_arrow(table))
    return found.with_columns(pl.selectors.categorical().cast(pl.String))


@contextmanager
def open_scores(case: UseCase, chunk: Chunk) -> Iterator[pq.ParquetFile]:
    """Open the scores of a chunk.

    Raises:
        MissingData: the chunk is not scored.
        BadData: the number of scores differs from its rows.
    """
    path = scores_path(case, chunk)
    with open_parquet(path) as scores:
        if scores.metadata.num_rows != chunk.rows:
            raise BadData(
                f"Chunk {chunk.label} has {scores.metadata.num_rows} scores for {chunk.rows} rows "
                f"in {path}. Nothing was published; delete that file and clear this run's failed "
                "tasks."
            )
        with blames(path):
            yield scores


def check_outputs(
    case: UseCase, predictions_reference: str, features_reference: str, model: ModelVersion | None
) -> OutputCheck:
    """Check predictions before they are published.

    Args:
        model: the champion, whose holdout defines its usual scores. None if the scores are from
            several models: each model's scores were checked before they were combined, as were
            those of rows that did not take the champion's path.

    Raises:
        BadData: the message names every breach: a missing or impossible prediction, a duplicate
            key, lost rows, or a distribution far from that on the champion's holdout.
    """
    version, source = (
        case.lake.version(predictions_reference),
        case.lake.version(features_reference),
    )
    rows = source.manifest().metadata["rows"]
    scored = version.read("predictions")
    with source.parquet("rejected") as file:
        rejected = file.metadata.num_rows
    scores = columns.read(case.target, scored)
    breaches = []
    if len(scored) + rejected != rows:
        breaches.append(f"{rows} rows came in, {len(scored)} scored + {rejected} rejected go out")
    if wrong := case.target.wrong(scores):
        breaches.append(wrong)
    if twice := int(scored.select(case.key).is_duplicated().sum()):
        breaches.append(f"{twice} rows share their key with another")
    psi = None
    mean = mean_of(case, scores) if len(scored) else None
    if rows and not len(scored):
        breaches.append("there is not one score")
    elif not wrong and model is not None and len(own := champions(scored)):
        usual = registry.reference(case, model)
        psi = population_stability(case, columns.read(case.target, own), usual)
        if psi > case.settings.max_score_psi:
            breaches.append(
                f"the scores' PSI against the holdout of version {model.version} is {psi:.2f}, "
                f"more than {case.settings.max_score_psi:g}: mean {mean:.3f}"
            )
    about = {"table": version.table}
    in_unit = {**about, "unit": case.target.unit}
    samples = [] if mean is None else [Sample("output_mean", mean, in_unit)]
    samples += [] if psi is None else [Sample("output_psi", psi, about)]
    metrics.send_of_day(case.lake, version.table, version.key, samples)
    if breaches:
        lines = "".join(f"\n  - {breach}" for breach in breaches)
        raise BadData(
            f"The {version.table} of {version.key}{f' by {model}' if model else ''} are not "
            f"published: {counted(len(breaches), 'breach')}.{lines}\nThe day's last published "
            f"ones are untouched. Look at {version.part_path('predictions')}."
        )
    return OutputCheck(rows, len(scored), rejected, mean, psi)


def mean_of(case: UseCase, scores: np.ndarray) -> float:
    """The mean of the first watched number of predictions."""
    return float(next(iter(columns.watched(case.target, scores).values())).mean())


def champions(scored: pl.DataFrame) -> pl.DataFrame:
    """The champion's rows among a day's predictions: all of them if there are no paths."""
    if PATH not in scored.columns:
        return scored
    return scored.filter(pl.col(PATH).cast(pl.String) == CHAMPION)


def score_reference(case: UseCase, scores: np.ndarray) -> dict[str, Any]:
    """Distribution that later predictions are compared with: bin edges at quantiles, and shares.

    Returns:
        `edges` and `shares`; if several columns are watched, `columns` with both for each.
    """
    found = {
        name: _distribution(values, case.target.range)
        for name, values in columns.watched(case.target, scores).items()
    }
    return next(iter(found.values())) if len(found) == 1 else {"columns": found}


def _distribution(
    values: np.ndarray, ends: tuple[float, float], bins: int = 10
) -> dict[str, list[float]]:
    """Bin edges at quantiles, and shares.

    Values are converted to float32, as they are published: a value that many rows share is an edge,
    and rounding it down would move these rows to another bin.
    """
    values = values.astype(np.float32)
    inner = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1])).tolist()
    known = [float(values.min()), float(values.max())]
    finite = [float(np.float32(end)) if math.isfinite(end) else end for end in ends]
    first, last = (
        end if math.isfinite(end) else own for end, own in zip(finite, known, strict=True)
    )
    edges = [first, *inner, last]
    return {"edges": edges, "shares": _shares(values, edges).tolist()}


def judge(
    case: UseCase, scores: np.ndarray, usual: dict[str, Any] | None
) -> tuple[float | None, str]:
    """Compare a model's predictions with its usual ones, and check whether they are plausible.

    Args:
        scores: predictions.
        usual: result of `score_reference`; None if unknown.

    Returns:
        Their PSI (None if `usual` is None), and what is wrong (empty if nothing is).
    """
    if not len(scores):
        return None, ""
    psi = None if usual is None else population_stability(case, scores, usual)
    watched = columns.watched(case.target, scores).values()
    if len(scores) >= LEAST_ROWS and all((one == one[0]).all() for one in watched):
        return psi, f"every score is {', '.join(f'{one[0]:.4f}' for one in watched)}"
    if psi is not None and psi > case.settings.max_score_psi:
        return psi, (
            f"the PSI of the scores against the usual ones is {psi:.2f}, more than "
            f"{case.settings.max_score_psi:g}: mean {mean_of(case, scores):.3f}"
        )
    return psi, ""


def population_stability(case: UseCase, scores: np.ndarray, reference: dict[str, Any]) -> float:
    """Population stability index of predictions against a reference (see `statistics.drift`).

    If several columns are watched, it is that of the column that has moved most.

    Raises:
        BadData: the reference is for another target.
    """
    watched = columns.watched(case.target, scores)
    known = reference.get("columns") or dict.fromkeys(list(watched)[:1], reference)
    if known.keys() != watched.keys():
        raise BadData(
            f"The usual predictions have the columns {listed(known)}, and those of {case.name} are "
            f"{listed(watched)}: the model was trained for another target. Nothing was published. "
            "Train a new model, or restore the use case's TARGET."
        )
    return max(
        stability_of(_shares(values, known[name]["edges"]), np.array(known[name]["shares"]))
        for name, values in watched.items()
    )


def _shares(values: np.ndarray, edges: list[float]) -> np.ndarray:
    within = np.clip(values.astype(np.float32), edges[0], edges[-1])
    return smoothed(np.histogram(within, edges)[0])


def publish(
    case: UseCase, predictions_reference: str, check: OutputCheck, lineage: dict[str, Any]
) -> int:
    """Publish a day's predictions with the result of checking them and their provenance.

    Returns:
        Published rows.

    Raises:
        Overtaken: the published version was made from newer rows, and stays.
    """
    version = case.lake.version(predictions_reference)
    made_from = case.lake.version(lineage["features"]).manifest().made_from
    facts = {"check": asdict(check), registry.TARGET: case.target.name, **lineage}
    if model := lineage.get("model"):
        datasets.read(datasets.model(model["name"], model["version"]))
    manifest = version.publish(["predictions"], facts, made_from)
    return manifest.parts["predictions"].rows


def are_current(case: UseCase, published: Manifest) -> bool:
    """Whether published predictions are for the use case's target, not for an earlier one."""
    stated = published.metadata.get(registry.TARGET)
    if stated is not None:
        return bool(stated == case.target.name)
    return columns.are_in(case.target, published.parts["predictions"].columns)
