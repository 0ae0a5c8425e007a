"""An Airflow that a test module starts for itself, and all that its runs leave behind."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from include.lake.tables import Lake
from include.settings import settings
from local import embedded
from local.client import Airflow
from local.environment import forget_settings
from tests.case import CASE
from tests.e2e.conftest import SETTINGS, free_port


@contextmanager
def own_data(data: Path, variables: Mapping[str, str] | None = None) -> Iterator[Lake]:
    """Have this process, and what it starts, use a data folder and these variables only."""
    with pytest.MonkeyPatch.context() as patch:
        forget_settings()
        for name, value in {"ML_DATA_DIR": str(data), **(variables or {})}.items():
            patch.setenv(name, value)
        settings.cache_clear()
        yield CASE.lake
    settings.cache_clear()


@contextmanager
def own_airflow(data: Path, extra: Mapping[str, str] | None = None) -> Iterator[Airflow]:
    """An Airflow with the settings of these tests, and more."""
    try:
        yield embedded.start(data, free_port(), extra={**SETTINGS, **(extra or {})})
    finally:
        embedded.stop(data)


def keep_page(airflow: Airflow, path: str) -> None:
    """Keep what a page shows beside the logs, where it is searched with them."""
    answer = httpx.get(airflow.url + path, trust_env=False, timeout=60)
    folder = airflow.data / "airflow" / "logs" / "pages"
    folder.mkdir(exist_ok=True)
    (folder / f"{len(list(folder.iterdir()))}.html").write_text(answer.text)


def left_behind(airflow: Airflow, lake: Lake) -> Iterator[tuple[str, str]]:
    """Places and texts of all that runs have written: logs, pages, Airflow's database, the lake."""
    home = airflow.data / "airflow"
    for path in sorted((home / "logs").rglob("*")):
        if path.is_file():
            yield str(path), path.read_text(errors="replace")
    with sqlite3.connect(f"file:{home / 'airflow.db'}?mode=ro", uri=True) as database:
        tables = database.execute("select name from sqlite_master where type = 'table'").fetchall()
        for (table,) in tables:
            for row in database.execute(f'select * from "{table}"'):
                yield f"table {table}", "\n".join(map(str, row))
    for path in lake.root.rglob("*"):
        if path.suffix in (".json", ".html", ".txt"):
            yield str(path), path.read_bytes().decode(errors="replace")
