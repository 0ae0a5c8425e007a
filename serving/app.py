"""The Open Inference Protocol v2 for each use case's champion and the version before it.

A model has the name of its use case. Its metadata describes the inputs of a request. The server
does not check which features may be missing.
"""

import hmac
import json
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from threading import Lock
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect

from include.inference.open_inference import BINARY, ProtocolError, Tensors, decode, encode, show
from include.usecase import UseCase
from include.wording import listed
from serving.faults import add_faults
from serving.models import Loaded, Models

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 16 * 2**20
"""Maximum size of a request."""

MAX_HELD_BYTES = 32 * 2**20
"""Maximum total size of unanswered requests; further ones are asked to come again."""

SLICE_ROWS = 10_000
"""Rows scored at once, because a model's intermediate data is many times as large as its rows."""

LONGEST_REASON = 1_000
"""Maximum characters of an error message."""

TOKEN = "MODEL_SERVER_TOKEN"  # noqa: S105 - the name of the variable
"""Variable with the token that clients must send; without it, everyone has access."""


def create_app(cases: Sequence[UseCase], faults: bool = False) -> FastAPI:
    """A server that starts to load the champions.

    Args:
        cases: the use cases whose champions are served.
        faults: whether it can be made to fail.
    """
    app = FastAPI(openapi_url=None, lifespan=_while_it_runs)
    app.state.models = {case.name: Models(case) for case in cases}
    app.state.limiter = CapacityLimiter(os.cpu_count() or 1)
    app.state.held_bytes = 0
    app.include_router(health)
    app.include_router(models)
    app.add_exception_handler(AnyHTTPException, _refuse)
    app.add_exception_handler(ClientDisconnect, _say_nothing)
    if faults:
        add_faults(app)
    return app


@asynccontextmanager
async def _while_it_runs(app: FastAPI) -> AsyncIterator[None]:
    with ExitStack() as served:
        for known in app.state.models.values():
            served.enter_context(known.kept_up_to_date())
        yield


def inputs_of(case: UseCase) -> list[dict[str, Any]]:
    """The inputs of a use case's model: a tensor for each feature."""
    numeric = case.features.NUMERIC
    return [
        {"name": name, "datatype": "FP32" if name in numeric else "BYTES", "shape": [-1, 1]}
        for name in case.features.FEATURES
    ]


def outputs_of(case: UseCase) -> list[dict[str, Any]]:
    """The output of a use case's model: the numbers of each row's prediction."""
    names = case.target.columns
    return [
        {
            "name": case.target.output,
            "datatype": "FP32",
            "shape": [-1, len(names)],
            "parameters": {"columns": ", ".join(names)},
        }
    ]


def _say_nothing(*_: Any) -> Response:
    """The answer to a client that has disconnected."""
    return Response(status_code=408)


def _refuse(_: Request, error: Any) -> Response:
    text = json.dumps({"error": error.detail})
    return Response(text, error.status_code, error.headers, "application/json")


async def _authorize(request: Request) -> None:
    token = os.environ.get(TOKEN)
    brought = request.headers.get("Authorization", "").encode("latin-1")
    if token and not hmac.compare_digest(brought, f"Bearer {token}".encode()):
        raise HTTPException(
            401,
            f"this server wants 'Authorization: Bearer <its {TOKEN}>'",
            {"WWW-Authenticate": "Bearer"},
        )


def _find(request: Request) -> Loaded:
    """The version that the URL names."""
    served_models: dict[str, Models] = request.app.state.models
    name, version = request.path_params["model"], request.path_params.get("version")
    if (known := served_models.get(name)) is None:
        names = listed(map(repr, served_models))
        raise HTTPException(404, f"there is no model {name!r}: this server has {names}")
    if known.get(version) is None:
        known.look()  # the client may know a new champion from another server
    found = known.get(version)
    if found is None and not known.loaded:
        raise HTTPException(503, known.problem)
    if found is None:
        served = " and ".join(one.model.version for one in known.loaded)
        raise HTTPException(404, f"version {version!r} of {name!r} is not served, but {served}")
    return found


health = APIRouter(prefix="/v2")
models = APIRouter(prefix="/v2/models/{model}", dependencies=[Depends(_authorize)])
Asked = Annotated[Loaded, Depends(_find)]


@health.get("")
async def server() -> dict[str, Any]:
    """Describe the server."""
    return {"name": "model-server", "version": "1", "extensions": [BINARY]}


@health.get("/health/live")
async def live() -> Response:
    """Whether the process is alive."""
    return Response()


@health.get("/health/ready")
async def ready(request: Request) -> Response:
    """Whether any model is ready; `/v2/models/<use case>/ready` asks for a specific one."""
    found = request.app.state.models.values()
    if not any(known.loaded for known in found):
        raise HTTPException(503, " ".join(known.problem for known in found))
    return Response()


@models.get("")
@models.get("/versions/{version}")
async def metadata(asked: Asked) -> dict[str, Any]:
    """The model's inputs and output. Its version is the champion's, or the one in the path."""
    return {
        "name": asked.model.name,
        "versions": [asked.model.version],
        "platform": "sklearn_skops",
        "inputs": inputs_of(asked.case),
        "outputs": outputs_of(asked.case),
    }


