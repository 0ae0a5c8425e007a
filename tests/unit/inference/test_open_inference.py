"""Messages of the Open Inference Protocol: what is written is read, and nothing else is."""

import json
import random
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from include.inference.open_inference import (
    HEADER_LENGTH,
    NUMBERS,
    ProtocolError,
    Tensors,
    decode,
    encode,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@st.composite
def tensor(draw: st.DrawFn) -> np.ndarray:
    shape = draw(SHAPES)
    dtype = draw(st.sampled_from([np.dtype(code) for code in NUMBERS.values()] + [None]))
    if dtype is None:
        texts = draw(st.lists(TEXTS, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        return np.array(texts, dtype=object).reshape(shape)
    finite = {"allow_infinity": False} if dtype.kind == "f" else {}
    return draw(arrays.arrays(dtype, shape, elements=arrays.from_dtype(dtype, **finite)))


@pytest.mark.parametrize("binary", [False, True])
@given(tensors=st.dictionaries(TEXTS, tensor(), max_size=3), id_=TEXTS)
def test_what_is_written_is_read(tensors: Tensors, id_: str, binary: bool) -> None:
    body, headers = encode("inputs", tensors, {"id": id_}, binary)
    fields, found = decode("inputs", body, {name.upper(): text for name, text in headers.items()})
    assert fields == {"id": id_}
    assert list(found) == list(tensors)
    for name, values in tensors.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)  # a NaN equals a NaN here


def test_text_of_a_string_dtype_is_still_text() -> None:
    body, headers = encode("inputs", {"x": np.array(["a", "ü"])}, {}, binary=True)
    assert decode("inputs", body, headers)[1]["x"].tolist() == ["a", "ü"]


def test_data_may_be_nested_as_the_shape_is() -> None:
    body = message(shape=[2, 2], data=[[1, 2], [3, None]])
    values = decode("inputs", body, {})[1]["x"]
    np.testing.assert_array_equal(values, [[1, 2], [3, np.nan]])


def message(**changed: Any) -> bytes:
    described = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2], **changed}
    return json.dumps({"inputs": [described]}).encode()


def binary(block: bytes, **changed: Any) -> tuple[bytes, dict[str, str]]:
    text = message(**{"parameters": {"binary_data_size": len(block)}, **changed})
    return text + block, {HEADER_LENGTH: str(len(text))}


