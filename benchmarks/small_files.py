"""What a day costs in files, bytes and requests to S3, after few days and after 1,000.

A real day goes through the whole loop: validation, scoring, delivery, monitoring. The lake's
earlier days are copies of it. The ensemble is off.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from benchmarks.common import (
    REPEATS,
    Claim,
    Clock,
    at_most,
    child,
    program,
    say,
    scratch_folder,
    usecase,
)

if TYPE_CHECKING:
    from include.usecase import UseCase

T = TypeVar("T")

LAKES = {"small": (100, 120), "full": (30, 100, 1_000)}
"""Days of the lakes. After 100, every window is full: the last two are compared."""

SEEDED = 21
"""Real days before the real ones that are scored; the champion is trained on them."""

WATCHED = ("observe", "decide", "Model health")
MAX_FILES, MAX_KILOBYTES, MAX_REQUESTS = 50, 450, 2_400
MAX_RATIO, MAX_MORE_REQUESTS = 1.3, 20


def main(size: str) -> list[Claim]:
    """Make lakes of few days and of many, and have each go through one more day."""
    with scratch_folder() as folder:
        env = {"ML_DATA_DIR": str(folder), "AIRFLOW_HOME": str(folder / "airflow")}
        env["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        say("Two real days go through the loop")
        child(make_days, {**env, "ML_LAKE_ROOT": str(folder / "real")})
        found = {}
        for days in LAKES[size]:
            say(f"A day after {days:,} days")
            place = {**env, "ML_LAKE_ROOT": str(folder / str(days))}
            child(make_lake, place, days=days, real=str(folder / "real"))
            asked = child(ask, env, lakes=str(folder / str(days)), days=days)
            found[days] = {**child(spend, place, repeats=REPEATS[size]), "requests": asked}
            show(found[days])
    few, many = LAKES[size][-2:]
    return claims(found[few], found[many], f"after {many:,} days", f"after {few}")


def show(day: dict[str, Any]) -> None:
    """What a day costs, by table and by task."""
    for table, (files, size) in sorted(day["files"].items()):
        say(f"  {table}: {files} files, {size / 1000:.1f} kB")
    for task, count in day["requests"].items():
        say(f"  {task}: {count} requests")
    for task in WATCHED:
        say(f"  {task}: {day['seconds'][task]:.2f} s, {day['cpu_seconds'][task]:.2f} CPU-s")


def claims(few: dict[str, Any], many: dict[str, Any], after: str, before: str) -> list[Claim]:
    """The bounds of what a day costs, and that it costs no more after many days."""
    files, size = (sum(one[number] for one in many["files"].values()) for number in (0, 1))
    asked, earlier = sum(many["requests"].values()), sum(few["requests"].values())
    found = [
        at_most("a day, files", files, "files", MAX_FILES, after),
        at_most("a day, bytes", size / 1000, "kB", MAX_KILOBYTES, after),
        at_most("a day, requests", asked, "requests", MAX_REQUESTS, f"{before}: {earlier}"),
    ]
    for task in WATCHED:
        ratio = many["cpu_seconds"][task] / few["cpu_seconds"][task]
        found.append(at_most(f"{task}, CPU", ratio, f"x {after}", MAX_RATIO, before))
        more = many["requests"][task] - few["requests"][task]
        found.append(at_most(f"{task}, more requests", more, after, MAX_MORE_REQUESTS, before))
    return found


# --- the loop -------------------------------------------------------------------------------------


def days_of(case: "UseCase") -> list[str]:
    """The keys of the seeded days and of the two real ones."""
    first = date.fromisoformat(case.first_window[0])
    return [str(first + timedelta(number)) for number in range(SEEDED + 2)]


def loop(case: "UseCase", key: str, run: Callable[..., Any]) -> None:
    """Every task of a day, in the order in which a day meets them."""
    from include.inference import delivery
    from include.monitoring import daily, stages
    from include.monitoring.page import health
    from include.partitions import days_before
    from include.registry import registry
    from local.in_process import batch_inference, validate_day

    ended = datetime.fromisoformat(f"{key}T23:00:00+00:00")
    steps = {"preprocess": ["preprocess"], "infer": ["score"], "post-process": ["publish"]}
    champion = registry.champion(case)
    run("validate inputs", validate_day, case, "validated", key)
    truth = days_before(key, case.truth_delay_days)
    run("validate truth", validate_day, case, "actuals", truth)
    run("score", batch_inference, case, key, champion)
    states = {step: "success" for tasks in steps.values() for step in tasks}
    for dag_id, tasks in (("data_validation", {"validate": ["score"]}), ("batch_inference", steps)):
        output = "predictions"
        run("record_stages", stages.record, case, dag_id, "run", key, states, tasks, output, ended)
    for one in case.destinations:
        run("deliver", delivery.deliver, case, one.name, key)
    run("observe", daily.observe, case, key, ended + timedelta(hours=9))
    decision = run("decide", daily.decide, case, key)
    run("write_report", daily.write_report, case, key, decision)
    run("Model health", health.look, case)


def forget() -> None:
    """Every task is a process of its own, which remembers nothing."""
    from include.monitoring import history
    from include.statistics import profiles

    history._read.cache_clear()
    profiles._read.cache_clear()


# --- the lakes ------------------------------------------------------------------------------------


def make_days() -> dict[str, Any]:
    """Train a champion and have two days go through the loop; keep the lake of the first one."""
    case = usecase()

    from include.inference import scoring
    from include.registry import promotion, registry
    from include.training import evaluation, snapshot, training
    from local.in_process import validate_day

    *seeded, day, after = days_of(case)
    registry.create_store(case)
    for key in seeded:
        for table in case.tables:
            validate_day(case, table, key)
    taken = snapshot.take(case, seeded[0], seeded[-1], holdout_days=5)
    name = next(iter(case.models.CANDIDATES))
    run = training.train(case, taken, name, "a benchmark")
    judged = case.lake.version(evaluation.evaluate_run(case, taken, run, name))
    usual = scoring.score_reference(case, evaluation.read_scores(judged))
    registry.log_reference(case, run, usual)
    promotion.promote(case, registry.register(case, run), None, "a benchmark")
    loop(case, day, _just)
    root = Path(str(case.lake.root))
    shutil.copytree(root, root.parent.parent / "first" / case.name, copy_function=os.link)
    loop(case, after, _just)
    return {}


def _just(_name: str, task: Callable[..., T], *arguments: Any) -> T:
    return task(*arguments)


def make_lake(days: int, real: str) -> dict[str, Any]:
    """The first day's lake, with copies of that day, as it was a day later, before it."""
    case = usecase()

    from include.inference import delivery

    day = days_of(case)[-2]
    source, target = Path(real) / case.name, Path(str(case.lake.root))
    shutil.copytree(Path(real).parent / "first" / case.name, target, copy_function=os.link)
    of_day = [path for path in source.rglob(f"*{day}*") if "delta" not in path.parts]
    files = [file for one in of_day for file in (one, *one.rglob("*")) if file.is_file()]
    for back in reversed(range(1, days + 1)):
        key = str(date.fromisoformat(day) - timedelta(back))
        for one in of_day:
            place = target / str(one.relative_to(source)).replace(day, key)
            shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
        for file in files:
            _copy(file, target / str(file.relative_to(source)).replace(day, key), day, key)
        for destination in case.destinations:
            delivery.deliver(case, destination.name, key)
    return {}


