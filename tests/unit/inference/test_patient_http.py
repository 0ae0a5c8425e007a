"""Whatever a server does, a request ends, no secret is shown, and the error says what to do."""

import json
import random
import re
import signal
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from airflow.sdk.definitions.retry_policy import RetryAction
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from include import usecases
from include.errors import BadData, PipelineError, ServerDown
from include.inference import patient_http, remote
from include.inference.patient_http import Endpoint, PatientClient, endpoint
from include.masking import MASK
from include.orchestration.retries import RetryByKind
from include.settings import PROJECT
from tests.case import CASE
from tests.unit import model_servers
from tests.unit.model_servers import (
    FAILURES,
    IN_FLIGHT,
    MODEL,
    PINNED,
    TOKEN,
    Answer,
    Answering,
    Request,
    Server,
    asking,
    fails,
    right,
    rows,
    scored,
)

pytestmark = pytest.mark.usefixtures("impatient")


# --- the server is down ---------------------------------------------------------------------------


def test_nobody_listens(unused_port: int) -> None:
    at = Endpoint(f"http://127.0.0.1:{unused_port}")
    with remote.connect(CASE, at, MODEL) as asked, fails(ServerDown, at.url, "Connection refused"):
        asked.describe()


def test_an_unknown_name() -> None:
    at = Endpoint("http://nosuchhost.invalid:8000")
    with remote.connect(CASE, at, MODEL) as asked, fails(ServerDown, at.url, "ConnectError"):
        asked.describe()


def never(server: Server) -> Answering:
    return lambda _: Answer(raw=server.for_ever())


def dripping_headers(server: Server) -> Answering:
    def drip() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nX: "
        yield from server.for_ever(b"x")

    return lambda _: Answer(raw=drip())


def dripping_body(server: Server) -> Answering:
    def drip() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
        yield from server.for_ever(b"x")

    return lambda _: Answer(raw=drip())


def dripping_for_ever(server: Server) -> Answering:
    def drip() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"  # the end of the connection is the end of the answer
        yield from server.for_ever(b"x")

    return lambda _: Answer(raw=drip())


