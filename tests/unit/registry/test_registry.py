"""Which model scores, how it got there, and what is refused; on a real MLflow store."""

import base64
import hashlib
import json
import logging
import random
import shutil
import sqlite3
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import boto3
import hypothesis
import mlflow.sklearn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from mlflow import MlflowClient
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from include.errors import BadData, DependencyDown, MissingData
from include.inference import scoring
from include.lake.tables import Lake
from include.messages import ModelVersion
from include.monitoring import outcomes
from include.registry import promotion, registry
from include.targets import Multiclass, Regression, Target
from include.usecases.flight_delays import models
from include.usecases.flight_delays.models import TRUSTED_TYPES
from tests.case import CASE, with_target
from tests.unit.conftest import OLD_DAY, History
from tests.unit.helpers import infer, refused


class Burglar(BaseEstimator):
    """A step that does something when it is loaded."""

    def __init__(self, trace: str = ""):
        self.trace = trace

    def __setstate__(self, state: dict[str, Any]) -> None:
        Path(state["trace"]).touch()
        self.__dict__.update(state)

    def __reduce__(self) -> tuple[Any, ...]:
        return Burglar, (self.trace,), {"trace": self.trace}


def test_the_champion_is_the_version_with_that_alias(lake: Lake, history: History) -> None:
    assert registry.champion(CASE) == history.champion
    assert registry.find_champion(CASE) == history.champion
    assert registry.version(CASE, history.champion.version) == history.champion


def test_a_version_that_is_not_there_is_missing(history: History, own_registry: Path) -> None:
    with pytest.raises(MissingData, match=r"version=99\) not found"):
        registry.version(CASE, "99")


@pytest.mark.parametrize(
    ("gone", "action"),
    [("alias", "Give a version the alias 'champion' in MLflow, or run"), ("model", "yet in")],
)
def test_without_a_champion_nothing_is_scored_and_the_message_says_what_to_do(
    gone: str, action: str, lake: Lake, own_registry: Path
) -> None:
    client = MlflowClient(f"sqlite:///{own_registry}")
    if gone == "alias":
        client.delete_registered_model_alias(CASE.name, "champion")
    else:
        client.delete_registered_model(CASE.name)
    assert registry.find_champion(CASE) is None
    retraining = f"`{CASE.dag_id('model_retraining')}`"
    words = ["no champion of 'flight_delays'", str(own_registry), retraining, action]
    with refused(lake, "predictions", OLD_DAY, *words, kind=MissingData):
        infer(lake, OLD_DAY, registry.champion(CASE))


def test_an_empty_registry_beside_predictions_looks_new(
    lake: Lake, history: History, configure: Callable[..., None], tmp_path: Path
) -> None:
    infer(lake, OLD_DAY, history.champion)
    configure(mlflow_tracking_uri=f"sqlite:///{tmp_path / 'moved.db'}")
    words = f"moved.db, which has no version at all, but {OLD_DAY} was scored by version 1"
    with pytest.raises(MissingData, match=words) as failure:
        registry.champion(CASE, OLD_DAY)
    assert "` once" not in str(failure.value)


@pytest.mark.parametrize("alias", ["champion", "challenger"])
def test_an_alias_on_a_version_that_is_gone_is_named_with_what_to_do(
    alias: str, history: History, own_registry: Path
) -> None:
    client = MlflowClient(f"sqlite:///{own_registry}")
    client.set_registered_model_alias(CASE.name, alias, "1")
    with sqlite3.connect(own_registry) as store:  # as older MLflow servers leave it
        query = "update registered_model_aliases set version = 99 where alias = ?"
        store.execute(query, [alias])
    find = {"champion": registry.champion, "challenger": registry.find_challenger}[alias]
    with pytest.raises(MissingData, match=f"'{alias}' of 'flight_delays' names version 99") as said:
        find(CASE)
    assert f"Give another version the alias '{alias}' in MLflow, or delete" in str(said.value)


