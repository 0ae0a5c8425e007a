"""The model server, asked over HTTP by a client that is not ours: NVIDIA's, for Triton."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from threading import Event, Lock
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
from mlflow import MlflowClient
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from include import usecases
from include.inference import open_inference, scoring
from include.lake.tables import Lake
from include.messages import ModelVersion
from include.registry import promotion, registry
from include.settings import PROJECT
from include.usecase import UseCase
from include.usecases.flight_delays import features
from serving import app, models
from tests.case import CASE
from tests.conftest import FLIGHTS
from tests.unit.conftest import OLD_DAY, History
from tests.unit.helpers import running, wait_until

INFER = f"/v2/models/{CASE.name}/infer"


@pytest.fixture
def url(lake: Lake) -> Iterator[str]:
    with running(faults=True) as address:
        yield address


@pytest.fixture
def client(url: str) -> InferenceServerClient:
    return InferenceServerClient(url.removeprefix("http://"))


@pytest.fixture
def rows(lake: Lake) -> pl.DataFrame:
    """A real day's features."""
    return lake.version(scoring.preprocess(CASE, OLD_DAY)).read("features")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The champion is looked up all the time, and who needs that waits however long it takes."""
    monkeypatch.setattr(models, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(models, "WAIT_SECONDS", 60)


def tensors(rows: pl.DataFrame) -> dict[str, np.ndarray]:
    columns = {name: rows[name].cast(pl.Float32).to_numpy() for name in features.NUMERIC}
    for name in features.CATEGORICAL:
        columns[name] = np.array(rows[name].cast(pl.String).fill_null("").to_list(), object)
    return {name: column.reshape(-1, 1) for name, column in columns.items()}


def inputs(values: dict[str, np.ndarray], binary: bool = True) -> list[InferInput]:
    """The tensors as Triton's client takes them; its JSON knows no NaN, so none is sent."""
    made = []
    for name, column in values.items():
        datatype = open_inference.DATATYPES.get(column.dtype, "BYTES")
        made.append(InferInput(name, column.shape, datatype))
        made[-1].set_data_from_numpy(column, binary_data=binary)
    return made


def expected(rows: pl.DataFrame, history: History) -> np.ndarray:
    scores: np.ndarray = registry.load(CASE, history.champion).predict_proba(rows)[:, 1:2]
    return scores


def ask(url: str, values: dict[str, np.ndarray], path: str = INFER, **fields: Any) -> Any:
    body, headers = open_inference.encode("inputs", values, fields, binary=False)
    return httpx.post(url + path, content=body, headers=headers)


def test_an_independent_client_finds_its_way(
    client: InferenceServerClient, history: History
) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(CASE.name)
    assert client.is_model_ready(CASE.name, history.champion.version)
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    for version in ("", history.champion.version):
        found = client.get_model_metadata(CASE.name, version)
        assert (found["name"], found["versions"]) == (CASE.name, [history.champion.version])
        assert [tensor["name"] for tensor in found["inputs"]] == features.FEATURES
        assert {tensor["datatype"] for tensor in found["inputs"]} == {"FP32", "BYTES"}
        assert found["outputs"] == [
            {"name": "score", "datatype": "FP32", "shape": [-1, 1],
             "parameters": {"columns": "score"}},
        ]  # fmt: skip


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("answers", [True, False, None])
def test_scores_are_those_of_the_model_in_bytes_and_in_json(
    asks: bool,
    answers: bool | None,
    client: InferenceServerClient,
    rows: pl.DataFrame,
    history: History,
) -> None:
    if not asks:
        rows = rows.with_columns(pl.col(features.NUMERIC).fill_null(0))
    wanted = None if answers is None else [InferRequestedOutput("score", binary_data=answers)]
    found = client.infer(
        CASE.name, inputs(tensors(rows), asks), history.champion.version, wanted, "no. 1"
    )
    said = found.get_response()
    assert (said["id"], said["model_version"]) == ("no. 1", history.champion.version)
    assert ("data" in said["outputs"][0]) == (answers is False)
    scores = found.as_numpy("score")
    assert (scores.shape, scores.dtype) == ((len(rows), 1), np.float32)
    np.testing.assert_allclose(scores, expected(rows, history), rtol=0, atol=1e-6)