def many_texts() -> tuple[bytes, dict[str, str]]:
    """A million empty texts, in ten tensors of a hundred thousand."""
    size = 400_000
    described = {
        "shape": [size // 4],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": size},
    }
    text = json.dumps({"inputs": [{"name": str(n), **described} for n in range(10)]}).encode()
    return text + bytes(10 * size), {HEADER_LENGTH: str(len(text))}


DEEP = b"[" * 900 + b"]" * 900

MALFORMED: dict[str, tuple[bytes | tuple[bytes, dict[str, str]], str]] = {
    "empty": (b"", "no JSON"),
    "html": (b"<html>busy</html>", "no JSON"),
    "not utf-8": (b'{"inputs": "\xff"}', "no JSON"),
    "deep": (b"[" * 100_000, "no JSON"),
    "a list": (b"[]", "no list of inputs"),
    "the other way round": (b'{"outputs": []}', "no list of inputs"),
    "inputs are an object": (b'{"inputs": {}}', "no list of inputs"),
    "a tensor is a number": (b'{"inputs": [1]}', "a tensor has no name"),
    "name is a number": (message(name=1), "a tensor has no name"),
    "twice": (b'{"inputs": [%s, %s]}' % ((message()[12:-2],) * 2), "tensor x is there twice"),
    "no shape": (message(shape=None), "the shape None"),
    "negative shape": (message(shape=[-1, 2]), r"the shape \[-1, 2\]"),
    "shape of truths": (message(shape=[True, 2]), r"the shape \[True, 2\]"),
    "too many dimensions": (message(shape=[1] * 99 + [2]), "cannot have such a shape"),
    "too many dimensions of text": (
        message(shape=[1] * 99, datatype="BYTES", data=["a"]), "cannot have such a shape"),
    "too many dimensions of bytes": (
        binary(b"1234", shape=[1] * 99), "cannot have such a shape"),
    "empty but huge": (message(shape=[2**62, 4, 0], data=[]), "cannot have such a shape"),
    "unknown datatype": (message(datatype="BF16"), "the datatype 'BF16'"),
    "datatype is a list": (message(datatype=[]), r"the datatype \[\]"),
    "no data": (message(data=None), "no list of data"),
    "too few": (message(data=[1]), r"1 values for the shape \[2\]"),
    "nested unevenly": (message(data=[[1], 2]), "nested unevenly"),
    "text for a number": (message(data=["1", 2]), "is of FP32 and holds what is none"),
    "truth for a number": (message(data=[True, 2]), "is of FP32 and holds what is none"),
    "number for a truth": (message(datatype="BOOL"), "is of BOOL and holds what is none"),
    "fraction": (message(datatype="INT64", data=[1.5, 2]), "is of INT64 and holds what is none"),
    "null integer": (message(datatype="INT8", data=[None, 2]), "is of INT8 and holds what is none"),
    "too large integer": (message(datatype="INT8", data=[128, 2]), "cannot be INT8"),
    "negative unsigned": (message(datatype="UINT64", data=[-1, 2]), "cannot be UINT64"),
    "too large": (message(data=[1e300, 2]), "cannot be FP32"),
    "far too large": (message(data=[10**400, 2]), "cannot be FP32"),
    "number for text": (message(datatype="BYTES"), "contains a value that is not text"),
    "half a character": (message(datatype="BYTES", data=["\ud800", ""]), "x is no Unicode"),
    "header is no number": ((message(), {HEADER_LENGTH: "-1"}), "is '-1', not a number"),
    "header is too long": ((message(), {HEADER_LENGTH: "9" * 5000}), "not a number of bytes"),
    "header is too large": ((message(), {HEADER_LENGTH: "999"}), "is 999, but there are"),
    "block is short": (binary(b"1234567"), r"7 bytes for FP32 \[2\]"),
    "block is cut off": (binary(b"12", parameters={"binary_data_size": 8}), "tensor x is cut off"),
    "block is left over": (binary(b"12345678", parameters={}), "8 bytes follow"),
    "negative size": (binary(b"", parameters={"binary_data_size": -1}), "binary_data_size of -1"),
    "size is a truth": (binary(b"", parameters={"binary_data_size": True}), "size of True"),
    "texts without end": (binary(bytes(4000), datatype="BYTES"), r"3 texts for the shape \[2\]"),
    "many texts in many tensors": (many_texts(), "is too large"),
    "many values": (message(data=[0] * 2_000_000), "is too large"),
    "many lists": (message(data=[[]] * 900_000), "is too large"),
    "many fields": (message(parameters={str(n): n for n in range(600_000)}), "is too large"),
    "huge sizes": (message(shape=[int("9" * 4000)] * 500), "with 500 dimensions. 8 are allowed"),
    "a huge size": (message(shape=[2**31 + 1]), "of up to 2,147,483,648 each"),
    "a deep name": (b'{"inputs": [{"name": %s}]}' % DEEP, "a tensor has no name"),
    "a deep shape": (message().replace(b"[2]", DEEP), r"has the shape \[\[\["),
    "a deep datatype": (message().replace(b'"FP32"', DEEP), r"has the datatype \[\[\["),
    "deep data": (message().replace(b"[1, 2]", DEEP), "0 values for the shape"),
    "too few texts": (binary(b"\1\0\0\0a", datatype="BYTES"), r"1 texts for the shape \[2\]"),
    "text is cut off": (binary(b"\2\0\0\0a", datatype="BYTES"), "a text of tensor x is cut off"),
    "length is cut off": (binary(b"\2\0", datatype="BYTES"), "tensor x holds no texts"),
    "text is not utf-8": (binary(b"\1\0\0\0\xff", datatype="BYTES"), "tensor x holds no texts"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_message_is_refused_with_the_reason(case: str) -> None:
    sent, words = MALFORMED[case]
    body, headers = sent if isinstance(sent, tuple) else (sent, {})
    with pytest.raises(ProtocolError, match=words):
        decode("inputs", body, headers)


@given(body=st.binary(), length=st.none() | st.text(max_size=5))
def test_noise_is_refused(body: bytes, length: str | None) -> None:
    with pytest.raises(ProtocolError):
        decode("inputs", body, {} if length is None else {HEADER_LENGTH: length})


@pytest.mark.parametrize("binary", [False, True])
def test_a_damaged_message_is_read_or_refused(binary: bool) -> None:
    tensors = {"x": np.array([[1.5], [np.nan]], "f4"), "n": np.array([1, 2]),
               "text": np.array(["ü", ""], object)}  # fmt: skip
    whole, headers = encode("inputs", tensors, {"id": "1"}, binary)
    chance, read = random.Random(7), 0
    for _ in range(5000):
        body = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            position = chance.randrange(len(body))
            end = position + chance.choice([0, 1, 1, 1, 5])
            body[position:end] = chance.choice([b"", b"0", b"9", b"[", b'"', b"\xff", b"-", b"e"])
        with suppress(ProtocolError):
            decode("inputs", bytes(body), headers)
            read += 1
    assert 0 < read < 5000
