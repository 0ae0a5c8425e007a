"""A server in place of Airflow’s API."""

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from local.client import Airflow


class Server:
    """Answers each request with the next of some answers, and the last one from then on."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, object]] = []
        self.asked: list[tuple[str, dict[str, object]]] = []
        self.seconds = [0.0]


@pytest.fixture
def server() -> Iterator[tuple[Server, Airflow]]:
    found = Server()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            found.asked.append((self.command, json.loads(body or "{}")))
            time.sleep(found.seconds[min(len(found.asked), len(found.seconds)) - 1])
            status, value = found.answers[min(len(found.asked), len(found.answers)) - 1]
            if status == 0:  # the connection is cut
                return
            sent = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = do_PATCH = answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=listening.serve_forever, daemon=True).start()
    yield found, Airflow(f"http://127.0.0.1:{listening.server_port}", Path())
    listening.shutdown()