def half(_: Server) -> Answering:
    return lambda _: Answer(raw=[b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"outputs":'])


def half_a_chunk(_: Server) -> Answering:
    return lambda _: Answer(raw=[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{"])


def nothing(_: Server) -> Answering:
    return lambda _: Answer(raw=[])


def no_http(_: Server) -> Answering:
    return lambda _: Answer(raw=[b"SSH-2.0-OpenSSH_9.6\r\n"])


def failing(_: Server) -> Answering:
    return lambda _: Answer(500, "out of memory")


DOWN = {
    never: "",
    dripping_headers: "did not end in time",
    dripping_body: "did not end in time",
    dripping_for_ever: "did not end in time",
    half: "without sending complete message body",
    half_a_chunk: "incomplete chunked read",
    nothing: "disconnected without sending a response",
    no_http: "RemoteProtocolError",
    failing: "it answers 500 'out of memory'",
}


@pytest.mark.parametrize(("fault", "words"), DOWN.items(), ids=[one.__name__ for one in DOWN])
def test_a_server_that_stays_down_is_given_up_soon(
    server: Server,
    fault: Callable[[Server], Answering],
    words: str,
    configure: Callable[..., None],
) -> None:
    if words and "in time" not in words:  # then it has to answer in time, on any machine
        configure(remote_timeout_seconds=10, remote_give_up_seconds=60)
    server.on["/infer"] = fault(server)
    with (
        asking(server) as asked,
        fails(ServerDown, server.url, "is down", words, "5 failures in a row") as failure,
    ):
        asked.predict(rows(1_000), PINNED)
    assert failure.value.retry_after is None
    assert len(server.asked()) <= FAILURES + IN_FLIGHT


@pytest.mark.parametrize("status", [503, 400])
def test_a_server_that_is_not_ready_gets_no_other_request(server: Server, status: int) -> None:
    server.on["/ready"] = lambda _: Answer(status, "loading")
    with asking(server) as asked, fails(ServerDown, f"it answers {status} 'loading'"):
        asked.describe()
    assert {request.path for request in server.requests} == {"/v2/health/ready"}
    assert 1 < len(server.requests) <= FAILURES


@pytest.mark.parametrize("status", [503, 400])
def test_a_server_that_becomes_ready_is_waited_for(server: Server, status: int) -> None:
    server.on["/ready"] = lambda asked: Answer(status if asked.number < 2 else 200)
    with asking(server) as asked:
        assert asked.describe() == PINNED


def test_without_a_breaker_a_single_request_ends_by_its_own_patience(
    server: Server, configure: Callable[..., None]
) -> None:
    configure(remote_breaker_failures=1000, remote_give_up_seconds=0.5)
    server.on["/infer"] = failing(server)
    with asking(server) as asked, fails(ServerDown, "500"):
        asked.predict(rows(10), PINNED)
    assert 1 < len(server.asked()) <= patient_http.ATTEMPTS


def test_a_request_that_waits_for_a_retry_ends_when_another_is_refused(
    server: Server, configure: Callable[..., None]
) -> None:
    configure(remote_max_wait_seconds=30, remote_give_up_seconds=60)

    def answering(request: Request) -> Answer:
        if request.number:
            return Answer(503, headers={"Retry-After": "20"})
        time.sleep(0.1)  # until the others wait
        return Answer(422, "no such column")

    server.on["/infer"] = answering
    with asking(server) as asked, fails(BadData, "422 'no such column'"):
        asked.predict(rows(1_000), PINNED)
    assert len(server.asked()) <= IN_FLIGHT + 1


def test_a_task_that_is_ended_sends_nothing_more(server: Server) -> None:
    class Timeout(BaseException):
        """As Airflow's is."""

    def interrupt(*_: object) -> None:
        raise Timeout

    server.on["/infer"] = lambda request: time.sleep(0.05) or scored(request)
    before = signal.signal(signal.SIGALRM, interrupt)
    with asking(server) as asked:
        # Twice, as Python drops an exception that a signal raises in a callback.
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.5)
        with pytest.raises(Timeout):
            asked.predict(rows(100 * 50), PINNED)
        signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    assert len(server.asked()) < 15 * IN_FLIGHT


# --- the server has moods -------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.2, 0.3])
@pytest.mark.parametrize("kind", ["500", "cut", "hangs up"])
def test_a_server_that_fails_now_and_then_scores_every_row_once(
    server: Server, configure: Callable[..., None], share: float, kind: str
) -> None:
    configure(
        remote_breaker_failures=20, remote_batch_rows=20, remote_give_up_seconds=30,
        remote_timeout_seconds=10,
    )  # fmt: skip
    fault = {"500": failing, "cut": half, "hangs up": nothing}[kind](server)
    draw = random.Random(7)
    moods = [draw.random() < share for _ in range(1_000)]
    server.on["/infer"] = lambda asked: fault(asked) if moods[asked.number] else scored(asked)
    with asking(server) as asked:
        np.testing.assert_array_equal(asked.predict(rows(800), PINNED), right(800))
    failed = sum(moods[: len(server.asked())])
    assert failed
    assert len(server.asked()) == 40 + failed


def once(status: int, **headers: str) -> Answering:
    headers = {name.replace("_", "-"): text for name, text in headers.items()}
    return lambda asked: scored(asked) if asked.number else Answer(status, headers=headers)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_statuses_that_mean_not_now_are_retried(server: Server, status: int) -> None:
    server.on["/infer"] = once(status)
    with asking(server) as asked:
        np.testing.assert_array_equal(asked.predict(rows(20), PINNED), right(20))
    assert len(server.asked()) == 2


@pytest.mark.parametrize(("status", "form"), [(429, "1"), (429, "0.4"), (503, "date")])
def test_a_short_wait_requested_by_the_server_is_observed(
    server: Server, configure: Callable[..., None], status: int, form: str
) -> None:
    configure(remote_max_wait_seconds=5, remote_give_up_seconds=10)
    moment = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    text = format_datetime(moment, usegmt=True) if form == "date" else form
    server.on["/infer"] = once(status, Retry_After=text)
    with asking(server) as asked:
        np.testing.assert_array_equal(asked.predict(rows(20), PINNED), right(20))
    first, second = server.asked()
    assert second.arrived - first.arrived >= 0.9
    assert form != "date" or datetime.now(UTC) >= moment


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_long_wait_is_left_to_airflow(server: Server, status: int, form: str) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=61)
    text = "60" if form == "seconds" else format_datetime(moment, usegmt=True)
    server.on["/infer"] = lambda _: Answer(status, headers={"Retry-After": text})
    with (
        asking(server) as asked,
        fails(ServerDown, str(status), "wants to be asked again in") as failure,
    ):
        asked.predict(rows(1_000), PINNED)
    assert len(server.asked()) <= IN_FLIGHT
    assert failure.value.retry_after == pytest.approx(60, abs=1.5)
    decision = RetryByKind().evaluate(failure.value, 1, 3)
    assert decision.action is RetryAction.RETRY
    assert decision.retry_delay is not None
    assert 58 <= decision.retry_delay.total_seconds() <= 68


def test_a_server_that_keeps_asking_for_short_waits_is_left_to_airflow_too(
    server: Server, configure: Callable[..., None]
) -> None:
    configure(remote_max_wait_seconds=2, remote_give_up_seconds=1.5, remote_breaker_failures=2)
    server.on["/infer"] = lambda _: Answer(429, headers={"Retry-After": "1"})
    with asking(server) as asked, fails(ServerDown, "429", "again in 1 s") as failure:
        asked.predict(rows(20), PINNED)
    assert failure.value.retry_after == 1


@pytest.mark.parametrize("text", ["86400", "9" * 5000, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_wait_that_is_too_long_makes_the_server_down(server: Server, text: str) -> None:
    server.on["/infer"] = lambda _: Answer(503, headers={"Retry-After": text})
    with (
        asking(server) as asked,
        fails(
            ServerDown, " s, which is", "too long", "ML_REMOTE_MAX_RETRY_AFTER_SECONDS"
        ) as failure,
    ):
        asked.predict(rows(1_000), PINNED)
    assert failure.value.retry_after is None
    assert RetryByKind().evaluate(failure.value, 1, 3).action is RetryAction.FAIL


def test_the_last_failure_decides_when_the_breaker_opens_too(
    server: Server, configure: Callable[..., None]
) -> None:
    configure(remote_breaker_failures=4)
    server.on["/infer"] = lambda asked: Answer(
        503, headers={} if asked.number < 3 else {"Retry-After": "60"}
    )
    with asking(server) as asked, fails(ServerDown, "again in 60 s") as failure:
        asked.predict(rows(1_000), PINNED)
    assert failure.value.retry_after == 60


@pytest.mark.parametrize(
    "text",
    [
        "soon",
        "",
        "-5",
        "1,5",
        ".",
        "²",
        "5 s",
        "Wed, 99 Foo 2015 07:28:00 GMT",
        "nan",
        "\xff",
        "1e3",
        "inf",
        "Wed, 21 Oct 2015 07:28:00 +99999999999999999",
        "0",
        "0.0",
    ],
)
def test_a_wait_that_makes_no_sense_is_ignored(server: Server, text: str) -> None:
    server.on["/infer"] = once(429, Retry_After=text)
    with asking(server) as asked:
        np.testing.assert_array_equal(asked.predict(rows(20), PINNED), right(20))


def test_a_date_in_the_past_needs_no_wait(server: Server) -> None:
    server.on["/infer"] = once(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")
    with asking(server) as asked:
        np.testing.assert_array_equal(asked.predict(rows(20), PINNED), right(20))


# --- the request is refused -----------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 404, 405, 409, 413, 415, 422])
def test_a_request_that_is_wrong_is_not_sent_again(server: Server, status: int) -> None:
    server.on["/infer"] = lambda _: Answer(status, "seats: expected FP64")
    with asking(server) as asked, fails(BadData, f"answers {status} 'seats: expected FP64'"):
        asked.predict(rows(20), PINNED)
    assert len(server.asked()) == 1


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("path", ["/v2", "/infer"])
def test_credentials_that_are_not_accepted(server: Server, status: int, path: str) -> None:
    server.on[path] = lambda asked: Answer(status, f"no: {asked.headers['Authorization']}")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with (
        asking(server, headers=headers) as asked,
        fails(BadData, "does not accept our credentials", str(status)) as failure,
    ):
        asked.predict(rows(20), asked.describe())
    assert TOKEN not in str(failure.value)
    assert len(server.asked(path)) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("path", ["/ready", "/infer"])
def test_credentials_do_not_follow_a_redirect(server: Server, status: int, path: str) -> None:
    with model_servers.running() as other:
        target = f"{other.url}/v2/elsewhere"
        server.on[path] = lambda _: Answer(status, headers={"Location": target})
        with asking(server, auth=("me", TOKEN)) as asked, fails(BadData, "redirects", target):
            asked.predict(rows(20), asked.describe())
        assert (other.connections, len(server.asked(path))) == (0, 1)


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that only itself vouches for, with its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "model server")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


def test_a_certificate_without_a_trusted_issuer_is_refused(certificate: Path) -> None:
    with (
        model_servers.running(certificate) as server,
        asking(server) as asked,
        fails(BadData, "is not trusted", "CERTIFICATE_VERIFY_FAILED"),
    ):
        asked.describe()
    assert (server.connections, server.requests) == (1, [])


def test_a_certificate_of_another_host_is_not_trusted(certificate: Path) -> None:
    with model_servers.running(certificate) as server:
        at = Endpoint(server.url.replace("127.0.0.1", "localhost"), verify=str(certificate))
        with (
            remote.connect(CASE, at, MODEL) as asked,
            fails(BadData, "not trusted", "Hostname mismatch"),
        ):
            asked.describe()


def test_a_certificate_that_we_name_is_trusted(certificate: Path) -> None:
    with (
        model_servers.running(certificate) as server,
        asking(server, verify=str(certificate)) as asked,
    ):
        assert asked.describe() == PINNED
        np.testing.assert_array_equal(asked.predict(rows(300), PINNED), right(300))


@pytest.mark.parametrize("fault", [never, dripping_headers, dripping_for_ever, half])
def test_a_server_behind_tls_is_given_up_as_any_other(
    certificate: Path, fault: Callable[[Server], Answering]
) -> None:
    with model_servers.running(certificate) as server:
        server.on["/infer"] = fault(server)
        with (
            asking(server, verify=str(certificate)) as asked,
            fails(ServerDown, "5 failures in a row"),
        ):
            asked.predict(rows(300), PINNED)


def test_tls_with_a_server_that_has_none(server: Server) -> None:
    at = Endpoint(server.url.replace("http", "https"))
    with remote.connect(CASE, at, MODEL) as asked, fails(BadData, "is not trusted", at.url):
        asked.describe()
    assert server.connections == 1


def test_a_connection_cut_before_tls_is_not_a_certificate_error(certificate: Path) -> None:
    with model_servers.running(certificate) as server:
        server.socket.context.minimum_version = ssl.TLSVersion.TLSv1_2
        server.finish_request = lambda *_: None  # type: ignore[method-assign]
        with asking(server, verify=str(certificate)) as asked, fails(ServerDown, "is down"):
            asked.describe()
    assert server.connections > 1


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_without_certificates_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content)
    with (
        fails(BadData, "cannot be asked", str(path)),
        remote.connect(CASE, Endpoint("https://127.0.0.1", verify=str(path)), MODEL),
    ):
        raise AssertionError


# --- the answer has no end ------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [True, False])
def test_an_answer_without_end_is_not_kept(
    server: Server, monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    monkeypatch.setattr(patient_http, "MAX_ANSWER_BYTES", 10_000)

    def flood() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n" + chunked * b"Transfer-Encoding: chunked\r\n" + b"\r\n"
        yield from server.for_ever((chunked * b"400\r\n") + b"x" * 1024 + chunked * b"\r\n", 0)

    server.on["/infer"] = lambda _: Answer(raw=flood())
    with asking(server) as asked, fails(BadData, "more than 10,000 bytes"):
        asked.predict(rows(20), PINNED)
    assert len(server.asked()) == 1


# --- the connection -------------------------------------------------------------------------------


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Endpoint]:
    def connect(**fields: Any) -> Endpoint:
        text = json.dumps({"conn_type": "http", **fields})
        monkeypatch.setenv("AIRFLOW_CONN_MODELS", text)
        return endpoint("models")

    return connect


def test_a_source_of_the_handbook_asks_with_the_settings_of_its_use_case(
    server: Server, copy: Path, enable: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    snippets = re.findall(r"```python\n(.*?)```", (PROJECT / "docs/fork.md").read_text(), re.DOTALL)
    [snippet] = [snippet for snippet in snippets if "PatientClient" in snippet]
    (copy / "source.py").write_text(f"from datetime import date\nimport polars as pl\n{snippet}")
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE_API", server.url)
    monkeypatch.setenv("ML_DOCTOR_VISITS__REMOTE_MAX_RETRY_AFTER_SECONDS", "5")
    enable(copy)
    source = usecases.find("doctor_visits").source
    server.on["/visits/2021-03-01"] = lambda _: Answer(body=b'[{"person": 1}]')
    found = source.fetch("visits", date(2021, 3, 1))
    assert found is not None
    assert found.rows() == [(1,)]
    server.on["/visits/2021-03-01"] = lambda _: Answer(503, headers={"Retry-After": "6"})
    with fails(ServerDown, "(ML_DOCTOR_VISITS__REMOTE_MAX_RETRY_AFTER_SECONDS)"):
        source.fetch("visits", date(2021, 3, 1))


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "models"}, "http://models"),
        ({"host": "models", "port": 8000}, "http://models:8000"),
        ({"host": "models", "port": 8000, "schema": "https"}, "https://models:8000"),
        ({"host": "https://models"}, "https://models"),
        ({"host": "https://models/", "port": 8443}, "https://models:8443"),
        ({"host": "http://models", "schema": "https"}, "http://models"),
        ({"host": "[::1]", "port": 8000}, "http://[::1]:8000"),
    ],
)
def test_an_airflow_connection_says_where_the_server_is(
    connection: Callable[..., Endpoint], fields: dict[str, Any], url: str
) -> None:
    assert connection(**fields) == Endpoint(url)


def test_credentials_and_headers_are_sent_and_never_shown(
    server: Server, connection: Callable[..., Endpoint]
) -> None:
    extra = {"headers": {"X-Tenant": "air", "X-Number": 5}, "verify": True}
    bearer = connection(host=server.url, password=TOKEN, extra=extra)
    basic = connection(host=server.url, login="me", password=TOKEN)
    for at, scheme in ((bearer, f"Bearer {TOKEN}"), (basic, "Basic ")):
        assert TOKEN not in repr(at)
        with remote.connect(CASE, at, MODEL) as asked:
            asked.describe()
            assert server.requests[-1].headers["Authorization"].startswith(scheme)
            server.on["/infer"] = lambda seen: Answer(500, f"debug: {seen.headers} {TOKEN}")
            with fails(ServerDown, "debug") as failure:
                asked.predict(rows(20), PINNED)
        assert TOKEN not in str(failure.value)
        server.on["/infer"] = lambda seen: Answer(200, f"<html>{seen.headers} {TOKEN}")
        with remote.connect(CASE, at, MODEL) as asked, fails(BadData, "no JSON") as wrong:
            asked.predict(rows(20), PINNED)
        del server.on["/infer"]
        assert TOKEN not in str(wrong.value)
    tenants = {(asked.headers["X-Tenant"], asked.headers["X-Number"]) for asked in server.requests}
    assert tenants == {("air", "5"), (None, None)}


SECRET = f"""{TOKEN} "quoted" '\\/ +"""
WRITTEN = [SECRET, json.dumps(SECRET)[1:-1], repr(SECRET)[1:-1], quote(SECRET, safe="")]
PARTS = ["s3c", "quote", "%22"]


@given(before=st.text("z '", max_size=40), after=st.text("z", max_size=40), data=st.data())
def test_no_part_of_a_secret_is_left_wherever_a_text_is_cut(
    before: str, after: str, data: st.DataObject
) -> None:
    at = Endpoint("http://models", {"X-Key": SECRET, "X-Part": TOKEN[:6]}, ("me", SECRET))
    said = before + data.draw(st.sampled_from(WRITTEN)) + after
    with closing(PatientClient(at, CASE.settings)) as client:
        cut = client.excerpt(said, data.draw(st.integers(0, len(said))))
    assert not [part for part in PARTS if part in cut]


@pytest.mark.parametrize("path", ["/v2", "/infer"])
@pytest.mark.parametrize("status", [200, 400, 503])
@pytest.mark.parametrize("before", [92, 292, 450])
def test_a_secret_that_a_server_repeats_at_the_end_of_what_is_shown_is_masked(
    server: Server, path: str, status: int, before: int
) -> None:
    server.on[path] = lambda _: Answer(status, "z" * before + SECRET)
    with (
        asking(server, headers={"X-Key": SECRET}) as asked,
        pytest.raises(PipelineError) as failure,
    ):
        asked.predict(rows(20), asked.describe())
    assert not [part for part in PARTS if part in str(failure.value)]


@pytest.mark.parametrize("secret", [f"{TOKEN}.", f"{TOKEN}\nand a second line"])
def test_the_first_line_of_an_error_shows_no_part_of_a_secret(secret: str) -> None:
    with closing(
        PatientClient(Endpoint("http://models", auth=("me", secret)), CASE.settings)
    ) as client:
        assert client._line(ValueError(f"not with {secret}")) == f"not with {MASK}"


def test_the_connection_names_a_certificate(
    connection: Callable[..., Endpoint], certificate: Path
) -> None:
    with model_servers.running(certificate) as server:
        at = connection(host=server.url, extra={"verify": str(certificate)})
        with remote.connect(CASE, at, MODEL) as asked:
            assert asked.describe() == PINNED


def test_a_missing_connection() -> None:
    with fails(BadData, "There is no Airflow connection 'nosuch'"):
        endpoint("nosuch")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "names no host"),
        ({"host": f"http://me:{TOKEN}@models"}, "contains a login"),
        ({"host": "models", "password": f"{TOKEN}\n"}, "line break"),
        ({"host": "models", "extra": {"headers": {"X-Key": f"{TOKEN}\r\nX: y"}}}, "line break"),
        ({"host": "models", "extra": {"headers": f"X: {TOKEN}"}}, "not a JSON object"),
        ({"host": "models", "extra": {"headers": None}}, "not a JSON object"),
        ({"host": "models", "extra": [1]}, "not a JSON object"),
        ({"host": "models", "extra": {"verify": False}}, "not a JSON object"),
    ],
)
def test_a_connection_that_cannot_be_used_is_refused(
    connection: Callable[..., Endpoint], fields: dict[str, Any], words: str
) -> None:
    with fails(BadData, "Airflow connection 'models'", words) as failure:
        connection(**fields)
    assert TOKEN not in str(failure.value)


@pytest.mark.parametrize("at", ["http://models:80:90", "ftp://models", "http://a\nb"])
def test_an_address_that_is_none_is_refused(at: str) -> None:
    with fails(BadData, "cannot be asked"), remote.connect(CASE, Endpoint(at), MODEL) as asked:
        asked.describe()


@pytest.mark.parametrize("token", [f"{TOKEN}\n", f"{TOKEN}é"])
def test_a_token_that_cannot_be_sent_is_not_shown(server: Server, token: str) -> None:
    at = Endpoint(server.url, headers={"Authorization": f"Bearer {token}"})
    with (
        fails(BadData, "cannot be asked") as failure,
        remote.connect(CASE, at, MODEL) as asked,
    ):
        asked.describe()
    assert TOKEN not in str(failure.value)
