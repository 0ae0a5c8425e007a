"""Faults of a model server on demand, for drills, tests and benchmarks only."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from include.inference.open_inference import HEADER_LENGTH, decode, encode

NONSENSE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "nan": lambda scores: np.full_like(scores, np.nan),
    "out_of_range": lambda scores: scores + 1.5,
    "constant": lambda scores: np.full_like(scores, 0.5),
    "short": lambda scores: scores[:-1],
    "shuffled": lambda scores: scores[::-1],
}
"""Turns correct scores into wrong ones."""


class Faults(BaseModel):
    """The faults of all inference requests."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    delay_seconds: float = Field(0.0, ge=0, le=600)
    error_rate: float = Field(0.0, ge=0, le=1)
    status: int = Field(503, ge=400, le=599)
    retry_after: int | None = Field(None, ge=0)
    nonsense: Literal["nan", "out_of_range", "constant", "short", "shuffled", "not_json"] | None = (
        None
    )


def add_faults(app: FastAPI) -> None:
    """Add `/faults`, which makes a server fail, and count its requests and answers."""
    app.state.faults = Faults()
    counts = {"requests": 0, "failed": 0, "rows": 0}

    @app.get("/faults")
    def show() -> Faults:
        faults: Faults = app.state.faults
        return faults

    @app.put("/faults")
    def change(faults: Faults) -> Faults:
        app.state.faults = faults
        return faults

    @app.get("/faults/counts")
    def count() -> dict[str, int]:
        return counts

    @app.middleware("http")
    async def fail(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        if not request.url.path.endswith("/infer"):
            return await go_on(request)
        counts["requests"] += 1
        response = await _answer(app.state.faults, request, go_on, counts)
        counts["failed"] += response.status_code >= 400
        return response


async def _answer(faults: Faults, request: Request, go_on: Any, counts: dict[str, int]) -> Response:
    await asyncio.sleep(faults.delay_seconds)
    if random.random() < faults.error_rate:  # noqa: S311 - chance, not a secret
        headers = {} if faults.retry_after is None else {"Retry-After": str(faults.retry_after)}
        return JSONResponse({"error": "this fault was asked for"}, faults.status, headers)
    response = await go_on(request)
    if response.status_code != 200:
        return response
    body = b"".join([part async for part in response.body_iterator])
    headers = dict(response.headers)
    message, tensors = decode("outputs", body, headers)
    counts["rows"] += sum(map(len, tensors.values()))
    if faults.nonsense == "not_json":
        return Response("<html>this fault was asked for</html>", media_type="text/html")
    if faults.nonsense:
        wrong = {name: NONSENSE[faults.nonsense](scores) for name, scores in tensors.items()}
        body, headers = encode("outputs", wrong, message, HEADER_LENGTH.lower() in headers)
    return Response(body, headers=headers)
