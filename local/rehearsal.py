"""Runs a use case's first days through all production steps, in a temporary folder.

It runs the code of the DAGs on an empty lake and an empty registry. The gate's bounds are open,
because ten days cannot show how good a model is.
"""

import contextlib
import io
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Any

import numpy as np
import polars as pl
import uvicorn
from sklearn.pipeline import Pipeline

from include.destinations import DeltaTable, SqlTable
from include.encoder import FeatureEncoder
from include.expected import expected_days, is_expected
from include.inference import delivery, ensemble, fallback, remote, scoring, sql_table
from include.inference.patient_http import Endpoint
from include.lake.files import first_line
from include.messages import Answer, ModelVersion
from include.monitoring import daily
from include.preprocess import check_keys
from include.registry import promotion, registry
from include.settings import settings
from include.targets import Target
from include.training import evaluation, gate, snapshot, training
from include.usecase import UseCase
from include.validation import land
from include.wording import counted, cut, listed
from local.environment import apart, variables
from local.in_process import batch_inference, validate_day
from local.wrong import Wrong
from serving import app

DAYS, HOLDOUT = 8, 3
"""Days with data, if both parts have both labels; and how many of them are the holdout."""

OPEN_GATE = {
    "gate_confidence": "0",
    "gate_max_skill": "1",
    "gate_max_slice_skill_loss": "1000",
    "gate_max_calibration_error": "1",
    "gate_max_shift_ratio": "1000000",
    "gate_max_shift": "1",
    "gate_max_scoring_seconds": "1000000",
    "refit": "false",
    "max_score_psi": "1000000",
}
"""Bounds that a few days cannot test; size, features and types of values are judged as usual."""

REASON = "rehearsal"
SERVER_SECONDS = 20

Say = Callable[[str], None]


@contextlib.contextmanager
def scratch(case: UseCase, folder: str) -> Iterator[None]:
    """An empty lake and an empty registry, for this process, while the block runs."""
    os.environ |= variables(case, OPEN_GATE) | apart(case, Path(folder))
    os.environ |= {"ML_DATA_DIR": folder, "MLFLOW_DISABLE_TELEMETRY": "true"}
    settings.cache_clear()
    with contextlib.redirect_stderr(io.StringIO()):  # MLflow would print each version
        yield


def rehearse(case: UseCase, say: Say) -> None:
    """Validate, train, judge, register, score, deliver, serve and monitor.

    Raises:
        Wrong: what must be changed.
    """
    keys = _validate(case, say)
    first, split, last = keys[0], keys[-HOLDOUT], keys[-1]
    holdout_days = (date.fromisoformat(last) - date.fromisoformat(split)).days + 1
    os.environ |= variables(case, {"max_missing_share": "0.99"})  # the refusals were printed before
    settings.cache_clear()
    taken = snapshot.take(case, first, last, holdout_days)
    registry.create_store(case)
    champion = _train(case, taken, say)
    _score(case, last, champion, say)
    _deliver(case, last, say)
    _serve(case, last, champion, say)
    daily.observe(case, last, datetime.now(UTC))
    decision = daily.decide(case, last)
    daily.write_report(case, last, decision)
    say(f"Monitoring: measured {last}, decided {decision.action!r}, drew the report")


# --- days -----------------------------------------------------------------------------------------


def _validate(case: UseCase, say: Say) -> list[str]:
    """The first days, until training days and holdout have both labels."""
    first, last = map(date.fromisoformat, case.first_window)
    keys: list[str] = []
    labels: list[np.ndarray] = []
    rows: list[int] = []
    for day in expected_days(case, first, last):
        keys.append(day.isoformat())
        found, known = _try_day(case, keys[-1], say)
        rows.append(len(found))
        labels.append(known["label"].to_numpy() if known is not None else np.empty(0, np.int8))
        parts = [part for part in (labels[:-HOLDOUT], labels[-HOLDOUT:]) if part]
        described = [case.target.describe(np.concatenate(part)) for part in parts]
        lacking = [case.target.lacking(one) for one in described]
        if len(keys) >= DAYS and not any(lacking):
            break
    else:
        raise Wrong(
            f"too little can be learned from the labels of {len(keys)} days, {first} to {last}, or "
            f"of the last {HOLDOUT} of them: {'; '.join(filter(None, lacking))}"
        )
    if median(rows) < scoring.LEAST_ROWS:
        raise Wrong(
            f"a day has {median(rows):g} rows, and with fewer than {scoring.LEAST_ROWS} neither "
            "its scores nor its drift can be judged: a partition is a day, so this needs more rows "
            "in one (several sources or regions together, for instance)"
        )
    return keys


