"""Model servers on localhost that do what a test wants: answer, refuse, lie, hang, break off."""

import json
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from include.errors import PipelineError
from include.inference import open_inference, remote
from include.inference.open_inference import BINARY, Tensors
from include.inference.patient_http import Endpoint
from include.inference.remote import Description, ModelServer
from include.lake.files import to_arrow
from include.usecases.flight_delays import features
from tests.case import CASE

MODEL = "late flights"
INPUTS = [
    {"name": name, "datatype": "FP32" if name in features.NUMERIC else "BYTES", "shape": [-1, 1]}
    for name in features.FEATURES
]
METADATA = {"name": MODEL, "versions": ["9", "10"], "inputs": INPUTS}


def score(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """A score that depends on every feature of a row, on nothing else, and differs between rows."""
    total = np.zeros(len(columns[features.FEATURES[0]]))
    for number, name in enumerate(features.FEATURES, 1):
        if name in features.NUMERIC:
            total += number * np.nan_to_num(columns[name].astype(np.float64), nan=-0.5)
        else:
            total += [number * sum(map(ord, text)) for text in columns[name]]
    return (total % 1).astype(np.float32)


@dataclass(frozen=True)
class Request:
    """What a server was asked.

    Attributes:
        number: of the request among those of its path, from 0.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    number: int
    arrived: float = field(default_factory=time.monotonic)

    @cached_property
    def message(self) -> tuple[dict[str, Any], Tensors]:
        return open_inference.decode("inputs", self.body, self.headers)

    @property
    def tensors(self) -> Tensors:
        return {name: values.ravel() for name, values in self.message[1].items()}

    @property
    def is_binary(self) -> bool:
        return open_inference.HEADER_LENGTH in self.headers


@dataclass
class Answer:
    """An answer; or, below HTTP, the blocks of bytes that are written before the end."""

    status: int = 200
    body: bytes | dict[str, Any] | str = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: Iterable[bytes] | None = None


Answering = Callable[[Request], Answer]


def scored(
    request: Request,
    change: Callable[[np.ndarray], np.ndarray] = lambda scores: scores,
    **said: Any,
) -> Answer:
    """The right answer; or a wrong one, by changed scores or other fields of the message."""
    asked, _ = request.message
    version = request.path.partition("/versions/")[2].partition("/")[0] or "10"
    fields = {"model_name": MODEL, "model_version": version, "id": asked["id"], **said}
    values = change(score(request.tensors).reshape(-1, 1))
    outputs = fields.pop("outputs", {"score": values})
    body, headers = open_inference.encode("outputs", outputs, fields, request.is_binary)
    return Answer(body=body, headers=headers)


class Server(ThreadingHTTPServer):
    """A model server. `on` says what a path (by its end) answers instead of the right thing."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, certificate: Path | None = None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.on: dict[str, Answering] = {}
        self.requests: list[Request] = []
        self.connections = self.at_once = self.most_at_once = 0
        self.stopped, self.lock = Event(), Lock()
        if certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
            self.url = self.url.replace("http", "https")

    def asked(self, end: str = "/infer") -> list[Request]:
        """Requests whose path ends so."""
        return [request for request in self.requests if request.path.endswith(end)]

    def answer(self, request: Request) -> Answer:
        for end, answering in self.on.items():
            if request.path.endswith(end):
                return answering(request)
        if request.path.endswith("/infer"):
            return scored(request)
        if "/models/" in request.path:
            return Answer(body=METADATA)
        return Answer(body={"name": "test", "extensions": [BINARY]})

    def for_ever(self, block: bytes = b"", pause: float = 0.02) -> Iterator[bytes]:
        """Blocks that do not end while the server runs."""
        while not self.stopped.wait(pause):
            yield block

    def get_request(self) -> Any:
        self.connections += 1
        return super().get_request()

    def handle_error(self, *_: object) -> None:
        """Clients that go away are what is tested."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.lock:
            number = len(self.server.asked(self.path))
            request = Request(self.command, self.path, self.headers, body, number)
            self.server.requests.append(request)
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        try:
            answer = self.server.answer(request)
        finally:
            with self.server.lock:
                self.server.at_once -= 1
        with suppress(OSError):  # the client has gone
            self._write(answer)

    do_POST = do_GET

    def _write(self, answer: Answer) -> None:
        if answer.raw is not None:
            self.close_connection = True
            for block in answer.raw:
                self.wfile.write(block)
            return
        body = answer.body
        body = json.dumps(body).encode() if isinstance(body, dict) else body
        body = body.encode() if isinstance(body, str) else body
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: the requests are kept."""


@contextmanager
def running(certificate: Path | None = None) -> Iterator[Server]:
    """A server that answers while the block runs."""
    with Server(certificate) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.stopped.set()
            server.shutdown()
            thread.join()


PINNED = Description("10", binary=True)
TOKEN = "s3cret-t0ken"


FAILURES, IN_FLIGHT = 5, 4


@contextmanager
def asking(server: Server, **more: Any) -> Iterator[ModelServer]:
    with remote.connect(CASE, Endpoint(server.url, **more), MODEL) as asked:
        yield asked


HANGS_SECONDS = 60
"""Far more than any request of these tests may take, on a machine however busy."""


@contextmanager
def fails(kind: type[PipelineError], *words: str) -> Iterator[Any]:
    """The block fails with these words, does not hang, and leaves no thread behind."""
    began, threads = time.monotonic(), set(threading.enumerate())
    with pytest.raises(kind) as failure:
        yield failure
    assert time.monotonic() - began < HANGS_SECONDS
    assert [word for word in words if word not in str(failure.value)] == [], str(failure.value)
    for thread in set(threading.enumerate()) - threads:
        if "process_request" not in thread.name:  # those are the server's
            thread.join(HANGS_SECONDS)
            assert not thread.is_alive()


def frame(rows: int, seed: int = 0) -> pl.DataFrame:
    """Rows of features, one in ten of each unknown."""
    draw = random.Random(seed)

    def column(make: Callable[[], Any]) -> list[Any]:
        return [None if draw.random() < 0.1 else make() for _ in range(rows)]

    numbers = {name: column(draw.random) for name in features.NUMERIC}
    texts = {
        name: column(lambda: draw.choice(["UA", "EWR", "Zürich", "東京"]))
        for name in features.CATEGORICAL
    }
    types = dict.fromkeys(numbers, pl.Float32) | dict.fromkeys(texts, pl.String)
    return pl.DataFrame(numbers | texts, types)


def batch(made: pl.DataFrame) -> pa.RecordBatch:
    return to_arrow(made).combine_chunks().to_batches()[0]


def rows(number: int) -> pa.RecordBatch:
    return batch(frame(number))


def expected(made: pl.DataFrame) -> np.ndarray:
    return score(
        {
            name: made[name].to_numpy()
            if name in features.NUMERIC
            else made[name].fill_null("").to_numpy()
            for name in features.FEATURES
        }
    )


def right(number: int) -> np.ndarray:
    return expected(frame(number))
