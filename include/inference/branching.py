"""Which model scores which rows of a day: A/B tests, shadows, models for rows that lack inputs.

A row takes one of these paths, which is in its column `path`:

    without_<group>   it lacks a whole group of inputs, and the model trained without them scores it
    challenger        in an A/B test, a share of the other rows, by a hash of their key
    champion          all other rows, and rows whose path has no model

A shadow takes no rows: the challenger's scores are stored beside the champion's, but are never
published as the answer. The champion scores every row in its own tasks, so a failure of another
model does not delay the day.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from include import metrics
from include.errors import BadData, MissingData, PipelineError, kind_of
from include.inference import scoring
from include.inference.scoring import PATH
from include.lake.files import to_arrow
from include.lake.tables import Version
from include.messages import CHALLENGER, CHAMPION, Branches, Chunk, ModelVersion, OutputCheck
from include.metrics import Sample
from include.registry import promotion, registry
from include.targets import columns
from include.usecase import UseCase
from include.values import without_nan

SHADOW_SCORE = f"score_{CHALLENGER}"
"""Column of the predictions with the scores of a shadow."""

log = logging.getLogger(__name__)


def wanted(case: UseCase) -> list[str]:
    """The paths that the settings enable, besides the champion's."""
    kinds = [group.path for group in case.features.GROUPS] if case.settings.group_models else []
    return [*kinds, *([CHALLENGER] if case.settings.experiment != "off" else [])]


# --- who scores -----------------------------------------------------------------------------------


def resolve(case: UseCase, champion: ModelVersion) -> Branches:
    """Fix the versions that score beside the champion; unusable ones are left out with the reason.

    Raises:
        DependencyDown: the registry does not answer.
    """
    models, absent = {}, {}
    for path in wanted(case):
        try:
            model = (
                _challenger(case, champion)
                if path == CHALLENGER
                else _made_for(case, path, champion)
            )
            scoring.check_model(
                case, model, [*case.key, *case.features.FEATURES], "the features of this code"
            )
        except (BadData, MissingData) as error:  # retrying this run would not help
            log.warning("No row takes the path %s: %s", path, error)
            absent[path] = str(error)
        else:
            models[path] = model
    return Branches(case.settings.experiment, case.settings.ab_share, models, absent)


def _challenger(case: UseCase, champion: ModelVersion) -> ModelVersion:
    model = registry.find_challenger(case)
    retraining = case.dag_id("model_retraining")
    advice = f"Give a version the alias {CHALLENGER!r}, as `{retraining}` does."
    if model is None:
        raise MissingData(f"No version has the alias {CHALLENGER!r}. {advice}")
    if model == champion:
        raise MissingData(f"{model} has become champion, and nothing challenges it. {advice}")
    if case.settings.experiment == "ab" and promotion.was_rolled_back(case, model):
        raise BadData(f"{model} was rolled back: its scores are not published again. {advice}")
    return model


def _made_for(case: UseCase, path: str, champion: ModelVersion) -> ModelVersion:
    members = registry.members(case, champion)
    if path not in members:
        raise MissingData(
            f"No model {path} was trained with the champion, {champion}, or the gate refused "
            f"it. If {case.settings.where_set('group_models')} is true, "
            f"`{case.dag_id('model_retraining')}` trains one."
        )
    return members[path]


# --- which rows -----------------------------------------------------------------------------------


def draw(case: UseCase, rows: pl.DataFrame, salt: str) -> np.ndarray:
    """A number from 0 to below 1 for each row, from its key and the salt, not from its position.

    BLAKE2 gives the same numbers on every machine and in every version of every library; the hashes
    of Polars and Python do not.

    Args:
        rows: rows with the key's columns.
        salt: another salt gives other numbers.

    Returns:
        float64 of shape (rows,).
    """
    key = [pl.lit(salt), *(pl.col(name).cast(pl.String) for name in case.key)]
    texts = rows.select(pl.concat_str(key, separator="\x1f")).to_series()
    hashed = b"".join(blake2b(text.encode(), digest_size=8).digest() for text in texts)
    # A float is exact for 53 bits, so the result is below 1.
    return (np.frombuffer(hashed, ">u8") >> 11) / 2.0**53