def _try_day(case: UseCase, key: str, say: Say) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """The day's features, and its labels if its truth is expected."""
    for table, awaited in case.tables.items():
        if not is_expected(case, table, key):
            continue
        there = land.land(case, table, key)
        for one in (one for one in awaited if one.name not in there):
            if one.required and one.expected(date.fromisoformat(key)):
                raise Wrong(
                    f"fetch in source.py gives nothing for {one.name} of {key}: first_window must "
                    "have days with data. If no data is due on such a day, declare that in "
                    f"schema.py by `expected` (or `required=False`) of {one.name}"
                )
        validate_day(case, table, key)
    day = case.lake.current("validated", key)
    inputs = {name: day.read(name) for name in day.manifest().parts}
    found = case.features.build_features(inputs)
    _check_features(case, found, inputs[case.inputs[0].name])
    if not list(case.lake.published_keys("features")):
        _try_less(case, inputs)
    scoring.preprocess(case, key)
    if case.lake.manifest("actuals", key) is None:
        say(f"{key}: {len(found)} rows validated, with features")
        return found, None
    labels = case.features.build_labels(case.lake.current("actuals", key).read(case.truth.name))
    _check_labels(case, labels)
    known = found.join(labels, on=case.key, how="inner")
    say(f"{key}: {len(found)} rows validated, {len(known)} of them with a label")
    return found, known.with_columns(label=case.target.codes(known["label"]))


def _check_features(case: UseCase, found: pl.DataFrame, main: pl.DataFrame) -> None:
    wanted = {
        **dict.fromkeys(case.features.NUMERIC, pl.Float32),
        **dict.fromkeys(case.features.CATEGORICAL, pl.String),
    }
    wrong = [
        f"{name} of build_features is {found.schema.get(name, 'missing')}, and has to be {kind}"
        for name, kind in wanted.items()
        if found.schema.get(name) != kind
    ]
    known = {*case.key, *case.features.FEATURES}
    wrong += [
        f"{name} of build_features is missing" for name in case.key if name not in found.columns
    ]
    if more := [name for name in found.columns if name not in known]:
        wrong.append(f"build_features gives {listed(more)}, and is to give KEY and FEATURES only")
    if wrong:
        raise Wrong(*wrong)
    check_keys(case, found, main, case.inputs[0].name)


def _try_less(case: UseCase, inputs: dict[str, pl.DataFrame]) -> None:
    """Build features without each optional input, and with empty inputs that may be empty."""
    main = case.inputs[0].name
    for one in case.inputs:
        days = []
        if not one.required and one.name != main:
            days.append({name: rows for name, rows in inputs.items() if name != one.name})
        if one.may_be_empty and one.name in inputs:
            gone = [one.name] if one.name != main else list(inputs)
            days.append(
                {name: rows.clear() if name in gone else rows for name, rows in inputs.items()}
            )
        for day in days:
            try:
                _check_features(case, case.features.build_features(day), day[main])
            except Exception as error:
                error.add_note(f"on a day without {one.name}")
                raise


def _check_labels(case: UseCase, labels: pl.DataFrame) -> None:
    wrong = []
    if labels.columns != [*case.key, "label"]:
        wrong.append(f"build_labels gives {listed(labels.columns)}, and is to give KEY and label")
    elif what := case.target.wrong_labels(labels["label"]):
        wrong.append(f"label of build_labels {what}")
    elif twice := int(labels.select(case.key).is_duplicated().sum()):
        wrong.append(f"{twice} rows of build_labels share their key with another")
    if wrong:
        raise Wrong(*wrong)


# --- models ---------------------------------------------------------------------------------------


