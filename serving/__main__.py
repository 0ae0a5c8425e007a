"""Serve the champions of the enabled use cases.

python -m serving [--host 127.0.0.1] [--port 8500] [--faults]
"""

import argparse
import contextlib
import logging
import os
import socket
import sys

import uvicorn

from include import usecases
from include.errors import BadData
from serving import listening
from serving.app import create_app

QUIET = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
"""Keeps MLflow from logging every step."""


class Server(uvicorn.Server):
    """A uvicorn server that prints its address once it listens."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            print(f"The model server listens on http://{host}:{port}", flush=True)


def main() -> None:
    """Serve the champions of the enabled use cases until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m serving", description=main.__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8500, help="0 for any free port")
    parser.add_argument("--faults", action="store_true", help="allow /faults to make it fail")
    arguments = parser.parse_args()
    try:
        usecases.check_variables()
        cases = usecases.enabled()
        for wrong in usecases.broken().values():
            print(f"Its models are not served. {wrong}", file=sys.stderr)
    except BadData as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    if not cases:
        print("There is no model to serve: no enabled use case can be loaded", file=sys.stderr)
        raise SystemExit(2)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    app = create_app(cases, arguments.faults)
    with contextlib.suppress(KeyboardInterrupt):
        Server(listening.config(app, arguments.host, arguments.port)).run()


if __name__ == "__main__":
    main()
