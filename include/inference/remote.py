"""A model behind HTTP, in the Open Inference Protocol v2: Triton, KServe, MLServer, or `serving/`.

An answer is accepted only if it matches the request exactly: an ensemble is better without a member
than with a wrong one.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include import metrics
from include.errors import BadData
from include.inference import open_inference
from include.inference.open_inference import BINARY, ProtocolError, Tensors, show
from include.inference.patient_http import RETRIED, Endpoint, PatientClient
from include.usecase import UseCase

ORDER_ROWS = 64
"""Number of rows that are sent a second time."""

TOLERANCE = 1e-4
"""Maximum difference between two scores of the same row, also relative to a large one."""


@dataclass(frozen=True)
class Description:
    """A server's description of a model.

    Attributes:
        version: the newest version; empty if the server does not name it.
        binary: whether the server understands binary tensors.
    """

    version: str
    binary: bool


@contextmanager
def connect(case: UseCase, at: Endpoint, model: str, output: str = "") -> Iterator["ModelServer"]:
    """A connection to a model on a server, closed at the end of the block.

    Args:
        model: its name on the server.
        output: name of the output with the scores; empty for the server's default.
    """
    client = PatientClient(at, case.settings)
    try:
        yield ModelServer(case, client, model, output)
    finally:
        client.close()


class ModelServer:
    """A model on a server."""

    def __init__(self, case: UseCase, client: PatientClient, model: str, output: str = ""):
        self.case, self._client, self.model, self.output = case, client, model, output

    def describe(self) -> Description:
        """Ask whether the server is ready, and for its description of the model.

        Raises:
            ServerDown: it did not become ready.
            BadData: it does not have the model, or expects other features.
        """
        # "Not ready" may be a 4xx status in the protocol: Triton answers 400, KServe 503.
        self._client.ask("GET", "/v2/health/ready", retried={*RETRIED, 400})
        server = self._facts("/v2")
        model = self._facts(self._path(""))
        self._check_inputs(model.get("inputs"))
        self._check_output(model.get("outputs"))
        versions = [_text(version) for version in _list(model.get("versions"))]
        newest = max(versions, key=lambda text: (text.isdigit(), text.zfill(20)), default="")
        return Description(newest, BINARY in _list(server.get("extensions")))

    def predict(self, rows: pa.RecordBatch, description: Description) -> np.ndarray:
        """Score rows of features, `remote_in_flight` requests at a time.

        Returns:
            Predictions, float32.

        Raises:
            ServerDown: some rows were not scored, in spite of retries.
            BadData: an answer is wrong, or a request was refused.
        """
        size = self.case.settings.remote_batch_rows
        parts = [rows.slice(start, size) for start in range(0, rows.num_rows, size)]
        with ThreadPoolExecutor(self.case.settings.remote_in_flight) as threads:
            asked = [threads.submit(self._infer, part, description) for part in parts]
            try:
                for answered in as_completed(asked):
                    answered.result()
            except BaseException:  # Airflow's timeout is not an Exception
                self._client.give_up()
                threads.shutdown(wait=False, cancel_futures=True)
                raise
        return np.concatenate([future.result() for future in asked])

    def check_order(
        self, rows: pa.RecordBatch, scores: np.ndarray, description: Description
    ) -> None:
        """Score some rows again in another order, to detect a server that mixes up rows.

        Rows are drawn with repetition, so no mix-up can preserve the order by chance. (A server
        that reverses rows would give the same wrong scores for a few rows sent in reverse.)

        Args:
            rows: rows that were scored before.
            scores: their predictions.

        Raises:
            BadData: the server mixed up rows, then or now.
        """
        drawn = np.random.default_rng(0).integers(0, rows.num_rows, ORDER_ROWS)
        again = self._infer(rows.take(pa.array(drawn)), description)
        if not np.allclose(again, scores[drawn], rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
            raise self._wrong("the same rows, sent in another order, have other scores")

    def _infer(self, rows: pa.RecordBatch, description: Description) -> np.ndarray:
        fields: dict[str, Any] = {"id": uuid4().hex}
        if self.output:
            fields["outputs"] = [{"name": self.output}]
        if description.binary:
            fields["parameters"] = {"binary_data_output": True}
        body, headers = open_inference.encode(
            "inputs", _tensors(self.case, rows), fields, description.binary
        )
        path = f"{self._path(description.version)}/infer"
        with metrics.timed(self.case.name, "inference_request_seconds", model=self.model):
            content, answered = self._client.ask("POST", path, body, headers)
        try:
            said, outputs = open_inference.decode("outputs", content, answered)
        except ProtocolError as error:
            raise self._wrong(str(error)) from error
        expected = {"id": fields["id"], "model_version": description.version}
        for name, value in expected.items():
            if value and _text(said.get(name) or value) != value:
                raise self._wrong(f"its {name} is {show(said[name])} instead of {value!r}")
        return self._scores(outputs, rows.num_rows)

    def _scores(self, outputs: Tensors, rows: int) -> np.ndarray:
        """The predictions in an answer."""
        if len(outputs) != 1:
            raise self._wrong(f"it has {len(outputs)} outputs instead of one")
        ((name, values),) = outputs.items()
        if self.output not in ("", name):
            raise self._wrong(f"its output is {name!r} instead of {self.output!r}")
        if values.dtype.kind != "f":
            raise self._wrong(
                f"{name} is of {values.dtype}, not of a floating point type. If the server has "
                "another output, name it in the member's `output`"
            )
        try:
            scores = self.case.target.from_output(values, rows)
        except ValueError as error:
            raise self._wrong(f"{name} {error}") from error
        if wrong := self.case.target.wrong(scores):
            raise self._wrong(wrong)
        return scores

    def _facts(self, path: str) -> dict[str, Any]:
        content, _ = self._client.ask("GET", path)
        said = self._client.excerpt(content, 100)
        try:
            found = open_inference.parse(content)
        except ProtocolError as error:
            raise self._wrong(f"{path}, {said!r}: {error}") from error
        if not isinstance(found, dict):
            raise self._wrong(f"{path} is not a JSON object: {said!r}")
        return found

    def _check_inputs(self, declared: Any) -> None:
        """If a server declares its inputs, they must be our features."""
        if not declared:
            return
        try:
            theirs = {(_text(tensor["name"]), tensor["datatype"]) for tensor in declared}
        except (TypeError, LookupError) as error:
            raise self._wrong(f"its inputs are {show(declared)}") from error
        ours = {
            (name, "FP32" if name in self.case.features.NUMERIC else "BYTES")
            for name in self.case.features.FEATURES
        }
        if differing := sorted({name for name, _ in theirs ^ ours}):
            raise self._wrong(
                f"it expects other inputs than the features of this code: {', '.join(differing)}"
            )

    def _check_output(self, declared: Any) -> None:
        """If a server names the columns of its output, they must be those of our target."""
        for output in _list(declared):
            parameters = output.get("parameters") if isinstance(output, dict) else None
            theirs = parameters.get("columns") if isinstance(parameters, dict) else None
            ours = ", ".join(self.case.target.columns)
            if theirs not in (None, ours):
                raise self._wrong(f"its predictions are {show(theirs)} instead of {ours!r}")

    def _path(self, version: str) -> str:
        pinned = f"/versions/{quote(version, safe='')}" if version else ""
        return f"/v2/models/{quote(self.model, safe='')}{pinned}"

    def _wrong(self, what: str) -> BadData:
        return BadData(
            f"The model server at {self._client.at.url} answers wrongly for {self.model!r}: "
            f"{self._client.excerpt(what, 500)}. No score of it was kept. Look at the server and "
            "the model it serves, then clear this run."
        )


def _list(value: Any) -> list[Any]:
    """A list that a server may omit; any other type counts as omitted."""
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    """A name or a version, which may be a number; anything else as a short text."""
    return value if isinstance(value, str) else show(value)


def _tensors(case: UseCase, rows: pa.RecordBatch) -> Tensors:
    """Rows of features as one tensor per feature, of shape (rows, 1); missing: NaN or ""."""
    found: Tensors = {}
    for name in case.features.FEATURES:
        column = rows.column(name)
        if name in case.features.NUMERIC:
            values = column.to_numpy(zero_copy_only=False).astype(np.float32)
        else:
            texts = pc.fill_null(column.cast(pa.string()), "")
            values = texts.to_numpy(zero_copy_only=False).astype(object)
        found[name] = values.reshape(-1, 1)
    return found