def paths(case: UseCase, rows: pl.DataFrame, branches: Branches) -> pl.Series:
    """The path of each row, independent of which models failed.

    Args:
        rows: rows with the key and the features of all groups.
    """
    path = pl.lit(CHAMPION)
    if branches.mode == "ab" and CHALLENGER in branches.models:
        is_drawn = pl.Series(draw(case, rows, branches.salt) < branches.share, dtype=pl.Boolean)
        path = pl.when(is_drawn).then(pl.lit(CHALLENGER)).otherwise(path)
    for group in reversed(case.features.GROUPS):
        if group.path in branches.models:
            lacks_all = pl.all_horizontal(pl.col(list(group.features)).is_null())
            path = pl.when(lacks_all).then(pl.lit(group.path)).otherwise(path)
    return without_nan(rows).with_columns(path.alias(PATH))[PATH]


def plan(case: UseCase, chunks: Sequence[Chunk], branches: Branches) -> dict[str, list[Chunk]]:
    """Path → the champion's chunks in which the path has rows."""
    found: dict[str, list[Chunk]] = {path: [] for path in branches.models}
    for chunk in chunks:
        taken = set(_paths_of(case, chunk, branches))
        for path, model in branches.models.items():
            if path in taken or branches.is_shadow(path):
                scored = _as_scored_by(chunk, path, model)
                found[path].append(
                    replace(scored, reasons=0) if branches.is_shadow(path) else scored
                )
    return found


def _paths_of(case: UseCase, chunk: Chunk, branches: Branches) -> pl.Series:
    groups = (name for group in case.features.GROUPS for name in group.features)
    columns = list(dict.fromkeys([*case.key, *groups]))
    with case.lake.version(chunk.features).parquet("features") as file:
        found = file.read_row_groups([*range(chunk.first_group, chunk.last_group + 1)], columns)
    return paths(case, pl.DataFrame(pl.from_arrow(found)), branches)


def _as_scored_by(chunk: Chunk, path: str, model: ModelVersion) -> Chunk:
    return replace(
        chunk,
        model=model.name,
        version=model.version,
        run_id=model.run_id,
        label=f"{path}, {chunk.label}",
    )


def gather(case: UseCase, chunks: Sequence[Chunk], branches: Branches | None, why: str) -> Branches:
    """Check which models scored their rows, and whether their scores are plausible.

    Args:
        chunks: the champion's chunks.
        branches: the result of `resolve`; None if it failed.
        why: path → failure message of its tasks.

    Raises:
        DependencyDown: the lake or the registry does not answer.
    """
    if branches is None:
        silent = "`others.resolve` ended without a message (killed, or timed out): see Airflow"
        nobody = dict.fromkeys(wanted(case), why or silent)
        return Branches(case.settings.experiment, case.settings.ab_share, {}, nobody)
    try:
        planned = plan(case, chunks, branches)
    except Exception as error:
        said = _said(error, why)
        log.warning("The champion scores every row: %s", said)
        absent = branches.absent | dict.fromkeys(branches.models, said)
        return replace(branches, models={}, absent=absent)
    absent = dict(branches.absent)
    for path, theirs in planned.items():
        try:
            scores = [scoring.read_scores(case, chunk) for chunk in theirs]
            if scores and not branches.is_shadow(path):
                _check(case, branches.models[path], np.concatenate(scores))
        except Exception as error:
            absent[path] = _said(error, why)
    for path in absent.keys() - branches.absent.keys():
        log.warning("The champion scores the rows of %s: %s", path, absent[path])
    return replace(branches, absent=absent)


def _said(error: Exception, why: str) -> str:
    """The message of a path's error, or `why`, the message that a task left before."""
    if kind_of(error) == "dependency down":  # the champion's scores would be missing, too
        raise error
    said = str(error) if isinstance(error, PipelineError) else repr(error)
    return said if isinstance(error, BadData) else why or said


def _check(case: UseCase, model: ModelVersion, scores: np.ndarray) -> None:
    """Check that scores are plausible before they are published.

    Raises:
        BadData: they are all the same, or far from the scores on the model's holdout.
        MissingData: the scores on the holdout are unknown.
    """
    if len(scores) < scoring.LEAST_ROWS:
        return
    _, wrong = scoring.judge(case, scores, registry.reference(case, model))
    if wrong:
        raise BadData(f"{model} answers wrongly: {wrong}.")


# --- together -------------------------------------------------------------------------------------