def test_null_and_the_empty_text_are_missing_and_any_order_and_type_will_do(
    url: str, rows: pl.DataFrame, history: History
) -> None:
    rows = rows.head(50).with_columns(
        pl.lit(None).cast(pl.Float32).alias("seats"),
        pl.lit(None).cast(pl.String).alias("carrier"),
    )
    values = {name: column.ravel() for name, column in reversed(tensors(rows).items())}
    values["day_of_week"] = values["day_of_week"].astype(np.int64)
    answer = ask(url, values, id=None, parameters=None, outputs=None)
    assert "id" not in answer.json()
    scores = open_inference.decode("outputs", answer.content, answer.headers)[1]["score"]
    np.testing.assert_allclose(scores, expected(rows, history), rtol=0, atol=1e-6)


def test_no_rows_have_no_scores(client: InferenceServerClient, rows: pl.DataFrame) -> None:
    found = client.infer(CASE.name, inputs(tensors(rows.clear())))
    assert found.as_numpy("score").shape == (0, 1)


@pytest.mark.parametrize(
    ("model", "version", "words"),
    [("x", "", "no model 'x'"), (CASE.name, "99", "version '99' of 'flight_delays'")],
)
def test_a_version_that_is_not_served_is_not_found(
    model: str, version: str, words: str, client: InferenceServerClient, rows: pl.DataFrame
) -> None:
    assert not client.is_model_ready(model, version)
    with pytest.raises(InferenceServerException, match=words):
        client.get_model_metadata(model, version)
    with pytest.raises(InferenceServerException, match=words) as failure:
        client.infer(model, inputs(tensors(rows)), version)
    assert failure.value.status() == "404"


