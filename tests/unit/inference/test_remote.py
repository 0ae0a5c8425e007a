"""A remote model gives every row its own score, or none; whatever its server does, it ends."""

import random
import time
import zlib
from collections.abc import Callable
from typing import Any

import brotli
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.errors import BadData
from include.inference import remote
from include.inference.patient_http import Endpoint
from include.inference.remote import Description
from include.targets import Regression
from include.usecases.flight_delays import features
from tests.case import CASE, with_target
from tests.unit import model_servers
from tests.unit.model_servers import (
    IN_FLIGHT,
    MODEL,
    PINNED,
    Answer,
    Answering,
    Request,
    Server,
    asking,
    batch,
    fails,
    frame,
    right,
    rows,
    score,
    scored,
)

pytestmark = pytest.mark.usefixtures("impatient")

# --- all is well ----------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [True, False])
@given(st.data())
def test_every_row_gets_its_own_score(
    configure: Callable[..., None], binary: bool, data: st.DataObject
) -> None:
    size, in_flight = data.draw(st.integers(1, 400)), data.draw(st.integers(1, 8))
    number = data.draw(st.integers(1, min(300, 15 * size)))
    configure(remote_batch_rows=size, remote_in_flight=in_flight, remote_timeout_seconds=5)
    with model_servers.running() as server, asking(server) as asked:
        server.on["/infer"] = lambda request: time.sleep(random.random() / 500) or scored(request)
        scores = asked.predict(rows(number), Description("10", binary))
    np.testing.assert_array_equal(scores, right(number))
    assert (scores.dtype, scores.shape) == (np.float32, (number,))
    assert len(server.asked()) == -(-number // size)
    assert {request.is_binary for request in server.asked()} == {binary}
    assert server.most_at_once <= in_flight


@pytest.mark.parametrize("binary", [True, False])
def test_unknown_values_arrive_as_unknown(server: Server, binary: bool) -> None:
    made = frame(40)
    with asking(server) as asked:
        asked.predict(batch(made), Description("10", binary))
    (request,) = server.asked()
    assert list(request.tensors) == features.FEATURES
    for name, values in request.tensors.items():
        known = [None if value != value or value == "" else value for value in values.tolist()]
        assert known == made[name].to_list()
        assert None in known


def test_categories_may_be_codes(server: Server) -> None:
    plain = rows(120)
    columns = {
        name: plain[name].dictionary_encode() if name in features.CATEGORICAL else plain[name]
        for name in features.FEATURES
    }
    with asking(server) as asked:
        scores = asked.predict(pa.RecordBatch.from_pydict(columns), PINNED)
    np.testing.assert_array_equal(scores, right(120))


def test_each_request_names_the_version_and_an_id_of_its_own(server: Server) -> None:
    with asking(server) as asked:
        asked.predict(rows(200), PINNED)
    assert {request.path for request in server.asked()} == {
        "/v2/models/late%20flights/versions/10/infer"
    }
    assert len({request.message[0]["id"] for request in server.asked()}) == 4


def test_requests_are_sent_at_once_as_many_as_allowed_and_no_more(server: Server) -> None:
    server.on["/infer"] = lambda request: time.sleep(0.05) or scored(request)
    with asking(server) as asked:
        asked.predict(rows(12 * 50), PINNED)
    assert server.most_at_once == IN_FLIGHT


@pytest.mark.parametrize("columns", [1, 2])
def test_the_last_of_two_probabilities_is_the_score(server: Server, columns: int) -> None:
    server.on["/infer"] = lambda request: scored(
        request, lambda scores: np.hstack([1 - scores, scores])[:, -columns:].astype(np.float64)
    )
    with asking(server) as asked:
        np.testing.assert_array_equal(asked.predict(rows(60), PINNED), right(60))


@pytest.mark.parametrize("coding", ["identity", "Identity", "", " ", "IDENTITY, identity"])
def test_an_answer_that_is_not_encoded_may_say_so(server: Server, coding: str) -> None:
    server.on["/infer"] = lambda request: zipped(coding, bytes)(request)
    with asking(server) as asked:
        np.testing.assert_array_equal(asked.predict(rows(60), PINNED), right(60))


def test_a_named_output_is_requested_and_nothing_else_is_taken_for_it(server: Server) -> None:
    def answering(request: Request) -> Answer:
        (wanted,) = request.message[0]["outputs"]
        return scored(request, outputs={wanted["name"]: score(request.tensors)[:, None]})

    server.on["/infer"] = answering
    with remote.connect(CASE, Endpoint(server.url), MODEL, "late") as asked:
        np.testing.assert_array_equal(asked.predict(rows(60), PINNED), right(60))
        server.on["/infer"] = scored
        with fails(BadData, "its output is 'score' instead of 'late'"):
            asked.predict(rows(60), PINNED)


def test_an_answer_may_be_without_id_and_version(server: Server) -> None:
    server.on["/infer"] = lambda request: scored(request, id=None, model_version=None)
    with asking(server) as asked:
        np.testing.assert_array_equal(asked.predict(rows(60), PINNED), right(60))


# --- the answer is wrong --------------------------------------------------------------------------


def zipped(coding: str, pack: Callable[[bytes], bytes]) -> Answering:
    def answering(request: Request) -> Answer:
        answer = scored(request)
        assert isinstance(answer.body, bytes)
        headers = {**answer.headers, "Content-Encoding": coding}
        return Answer(body=pack(answer.body), headers=headers)

    return answering


def reshaped(*shape: int) -> Answering:
    return lambda asked: scored(asked, lambda scores: np.resize(scores, shape))


def other_type(dtype: Any) -> Answering:
    return lambda asked: scored(asked, lambda scores: scores.astype(dtype))


def says(**said: Any) -> Answering:
    return lambda asked: scored(asked, **said)


def truncated(request: Request) -> Answer:
    answer = scored(request)
    assert isinstance(answer.body, bytes)
    return Answer(body=answer.body[:-3], headers=answer.headers)


def answer_with(name: str, text: str) -> str:
    return f'{{"{name}": {text}, "outputs": []}}'


NAN = np.zeros((20, 1), np.float32)
TENSOR = {"name": "score", "shape": [20, 1], "datatype": "FP32", "data": []}
DEEP = "[" * 900 + "]" * 900
"""What is just read as JSON, and is too deep for most that one does with it."""

WRONG: dict[str, tuple[Answering, str]] = {
    "empty": (lambda _: Answer(), "no JSON"),
    "no content": (lambda _: Answer(204), "no JSON"),
    "HTML": (lambda _: Answer(body="<html>Please log in</html>"), "no JSON"),
    "cut JSON": (lambda _: Answer(body='{"outputs": [{"name"'), "no JSON"),
    "other JSON": (lambda _: Answer(body={"predictions": [0.5]}), "no list of outputs"),
    "an error, with 200": (lambda _: Answer(body={"error": "oops"}), "no list of outputs"),
    "cut tensor": (truncated, "cut off"),
    "a row too few": (reshaped(19, 1), "(19, 1) for 20 rows"),
    "a row too many": (reshaped(21, 1), "(21, 1) for 20 rows"),
    "one row": (reshaped(1, 1), "(1, 1) for 20 rows"),
    "no rows": (reshaped(0, 1), "(0, 1) for 20 rows"),
    "three classes": (reshaped(20, 3), "(20, 3) for 20 rows"),
    "on its side": (reshaped(1, 20), "(1, 20) for 20 rows"),
    "deep": (reshaped(20, 1, 1), "(20, 1, 1) for 20 rows"),
    "a number": (reshaped(), "() for 20 rows"),
    "INT64": (other_type(np.int64), "int64, not of a floating point type"),
    "BOOL": (other_type(bool), "bool, not of a floating point type"),
    "BYTES": (other_type(str), "object, not of a floating point type"),
    "two outputs": (says(outputs={"label": NAN, "score": NAN}), "2 outputs instead of one"),
    "no outputs": (says(outputs={}), "0 outputs instead of one"),
    "an answer to another request": (says(id="another"), "its id is 'another' instead of"),
    "another version": (says(model_version="9"), "its model_version is '9' instead of '10'"),
    "gzip": (zipped("gzip", lambda body: zlib.compress(body, wbits=31)), "the encoding 'gzip'"),
    "no gzip": (zipped("gzip", bytes), "the encoding 'gzip'"),
    "brotli": (zipped("br", brotli.compress), "the encoding 'br'"),
    "an unknown encoding": (zipped("lzw", bytes), "the encoding 'lzw'"),
    "two encodings": (zipped("identity, gzip", bytes), "the encoding 'identity, gzip'"),
    "deep JSON": (lambda _: Answer(body="[" * 100_000), "nested too deeply"),
    "a deep id": (lambda _: Answer(body=answer_with("id", DEEP)), "its id is [[["),
    "a deep version": (
        lambda _: Answer(body=answer_with("model_version", DEEP)),
        "its model_version is [[[",
    ),
    "huge sizes": (
        lambda _: Answer(body={"outputs": [{**TENSOR, "shape": [int("9" * 400)] * 500}]}),
        "with 500 dimensions. 8 are allowed",
    ),
    "many values": (
        lambda _: Answer(body={"outputs": [{**TENSOR, "data": [[]] * 700_000}]}),
        "is too large",
    ),
}


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(("answering", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_answer_is_refused_at_once(
    server: Server,
    answering: Answering,
    words: str,
    binary: bool,
    configure: Callable[..., None],
) -> None:
    configure(remote_timeout_seconds=10)  # a large answer takes its time
    if not binary and answering is truncated:
        words = "no JSON"
    server.on["/infer"] = answering
    with asking(server) as asked, fails(BadData, server.url, words):
        asked.predict(rows(20), Description("10", binary))
    assert len(server.asked()) == 1


# --- the order ------------------------------------------------------------------------------------


MIXED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sorted": lambda scores: np.sort(scores, axis=0),
    "the other way round": lambda scores: scores[::-1],
    "moved by one": lambda scores: np.roll(scores, 1, axis=0),
    "moved by half": lambda scores: np.roll(scores, len(scores) // 2, axis=0),
    "shuffled": lambda scores: np.random.default_rng(1).permutation(scores),
    "shuffled each time": lambda scores: np.random.default_rng().permutation(scores),
    "two exchanged": lambda scores: np.vstack([scores[1::-1], scores[2:]]),
}


@pytest.mark.parametrize("number", [2, 20, 64, 400])
@pytest.mark.parametrize("mix", MIXED.values(), ids=MIXED)
def test_a_server_that_mixes_rows_up_is_found_out(
    server: Server, mix: Callable[[np.ndarray], np.ndarray], number: int
) -> None:
    server.on["/infer"] = lambda request: scored(request, mix)
    with asking(server) as asked:
        scores = asked.predict(rows(number), PINNED)
        with fails(BadData, "in another order"):
            asked.check_order(rows(number), scores, PINNED)


@pytest.mark.parametrize("number", [1, 2, 64, 65, 400])
def test_a_server_that_keeps_the_order_passes(server: Server, number: int) -> None:
    with asking(server) as asked:
        asked.check_order(rows(number), asked.predict(rows(number), PINNED), PINNED)
    assert len(server.asked()[-1].tensors["carrier"]) == remote.ORDER_ROWS


def test_numbers_without_an_interval_keep_their_order_too(server: Server) -> None:
    case = with_target(CASE, Regression("dollars"))
    server.on["/infer"] = lambda request: scored(request, lambda scores: 1e6 * scores[:, 0])
    with remote.connect(case, Endpoint(server.url), MODEL) as asked:
        found = asked.predict(rows(200), PINNED)
        asked.check_order(rows(200), found, PINNED)
        with fails(BadData, "in another order"):
            asked.check_order(rows(200), found[::-1], PINNED)


# --- what the server says of itself ---------------------------------------------------------------


def test_the_newest_version_is_taken(server: Server) -> None:
    with asking(server) as asked:
        assert asked.describe() == Description("10", binary=True)


@pytest.mark.parametrize("versions", [None, [], 3, "10"])
def test_a_server_with_little_metadata_gets_plain_requests(
    server: Server, versions: object
) -> None:
    server.on["/v2"] = lambda _: Answer(body={"name": "plain", "extensions": versions})
    server.on["/models/late%20flights"] = lambda _: Answer(
        body={"name": MODEL} if versions is None else {"name": MODEL, "versions": versions}
    )
    with asking(server) as asked:
        description = asked.describe()
        scores = asked.predict(rows(60), description)
    assert description == Description("", binary=False)
    np.testing.assert_array_equal(scores, right(60))
    assert {request.path for request in server.asked()} == {"/v2/models/late%20flights/infer"}
    assert not any(request.is_binary for request in server.asked())


def about_model(body: Any, status: int = 200) -> tuple[str, Answer]:
    return "/models/late%20flights", Answer(status, body)


INPUTS = model_servers.INPUTS
MISFITS: dict[str, tuple[tuple[str, Answer], str]] = {
    "columns of another target": (
        about_model({"name": MODEL, "outputs": [{"parameters": {"columns": "value, lower"}}]}),
        "its predictions are 'value, lower' instead of 'score'",
    ),
    "unknown": (about_model("no such model", 404), "404 'no such model'"),
    "no JSON": (about_model("<html>"), "no JSON"),
    "a list": (about_model("[]"), "not a JSON object"),
    "the server's no JSON": (("/v2", Answer(body="pong")), "/v2, 'pong': it is no JSON"),
    "the server's is deep": (("/v2", Answer(body="[" * 100_000)), "nested too deeply"),
    "deep": (about_model("[" * 100_000), "nested too deeply"),
    "large": (about_model("[" + "0," * 2_000_000), "is too large"),
    "deep inputs": (about_model(f'{{"inputs": {DEEP}}}'), "its inputs are [[["),
    "a deep name": (
        about_model(f'{{"inputs": [{{"name": {DEEP}, "datatype": "FP32"}}]}}'), "other inputs"),
    "one more": (
        about_model({"inputs": [*INPUTS, {"name": "tailnum", "datatype": "BYTES"}]}),
        "other inputs than the features of this code: tailnum",
    ),
    "one less": (about_model({"inputs": INPUTS[:-1]}), f": {INPUTS[-1]['name']}"),
    "another type": (
        about_model({"inputs": [{**INPUTS[0], "datatype": "FP64"}, *INPUTS[1:]]}),
        f": {INPUTS[0]['name']}",
    ),
    "numbers as names": (
        about_model({"inputs": [{"name": 0, "datatype": "FP32"}]}), "other inputs"
    ),
    "nonsense": (about_model({"inputs": [1, 2]}), "its inputs are [1, 2]"),
}  # fmt: skip


@pytest.mark.parametrize(("page", "words"), MISFITS.values(), ids=MISFITS)
def test_a_model_that_does_not_fit_is_refused(
    server: Server, page: tuple[str, Answer], words: str
) -> None:
    path, answer = page
    server.on[path] = lambda _: answer
    with asking(server) as asked, fails(BadData, server.url, words):
        asked.describe()
    assert server.asked() == []