def test_registering_a_run_again_gives_the_same_version(
    history: History, own_registry: Path
) -> None:
    again = [registry.register(CASE, history.champion.run_id) for _ in range(2)]
    assert again == [history.champion, history.champion]
    client = MlflowClient(f"sqlite:///{own_registry}")
    assert len(client.search_model_versions(f"name = '{CASE.name}'")) == 1
    assert list(registry.members(CASE, again[1])) == list(models.CANDIDATES)


def test_a_registered_version_is_the_challenger_and_has_its_lineage(
    history: History, own_registry: Path
) -> None:
    run = registry.log_training(CASE, registry.load(CASE, history.champion), {}, {})
    for _ in range(2):
        version = registry.register(
            CASE, run, "# Verdict\n\npassed", {"snapshot": history.snapshot}
        )
    client = MlflowClient()
    found = client.get_model_version_by_alias(CASE.name, "challenger")
    assert (str(found.version), found.run_id) == (version.version, run)
    assert found.description == "# Verdict\n\npassed"
    assert client.get_model_version(CASE.name, version.version).tags == {
        "snapshot": history.snapshot
    }
    assert len(client.search_model_versions(f"name = '{CASE.name}'")) == 2
    assert registry.champion(CASE) == history.champion


def new_version(history: History) -> ModelVersion:
    """Another run's model, registered."""
    return registry.register(
        CASE, registry.log_training(CASE, registry.load(CASE, history.champion), {}, {})
    )


def test_a_model_that_is_loaded_again_gives_the_same_probabilities(
    lake: Lake, history: History, own_registry: Path
) -> None:
    rows = lake.version(history.snapshot).read("training")
    pipeline = registry.load(CASE, history.champion)
    pipeline.fit(rows[:3000], rows["label"][:3000].to_numpy())
    expected = pipeline.predict_proba(rows)
    run = registry.log_training(CASE, pipeline, {"rows": 3000}, {"reason": "a test"})
    version = registry.register(CASE, run)
    for loaded in (registry.load_run(CASE, run), registry.load(CASE, version)):
        np.testing.assert_array_equal(loaded.predict_proba(rows), expected)
    sha256 = hashlib.sha256(file_of(version).read_bytes()).hexdigest()
    assert MlflowClient().get_run(run).data.params == {"rows": "3000", "model_sha256": sha256}
    assert MlflowClient().get_run(run).data.tags["reason"] == "a test"


def log_model(pipeline: Pipeline, **options: Any) -> str:
    """Keep a model as somebody else might: in our registry, by MLflow's own means."""
    with (
        registry.connection(CASE),
        mlflow.start_run(experiment_id=registry._experiment(CASE)) as run,
    ):
        logged = mlflow.sklearn.log_model(pipeline, name="model", pip_requirements=[], **options)
        mlflow.set_tag(registry.MODEL_URI, logged.model_uri)
    return str(run.info.run_id)


def test_a_model_file_with_a_type_that_is_not_trusted_is_refused_whatever_it_says_of_itself(
    history: History, own_registry: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "was here"
    champion = registry.load(CASE, history.champion)
    pipeline = Pipeline([*champion.steps, ("burglar", Burglar(str(trace)))])
    trusted = [*TRUSTED_TYPES, "tests.unit.registry.test_registry.Burglar"]
    run = log_model(pipeline, skops_trusted_types=trusted)
    trace.unlink(missing_ok=True)
    with pytest.raises(BadData, match=r"tests\.unit\.registry\.test_registry\.Burglar"):
        registry.load(CASE, registry.register(CASE, run))
    assert not trace.exists()


class Stranger(BaseEstimator):
    """A step that nobody has declared."""


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (
            Stranger(),
            r"TRUSTED_TYPES in models\.py lacks types of trees: tests\.unit\.registry\.",
        ),
        (type("Local", (BaseEstimator,), {"__reduce__": lambda _: 5})(), "trees cannot be saved"),
    ],
    ids=["a type that is not trusted", "a type that skops cannot write"],
)
def test_a_model_that_no_file_may_hold_fails_when_it_is_saved_and_is_not_tried_again(
    step: BaseEstimator, words: str, history: History, own_registry: Path
) -> None:
    pipeline = Pipeline([*registry.load(CASE, history.champion).steps, ("stranger", step)])
    with pytest.raises(BadData, match=words):
        registry.log_training(CASE, pipeline, {"candidate": "trees"}, {})


