"""Limits on connections, so that slow, silent or many clients do not block others."""

from asyncio import Transport
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_CONNECTIONS = 200
"""Maximum connections. Another one closes the one whose request has been awaited longest."""

REQUEST_SECONDS = 20.0
"""Time for a whole request to arrive, from the connection or the previous answer on."""

MAX_HEAD_BYTES = 64 * 2**10
"""Maximum size of a request's line and headers; a single piece may be longer."""


class Connection(HttpToolsProtocol):
    """A connection of uvicorn, which by itself waits forever for requests of any length.

    Attributes:
        waiting_since: time by the event loop's clock.
    """

    waiting_since: float
    _in_head, _head_bytes = True, 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Start to wait for the first request."""
        super().connection_made(transport)
        self.waiting_since = self.loop.time()
        self._make_room()
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take the next piece of a request."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """Start with the body."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Start with the next request's head."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Start to wait for the next request."""
        self.waiting_since = self.loop.time()
        super().on_response_complete()

    def _is_awaited(self) -> bool:
        """Whether a request, or the rest of it, is still expected."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def _make_room(self) -> None:
        others: Any = self.connections
        there = [one for one in others if not one.transport.is_closing()]
        if len(there) > MAX_CONNECTIONS:
            awaited = [one for one in there if one._is_awaited()]
            min(awaited, key=lambda one: one.waiting_since).transport.abort()

    def _watch(self) -> None:
        """Check the connection whenever the time for its next request may be over."""
        if self not in self.connections:
            return
        left = self.waiting_since + REQUEST_SECONDS - self.loop.time()
        if self._is_awaited() and left <= 0:
            self.transport.abort()
        else:
            self.loop.call_later(left if left > 0 else REQUEST_SECONDS, self._watch)


def config(app: Any, host: str, port: int) -> uvicorn.Config:
    """The configuration of uvicorn with these limits."""
    return uvicorn.Config(app, host, port, http=Connection, ws="none", log_level="warning")
