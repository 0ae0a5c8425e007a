"""Whatever callers send, or do not send, the model server answers the others in bounded memory."""

import os
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from include.inference import open_inference
from include.lake.tables import Lake
from include.settings import PROJECT
from include.usecases.flight_delays import features
from serving import app, listening
from tests.case import CASE
from tests.unit.helpers import running, wait_until

INFER = f"/v2/models/{CASE.name}/infer"
TOKEN = {"Authorization": "Bearer t0ken"}

SILENT = b""
HALF_A_HEAD = b"POST /v2 HTTP/1.1\r\nHost: x\r\nX: "
NO_BODY = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode()
HALF_A_BODY = NO_BODY.replace(b"Host: x", b"Host: x\r\nAuthorization: Bearer t0ken") + b'{"inp'
ANSWERED = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
HALF_OPEN = [SILENT, HALF_A_HEAD, NO_BODY, HALF_A_BODY, ANSWERED]


@pytest.fixture
def url(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv(app.TOKEN, "t0ken")
    with running() as address:
        yield address


def message(rows: int = 3, binary: bool = True, **fields: Any) -> tuple[bytes, dict[str, str]]:
    tensors = {
        name: np.zeros((rows, 1), np.float32)
        if name in features.NUMERIC
        else np.full((rows, 1), "a", object)
        for name in features.FEATURES
    }
    body, headers = open_inference.encode("inputs", tensors, fields, binary)
    return body, {**headers, **TOKEN}


def is_answered(url: str) -> bool:
    body, headers = message()
    alive = httpx.get(f"{url}/v2/health/live", timeout=10)
    scored = httpx.post(url + INFER, content=body, headers=headers, timeout=10)
    return (alive.status_code, scored.status_code) == (200, 200)


@contextmanager
def connections(url: str, number: int = 1) -> Iterator[list[socket.socket]]:
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    with ExitStack() as held:
        yield [
            held.enter_context(socket.create_connection(address, timeout=30)) for _ in range(number)
        ]


def ended(connection: socket.socket) -> bool:
    """Read what is there. True if the other side has ended the connection."""
    connection.setblocking(False)
    try:
        while connection.recv(65_536):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize("sent", HALF_OPEN)
def test_a_request_that_does_not_arrive_in_time_ends_its_connection(
    sent: bytes, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "REQUEST_SECONDS", 0.5)
    with connections(url) as (connection,):
        connection.sendall(sent)

        def has_ended() -> bool:
            with suppress(OSError):  # dripping helps nobody
                connection.sendall(b"x" if sent not in (SILENT, ANSWERED) else b"")
            return ended(connection)

        wait_until(has_ended)
    assert is_answered(url)


def test_a_request_that_is_being_answered_has_all_the_time_it_needs(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "REQUEST_SECONDS", 0.2)
    score = app._score
    monkeypatch.setattr(app, "_score", lambda *asked: time.sleep(1) or score(*asked))
    assert is_answered(url)


def test_a_request_without_a_token_is_refused_before_its_body_arrives(url: str) -> None:
    with connections(url) as (connection,):
        connection.sendall(NO_BODY)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 401 ")


def test_more_connections_than_allowed_close_only_idle_ones(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "MAX_CONNECTIONS", 10)
    scoring, go_on, score = Event(), Event(), app._score

    def wait(*asked: Any) -> np.ndarray:
        scoring.set()
        go_on.wait(30)
        scores: np.ndarray = score(*asked)
        return scores

    monkeypatch.setattr(app, "_score", wait)
    body, headers = message()
    with ThreadPoolExecutor(1) as pool, connections(url, 8) as idle:
        answer = pool.submit(httpx.post, url + INFER, content=body, headers=headers, timeout=30)
        assert scoring.wait(30)
        with connections(url, 30):
            wait_until(lambda: all(map(ended, idle)))
            assert httpx.get(f"{url}/v2/health/live").status_code == 200
            go_on.set()
            assert answer.result().status_code == 200


@pytest.mark.parametrize("before", [b"", ANSWERED, NO_BODY + b"x" * 1000])
@pytest.mark.parametrize("sent", [b"GET /", b"GET / HTTP/1.1\r\na: ", b"GET / HTTP/1.1\r\na"])
def test_a_head_without_end_ends_its_connection(
    url: str, monkeypatch: pytest.MonkeyPatch, before: bytes, sent: bytes
) -> None:
    monkeypatch.setattr(listening, "REQUEST_SECONDS", 600)
    line = b"a:b\r\n" if sent.endswith(b"na") else b"aaaaa"
    with connections(url) as (connection,):
        with suppress(ConnectionError):
            connection.sendall(before + sent)
            for _ in range(200):
                connection.sendall(line * 1_000)
        wait_until(lambda: ended(connection))


def test_all_unanswered_requests_are_limited_in_total(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, headers = message(1_000)
    monkeypatch.setattr(app, "MAX_HELD_BYTES", len(body) + 100)
    head = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
    with connections(url) as (other,):
        other.sendall(
            f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n{head}\r\n".encode()
        )
        other.sendall(b"x" * 400)
        for _ in range(20):  # what was refused holds nothing
            refused = httpx.post(url + INFER, content=body, headers=headers)
            if refused.status_code == 503:
                break
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    wait_until(lambda: httpx.post(url + INFER, content=body, headers=headers).status_code == 200)


FLOATS = b'{"inputs":[{"name":"a","datatype":"FP32","shape":[1],"data":['
LARGE = {
    "objects": (b'{"inputs":[', b"{},", b"]}"),
    "numbers": (FLOATS, b"1.5,", b"]}]}"),
    "lists": (FLOATS, b"[1],", b"]}]}"),
    "texts": (FLOATS.replace(b"FP32", b"BYTES"), b'"",', b"]}]}"),
    "one text": (b'{"id": "\xf0\x9f\x98\x80', b"a", b'", "inputs": []}'),
    "fields": (b'{"inputs":[{', b'"a":1,', b"}]}"),
    "sizes": (b'{"inputs":[{"name":"a","datatype":"FP32","shape":[', b"9" * 4000 + b",", b"1]}]}"),
}  # fmt: skip


def large(kind: str) -> bytes:
    begin, unit, end = LARGE[kind]
    room = app.MAX_BODY_BYTES - len(begin) - len(end)
    return begin + (unit * (room // len(unit))).removesuffix(b",") + end


@pytest.mark.parametrize("kind", LARGE)
def test_a_request_of_the_largest_size_is_refused_before_it_becomes_much_larger(
    url: str, kind: str
) -> None:
    answer = httpx.post(url + INFER, content=large(kind), headers=TOKEN, timeout=30)
    assert answer.status_code == 400
    assert len(answer.json()["error"]) <= app.LONGEST_REASON


def test_many_rows_are_scored_in_slices_and_come_back_in_their_order(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, headers = message(1_000)
    whole = httpx.post(url + INFER, content=body, headers=headers).content
    monkeypatch.setattr(app, "SLICE_ROWS", 7)
    assert httpx.post(url + INFER, content=body, headers=headers).content == whole


@pytest.fixture
def process(lake: Lake) -> Iterator[tuple[str, psutil.Process]]:
    """The model server as it is started, with the file descriptors of most systems."""
    command = [sys.executable, "-m", "serving", "--port", "0"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": CASE.settings.registry, app.TOKEN: "t0ken"}
    with subprocess.Popen(
        command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024)),
    ) as started:  # fmt: skip
        assert started.stdout
        try:
            (url,) = re.findall(r"http://127\.0\.0\.1:\d+", started.stdout.readline().decode())
            wait_until(lambda: httpx.get(f"{url}/v2/health/ready").status_code == 200, seconds=60)
            yield url, psutil.Process(started.pid)
        finally:
            started.terminate()


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.exhaustive
def test_a_client_is_answered_during_1100_half_open_requests(
    many_files: None, process: tuple[str, psutil.Process]
) -> None:
    url, _ = process
    for sent in HALF_OPEN:
        with connections(url, 1100) as held:
            for connection in held:
                with suppress(ConnectionError):
                    connection.sendall(sent)
            for _ in range(5):
                assert is_answered(url), sent


@pytest.mark.exhaustive
def test_the_largest_requests_at_once_fit_into_the_containers_memory(
    process: tuple[str, psutil.Process],
) -> None:
    url, server = process
    rows = app.MAX_BODY_BYTES // (4 * len(features.FEATURES) + 20)
    sent = [(large(kind), TOKEN) for kind in LARGE] + [message(rows), message(20_000, binary=False)]

    def ask(number: int) -> int:
        body, headers = sent[number % len(sent)]
        answer = httpx.post(url + INFER, content=body, headers=headers, timeout=300)
        while answer.status_code == 503:  # too busy: as a client does, ask again
            time.sleep(float(answer.headers["Retry-After"]))
            answer = httpx.post(url + INFER, content=body, headers=headers, timeout=300)
        return answer.status_code

    with ThreadPoolExecutor(12) as pool:
        answers = set(pool.map(ask, range(6 * len(sent))))
    assert answers == {200, 400}
    status = Path(f"/proc/{server.pid}/status").read_text()
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    assert int(peak) / 1024 < 700  # of 768 in docker-compose.yaml
