"""The ensemble: the cost of a dead member, a server that fails at random, and the accuracy.

- On an embedded Airflow, `ensemble_inference` runs a real day with all members up and, in turns,
  with the model server stopped.
- The remote member scores a year of real flights as one day, from a server that answers every
  request, and in turns from the same server failing one request in five.
- Month by month the members are trained on all days before, as in `model_retraining`, and score the
  month; the remote member is the champion, assumed to be XGBoost. Their plain average is compared
  with the best of them, and with averages calibrated on the 14 days before (by members that had not
  seen these). This part needs no Airflow.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any

import httpx

from benchmarks.common import (
    REPO,
    Claim,
    Clock,
    alternate,
    at_least,
    at_most,
    best,
    child,
    free_port,
    program,
    real_days,
    say,
    scratch_folder,
    usecase,
)
from local import embedded
from local.client import Airflow, poll

REPEATS = {"small": 2, "full": 5}
MONTHS = {"small": 2, "full": 10}
MAX_RATIO = 1.2
FAILING = 0.2
CALIBRATION_DAYS = 14
WINDOW = ("2013-01-01", "2013-01-31")
KEY, YEAR = "2013-02-01", "2013-12-31"


def main(size: str) -> list[Claim]:
    """Measure all three."""
    with scratch_folder() as folder:
        env = {"ML_DATA_DIR": str(folder), "MLFLOW_LOGGING_LEVEL": "WARNING"}
        say("Training a champion and its ensemble on January; validating a day")
        child(prepare, env)
        claims = [_dead_member(folder, size), *_failing_server(env, size)]
    say(f"Training again each month, for {MONTHS[size]} months")
    return [*claims, *_worth(child(monthly, {}, months=MONTHS[size]))]


def prepare() -> dict[str, Any]:
    """A lake with a validated day, a champion, and the members trained with it."""
    case = usecase()
    from include.inference import scoring
    from include.registry import promotion, registry
    from include.training import evaluation, snapshot, training
    from local.seed import seed

    lake = case.lake
    seed(case, WINDOW[0], KEY, lambda _: None)
    registry.create_store(case)
    taken = snapshot.take(case, *WINDOW, holdout_days=5)
    members = {}
    for name in case.models.CANDIDATES:
        run = training.train(case, taken, name, "benchmark")
        judged = lake.version(evaluation.evaluate_run(case, taken, run, name))
        registry.log_reference(
            case, run, scoring.score_reference(case, evaluation.read_scores(judged))
        )
        members[name] = registry.register_member(case, name, run, {})
    champion = registry.register(case, members["xgboost"].run_id, members=members)
    promotion.promote(case, champion, None, "benchmark")
    return {}


# --- a dead member --------------------------------------------------------------------------------


def _dead_member(folder: Any, size: str) -> Claim:
    case = usecase()
    try:
        airflow = embedded.start(folder, free_port())
        airflow.unpause(case.dag_id("ensemble_inference"))
        sides = {
            "all up": partial(_run, airflow, True),
            "one down": partial(_run, airflow, False),
        }
        say("Each once as a warm-up, then alternating")
        alternate(sides, 1)
        seconds = {name: median(found) for name, found in alternate(sides, REPEATS[size]).items()}
    finally:
        embedded.stop(folder)
    patience = case.settings.remote_give_up_seconds
    return at_most(
        "one member of four down", (seconds["one down"] - patience) / seconds["all up"],
        f"x the time with all up, after the {patience:g} s of the breaker", MAX_RATIO,
        f"one down {seconds['one down']:.1f} s, all up {seconds['all up']:.1f} s "
        f"(medians of {REPEATS[size]})",
    )  # fmt: skip


def _run(airflow: Airflow, whole: bool) -> float:
    """Run the day, with the model server or without it; returns the seconds of the run."""
    embedded.stop_model_server(airflow.data)
    if whole:
        _wait_until_ready(embedded.start_model_server(airflow.data))
    dag_id = usecase().dag_id("ensemble_inference")
    run_id = airflow.trigger(dag_id, partition_key=KEY)
    assert airflow.wait(dag_id, run_id) == "success"
    absent = airflow.xcom(dag_id, run_id, "call_roll")["absent"]
    assert list(absent) == ([] if whole else ["remote"]), absent
    [run] = [one for one in airflow.runs(dag_id) if one["dag_run_id"] == run_id]
    began, ended = (datetime.fromisoformat(run[name]) for name in ("start_date", "end_date"))
    seconds = (ended - began).total_seconds()
    say(f"  {'all up' if whole else 'one down':10}{seconds:6.2f} s")
    return seconds


def _wait_until_ready(url: str) -> None:
    def ready() -> bool:
        try:
            return httpx.get(f"{url}/v2/health/ready", trust_env=False).is_success
        except httpx.TransportError:
            return False

    poll(ready, timeout=120, every=0.1)


# --- a server that fails --------------------------------------------------------------------------


def _failing_server(env: dict[str, str], size: str) -> list[Claim]:
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "serving", "--faults", "--port", url.rpartition(":")[2]]
    server = subprocess.Popen(command, cwd=REPO, env={**os.environ, **env})
    try:
        _wait_until_ready(url)
        connected = {**env, "AIRFLOW_CONN_MODEL_SERVER": json.dumps({
            "conn_type": "http", "host": url})}  # fmt: skip
        child(publish_year, env)
        sides = {
            name: partial(child, ask, connected, url=url, error_rate=rate)
            for name, rate in (("sound", 0.0), ("failing", FAILING))
        }
        runs = alternate(sides, REPEATS[size])
    finally:
        server.terminate()
        server.wait(10)
    for name, found in runs.items():
        for one in found:
            say(f"  {name:9}{one['rows']:>9,} rows {one['seconds']:6.2f} s, {one['failed']} failed")
    seconds = best(runs, "seconds")
    once = min(one["rows_once"] for one in runs["failing"])
    rows = runs["sound"][0]["rows"]
    assert runs["failing"][0]["failed"] > 0
    return [
        at_least(
            f"rows scored once, {FAILING:.0%} of requests failing", once / rows, "of all rows", 1,
            f"the same scores as from a server that never fails ({rows:,} rows)",
        ),
        at_most(
            f"overhead of {FAILING:.0%} failing", seconds["failing"] / seconds["sound"],
            "x the time", None,
            f"a server that never fails: {seconds['sound']:.2f} s, "
            f"{rows / seconds['sound']:,.0f} rows/s (best of {REPEATS[size]})",
        ),
    ]  # fmt: skip


def publish_year() -> dict[str, Any]:
    """Publish the features of all real days as one day."""
    case = usecase()
    from include.settings import settings

    rows = real_days(case, date(2013, 1, 1), date.fromisoformat(YEAR)).drop("label", "day")
    version = case.lake.new_version("features", YEAR)
    version.write_frame("features", rows, settings().batch_rows)
    version.publish(["features"])
    return {}


def ask(url: str, error_rate: float) -> dict[str, Any]:
    """Score the year by the remote member; compare with its model without a server."""
    case = usecase()
    import secrets

    import numpy as np
    import polars as pl

    from include.inference import ensemble
    from include.registry import registry

    lake = case.lake
    features = str(lake.current("features", YEAR))
    httpx.put(f"{url}/faults", json={"error_rate": error_rate}).raise_for_status()
    before = httpx.get(f"{url}/faults/counts").json()
    [remote] = [member for member in case.members if member.kind == "remote"]
    planned = ensemble.plan(case, features, remote, None)
    chunks = [replace(chunk, run_id=secrets.token_hex(4)) for chunk in planned]
    clock = Clock()
    paths = [ensemble.score(case, remote, chunk) for chunk in chunks]
    spent = clock.read()
    counts = httpx.get(f"{url}/faults/counts").json()
    rows = lake.version(features).read("features")
    with_keys = pl.concat(pl.read_parquet(path) for path in paths)
    expected = registry.load(case, registry.champion(case)).predict_proba(rows)[:, 1]
    right = np.isclose(with_keys["score"].to_numpy(), expected, atol=1e-6)
    same_keys = with_keys.select(case.key).equals(rows.select(case.key))
    return {
        "rows": len(rows),
        "rows_once": int(right.sum()) if same_keys and len(with_keys) == len(rows) else 0,
        "failed": counts["failed"] - before["failed"],
        **spent,
    }


# --- what it is worth -----------------------------------------------------------------------------


def _worth(losses: dict[str, float]) -> list[Claim]:
    average = losses.pop("ensemble")
    calibrated = [
        at_most(
            f"ensemble log-loss, by {name}", losses.pop(name) / average, "x of the plain one's",
            None, f"plain average {average:.4f}",
        )
        for name in CALIBRATIONS
    ]  # fmt: skip
    name = min(losses, key=losses.__getitem__)
    listed = ", ".join(f"{one} {loss:.4f}" for one, loss in losses.items())
    against = f"{name}; ensemble {average:.4f} ({listed})"
    ratio = average / losses[name]
    return [
        at_most("ensemble log-loss", ratio, "x of the best member's", 1.0, against),
        *calibrated,
    ]


def platt(scores: Any, labels: Any, unknown: Any) -> Any:
    """Calibrate by a logistic regression on the log-odds (Platt, 1999)."""
    from scipy.special import logit
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1e6).fit(logit(scores)[:, None], labels)
    return model.predict_proba(logit(unknown)[:, None])[:, 1]


def isotonic(scores: Any, labels: Any, unknown: Any) -> Any:
    """Calibrate by isotonic regression, with probabilities limited to one in a thousand."""
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0.001, y_max=0.999, out_of_bounds="clip")
    return model.fit(scores, labels).predict(unknown)


CALIBRATIONS = {"Platt's method": platt, "isotonic regression": isotonic}


def monthly(months: int) -> dict[str, Any]:
    """Log-losses of members and ensemble, each month scored by models of all days before."""
    case = usecase()
    import numpy as np
    import polars as pl

    from include.inference import ensemble

    edges = [date(2013, month, 1) for month in range(3, 13)] + [date(2014, 1, 1)]
    last = edges[months] - timedelta(days=1)
    rows = real_days(case, date(2013, 1, 1), last).filter(pl.col("label").is_not_null())
    weights = {member.name: member.weight for member in case.members}

    def score(known: pl.DataFrame, unknown: pl.DataFrame) -> dict[str, np.ndarray]:
        scores = {}
        for name, make in case.models.CANDIDATES.items():
            model = make(case.settings.seed).fit(known, known["label"].to_numpy())
            scores[name] = model.predict_proba(unknown)[:, 1].astype(np.float32)
        return scores | {
            "ensemble": ensemble.combine(case, {**scores, "remote": scores["xgboost"]}, weights)
        }

    losses: dict[str, list[np.ndarray]] = {}
    for first, end in pairwise(edges[: months + 1]):
        known = rows.filter(pl.col("date") < first)
        month = rows.filter(pl.col("date").is_between(first, end, closed="left"))
        scores = score(known, month)
        recent = pl.col("date") >= first - timedelta(days=CALIBRATION_DAYS)
        holdout = known.filter(recent)
        before = score(known.filter(~recent), holdout)["ensemble"]
        for name, calibrate in CALIBRATIONS.items():
            scores[name] = calibrate(before, holdout["label"].to_numpy(), scores["ensemble"])
        for name, given in scores.items():
            losses.setdefault(name, []).append(case.target.losses(month["label"].to_numpy(), given))
    return {name: float(np.concatenate(found).mean()) for name, found in losses.items()}


if __name__ == "__main__":
    raise SystemExit(program(main, prepare, publish_year, ask, monthly))