NUMBERS, TEXTS = np.zeros((3, 1), np.float32), np.full((3, 1), "a", object)
VALUES: dict[str, np.ndarray] = {
    **dict.fromkeys(features.NUMERIC, NUMBERS),
    **dict.fromkeys(features.CATEGORICAL, TEXTS),
}
WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "missing": ({"seats": None, "dest": None}, {}, "inputs are missing: seats, dest"),
    "unknown": ({"x": NUMBERS, "y": TEXTS}, {}, "knows no inputs x, y"),
    "shape": ({"seats": NUMBERS.T}, {}, "seats has the shape [1, 3], not [rows, 1]"),
    "scalar": ({"seats": NUMBERS[0, 0]}, {}, "seats has the shape [], not [rows, 1]"),
    "text": ({"seats": TEXTS}, {}, "seats must be numbers, not BYTES"),
    "number": ({"carrier": NUMBERS}, {}, "carrier must be BYTES, not numbers"),
    "rows": ({"seats": NUMBERS[:2]}, {}, "seats has 2 rows and dep_minute 3"),
    "too large": ({"seats": np.full((3, 1), 1e300)}, {}, "seats holds a number that is infinite"),
    "id": ({}, {"id": 7}, "its id is 7, which is not text"),
    "output": ({}, {"outputs": [{"name": "label"}]}, "requests the output 'label'"),
    "outputs": ({}, {"outputs": "score"}, "its outputs are not a list"),
    "parameters": ({}, {"parameters": [1]}, "its parameters are [1]"),
    "flag": ({}, {"parameters": {"binary_data_output": 1}}, "must be true or false"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_answered_with_what_is_wrong(case: str, url: str) -> None:
    changed, fields, words = WRONG[case]
    values = {name: value for name, value in {**VALUES, **changed}.items() if value is not None}
    answer = ask(url, values, **fields)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_noise_and_too_much_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = httpx.post(url + INFER, content=b"noise")
    assert (noise.status_code, "no JSON" in noise.json()["error"]) == (400, True)
    monkeypatch.setattr(app, "MAX_BODY_BYTES", 1000)
    much = httpx.post(url + INFER, content=b" " * 10_000_000)
    assert (much.status_code, much.json()["error"]) == (
        413,
        "the request is larger than 1,000 bytes",
    )


def test_a_model_that_fails_says_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no trees")

    monkeypatch.setattr(app, "_score", fail)
    answer = ask(url, VALUES)
    assert (answer.status_code, answer.json()) == (500, {"error": "the model failed: no trees"})


def test_a_busy_server_scores_as_many_at_once_as_it_has_cores_and_says_that_it_lives(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, most, lock = 0, 0, Lock()

    def score(*_: object) -> np.ndarray:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        with lock:
            now -= 1
        return NUMBERS

    monkeypatch.setattr(app, "_score", score)
    callers = 60  # more than there are threads for everything else
    with ThreadPoolExecutor(callers) as pool:
        asked = [pool.submit(ask, url, VALUES) for _ in range(callers)]
        wait_until(lambda: most > 0)
        assert httpx.get(f"{url}/v2/health/ready").status_code == 200
        assert not all(answer.done() for answer in asked)
        assert {answer.result().status_code for answer in asked} == {200}
    assert most == os.cpu_count()


def new_champion(history: History) -> ModelVersion:
    """Another run's model of the same files, promoted."""
    run = registry.log_training(CASE, registry.load(CASE, history.champion), {}, {})
    version = registry.register(CASE, run)
    promotion.promote(CASE, version, history.champion, "the test")
    return version


def test_a_new_champion_is_served_and_clients_that_name_the_old_one_keep_it(
    impatient: None, lake: Lake, own_registry: Path, rows: pl.DataFrame, history: History
) -> None:
    with running() as url:
        client = InferenceServerClient(url.removeprefix("http://"))
        second = new_champion(history)
        wait_until(lambda: client.get_model_metadata(CASE.name)["versions"] == [second.version])
        for asked, answers in [("", second), ("1", history.champion), ("2", second)]:
            assert client.is_model_ready(CASE.name, asked)
            said = client.infer(CASE.name, inputs(tensors(rows)), asked).get_response()
            assert said["model_version"] == answers.version
        promotion.roll_back(CASE, second, history.champion, "the test")
        wait_until(lambda: client.get_model_metadata(CASE.name)["versions"] == ["1"])
        assert client.is_model_ready(CASE.name, "2")


def test_a_version_known_from_another_server_is_found(
    impatient: None, lake: Lake, own_registry: Path, rows: pl.DataFrame, history: History
) -> None:
    with running() as url:
        new_champion(history)
        answer = ask(url, tensors(rows), f"/v2/models/{CASE.name}/versions/2/infer")
        assert answer.json()["model_version"] == "2"


def test_without_the_registry_it_goes_on(
    impatient: None,
    url: str,
    rows: pl.DataFrame,
    take_registry_down: Callable[[], str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    address = take_registry_down()
    wait_until(lambda: f"The model registry at {address} failed" in caplog.text)
    assert httpx.get(f"{url}/v2/health/ready").status_code == 200
    assert ask(url, tensors(rows)).status_code == 200


def test_a_hanging_registry_delays_no_request(
    impatient: None, url: str, rows: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "find_champion", lambda _: time.sleep(2))
    monkeypatch.setattr(models, "WAIT_SECONDS", 0.1)
    began = time.monotonic()
    assert httpx.get(f"{url}/v2/health/ready").status_code == 200
    assert ask(url, tensors(rows)).status_code == 200
    assert time.monotonic() - began < 1.5


def test_without_a_champion_it_is_not_ready_until_there_is_one(
    impatient: None, rows: pl.DataFrame, own_registry: Path
) -> None:
    registry_client = MlflowClient(f"sqlite:///{own_registry}")
    registry_client.delete_registered_model_alias(CASE.name, "champion")
    with running(ready=False) as url:
        assert httpx.get(f"{url}/v2/health/live").status_code == 200
        wait_until(lambda: "no champion" in httpx.get(f"{url}/v2/health/ready").text)
        for answer in (
            httpx.get(f"{url}/v2/health/ready"),
            httpx.get(f"{url}/v2/models/{CASE.name}/ready"),
            ask(url, tensors(rows)),
        ):
            assert answer.status_code == 503
            assert "Give a version the alias 'champion' in MLflow" in answer.json()["error"]
        registry_client.set_registered_model_alias(CASE.name, "champion", "1")
        wait_until(lambda: httpx.get(f"{url}/v2/health/ready").status_code == 200)
        assert ask(url, tensors(rows)).json()["model_version"] == "1"


@pytest.fixture
def known(own_registry: Path, impatient: None) -> Iterator[models.Models]:
    """What a server serves that has started before there was a champion."""
    MlflowClient(f"sqlite:///{own_registry}").delete_registered_model_alias(CASE.name, "champion")
    found = models.Models(CASE)
    with found.kept_up_to_date():
        wait_until(lambda: "no champion" in found.problem)
        yield found


def promote(version: str) -> None:
    MlflowClient(CASE.settings.registry).set_registered_model_alias(CASE.name, "champion", version)


def test_a_new_champion_is_loaded_before_the_first_request(known: models.Models) -> None:
    promote("1")
    wait_until(lambda: known.get("1") is not None)


def test_while_a_champion_is_loading_no_client_hears_that_there_is_none(
    known: models.Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, load = Event(), registry.load
    monkeypatch.setattr(registry, "load", lambda case, model: loaded.wait(30) and load(case, model))
    promote("1")
    wait_until(lambda: known.problem.startswith("flight_delays version 1 is being loaded"))
    loaded.set()
    wait_until(lambda: known.get() is not None)


def test_a_look_up_that_hangs_is_left_behind_and_what_it_finds_late_is_too_old(
    known: models.Models, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, answers, find = Event(), Event(), registry.find_champion

    def hang(case: UseCase) -> ModelVersion | None:
        before = find(case)
        hangs.set()
        answers.wait(30)
        return before

    promote("1")
    wait_until(lambda: known.get() is not None)
    monkeypatch.setattr(models, "WAIT_SECONDS", 0.1)
    monkeypatch.setattr(registry, "find_champion", hang)
    assert hangs.wait(30)
    monkeypatch.setattr(registry, "find_champion", find)
    late, second = known._search, new_champion(history)
    known.look()
    assert known.get(second.version) is None  # the next look-up has to wait for the one that hangs
    monkeypatch.setattr(models, "STUCK_SECONDS", 0)
    wait_until(lambda: known.get() == known.get(second.version) is not None)
    answers.set()
    late.join(30)
    assert [one.model.version for one in known.loaded] == [second.version, "1"]


def test_a_token_opens_the_models_and_nothing_else_does(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(app.TOKEN, "sésame")
    path = f"{url}/v2/models/{CASE.name}"
    for wrong in ({}, {"Authorization": "Bearer"}, {"Authorization": "Bearer x"}):
        for method, address in (("GET", path), ("GET", f"{path}/ready"), ("POST", f"{path}/infer")):
            answer = httpx.request(method, address, headers=wrong)
            assert (answer.status_code, list(answer.json())) == (401, ["error"])
    right = {"Authorization": "Bearer sésame".encode()}
    assert httpx.get(path, headers=right).status_code == 200
    assert httpx.get(f"{url}/v2/health/ready").status_code == 200


def fail_with(url: str, **faults: Any) -> None:
    assert httpx.put(f"{url}/faults", json=faults).status_code == 200


def test_faults_come_when_asked_for_and_are_counted(url: str, rows: pl.DataFrame) -> None:
    fail_with(url, error_rate=1, status=429, retry_after=7)
    answer = ask(url, tensors(rows))
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
    assert httpx.get(f"{url}/v2/models/{CASE.name}").status_code == 200
    fail_with(url, delay_seconds=0.3)
    began = time.monotonic()
    assert ask(url, tensors(rows)).status_code == 200
    assert time.monotonic() - began > 0.3
    fail_with(url)
    assert httpx.get(f"{url}/faults").json()["delay_seconds"] == 0
    assert ask(url, {}).status_code == 400
    counts = httpx.get(f"{url}/faults/counts").json()
    assert counts == {"requests": 3, "failed": 2, "rows": len(rows)}
    assert httpx.put(f"{url}/faults", json={"error_rate": 2}).status_code == 422
    assert httpx.put(f"{url}/faults", json={"delay": 2}).status_code == 422


@pytest.mark.parametrize("binary", [True, False])
def test_nonsense_looks_right_and_is_wrong(
    binary: bool, url: str, client: InferenceServerClient, rows: pl.DataFrame
) -> None:
    def scores() -> np.ndarray:
        wanted = [InferRequestedOutput("score", binary_data=binary)]
        asked = inputs(tensors(rows))
        answer: np.ndarray = client.infer(CASE.name, asked, outputs=wanted).as_numpy("score")
        return answer

    right, found = scores(), {}
    for nonsense in ("nan", "out_of_range", "constant", "short", "shuffled"):
        fail_with(url, nonsense=nonsense)
        found[nonsense] = scores()
    assert np.isnan(found["nan"].astype(float)).all()
    assert (found["out_of_range"] > 1).all()
    assert len(np.unique(found["constant"])) == 1
    assert len(found["short"]) == len(rows) - 1
    assert (found["shuffled"] != right).any()
    np.testing.assert_array_equal(np.sort(found["shuffled"], axis=0), np.sort(right, axis=0))
    fail_with(url, nonsense="not_json")
    answer = ask(url, tensors(rows))
    assert (answer.status_code, answer.text[:6]) == (200, "<html>")


def test_the_command_prints_its_address_and_has_no_faults_by_default(lake: Lake) -> None:
    command = [sys.executable, "-m", "serving", "--port", "0"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": CASE.settings.registry}
    with subprocess.Popen(
        command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        try:
            line = process.stdout.readline().decode()
            (url,) = re.findall(r"http://127\.0\.0\.1:\d+", line)
            wait_until(lambda: httpx.get(f"{url}/v2/health/ready").status_code == 200)
            answer = httpx.get(f"{url}/faults")
            assert (answer.status_code, json.loads(answer.text)) == (404, {"error": "Not Found"})
        finally:
            process.terminate()
        assert (process.stdout.read(), process.stderr.read()) == (b"", b"")


# --- several use cases ----------------------------------------------------------------------------

SECOND = PROJECT / "tests" / "usecases" / "doctor_visits"


@pytest.fixture
def visits() -> UseCase:
    """Another use case, of which no model is there."""
    return usecases.load(SECOND)


def give_champion(case: UseCase) -> tuple[ModelVersion, pl.DataFrame]:
    """Train a model of a use case on a few days, and promote it; with rows of features."""
    days = [date(2021, 3, 1) + timedelta(number) for number in range(5)]
    names = [one.name for one in case.inputs]
    features = pl.concat(
        case.features.build_features({name: case.source.fetch(name, day) for name in names})
        for day in days
    )
    truth = pl.concat(case.source.fetch(case.truth.name, day) for day in days)
    known = features.join(case.features.build_labels(truth), on=case.key)
    pipeline = case.models.CANDIDATES["shallow_trees"](1).fit(known, known["label"].to_numpy())
    version = registry.register(case, registry.log_training(case, pipeline, {}, {}))
    promotion.promote(case, version, None, "the test")
    return version, known.head(20)


def test_each_use_case_has_a_model_of_its_own_with_its_own_inputs(
    impatient: None, lake: Lake, own_registry: Path, rows: pl.DataFrame, visits: UseCase,
    history: History,
) -> None:  # fmt: skip
    version, its_rows = give_champion(visits)
    with running(cases=[CASE, visits]) as url:
        for case in (CASE, visits):
            ready = f"{url}/v2/models/{case.name}/ready"
            wait_until(lambda: httpx.get(ready).status_code == 200)  # noqa: B023
            found = httpx.get(f"{url}/v2/models/{case.name}").json()
            assert found["name"] == case.name
            assert [tensor["name"] for tensor in found["inputs"]] == case.features.FEATURES
            numeric = [one["name"] for one in found["inputs"] if one["datatype"] == "FP32"]
            assert numeric == case.features.NUMERIC
        assert ask(url, tensors(rows)).json()["model_name"] == CASE.name
        numbers = {
            name: its_rows[name].cast(pl.Float32).fill_null(0).to_numpy().reshape(-1, 1)
            for name in visits.features.NUMERIC
        }
        texts = {
            name: np.array(its_rows[name].fill_null("").to_list(), object).reshape(-1, 1)
            for name in visits.features.CATEGORICAL
        }
        answer = ask(url, numbers | texts, f"/v2/models/{visits.name}/infer")
        said = answer.json()
        assert (said["model_name"], said["model_version"]) == (visits.name, version.version)
        filled = its_rows.with_columns(pl.col(visits.features.NUMERIC).fill_null(0))
        scores = open_inference.decode("outputs", answer.content, answer.headers)[1]["score"]
        right = registry.load(visits, version).predict_proba(filled)[:, 1:2]
        np.testing.assert_allclose(scores, right, rtol=0, atol=1e-6)
        wrong = ask(url, tensors(rows), f"/v2/models/{visits.name}/infer")
        assert wrong.status_code == 400
        assert "inputs are missing: coinsurance" in wrong.json()["error"]


def test_a_use_case_without_a_champion_keeps_no_other_from_being_served(
    impatient: None, lake: Lake, rows: pl.DataFrame, visits: UseCase
) -> None:
    with running(cases=[visits, CASE]) as url:
        assert httpx.get(f"{url}/v2/health/ready").status_code == 200
        assert ask(url, tensors(rows)).status_code == 200
        path = f"{url}/v2/models/doctor_visits"
        wait_until(lambda: "There is no champion" in httpx.get(path).text)
        for address in (path, f"{path}/ready"):
            assert httpx.get(address).status_code == 503
        unknown = httpx.get(f"{url}/v2/models/churn").json()["error"]
        assert unknown == (
            "there is no model 'churn': this server has 'doctor_visits', 'flight_delays'"
        )


def test_a_server_without_any_champion_says_why_of_each(
    impatient: None, own_registry: Path, visits: UseCase
) -> None:
    MlflowClient(f"sqlite:///{own_registry}").delete_registered_model_alias(CASE.name, "champion")
    with running(cases=[CASE, visits], ready=False) as url:
        wait_until(lambda: httpx.get(f"{url}/v2/health/ready").text.count("no champion") == 2)
        answer = httpx.get(f"{url}/v2/health/ready")
        assert answer.status_code == 503
        assert all(name in answer.json()["error"] for name in (CASE.name, visits.name))


def serve(enabled: str, **variables: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "serving", "--port", "0"]
    told = {"MLFLOW_TRACKING_URI": CASE.settings.registry, "ML_USECASES": enabled}
    return subprocess.Popen(
        command, cwd=PROJECT, env=os.environ | told | variables,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        "a piece is missing",
        pytest.param("a setting is wrong", marks=pytest.mark.exhaustive),
        pytest.param("it cannot be found", marks=pytest.mark.exhaustive),
    ],
)
def test_working_use_cases_are_served_despite_a_broken_one(
    wrong: str, lake: Lake, tmp_path: Path
) -> None:
    broken, variables, words = SECOND, {}, "ML_DOCTOR_VISITS__SEED=x is wrong"
    if wrong == "a setting is wrong":
        variables = {"ML_DOCTOR_VISITS__SEED": "x"}
    else:
        broken, words = tmp_path / "doctor_visits", "lacks"
        if wrong == "a piece is missing":
            shutil.copytree(SECOND, broken)
            (broken / "models.py").unlink()
    with serve(f"{broken},{FLIGHTS}", **variables) as process:
        assert process.stdout
        assert process.stderr
        try:
            (url,) = re.findall(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
            wait_until(lambda: httpx.get(f"{url}/v2/health/ready").status_code == 200)
            assert httpx.get(f"{url}/v2/models/{CASE.name}/ready").status_code == 200
            assert httpx.get(f"{url}/v2/models/doctor_visits").status_code == 404
        finally:
            process.terminate()
        told = process.stderr.read()
    assert told.startswith("Its models are not served. The use case in ")
    assert words in told
    with serve(str(broken), **variables) as process:
        _, told = process.communicate(timeout=60)
    assert process.returncode == 2
    assert words in told
    assert told.splitlines()[-1] == (
        "There is no model to serve: no enabled use case can be loaded"
    )


def test_two_use_cases_of_one_name_are_not_mixed_up(lake: Lake, tmp_path: Path) -> None:
    shutil.copytree(SECOND, tmp_path / "doctor_visits")
    with serve(f"{SECOND},{tmp_path / 'doctor_visits'}") as process:
        _, told = process.communicate(timeout=60)
    assert process.returncode == 2
    assert told.count("2 use cases are called doctor_visits") == 2
