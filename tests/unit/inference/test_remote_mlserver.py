"""A scikit-learn model on a real MLServer, installed into an environment of its own, is a member.

MLServer needs an older FastAPI than Airflow does, so the two cannot share an environment.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest

from include.errors import BadData
from include.inference import remote
from include.inference.patient_http import Endpoint
from include.usecases.flight_delays import features
from tests.case import CASE
from tests.unit.helpers import free_ports, wait_until

pytestmark = pytest.mark.exhaustive

PACKAGES = ["mlserver==1.7.1", "mlserver-sklearn==1.7.1"]
PYTHONS = ">=3.11,<3.13"
"""What these versions of MLServer run on."""

FIT = """
import json, sys
import joblib, pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

asked = json.load(sys.stdin)
rows = pd.DataFrame(asked["rows"]).astype(dict.fromkeys(asked["numeric"], "float32"))
model = make_pipeline(
    make_column_transformer(
        (SimpleImputer(), asked["numeric"]),
        (OneHotEncoder(handle_unknown="ignore"), asked["categorical"]),
    ),
    LogisticRegression(),
).fit(rows, asked["labels"])
joblib.dump(model, "model.joblib")
print(json.dumps(model.predict_proba(rows)[:, 1].tolist()))
"""


@pytest.fixture(scope="module")
def programs(request: pytest.FixtureRequest) -> Path:
    """Where MLServer's programs are. The environment is kept: another run finds it."""
    folder: Path = request.config.cache.mkdir("mlserver") / "-".join(PACKAGES)  # type: ignore[union-attr]
    installed = folder / "installed"
    if not installed.exists():
        shutil.rmtree(folder, ignore_errors=True)
        uv = [sys.executable, "-m", "uv"]
        _run(*uv, "venv", "--quiet", "--no-python-downloads", "--python", PYTHONS, str(folder))
        python = str(folder / "bin" / "python")
        _run(*uv, "pip", "install", "--quiet", "--python", python, *PACKAGES)
        installed.touch()
    return folder / "bin"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(
            f"MLServer cannot be installed, so nothing is known of it: `{' '.join(command)}` says\n"
            f"{done.stderr}\nIt needs a package index and Python {PYTHONS}."
        )


@pytest.fixture(scope="module")
def rows() -> pa.RecordBatch:
    """Rows of features, some unknown in each column of numbers."""
    draw = np.random.default_rng(7)
    columns = {
        name: pa.array(np.where(draw.random(300) < 0.1, np.nan, draw.random(300)), pa.float32())
        for name in features.NUMERIC
    }
    columns |= {name: pa.array(draw.choice(["UA", "Zürich"], 300)) for name in features.CATEGORICAL}
    return pa.RecordBatch.from_pydict({name: columns[name] for name in features.FEATURES})


@pytest.fixture(scope="module")
def expected(rows: pa.RecordBatch, programs: Path, folder: Path) -> np.ndarray:
    """What the model says of these rows where it was fitted."""
    labels = (np.arange(rows.num_rows) % 3 == 0).astype(int).tolist()
    asked = {"rows": rows.to_pydict(), "labels": labels,
             "numeric": features.NUMERIC, "categorical": features.CATEGORICAL}  # fmt: skip
    done = subprocess.run(
        [programs / "python", "-c", FIT],
        cwd=folder, input=json.dumps(asked), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return np.array(json.loads(done.stdout), np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model and its settings, as MLServer's users write them."""
    made = tmp_path_factory.mktemp("late")
    texts = {"datatype": "BYTES", "parameters": {"content_type": "str"}}
    inputs = [
        {"name": name, "shape": [-1, 1]}
        | ({"datatype": "FP32"} if name in features.NUMERIC else texts)
        for name in features.FEATURES
    ]
    model = {
        "name": "late", "implementation": "mlserver_sklearn.SKLearnModel", "inputs": inputs,
        "parameters": {"uri": "./model.joblib", "content_type": "pd"},
    }  # fmt: skip
    (made / "model-settings.json").write_text(json.dumps(model))
    return made


@pytest.fixture(scope="module")
def server(expected: np.ndarray, programs: Path, folder: Path) -> Iterator[Endpoint]:
    """MLServer, ready to score."""
    http, grpc, metrics = free_ports(3)
    settings = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics,
                "parallel_workers": 0}  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    at = Endpoint(f"http://127.0.0.1:{http}")
    log = folder / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            [programs / "mlserver", "start", str(folder)],
            env=dict(os.environ, PYTHONPATH=""), stdout=output, stderr=output,
        )  # fmt: skip

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()
        with suppress(httpx.TransportError):
            return httpx.get(f"{at.url}/v2/models/late/ready").status_code == 200
        return False

    try:
        wait_until(is_ready, seconds=120)
        yield at
    finally:
        process.terminate()
        process.wait()


def test_probabilities_are_scores_once_their_output_is_named(
    server: Endpoint, rows: pa.RecordBatch, expected: np.ndarray
) -> None:
    with remote.connect(CASE, server, "late", output="predict_proba") as asked:
        description = asked.describe()
        scores = asked.predict(rows, description)
        asked.check_order(rows, scores, description)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("output", "words"),
    [("", "predict is of int64, not of a floating point"), ("score", "score was received")],
)
def test_the_label_that_it_returns_by_default_is_not_a_score(
    server: Endpoint, rows: pa.RecordBatch, output: str, words: str
) -> None:
    with (
        remote.connect(CASE, server, "late", output) as asked,
        pytest.raises(BadData, match=words),
    ):
        asked.predict(rows, asked.describe())