def test_a_pickled_model_is_never_loaded(
    history: History, own_registry: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "was here"
    pipeline = Pipeline([("burglar", Burglar(str(trace)))])
    run = log_model(pipeline, serialization_format="cloudpickle")
    trace.unlink(missing_ok=True)
    with pytest.raises(MissingData, match=r"no model\.skops among the artifacts"):
        registry.load_run(CASE, run)
    assert not trace.exists()


@pytest.mark.parametrize("size", [0, 1000])
def test_a_model_file_that_is_cut_off_is_refused(
    size: int, history: History, own_registry: Path
) -> None:
    version = new_version(history)
    uri = MlflowClient().get_run(version.run_id).data.tags[registry.MODEL_URI]
    path = Path(mlflow.artifacts.download_artifacts(uri)) / "model.skops"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(BadData, match=f"models:/{CASE.name}/{version.version} is refused"):
        registry.load(CASE, version)


def file_of(version: ModelVersion) -> Path:
    uri = MlflowClient().get_run(version.run_id).data.tags[registry.MODEL_URI]
    return Path(mlflow.artifacts.download_artifacts(uri)) / "model.skops"


def test_another_models_file_in_place_of_a_versions_is_never_loaded(
    history: History, own_registry: Path
) -> None:
    version, other = new_version(history), new_version(history)
    path, good = file_of(version), file_of(version).read_bytes()
    path.write_bytes(file_of(other).read_bytes())
    loads = [
        lambda version: registry.load(CASE, version),
        lambda version: registry.load_run(CASE, version.run_id),
    ]
    for load in (
        *loads,
        lambda version: promotion.promote(CASE, version, history.champion, "a test"),
    ):
        with pytest.raises(BadData, match="is not the file that its training stored") as failure:
            load(version)
        assert str(path) in str(failure.value)
    assert f"models:/{CASE.name}/{version.version}" in str(failure.value)
    assert registry.champion(CASE) == history.champion
    path.write_bytes(good)
    registry.load(CASE, version)


def test_a_version_without_a_hash_is_loaded_and_that_is_logged_once(
    history: History, own_registry: Path, caplog: pytest.LogCaptureFixture
) -> None:
    champion = registry.load(CASE, history.champion)
    version = registry.register(CASE, log_model(champion, skops_trusted_types=TRUSTED_TYPES))
    registry._log_unverified.cache_clear()  # another test's version 2 was logged, too
    with caplog.at_level(logging.WARNING, "include.registry.registry"):
        for _ in range(2):
            registry.load(CASE, version)
    [line] = caplog.messages
    assert line.startswith(f"models:/{CASE.name}/{version.version} was registered by an older")


@pytest.mark.exhaustive
def test_a_changed_model_file_is_not_loaded_from_s3_either(
    history: History,
    s3_server: dict[str, str],
    configure: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        **s3_server,
        "MLFLOW_S3_ENDPOINT_URL": s3_server["AWS_ENDPOINT_URL"],
    }.items():
        monkeypatch.setenv(name, value)
    configure(mlflow_tracking_uri=history.registry)
    pipeline = registry.load(CASE, history.champion)
    configure(mlflow_tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    with registry.connection(CASE) as client:
        client.create_experiment(CASE.name, "s3://bucket/models")
    version = registry.register(CASE, registry.log_training(CASE, pipeline, {}, {}))
    assert str(registry.load(CASE, version)) == str(pipeline)
    s3 = boto3.client("s3")
    [key] = [
        found["Key"]
        for found in s3.list_objects_v2(Bucket="bucket", Prefix="models")["Contents"]
        if found["Key"].endswith("model.skops")
    ]
    s3.put_object(Bucket="bucket", Key=key, Body=b"another model")
    with pytest.raises(
        BadData, match=f"s3://bucket/{key} is not the file that its training stored"
    ):
        registry.load(CASE, version)


@pytest.mark.parametrize("has_hash", [True, False])
def test_a_model_file_with_a_changed_byte_is_refused_or_without_a_hash_gives_the_same_model(
    has_hash: bool, history: History, own_registry: Path
) -> None:
    champion, chance, refusals = registry.load(CASE, history.champion), random.Random(7), 0
    foreign = log_model(champion, skops_trusted_types=TRUSTED_TYPES)
    version = new_version(history) if has_hash else registry.register(CASE, foreign)
    path = file_of(version)
    good = path.read_bytes()
    for _ in range(10 if has_hash else 40):
        content = bytearray(good)
        place = chance.randrange(*chance.choice([(0, len(good)), (len(good) - 200, len(good))]))
        content[place] ^= chance.randrange(1, 256)
        path.write_bytes(content)
        try:
            assert str(registry.load(CASE, version)) == str(champion)
        except BadData:
            refusals += 1
    assert refusals == 10 if has_hash else refusals > 20


def test_a_model_whose_files_are_gone_is_missing(history: History, own_registry: Path) -> None:
    version = new_version(history)
    uri = MlflowClient().get_run(version.run_id).data.tags[registry.MODEL_URI]
    shutil.rmtree(mlflow.artifacts.download_artifacts(uri))
    with pytest.raises((MissingData, DependencyDown), match=r"artifact"):
        registry.load(CASE, version)


def test_a_logged_reference_is_read_back(history: History, own_registry: Path) -> None:
    version = new_version(history)
    scores = scoring.score_reference(CASE, np.linspace(0, 1, 50))
    registry.log_reference(CASE, version.run_id, scores)
    registry.log_metrics(CASE, version.run_id, {"roc_auc": 0.7})
    assert registry.reference(CASE, version) == scores
    assert MlflowClient().get_run(version.run_id).data.metrics == {"roc_auc": 0.7}


def test_the_verdict_and_the_plots_are_logged_to_a_run(
    history: History, own_registry: Path, tmp_path: Path
) -> None:
    run = registry.log_training(CASE, registry.load(CASE, history.champion), {}, {})
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    registry.log_verdict(CASE, run, "# passed", {"verdict": "passed"})
    registry.log_plots(CASE, run, {"roc": figure})
    folder = Path(MlflowClient().download_artifacts(run, "", str(tmp_path)))
    assert (folder / registry.VERDICT).read_text() == "# passed"
    assert (folder / "plots" / "roc.png").read_bytes().startswith(b"\x89PNG")
    assert registry.tag(CASE, run, "verdict") == "passed"
    assert registry.tag(CASE, run, "nothing of this name") == ""


def test_the_size_of_a_model_is_that_of_its_files(history: History, own_registry: Path) -> None:
    uri = MlflowClient().get_run(history.champion.run_id).data.tags[registry.MODEL_URI]
    files = Path(mlflow.artifacts.download_artifacts(uri))
    expected = sum(file.stat().st_size for file in files.iterdir())
    assert registry.model_bytes(CASE, history.champion.run_id) == expected > 100_000


# --- Texts that somebody has damaged --------------------------------------------------------------

MODEL = ModelVersion(CASE.name, "7", "a" * 32)
SOUND = {
    "reference": json.dumps(
        {**scoring.score_reference(CASE, np.linspace(0, 1, 50)), "evaluation": "e"}
    ),
    "members": json.dumps({"xgboost": {"name": "m", "version": "3", "run_id": "r"}}),
}
READERS: dict[str, Callable[[str], Any]] = {
    "reference": lambda text: registry.as_reference(text.encode(errors="surrogatepass"), MODEL),
    "members": lambda text: registry.as_members(text, MODEL),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("edges"), inner),
)


def damaged(sound: str) -> st.SearchStrategy[str]:
    """A text that is cut off, has another part in its midst, or is another one altogether."""
    places = st.integers(0, len(sound))
    middle = st.text(max_size=5) | JSON.map(json.dumps) | st.sampled_from(['"', "[" * 9999, "NaN"])
    spliced = st.tuples(places, middle, places).map(lambda t: sound[: t[0]] + t[1] + sound[t[2] :])
    return places.map(lambda end: sound[:end]) | spliced | JSON.map(json.dumps) | st.text()


@pytest.mark.parametrize("what", READERS)
@hypothesis.settings(max_examples=300)
@given(data=st.data())
def test_a_damaged_text_is_refused_by_the_models_name_or_can_be_used(
    what: str, data: st.DataObject
) -> None:
    text, message = data.draw(damaged(SOUND[what])), ""
    try:
        found = READERS[what](text)
    except BadData as error:
        message = str(error)
    if message:
        assert str(MODEL) in message
        assert "make an earlier version champion" in message
    elif what == "reference":
        scores = np.linspace(0, 1, 99, dtype=np.float32)
        assert np.isfinite(scoring.population_stability(CASE, scores, found))
    else:
        assert all(isinstance(member, ModelVersion) for member in found.values())


def test_what_a_newer_release_adds_to_a_text_is_not_damage() -> None:
    reference = {**json.loads(SOUND["reference"]), "new": {"x": 1}}
    assert READERS["reference"](json.dumps(reference)) == reference
    member = {**json.loads(SOUND["members"])["xgboost"], "new": 1}
    assert READERS["members"](json.dumps({"xgboost": member})) == {
        "xgboost": ModelVersion("m", "3", "r")
    }


def test_damaged_texts_of_a_registered_version_are_named(
    lake: Lake, history: History, own_registry: Path
) -> None:
    version, client = new_version(history), MlflowClient()
    client.log_text(version.run_id, '{"edges": [0.0, 0.1', registry.REFERENCE)
    client.set_model_version_tag(version.name, version.version, registry.MEMBERS, "null")
    client.log_param(version.run_id, "last_day", "yesterday")
    client.log_param(version.run_id, "snapshot", "the one of Monday")
    for read in (registry.reference, registry.members, registry.last_day):
        with pytest.raises(BadData, match=str(version)):
            read(CASE, version)
    assert outcomes.model_age_days(CASE, version, OLD_DAY) is None
    assert outcomes.training_snapshot(CASE, version) is None


def test_a_run_that_does_not_say_where_its_model_is_is_named(
    history: History, own_registry: Path
) -> None:
    run = registry.log_training(CASE, registry.load(CASE, history.champion), {}, {})
    MlflowClient().delete_tag(run, registry.MODEL_URI)
    for use in (registry.load_run, registry.register, registry.model_bytes):
        with pytest.raises(MissingData, match=f"Run {run} of 'flight_delays' does not say where"):
            use(CASE, run)


USES: list[Callable[[ModelVersion], object]] = [
    lambda model: registry.champion(CASE),
    lambda model: registry.find_champion(CASE),
    lambda model: registry.load(CASE, model),
    lambda model: registry.load_run(CASE, model.run_id),
    lambda model: registry.reference(CASE, model),
    lambda model: registry.register(CASE, model.run_id),
    lambda model: promotion.promote(CASE, model, None, "a test"),
    lambda model: promotion.previous(CASE, model),
    lambda model: registry.log_metrics(CASE, model.run_id, {"roc_auc": 0.5}),
    # MLflow knows the place of a run's artifacts from before, whatever is down: a run that is not.
    lambda model: registry.log_reference(CASE, "0" * 32, {}),
    lambda model: registry.log_verdict(CASE, "0" * 32, "", {"verdict": "passed"}),
    lambda model: registry.log_plots(CASE, "0" * 32, {"roc": Figure()}),
    lambda model: registry.tag(CASE, model.run_id, "reason"),
    lambda model: registry.model_bytes(CASE, model.run_id),
    lambda model: registry.version(CASE, model.version),
    lambda model: promotion.roll_back(CASE, model, model, "a test"),
    lambda model: registry.create_store(CASE),
]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("down", ["nobody listens", "no database", "no such scheme"])
def test_a_registry_that_does_not_work_is_an_error_that_says_which(
    down: str,
    use: Callable[[ModelVersion], object],
    history: History,
    configure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    unused_port: int,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    (tmp_path / "garbage.db").write_bytes(b"no database" * 100)
    uri = {
        "nobody listens": f"http://127.0.0.1:{unused_port}",
        "no database": f"sqlite:///{tmp_path / 'garbage.db'}",
        "no such scheme": "carrier-pigeon://roof",
    }[down]
    configure(mlflow_tracking_uri=uri)
    with pytest.raises(BadData if "scheme" in down else DependencyDown) as failure:
        use(history.champion)
    assert f"registry at {uri} failed on 'flight_delays'" in str(failure.value)


def test_a_login_in_the_registrys_address_is_never_shown(
    configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    configure(mlflow_tracking_uri=f"http://me:hunter2@127.0.0.1:{unused_port}")
    with pytest.raises(DependencyDown, match=f"registry at http://127.0.0.1:{unused_port}") as down:
        registry.find_champion(CASE)
    assert "hunter2" not in str(down.value)


def test_a_login_that_the_registrys_server_repeats_is_shown_neither_by_the_error_nor_its_cause(
    configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Repeating(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said = f"{'x' * 380} {self.headers['Authorization']}".encode()
            self.send_response(401)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: object) -> None: ...

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with ThreadingHTTPServer(("127.0.0.1", 0), Repeating) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        configure(mlflow_tracking_uri=f"http://me:hunter2-hunter2@127.0.0.1:{server.server_port}")
        with pytest.raises(DependencyDown) as failure:
            registry.find_champion(CASE)
        server.shutdown()
    told = "".join(traceback.format_exception(failure.value))
    login = base64.b64encode(b"me:hunter2-hunter2").decode()
    assert not [start for start in range(len(login) - 8) if login[start : start + 8] in told]


def test_a_champion_that_cannot_be_loaded_publishes_nothing(
    lake: Lake, history: History, configure: Callable[..., None], tmp_path: Path
) -> None:
    infer(lake, OLD_DAY, history.champion)
    (tmp_path / "garbage.db").write_bytes(b"no database" * 100)
    configure(mlflow_tracking_uri=f"sqlite:///{tmp_path / 'garbage.db'}")
    with refused(lake, "predictions", OLD_DAY, "registry at ", kind=DependencyDown):
        infer(lake, OLD_DAY, history.champion)


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (Regression("minutes"), "it is no regressor|was trained for binary"),
        (Multiclass(["on_time", "late", "cancelled"]), "was trained for binary"),
    ],
)
def test_a_champion_of_another_target_is_refused_and_says_what_to_do(
    history: History, own_registry: Path, target: Target, why: str
) -> None:
    case = with_target(CASE, target)
    with pytest.raises(BadData, match=why) as refused:
        registry.load(case, history.champion)
    assert "remove the alias 'champion'" in str(refused.value)
    assert "flight_delays.model_retraining" in str(refused.value)
    assert registry.load(CASE, history.champion) is not None
