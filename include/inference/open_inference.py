"""Messages of the Open Inference Protocol v2, which KServe, Triton and MLServer use.

A message is JSON. With the protocol's binary extension the tensors' bytes follow the JSON, whose
length is in the header `Inference-Header-Content-Length`. https://github.com/kserve/open-inference-protocol
"""

import json
import math
import reprlib
import struct
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

HEADER_LENGTH = "Inference-Header-Content-Length"
"""HTTP header: bytes of JSON before the binary tensors."""

BINARY = "binary_tensor_data"
"""Extension of servers that understand binary tensors."""

NUMBERS = {
    "BOOL": "?", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "<i1",
    "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
"""Datatypes of the protocol and their NumPy names; text is `BYTES`."""

MAX_PARSED_BYTES = 64 * 2**20
"""Maximum memory of a message's values as Python objects."""

MAX_DIMENSIONS = 8
MAX_SIZE = 2**31
"""Maximum number of dimensions of a tensor, and of its largest dimension."""

VALUE_BYTES, FIELD_BYTES, CONTAINER_BYTES, TEXT_BYTES = 40, 100, 80, 80
"""Approximate memory of a value in a list, a field of an object, an object or list itself, and a
text without its characters."""

DATATYPES = {np.dtype(code): name for name, code in NUMBERS.items()}

Which = Literal["inputs", "outputs"]
Tensors = dict[str, np.ndarray]


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = MAX_PARSED_BYTES  # not cut here, but after secrets are masked
show = _SHORT.repr
"""A value for a message, limited to a few levels and values."""


class ProtocolError(ValueError):
    """A message breaks the protocol; the text says how."""


def encode(
    which: Which, tensors: Tensors, fields: Mapping[str, Any], binary: bool
) -> tuple[bytes, dict[str, str]]:
    """Write a request (`inputs`) or an answer (`outputs`).

    Args:
        which: whether the tensors are inputs or outputs.
        tensors: name → array of numbers, or of `str` as dtype object.
        fields: all other top-level fields of the message.
        binary: whether tensors follow as bytes. In JSON, NaN becomes null.

    Returns:
        The body, and the HTTP headers that go with it.
    """
    described, blocks = [], []
    for name, values in tensors.items():
        tensor: dict[str, Any] = {
            "name": name,
            "shape": list(values.shape),
            "datatype": DATATYPES.get(values.dtype, "BYTES"),
        }
        if binary:
            block = values.tobytes() if values.dtype in DATATYPES else _pack(values)
            tensor["parameters"] = {"binary_data_size": len(block)}
            blocks.append(block)
        else:
            tensor["data"] = _plain(values)
        described.append(tensor)
    text = json.dumps({**fields, which: described}, allow_nan=False).encode()
    if not binary:
        return text, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(text))}
    return b"".join([text, *blocks]), headers


