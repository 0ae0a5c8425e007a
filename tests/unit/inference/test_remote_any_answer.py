"""Whatever a server answers, in HTTP or not: scores that it gave, or an error that names it."""

import json
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.errors import BadData, PipelineError, ServerDown
from include.inference import remote
from include.inference.patient_http import Endpoint
from include.usecases.flight_delays import features
from tests.case import CASE
from tests.unit import model_servers
from tests.unit.model_servers import MODEL, Answer, Request, Server, scored

ROWS = pa.RecordBatch.from_pydict(
    {
        name: pa.array(np.arange(9) / 7, pa.float32()) if name in features.NUMERIC else ["UA"] * 9
        for name in features.FEATURES
    }
)

DATES = st.one_of(
    st.datetimes().map(lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S GMT")),
    st.builds("Wed, 21 Oct {} 07:28:00 {}{}".format, st.integers(0, 10**6), st.sampled_from("+-"),
              st.integers(0, 10**20)),
)  # fmt: skip
NUMBERS = st.one_of(
    st.integers(-5, 10**400).map(str), st.floats().map(str), st.floats(0, 9).map(str)
)
TEXTS = st.text(st.characters(max_codepoint=255), max_size=40)
VALUES = {
    "Retry-After": DATES | NUMBERS | TEXTS,
    "Content-Encoding": st.sampled_from(
        ["identity", "Identity", "", " ", ",", "gzip", "br", "identity, GZIP", "deflate"]
    ) | TEXTS,
    "Content-Type": st.sampled_from(["", "application/json; charset=nosuch", "text/html"]) | TEXTS,
    "Content-Length": NUMBERS | TEXTS,
    "Transfer-Encoding": st.sampled_from(["chunked", "Chunked", "gzip, chunked", "identity"])
    | TEXTS,
    "Inference-Header-Content-Length": NUMBERS | TEXTS,
    "Location": st.sampled_from(["/", "//", "http://[", "http://a:b", "ftp://x", "\xff"]) | TEXTS,
    "Set-Cookie": TEXTS,
    "WWW-Authenticate": st.sampled_from(["Basic", "Digest x", "Bearer"]) | TEXTS,
    "Connection": st.sampled_from(["close", "keep-alive", "upgrade"]) | TEXTS,
    "X": TEXTS,
}  # fmt: skip
HEADERS = st.lists(
    st.sampled_from(sorted(VALUES)).flatmap(lambda name: st.tuples(st.just(name), VALUES[name])),
    max_size=4,
)
STATUSES = st.sampled_from([200, 201, 204, 206, 301, 304, 400, 401, 408, 429, 500, 503]) | (
    st.integers(100, 999)
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
)
BODIES = st.one_of(
    st.none(),  # the right one
    st.binary(max_size=50),
    JSON.map(lambda value: json.dumps(value).encode()),
    JSON.map(lambda value: json.dumps({"outputs": value, "inputs": value}).encode()),
    st.integers(1, 2000).map(lambda depth: b"[" * depth + b"]" * depth),
)


@st.composite
def answers(draw: st.DrawFn) -> Callable[[Request], Answer]:
    """The bytes of an answer: right ones with something changed, added or cut off."""
    status, headers, body = draw(STATUSES), draw(HEADERS), draw(BODIES)
    size = draw(st.sampled_from(["right", "chunked", "none", "short", "long"]))
    blocks, cut = draw(st.integers(1, 3)), draw(st.none() | st.floats(0, 1))

    def answering(request: Request) -> Answer:
        content = body
        lines = [f"{name}: {value}".encode("latin-1") for name, value in headers]
        if content is None and request.path.endswith("/infer"):
            right = scored(request)
            assert isinstance(right.body, bytes)
            content = right.body
            lines += [f"{name}: {value}".encode() for name, value in right.headers.items()]
        content = content or b""
        length = {"right": 0, "short": -3, "long": 3}.get(size)
        if length is not None:
            lines.append(b"Content-Length: %d" % max(0, len(content) + length))
        if size == "chunked":
            lines.append(b"Transfer-Encoding: chunked")
            step = len(content) // blocks + 1
            cuts = [content[at : at + step] for at in range(0, len(content), step)]
            content = b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in cuts) + b"0\r\n\r\n"
        whole = b"\r\n".join([b"HTTP/1.1 %d OK" % status, *lines, b"", content])
        return Answer(raw=[whole if cut is None else whole[: round(cut * len(whole))]])

    return answering


@pytest.fixture
def server() -> Iterator[Server]:
    with model_servers.running() as running:
        yield running


@settings(max_examples=50)
@given(path=st.sampled_from(["/ready", "/v2", "flights", "/infer"]), answering=answers())
def test_any_answer_is_right_scores_or_an_error_that_names_the_server(
    configure: Callable[..., None],
    server: Server,
    path: str,
    answering: Callable[[Request], Answer],
) -> None:
    failures: list[PipelineError] = []
    configure(
        remote_timeout_seconds=5, remote_give_up_seconds=0.1, remote_breaker_failures=2,
        remote_max_wait_seconds=0.01,
    )  # fmt: skip
    server.on.clear()
    server.on[path] = answering
    with remote.connect(CASE, Endpoint(server.url), MODEL) as asked:
        try:
            scores = asked.predict(ROWS, asked.describe())
        except PipelineError as error:
            failures.append(error)
    for failure in failures:
        assert isinstance(failure, BadData | ServerDown)
        assert server.url in str(failure)
        assert len(str(failure)) < 1_500
    if not failures:
        columns = {name: ROWS[name].to_numpy(zero_copy_only=False) for name in features.FEATURES}
        np.testing.assert_array_equal(scores, model_servers.score(columns))