@models.get("/ready")
@models.get("/versions/{version}/ready")
async def model_ready(_: Asked) -> Response:
    """Whether this version is served."""
    return Response()


@models.post("/infer")
@models.post("/versions/{version}/infer")
async def infer(asked: Asked, request: Request) -> Response:
    """Score rows."""
    state, parts, size = request.app.state, [], 0
    try:
        async for part in request.stream():
            size += len(part)
            state.held_bytes += len(part)
            if size > MAX_BODY_BYTES:
                raise HTTPException(413, f"the request is larger than {MAX_BODY_BYTES:,} bytes")
            if state.held_bytes > MAX_HELD_BYTES:
                busy = f"requests of {MAX_HELD_BYTES:,} bytes are being answered"
                raise HTTPException(503, f"{busy}; ask again in a second", {"Retry-After": "1"})
            parts.append(part)
        return await to_thread.run_sync(
            _answer, asked, parts, request.headers, limiter=state.limiter
        )
    finally:
        state.held_bytes -= size


_decoding = Lock()
"""Held while a request is parsed, so that the memory for parsing is needed only once."""


def _answer(asked: Loaded, parts: list[bytes], headers: Any) -> Response:
    try:
        with _decoding:
            body = b"".join(parts)
            parts.clear()
            message, tensors = decode("inputs", body, headers)
        binary = _wants_binary(message, asked.case.target.output)
        identity = _identity(message)
        table = _table(asked.case, tensors)
    except ProtocolError as error:
        reason = f"the request cannot be read: {error}"[:LONGEST_REASON]
        raise HTTPException(400, reason) from error
    fields = {"model_name": asked.model.name, "model_version": asked.model.version, **identity}
    try:
        scores = _score(asked, table)
    except Exception as error:
        log.exception("Version %s failed on %s rows", asked.model.version, table.num_rows)
        raise HTTPException(500, f"the model failed: {error}") from error
    content, headers = encode("outputs", {asked.case.target.output: scores}, fields, binary)
    return Response(content, headers=headers)


def _score(asked: Loaded, table: pa.Table) -> np.ndarray:
    target, size = asked.case.target, len(asked.case.target.columns)
    if not table.num_rows:  # of which no model wants to hear
        return np.empty((0, size), np.float32)
    slices = [table.slice(start, SLICE_ROWS) for start in range(0, table.num_rows, SLICE_ROWS)]
    scores = [target.predict(asked.pipeline, rows).astype(np.float32) for rows in slices]
    return np.concatenate(scores).reshape(table.num_rows, size)


def _identity(message: dict[str, Any]) -> dict[str, str]:
    """The request's id, if it has one; here and below, some clients send null for none."""
    name = message.get("id")
    if name is not None and not isinstance(name, str):
        raise ProtocolError(f"its id is {show(name)}, which is not text")
    return {} if name is None else {"id": name}


def _wants_binary(message: dict[str, Any], only: str) -> bool:
    """Whether the answer's tensor is binary: the output's own parameter, or the request's.

    Args:
        only: name of the only output.
    """
    wanted = _parameter(message, "binary_data_output", False)
    outputs = message.get("outputs") or []
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise ProtocolError("its outputs are not a list of objects")
    for output in outputs:
        if output.get("name") != only:
            raise ProtocolError(
                f"it requests the output {show(output.get('name'))}: the only one is {only!r}"
            )
        wanted = _parameter(output, "binary_data", wanted)
    return wanted


def _parameter(of: dict[str, Any], name: str, default: bool) -> bool:
    parameters = of.get("parameters") or {}
    value = parameters.get(name, default) if isinstance(parameters, dict) else None
    if not isinstance(value, bool):
        raise ProtocolError(f"its parameters are {show(parameters)}: {name} must be true or false")
    return value


def _table(case: UseCase, tensors: Tensors) -> pa.Table:
    """The model's features, one column from each tensor."""
    if missing := [name for name in case.features.FEATURES if name not in tensors]:
        raise ProtocolError(f"inputs are missing: {listed(missing)}")
    if unknown := [name for name in tensors if name not in case.features.FEATURES]:
        raise ProtocolError(f"the model knows no inputs {listed(unknown)}")
    columns = {name: _column(case, name, tensors[name]) for name in case.features.FEATURES}
    first, *others = case.features.FEATURES
    for name in others:
        if len(columns[name]) != len(columns[first]):
            rows = f"{name} has {len(columns[name])} rows and {first} {len(columns[first])}"
            raise ProtocolError(f"inputs must have the same rows: {rows}")
    return pa.table(columns)


def _column(case: UseCase, name: str, values: np.ndarray) -> pa.Array:
    if values.shape not in [(values.size,), (values.size, 1)]:
        raise ProtocolError(f"input {name} has the shape {list(values.shape)}, not [rows, 1]")
    flat = values.ravel()
    is_text = values.dtype == object
    if name in case.features.CATEGORICAL:
        if not is_text:
            raise ProtocolError(f"input {name} must be BYTES, not numbers")
        return pa.array([text or None for text in flat], pa.string())
    if is_text:
        raise ProtocolError(f"input {name} must be numbers, not BYTES")
    with np.errstate(over="ignore"):
        numbers = flat.astype(np.float32)
    if np.isinf(numbers).any():
        raise ProtocolError(f"input {name} holds a number that is infinite or too large for FP32")
    return pa.array(numbers)