def decode(which: Which, body: bytes, headers: Mapping[str, str]) -> tuple[dict[str, Any], Tensors]:
    """Read a request or an answer.

    Args:
        headers: headers of the HTTP message, in any case.

    Returns:
        The top-level fields, and the tensors by name; text as `str`, of dtype object.

    Raises:
        ProtocolError: it breaks the protocol.
    """
    known = {name.lower(): value for name, value in headers.items()}
    length = known.get(HEADER_LENGTH.lower())
    if length is not None and not (length.isascii() and length.isdigit() and len(length) < 20):
        raise ProtocolError(f"{HEADER_LENGTH} is {length!r}, not a number of bytes")
    end = len(body) if length is None else int(length)
    if end > len(body):
        raise ProtocolError(f"{HEADER_LENGTH} is {length}, but there are {len(body)} bytes")
    message = parse(body[:end])
    if not isinstance(message, dict) or not isinstance(message.get(which), list):
        raise ProtocolError(f"it has no list of {which}")
    tensors: Tensors = {}
    texts = 0
    for described in message.pop(which):
        name, size = _name(described), _binary_size(described)
        if name in tensors:
            raise ProtocolError(f"tensor {name} is there twice")
        if size is None:
            tensors[name] = _from_json(name, described)
            continue
        if end + size > len(body):
            raise ProtocolError(f"tensor {name} is cut off")
        if described.get("datatype") == "BYTES":
            texts += min(size // 4, math.prod(_shape(name, described)))
            _check_memory(texts * TEXT_BYTES)
        tensors[name] = _from_bytes(name, described, body[end : end + size])
        end += size
    if end != len(body):
        raise ProtocolError(f"{len(body) - end} bytes follow that belong to no tensor")
    return message, tensors


def parse(text: bytes) -> Any:
    """Read JSON, unless its values would take more than `MAX_PARSED_BYTES`.

    Raises:
        ProtocolError: it is too large, nested too deeply, or not JSON.
    """
    _check_memory(
        text.count(b",") * VALUE_BYTES
        + text.count(b":") * FIELD_BYTES
        + (text.count(b"[") + text.count(b"{")) * CONTAINER_BYTES
    )
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ProtocolError("it is no JSON: it is nested too deeply") from error
    except ValueError as error:
        raise ProtocolError(f"it is no JSON: {error}") from error


def _check_memory(size: int) -> None:
    if size > MAX_PARSED_BYTES:
        raise ProtocolError(
            f"it is too large: its values would take about {size >> 20:,} MiB of memory, and "
            f"{MAX_PARSED_BYTES >> 20} are allowed. Fewer rows at a time help"
        )


def _plain(values: np.ndarray) -> list[Any]:
    flat = values.ravel().tolist()
    if values.dtype.kind == "f":
        return [value if math.isfinite(value) else None for value in flat]
    return flat


def _pack(values: np.ndarray) -> bytes:
    texts = [str(value).encode() for value in values.ravel()]
    return b"".join(part for text in texts for part in (struct.pack("<I", len(text)), text))


def _name(described: Any) -> str:
    if not isinstance(described, dict) or not isinstance(described.get("name"), str):
        raise ProtocolError("a tensor has no name")
    return str(described["name"])


def _binary_size(described: dict[str, Any]) -> int | None:
    parameters = described.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None and (type(size) is not int or size < 0):
        raise ProtocolError(f"tensor {described['name']} has a binary_data_size of {show(size)}")
    return size


def _shape(name: str, described: dict[str, Any]) -> list[int]:
    shape = described.get("shape")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ProtocolError(f"tensor {name} has the shape {show(shape)}, no list of sizes")
    # Checked before they are multiplied.
    if len(shape) > MAX_DIMENSIONS or max(shape, default=0) > MAX_SIZE:
        raise ProtocolError(
            f"tensor {name} cannot have such a shape: {show(shape)}, with {len(shape)} dimensions. "
            f"{MAX_DIMENSIONS} are allowed, of up to {MAX_SIZE:,} each"
        )
    return shape


def _shaped(name: str, values: np.ndarray, shape: list[int]) -> np.ndarray:
    try:
        return values.reshape(shape)
    except ValueError as error:  # more values than an array can have
        raise ProtocolError(f"tensor {name} cannot have such a shape: {error}") from error


def _datatype(name: str, described: dict[str, Any]) -> str:
    datatype = described.get("datatype")
    if datatype not in ["BYTES", *NUMBERS]:
        raise ProtocolError(f"tensor {name} has the datatype {show(datatype)}")
    return str(datatype)


def _from_json(name: str, described: dict[str, Any]) -> np.ndarray:
    shape, datatype = _shape(name, described), _datatype(name, described)
    data = described.get("data")
    if not isinstance(data, list):
        raise ProtocolError(f"tensor {name} has no list of data")
    while data and isinstance(data[0], list):  # nested like its shape or flat: both are allowed
        if not all(isinstance(row, list) for row in data):
            raise ProtocolError(f"the data of tensor {name} is nested unevenly")
        data = [value for row in data for value in row]
    if len(data) != math.prod(shape):
        raise ProtocolError(f"tensor {name} has {len(data)} values for the shape {shape}")
    if datatype == "BYTES":
        if not all(isinstance(value, str) for value in data):
            raise ProtocolError(f"tensor {name} is BYTES but contains a value that is not text")
        try:
            "".join(data).encode()  # JSON can escape half a character
        except UnicodeEncodeError as error:
            raise ProtocolError(f"a text of tensor {name} is no Unicode: {error}") from error
        return _shaped(name, np.array(data, dtype=object), shape)
    wanted: tuple[type, ...] = (bool,) if datatype == "BOOL" else (int,)
    if datatype.startswith("FP"):
        wanted = (int, float, type(None))
    if not all(type(value) in wanted for value in data):
        raise ProtocolError(f"tensor {name} is of {datatype} and holds what is none")
    try:
        with np.errstate(over="raise"):
            values = np.array(data, dtype=NUMBERS[datatype])
    except (ArithmeticError, ValueError) as error:
        raise ProtocolError(f"tensor {name} cannot be {datatype}: {error}") from error
    return _shaped(name, values, shape)


def _from_bytes(name: str, described: dict[str, Any], block: bytes) -> np.ndarray:
    shape, datatype = _shape(name, described), _datatype(name, described)
    if datatype == "BYTES":
        texts = _unpack(name, block, math.prod(shape))
        if len(texts) != math.prod(shape):
            raise ProtocolError(f"tensor {name} has {len(texts)} texts for the shape {shape}")
        return _shaped(name, np.array(texts, dtype=object), shape)
    dtype = np.dtype(NUMBERS[datatype])
    if len(block) != math.prod(shape) * dtype.itemsize:
        raise ProtocolError(f"tensor {name} has {len(block)} bytes for {datatype} {shape}")
    return _shaped(name, np.frombuffer(block, dtype), shape)


def _unpack(name: str, block: bytes, most: int) -> list[str]:
    texts: list[str] = []
    position = 0
    try:
        while position < len(block) and len(texts) <= most:
            (length,) = struct.unpack_from("<I", block, position)
            position += 4 + length
            if position > len(block):
                raise ProtocolError(f"a text of tensor {name} is cut off")
            texts.append(block[position - length : position].decode())
    except (struct.error, UnicodeDecodeError) as error:
        raise ProtocolError(f"tensor {name} holds no texts: {error}") from error
    return texts
