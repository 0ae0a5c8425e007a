"""The embedded Airflow: its port, its database's patience, and what it says of a broken DAG."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from airflow.settings import _get_async_conn_uri_from_sync
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from local import embedded
from local.client import EmbeddedError
from local.environment import API_LOCK_SECONDS, LOCK_SECONDS, database, environment


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield int(other.getsockname()[1])


@pytest.mark.parametrize("text", ["abc", "0", "65536", "-1", "80.5", "\uff18\uff10", ""])
def test_an_invalid_port_is_one_line_with_an_example(text: str) -> None:
    with pytest.raises(EmbeddedError, match=f"^PORT={text} is not a port: .*like PORT=8123$"):
        embedded.parse_port(text)


@pytest.mark.usefixtures("process_as_before")
def test_a_named_port_that_is_taken_is_refused_with_how_to_name_another(
    taken: int, tmp_path: Path
) -> None:
    with pytest.raises(EmbeddedError, match=rf"Port {taken} cannot .* taken.*like PORT=8123"):
        embedded.choose_port(tmp_path, taken)
    assert embedded.main(["start", "--port", "abc"]) == 2


def test_the_next_start_takes_the_port_of_the_last_one_or_says_why_not(
    taken: int, tmp_path: Path
) -> None:
    said: list[str] = []
    (tmp_path / "airflow").mkdir()
    state = tmp_path / "airflow" / "state.json"
    free = embedded._free_port()
    state.write_text(f'{{"port": {free}, "leaders": {{}}}}')
    assert embedded.choose_port(tmp_path, None, said.append) == free
    assert said == []
    state.write_text(f'{{"port": {taken}, "leaders": {{}}}}')
    assert embedded.choose_port(tmp_path, None, said.append) != taken
    assert f"Port {taken} cannot be used (it is taken): using" in said[0]


@pytest.mark.parametrize("seconds", [LOCK_SECONDS, API_LOCK_SECONDS])
def test_writers_wait_for_each_other_in_both_of_airflows_engines(
    seconds: int, tmp_path: Path
) -> None:
    url, question = database(tmp_path, seconds), text("PRAGMA busy_timeout")
    with create_engine(url).connect() as connection:
        assert connection.execute(question).scalar() == 1000 * seconds

    async def ask() -> int:
        async with create_async_engine(_get_async_conn_uri_from_sync(url)).connect() as connection:
            return int((await connection.execute(question)).scalar_one())

    assert asyncio.run(ask()) == 1000 * seconds
    assert [path.name for path in tmp_path.glob("airflow.db*")] == ["airflow.db"]


def test_the_api_server_gives_up_before_a_task_that_asks_it(tmp_path: Path) -> None:
    chosen = environment(tmp_path, 1, 2)
    assert chosen["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == database(
        tmp_path / "airflow", LOCK_SECONDS
    )
    assert API_LOCK_SECONDS < int(chosen["AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT"]) < LOCK_SECONDS


def test_only_old_tables_that_no_use_case_uses_where_they_are_are_reported(
    tmp_path: Path, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not embedded._has_old_tables(tmp_path)
    (tmp_path / "validated").mkdir()
    assert embedded._has_old_tables(tmp_path)
    monkeypatch.setenv("ML_FLIGHT_DELAYS__LAKE_ROOT", str(tmp_path))
    configure()
    assert not embedded._has_old_tables(tmp_path)


TRACEBACK = """Traceback (most recent call last):
  File "dags/x.py", line 3, in <module>
    from include import y
"""


@pytest.mark.parametrize(
    "message",
    [
        "include.errors.BadData: ML_AB_SHARE=2 is wrong: it must be < 1",
        "include.errors.BadData: one line\nand: another one",
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for Settings\n"
        "ab_share\n  Input should be less than 1\n    For further information visit https://x",
    ],
)
def test_why_a_dag_cannot_be_imported_is_all_of_its_last_message(message: str) -> None:
    assert embedded._reason(TRACEBACK + message + "\n") == message
    assert embedded._reason(f"{TRACEBACK}ValueError: first\n\n{TRACEBACK}{message}") == message
