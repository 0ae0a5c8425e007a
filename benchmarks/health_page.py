"""The page *Model health* on a lake of ten thousand days, in its own process.

The first page after a start of Airflow's API server imports libraries. The target is for the pages
after it, with the lake's files in the operating system's cache.
"""

import json
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from benchmarks.common import (
    Claim,
    Clock,
    at_most,
    child,
    peak_gigabytes,
    program,
    say,
    scratch_folder,
    usecase,
)

DAYS = 10_000
FIGURES = 600
"""Of a day's history: what the flights have."""

PAGES = 5
MAX_SECONDS = 2.0
LAST = date(2040, 5, 18)


def main(size: str) -> list[Claim]:
    """Make the lake, equally large for every size, and render the page in a fresh process."""
    with scratch_folder() as folder:
        env = {"ML_DATA_DIR": str(folder), "AIRFLOW_HOME": str(folder / "airflow")}
        say(f"Making {DAYS:,} days")
        child(make_lake, env)
        found = child(look, env)
    about = f"{DAYS:,} days, page of {found['bytes'] / 1000:.0f} kB"
    return [
        at_most("model health, a page", found["worst"], "s, worst of 5", MAX_SECONDS, about),
        at_most("model health, first page", found["first"], "s", None, "with its imports"),
        at_most("model health, memory", found["gigabytes"], "GB", None, "the process's peak"),
    ]


def make_lake() -> dict[str, Any]:
    """A manifest for each table and day, and a history; no rows."""
    case = usecase()

    from include.lake.files import Part, put_text
    from include.lake.tables import Manifest
    from include.monitoring import history
    from include.monitoring.page import health
    from include.registry import registry

    registry.create_store(case)
    lake = case.lake
    keys = [str(LAST - timedelta(back)) for back in reversed(range(DAYS))]
    parts = dict.fromkeys([case.inputs[0].name, *health.TABLES, "rejected"], Part(900, 1, "", []))
    landing = Path(str(lake.landing_path(case.inputs[0].name, keys[0]))).parent
    landing.mkdir(parents=True)
    for key in keys:
        (landing / f"{key}.parquet").touch()
    shown = keys[-health.DAYS :]
    for key in shown:
        for table in health.TABLES:
            text = json.dumps(asdict(Manifest(table, key, "v", "", "v", parts)))
            put_text(lake.partition_path(table, key) / "current.json", text)
        history.append(case, key, list(_figures(FIGURES)))
    for table in [*health.TABLES, history.TABLE]:  # separate folders would take ten times as long
        for key in keys[: -health.DAYS]:
            Path(str(lake.partition_path(table, key))).symlink_to(f"date={shown[0]}")
    return {}


def _figures(count: int) -> Any:
    from include.monitoring.history import Figure

    about = {"model": "champion", "slice": "all"}
    yield Figure("outcomes", "log_loss", 0.45, 900, "1", about)
    yield Figure("outcomes", "base_log_loss", 0.5, 900, "1", about)
    yield Figure("decision", "decision", 0, 7)
    for number in range(count - 3):
        labels = {"feature": f"f{number % 20}", "kind": "stable", "reference": "trailing"}
        labels["days"] = str(1 + number // 20)
        yield Figure("drift", "psi", 0.01, 900, "", labels)


def look() -> dict[str, float]:
    """The time of the first page and of the slowest one after it, and the peak memory."""
    case = usecase()
    clock = Clock()
    from include.monitoring.page import health, health_page

    times = []
    for _ in range(1 + PAGES):
        found = health.look(case)
        page = health_page.render(case, found, [])
        times.append(clock.read()["seconds"])
        clock = Clock()
        assert not found.problems, found.problems
        health_page.records._read.cache_clear()
    return {
        "first": times[0],
        "worst": max(times[1:]),
        "bytes": len(page.encode()),
        "gigabytes": peak_gigabytes(),
    }


if __name__ == "__main__":
    raise SystemExit(program(main, make_lake, look))