def _train(case: UseCase, taken: str, say: Say) -> ModelVersion:
    """Train every candidate, judge all of them, register the best and its ensemble, promote it."""
    evaluations = []
    for name, make in (case.models.CANDIDATES | case.models.WITHOUT).items():
        _check_candidate(case.target, name, make(case.settings.seed))
        began = time.monotonic()
        try:
            run = training.train(case, taken, name, REASON)
            evaluations.append(evaluation.evaluate_run(case, taken, run, name))
        except (TypeError, ValueError) as error:  # scikit-learn's errors for rows and parameters
            raise Wrong(
                f"{name} in models.py cannot be trained: {type(error).__name__}: "
                f"{cut(first_line(error), 300)}"
            ) from error
        say(f"{name}: trained, saved, loaded and judged in {time.monotonic() - began:.0f} s")
    verdict = gate.judge(case, taken, None, evaluations)
    refused = [
        f"the gate refuses {name}: {rule.name} is {rule.found}, must be {rule.bound}"
        for name, rules in verdict.rules.items()
        for rule in rules
        if not rule.passed
    ]
    if verdict.challenger is None:
        raise Wrong(*refused)
    runs = {
        one.candidate: training.refit(case, taken, one)
        for one in [verdict.challenger, *verdict.members]
    }
    champion = training.register(case, verdict, runs, REASON, REASON)
    promotion.promote(case, champion, None, REASON)
    say(f"{verdict.challenger.candidate}: registered with its plots, and promoted")
    return champion


def _check_candidate(target: Target, name: str, pipeline: Any) -> None:
    if not isinstance(pipeline, Pipeline) or not isinstance(pipeline[0], FeatureEncoder):
        raise Wrong(
            f"{name} in models.py gives a {type(pipeline).__name__}, and has to give a Pipeline of "
            "scikit-learn whose first step is FeatureEncoder(NUMERIC, CATEGORICAL)"
        )
    if wrong := target.wrong_model(pipeline):
        raise Wrong(f"{name} in models.py ends with a {type(pipeline[-1]).__name__}, which {wrong}")


def _score(case: UseCase, key: str, champion: ModelVersion, say: Say) -> None:
    """Score a day by the champion, by the ensemble's local members, and by the baselines."""
    rows = batch_inference(case, key, champion)
    reference = str(case.lake.current("features", key))
    answers: dict[str, Answer | None] = {}
    for member in case.members:
        if member.kind == "remote":
            say(f"{member.name}: not tried, because its server is unknown here")
            continue
        chunks = ensemble.plan(case, reference, member, champion)
        for chunk in chunks:
            ensemble.score(case, member, chunk)
        answers[member.name] = ensemble.check(case, reference, member, chunks)
    roll = ensemble.call_roll(case, reference, champion, answers, {})
    if roll.answers:
        scored = ensemble.combine_day(case, reference, roll)
        check = scoring.check_outputs(case, scored.predictions, reference, None)
        ensemble.publish(case, scored, check, reference, roll, None)
    if case.lake.published_keys("actuals"):
        fallback.baselines(case, reference)
    say(f"{key}: {rows} rows scored by the champion and {counted(len(answers), 'member')}")


def _deliver(case: UseCase, key: str, say: Say) -> None:
    """Deliver a day to the trial's Delta table; for other destinations only check the columns.

    Raises:
        BadData: a destination names a column that is not published, or of a type it cannot hold.
    """
    for one in case.destinations:
        published = case.lake.manifest(one.source, key)
        if published is None:
            say(f"{one.name}: not tried, because no member scored the day")
        elif isinstance(one, DeltaTable) and not one.uri:
            rows = delivery.deliver(case, one.name, key).rows
            say(f"{one.name}: {rows} rows delivered to a Delta table")
        else:
            day = delivery.read(case, one, case.lake.current(one.source, key))
            if isinstance(one, SqlTable):
                sql_table.check_types(day)
            say(f"{one.name}: its columns are {listed(day.schema.names, 30)}; nothing was sent")


def _serve(case: UseCase, key: str, champion: ModelVersion, say: Say) -> None:
    """Score a few rows by a real model server, and compare with the batch's scores."""
    config = uvicorn.Config(app.create_app([case]), host="127.0.0.1", port=0, log_level="critical")
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + SERVER_SECONDS
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        with case.lake.current("features", key).parquet("features") as file:
            rows = next(file.iter_batches(100, columns=case.features.FEATURES))
        with remote.connect(case, Endpoint(f"http://127.0.0.1:{port}"), case.name) as client:
            given = client.predict(rows, client.describe())
        batch = scoring.predictor(case, champion)(rows)
        if not np.allclose(given, batch, rtol=remote.TOLERANCE, atol=remote.TOLERANCE):
            apart = np.max(np.abs(given - batch))
            raise Wrong(f"the model server's scores differ from the batch's by {apart:.2g}")
    finally:
        server.should_exit = True
        thread.join()
    say(f"Model server: {rows.num_rows} rows answered over HTTP, as by the batch")