def assemble(
    case: UseCase, features_reference: str, chunks: Sequence[Chunk], branches: Branches | None
) -> str:
    """Give each row the score of its path's model, or the champion's if that has none.

    Args:
        chunks: the champion's chunks.
        branches: the result of `gather`; None if only the champion scores.

    Returns:
        Reference to a version of the predictions that is not published yet. With branches it has
        a column `path`, and a shadow's scores in `score_challenger`.
    """
    if branches is None:
        return scoring.assemble(case, features_reference, list(chunks))
    with case.lake.version(features_reference).parquet("features") as file:
        count = chunks[0].reasons if chunks else 0
        schema = scoring.scores_schema(case, file.schema_arrow, count)
        rows = file.metadata.num_rows
    schema = schema.append(pa.field(PATH, schema.field("model").type))
    if branches.mode == "shadow" and CHALLENGER in branches.answered:
        schema = schema.append(pa.field(SHADOW_SCORE, columns.packed_type(case.target)))
    batches = (batch for chunk in chunks for batch in _put_together(case, chunk, branches, schema))
    return scoring.write_predictions(case, features_reference, schema, rows, batches)


def _put_together(
    case: UseCase, chunk: Chunk, branches: Branches, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    with scoring.open_scores(case, chunk) as file:
        rows = file.read()
    answered = branches.answered
    names = [CHAMPION, *answered]
    taken = _paths_of(case, chunk, branches).to_numpy()
    codes = np.select([taken == name for name in names], range(len(names)), 0).astype(np.int8)
    scores = columns.read(case.target, pl.DataFrame(pl.from_arrow(rows))).copy()
    why = scoring.read_reasons(case, chunk)
    for code, (path, model) in enumerate(answered.items(), start=1):
        if (here := codes == code).any():
            other = _as_scored_by(chunk, path, model)
            scores[here] = scoring.read_scores(case, other)[here]
            theirs = scoring.read_reasons(case, other)
            why = why.with_columns(
                pl.when(pl.Series(here)).then(theirs[name]).otherwise(pl.col(name)).alias(name)
                for name in why.columns
            )
    whose = [ModelVersion(chunk.model, chunk.version, chunk.run_id), *answered.values()]
    answers = columns.arrays(case.target, scores)
    together = {
        **{name: rows.column(name) for name in case.key},
        **dict(zip((one.name for one in columns.fields(case.target)), answers, strict=True)),
        **{name: to_arrow(why).column(name) for name in why.columns},
        "model": _texts([model.name for model in whose], codes),
        "model_version": _texts([model.version for model in whose], codes),
        PATH: _texts(names, codes),
    }
    if SHADOW_SCORE in schema.names:
        shadow = replace(_as_scored_by(chunk, CHALLENGER, answered[CHALLENGER]), reasons=0)
        own = scoring.read_scores(case, shadow)
        together[SHADOW_SCORE] = columns.packed(case.target, own)
    table = pa.table(together).cast(schema).combine_chunks()
    yield from table.to_batches(case.settings.batch_rows)


def _texts(values: list[str], codes: np.ndarray) -> pa.DictionaryArray:
    """A column with few distinct texts, in one byte per row."""
    distinct, places = np.unique(values, return_inverse=True)
    return pa.DictionaryArray.from_arrays(
        places[codes].astype(np.int8), pa.array(distinct.tolist(), pa.string())
    )


def publish(
    case: UseCase,
    predictions_reference: str,
    check: OutputCheck,
    lineage: dict[str, Any],
    branches: Branches | None,
) -> int:
    """Publish a day's predictions; with branches, the manifest has rows per path and absent paths.

    Returns:
        Published rows.
    """
    if branches is None:
        return scoring.publish(case, predictions_reference, check, lineage)
    counts = count(case.lake.version(predictions_reference), branches)
    facts = {**asdict(branches), "salt": branches.salt, "rows": counts}
    rows = scoring.publish(case, predictions_reference, check, {**lineage, "branches": facts})
    samples = [Sample("path_rows_total", number, {"path": path}) for path, number in counts.items()]
    metrics.send_all(case.name, samples)
    return rows


def count(predictions: Version, branches: Branches) -> dict[str, int]:
    """Rows per possible path."""
    taken = predictions.read("predictions", [PATH])[PATH].cast(pl.String).value_counts()
    there = dict(taken.iter_rows())
    could = [CHAMPION, *branches.models, *branches.absent]
    return {path: there.get(path, 0) for path in dict.fromkeys(could)}