def _copy(file: Path, target: Path, day: str, key: str) -> None:
    """A file as it would be of another day."""
    import polars as pl

    target.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".json":
        target.write_text(file.read_text().replace(day, key))
    elif "history" in file.parts:
        # With weeks before it, a day is compared with them, no longer with the training.
        compared = pl.col("labels").str.replace("training", "trailing", literal=True)
        when = pl.lit(date.fromisoformat(key))
        pl.read_parquet(file).with_columns(compared, time=when).write_parquet(target)
    else:
        os.link(file, target)


# --- what is measured -----------------------------------------------------------------------------


def spend(repeats: int) -> dict[str, Any]:
    """The files that a day adds to each table, and the best time of what looks back."""
    case = usecase()
    root = Path(str(case.lake.root))
    before = _sizes(root)
    tasks: dict[str, Callable[[], Any]] = {}

    def run(name: str, task: Callable[..., T], *arguments: Any) -> T:
        tasks[name] = lambda: task(*arguments)
        return task(*arguments)

    loop(case, days_of(case)[-1], run)
    new = {path: size for path, size in _sizes(root).items() if path not in before}
    count, size = Counter[str](), Counter[str]()
    for path, length in new.items():
        table = path.relative_to(root).parts[0]
        count[table] += 1
        size[table] += length
    best: dict[str, dict[str, float]] = {"seconds": {}, "cpu_seconds": {}}
    for name in WATCHED:
        for _ in range(repeats):
            forget()
            clock = Clock()
            tasks[name]()
            for unit, value in clock.read().items():
                best[unit][name] = min(value, best[unit].get(name, value))
    return {"files": {table: [count[table], size[table]] for table in count}, **best}


def _sizes(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_size for path in root.rglob("*") if path.is_file()}


def ask(lakes: str, days: int) -> dict[str, Any]:
    """The requests to S3 of each task of a day; those of older days have no content there."""
    from moto.server import DomainDispatcherApplication, ThreadedMotoServer

    asked: list[str] = []
    real = DomainDispatcherApplication.__call__

    def counted(app: Any, request: dict[str, Any], answer: Any) -> Any:
        asked.append(f"{request['REQUEST_METHOD']} {request['PATH_INFO']}")
        return real(app, request, answer)

    setattr(DomainDispatcherApplication, "__call__", counted)  # noqa: B010  mypy refuses the other
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "ML_LAKE_ROOT": "s3://bucket/lake",
    }
    case = usecase()
    day = date.fromisoformat(days_of(case)[-2])
    _upload(Path(lakes), {str(day - timedelta(back)) for back in range(120, days + 1)})
    found: dict[str, int] = {}

    def run(name: str, task: Callable[..., T], *arguments: Any) -> T:
        forget()
        asked.clear()
        result = task(*arguments)
        found[name] = found.get(name, 0) + len(asked)
        return result

    loop(case, days_of(case)[-1], run)
    server.stop()
    return found


def _upload(lakes: Path, old: set[str]) -> None:
    """Put every file into moto's memory; those with rows of old days are empty, as none is read."""
    from moto.s3.models import s3_backends

    backend = s3_backends["123456789012"]["aws"]
    backend.create_bucket("bucket", "us-east-1")
    for path in lakes.rglob("*"):
        if path.is_file():
            name = str(path.relative_to(lakes))
            is_old = path.suffix == ".parquet" and any(key in old for key in _keys_in(name))
            backend.put_object("bucket", f"lake/{name}", b"" if is_old else path.read_bytes())


def _keys_in(name: str) -> list[str]:
    return [part.removeprefix("date=").removesuffix(".parquet") for part in name.split("/")]


if __name__ == "__main__":
    raise SystemExit(program(main, make_days, make_lake, spend, ask))
