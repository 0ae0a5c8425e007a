"""An HTTP client that retries with growing delays, and stops when the server is down."""

import math
import re
import socket
import ssl
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from threading import Event, Lock, Timer
from typing import Any, Self

import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from include.errors import BadData, ServerDown
from include.lake.files import first_line
from include.masking import masked
from include.settings import Settings
from include.wording import cut

RETRIED = {408, 425, 429}
"""Statuses below 500 that mean "not now" instead of "the request is wrong"."""

ATTEMPTS = 10
FIRST_WAIT_SECONDS = 0.2
MAX_ANSWER_BYTES = 32 * 2**20
TOO_SLOW = "its answer did not end in time"

LONGEST_WAIT_SECONDS = 1e9
"""Used for any longer wait that a server requests: all of them are too long."""


@dataclass(frozen=True)
class Endpoint:
    """The address of a server, and the credentials for it.

    Attributes:
        url: the URL without a path; each request adds its own.
        verify: file with trusted certificates; empty for the default ones.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    auth: tuple[str, str] | None = field(default=None, repr=False)
    verify: str = ""


def endpoint(connection_id: str) -> Endpoint:
    """The endpoint that an Airflow connection describes.

    Login and password are sent as basic authentication, a password alone as a bearer token. The
    extra may have `headers` and `verify`, a file with trusted certificates.

    Raises:
        BadData: the connection does not exist, or has no host.
    """
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    advice = "Nothing was sent. Fix it in Airflow (Admin, Connections), then clear this run."
    try:
        found = Connection.get(connection_id)
    except AirflowNotFoundException as error:
        raise BadData(
            f"There is no Airflow connection {connection_id!r}, in which the address of the "
            f"server should be. {advice}"
        ) from error
    if not found.host:
        raise BadData(f"The Airflow connection {connection_id!r} names no host. {advice}")
    if "@" in found.host:  # every message would show it
        raise BadData(
            f"The host of the Airflow connection {connection_id!r} contains a login: put it into "
            f"its own field. {advice}"
        )
    scheme = "" if "://" in found.host else f"{found.schema or 'http'}://"
    port = f":{found.port}" if found.port else ""
    extra = found.extra_dejson if isinstance(found.extra_dejson, dict) else {"headers": None}
    headers, verify = extra.get("headers", {}), extra.get("verify", "")
    verify = "" if verify is True else verify
    if not (isinstance(headers, dict) and isinstance(verify, str)):
        raise BadData(
            f"The extra of the Airflow connection {connection_id!r} is not a JSON object with "
            f"`headers`, an object, and `verify`, the name of a file. {advice}"
        )
    headers = {name: str(value) for name, value in headers.items()}
    if found.password and not found.login:
        headers["Authorization"] = f"Bearer {found.password}"
    if not all(value.isprintable() and value == value.strip() for value in headers.values()):
        raise BadData(
            f"The password or a header of the Airflow connection {connection_id!r} holds a line "
            f"break, or a blank at its end. {advice}"
        )
    return Endpoint(
        url=f"{scheme}{found.host.rstrip('/')}{port}",
        headers=headers,
        auth=(found.login, found.password or "") if found.login else None,
        verify=verify,
    )


class NotNow(Exception):
    """One request failed for a reason that may be temporary."""

    def __init__(self, reason: str, retry_after: float | None = None):
        super().__init__(reason)
        self.retry_after = retry_after


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    body: bytes
    headers: Mapping[str, str]
    retried: Collection[int]


class _Deadline:
    """Cuts the connection of one request when its time is up; httpx only limits each step."""

    def __init__(self, seconds: float):
        self.passed = False
        self._stream: Any = None
        self._timer = Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def trace(self, event: str, facts: dict[str, Any]) -> None:
        """Receive every step of httpx."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._stream = facts["return_value"]
            if self.passed:
                self._cut()

    def _cut(self) -> None:
        self.passed = True
        if self._stream is not None:
            with suppress(OSError):  # it is already closed
                # Not TLS's own shutdown: it would break the connection while a thread reads it.
                socket.socket.shutdown(self._stream.get_extra_info("socket"), socket.SHUT_RDWR)


class PatientClient:
    """Sends requests to one server; safe for several threads.

    A request is retried after a lost connection, a timeout, or a status 5xx, 408, 425 or 429, for
    `remote_give_up_seconds` or `ATTEMPTS` times. After `remote_breaker_failures` consecutive
    failures in any thread, nothing more is sent (a circuit breaker; Nygard, Release It!, 2007).

    Args:
        settings: the use case's settings; those that begin with `remote_` are used.
    """

    def __init__(self, at: Endpoint, settings: Settings):
        self.at, self._settings = at, settings
        self._given_up = Event()
        self._why: ServerDown | None = None
        self._failures_in_a_row, self._counting = 0, Lock()
        try:
            self._http = httpx.Client(
                base_url=at.url,
                # No compression: a kilobyte may decompress to a gigabyte.
                headers={"Accept-Encoding": "identity", **at.headers},
                auth=at.auth,
                # Cookies are not kept: httpx accepts some that it cannot send.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                verify=ssl.create_default_context(cafile=at.verify) if at.verify else True,
                limits=httpx.Limits(
                    max_connections=self._settings.remote_in_flight,
                    max_keepalive_connections=0,  # each request can cut its own
                ),
                timeout=self._settings.remote_timeout_seconds,
            )
        except OSError as error:
            raise self._refused(f"cannot be asked: {at.verify}: {self._line(error)}") from error
        except (ValueError, TypeError, httpx.InvalidURL) as error:
            raise self._refused(f"cannot be asked: {self._line(error)}") from error

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def give_up(self, why: ServerDown | None = None) -> None:
        """Send nothing more; requests that wait for a retry fail now, for the same reason."""
        self._why = self._why or why
        self._given_up.set()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        retried: Collection[int] = RETRIED,
    ) -> tuple[bytes, Mapping[str, str]]:
        """Send a request, with retries, until it succeeds.

        Args:
            retried: statuses below 500 after which it is retried.

        Returns:
            Body and headers of the answer.

        Raises:
            ServerDown: it did not succeed within the limits of the settings.
            BadData: the server refuses the request, redirects it, or cannot be trusted.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(NotNow),
            stop=stop_after_attempt(ATTEMPTS)
            | stop_before_delay(self._settings.remote_give_up_seconds),
            wait=partial(_seconds_to_wait, self._settings.remote_max_wait_seconds),
            sleep=sleep_using_event(self._given_up),
            reraise=True,
        )
        try:
            return retrying(self._try, _Request(method, path, body, headers or {}, retried))
        except NotNow as failure:
            down = self._down(str(failure), failure.retry_after)
            self.give_up(down)
            raise down from failure

    def _try(self, request: _Request) -> tuple[bytes, Mapping[str, str]]:
        if self._given_up.is_set():
            if self._why is None:
                raise self._down("another request failed for good")
            raise ServerDown(str(self._why), self._why.retry_after)
        try:
            answer = self._send(request)
        except NotNow as failure:
            many = self._settings.remote_breaker_failures
            # A server that says when to return is not down.
            failures = self._count(failed=failure.retry_after is None)
            if (failure.retry_after or 0) > self._settings.remote_max_wait_seconds:
                down = self._down(str(failure), failure.retry_after)
            elif failures >= many:
                down = self._down(f"{many} failures in a row, the last: {failure}")
            else:
                raise
            self.give_up(down)
            raise down from failure
        self._count(failed=False)
        return answer

    def _count(self, failed: bool) -> int:
        """Count one answer. Returns the number of consecutive failures."""
        with self._counting:
            self._failures_in_a_row = self._failures_in_a_row + 1 if failed else 0
            return self._failures_in_a_row

    def _send(self, request: _Request) -> tuple[bytes, Mapping[str, str]]:
        content, deadline = bytearray(), _Deadline(self._settings.remote_timeout_seconds)
        options: dict[str, Any] = {
            "content": request.body,
            "headers": request.headers,
            "extensions": {"trace": deadline.trace},
        }
        try:
            with (
                deadline,
                self._http.stream(request.method, request.path, **options) as answer,
            ):
                for block in answer.iter_raw():
                    content += block
                    if len(content) > MAX_ANSWER_BYTES:
                        raise self._refused(f"answers with more than {MAX_ANSWER_BYTES:,} bytes")
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise self._refused(f"cannot be asked: {self._line(error)}") from error
        except httpx.LocalProtocolError:  # its text shows the header, which may be a password
            raise self._refused("cannot be asked: one of our headers is not valid HTTP") from None
        except httpx.TransportError as error:
            if deadline.passed:
                raise NotNow(TOO_SLOW) from error
            if (untrusted := _tls_error(error)) is not None:
                raise self._refused(f"is not trusted: {untrusted}") from error
            raise NotNow(f"{type(error).__name__} {self._line(error)}") from error
        if deadline.passed:
            raise NotNow(TOO_SLOW)
        if answer.is_success:
            coding = answer.headers.get("Content-Encoding", "")
            if {one.strip().lower() for one in coding.split(",")} - {"", "identity"}:
                raise self._refused(f"answers in the encoding {coding!r}, which was not requested")
            return bytes(content), answer.headers
        said = f"{answer.status_code} {self.excerpt(content)!r}"
        if answer.is_server_error or answer.status_code in request.retried:
            raise NotNow(f"it answers {said}", _retry_after(answer.headers.get("Retry-After")))
        if answer.is_redirect:
            target = answer.headers.get("Location")
            raise self._refused(
                f"redirects {request.path} to {target}, where credentials are not sent"
            )
        if answer.status_code in (401, 403):
            raise self._refused(
                f"does not accept our credentials: it answers {said} to {request.path}"
            )
        raise self._refused(f"answers {said} to {request.method} {request.path}")

    def _down(self, reason: str, retry_after: float | None = None) -> ServerDown:
        again = ""
        if retry_after is not None:
            again = f", and wants to be asked again in {retry_after:.0f} s"
            if retry_after > self._settings.remote_max_retry_after_seconds:
                retry_after = None
                where = self._settings.where_set("remote_max_retry_after_seconds")
                again += f", which is too long ({where})"
        return ServerDown(
            f"The model server at {self.at.url} is down: {self.excerpt(reason, 500)}{again}. "
            "Completely scored chunks are kept. Look at the server, then clear this run to try "
            "again.",
            retry_after,
        )

    def _refused(self, what: str) -> BadData:
        return BadData(
            f"The model server at {self.at.url} {self.excerpt(what, 500)}. A retry would "
            "change nothing. Fix the server or its Airflow connection, then clear this run."
        )

    def excerpt(self, said: str | bytes | bytearray, length: int = 300) -> str:
        """The beginning of a server's text, without our secrets, which it may repeat."""
        text = said if isinstance(said, str) else said.decode(errors="replace")
        return cut(self._masked(text), length)

    def _line(self, error: Exception) -> str:
        """The first line of an error, without our secrets."""
        return first_line(Exception(self._masked(str(error) or repr(error))))

    def _masked(self, text: str) -> str:
        values = (*self.at.headers.values(), *(self.at.auth or ())[1:])
        secrets = (value.removeprefix("Bearer ").strip() for value in values)
        return masked(text, secrets, self.at.auth)


def _seconds_to_wait(longest: float, state: RetryCallState) -> float:
    """The wait that the server asks for, or a random one from a span that grows with each try.

    "Full jitter" (Brooker, Exponential Backoff and Jitter, 2015).
    """
    failure = state.outcome.exception() if state.outcome else None
    drawn = wait_random_exponential(multiplier=FIRST_WAIT_SECONDS, max=longest)(state)
    return max(drawn, getattr(failure, "retry_after", None) or 0)


def _retry_after(text: str | None) -> float | None:
    """Seconds of a `Retry-After` header, given as a number or a date; None if it is neither.

    Fractions, which are not standard but occur, are rounded up.
    """
    text = (text or "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", text):
        return float(math.ceil(min(float(text), LONGEST_WAIT_SECONDS)))
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):  # not a date, or an impossible time zone
        return None


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """The fault of a certificate or of the server's TLS; None for a lost connection."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return None if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError) else error
