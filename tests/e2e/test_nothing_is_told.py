"""No secret is shown anywhere, and text from people and servers is never a template.

Every DAG runs on a real Airflow, with a password in each place where one can be, and with all that
it needs away or failing: errors print addresses. Then all that is left behind is searched.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import quote, urlsplit

import polars as pl
import pytest

from include.lake.tables import Lake
from local.client import Airflow
from local.seed import seed
from tests.case import CASE, at
from tests.e2e.door import Door
from tests.e2e.own_airflow import keep_page, left_behind, own_airflow, own_data

pytestmark = pytest.mark.exhaustive  # an Airflow of its own

DAY, BROKEN, AWAY = "2013-01-08", "2013-01-09", "2013-01-10"
TEMPLATE = "{{ var.value.canary }} <img src=x onerror=alert(1)>"
RENDERED = "the-variable-was-rendered"

SECRETS = {
    "lake": "Lake+key/3f9c1e2ab7",
    "model server": "server&token/77aa02ce91",
    "notifier": "notify:pass/0b5d66e1f4",
    "hook": "hooks-path-91c0d37aab",
    "mailbox": "mail@pass/5e8f20bb13",
    "registry": "ml:flow@pass/c41d9a77e0",
}


class Talkative(BaseHTTPRequestHandler):
    """A server that refuses everything, says why, and repeats all that it was sent to log in."""

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        said = {"error": f"{self.path} {self.headers.get('Authorization')} {TEMPLATE}"}
        body = json.dumps(said).encode()
        self.send_response(500 if self.path.startswith("/hooks") else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def talkative() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Talkative)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@dataclass(frozen=True)
class Stack:
    """What runs, and the only way to its lake."""

    airflow: Airflow
    lake: Lake
    door: Door
    ended: list[str]

    def run(self, pipeline: str, key: str | None = None, conf: dict | None = None) -> str:
        """Run a DAG, however it ends. Returns the state."""
        dag_id = CASE.dag_id(pipeline)
        self.airflow.unpause(dag_id)
        run_id = self.airflow.trigger(dag_id, conf, partition_key=key)
        state = self.airflow.wait(dag_id, run_id)
        self.ended.append(f"{pipeline} {state}")
        return state


@pytest.fixture(scope="module")
def stack(
    s3_server: dict[str, str], talkative: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """An Airflow that has been through all of it."""
    port = urlsplit(s3_server["AWS_ENDPOINT_URL"]).port
    assert port
    named = {name: quote(secret, safe="") for name, secret in SECRETS.items()}
    notifiers = [
        f"json://ann:{named['notifier']}@127.0.0.1:{talkative}/hooks/{SECRETS['hook']}",
        f"mailto://ann:{named['mailbox']}@127.0.0.1:9"
        "?smtp=127.0.0.1&mode=insecure&from=a@example.com&to=b@example.com",
    ]
    server = {"conn_type": "http", "host": "127.0.0.1", "port": talkative}
    told = {
        "ML_RETRIES": "1",
        "ML_NOTIFY_URLS": " ".join(notifiers),
        "MLFLOW_TRACKING_URI": f"http://ann:{named['registry']}@127.0.0.1:{talkative}",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "AIRFLOW_CONN_MODEL_SERVER": json.dumps(server | {"password": SECRETS["model server"]}),
        "AIRFLOW_VAR_CANARY": RENDERED,
    }
    data = tmp_path_factory.mktemp("data-and-passwords")
    with Door(port) as door, own_data(data, variables(door)) as lake:
        assert seed(at(lake), "2013-01-01", DAY, say=lambda _: None) == 8
        with own_airflow(data, told) as airflow:
            found = Stack(airflow, lake, door, [])
            go_through_all(found)
            yield found


def variables(door: Door) -> dict[str, str]:
    """What this process and Airflow know of the lake."""
    url = f"http://127.0.0.1:{door.server_address[1]}"
    connection = {
        "conn_type": "aws",
        "login": "testing",
        "password": SECRETS["lake"],
        "extra": {"endpoint_url": url, "region_name": "us-east-1"},
    }
    return {
        "ML_LAKE_ROOT": "s3://lake_test@bucket/and/passwords",
        "AIRFLOW_CONN_LAKE_TEST": json.dumps(connection),
        "AWS_MAX_ATTEMPTS": "1",
    }


def go_through_all(stack: Stack) -> None:
    """Every DAG, with the registry, the model server, the notifiers and then the lake failing."""
    landed = stack.lake.landing_path("flights", BROKEN)
    rows = stack.lake.current("validated", DAY).read("flights")
    with landed.open("wb") as file:
        rows.with_columns(pl.lit(TEMPLATE).alias(TEMPLATE)).write_parquet(file)
    stack.run("data_validation", BROKEN)
    stack.run("batch_inference", DAY)
    stack.run("ensemble_inference", DAY)
    stack.run("model_retraining", conf={"reason": TEMPLATE, "holdout_days": 5})
    stack.run("model_rollback", conf={"reason": TEMPLATE})
    stack.run("model_monitoring", DAY, {"act": True})
    stack.run("housekeeping")
    stack.run("erasure", conf={"file": TEMPLATE})
    for page in (f"/reports/{CASE}/{DAY}", f"/model-health/{CASE}"):
        keep_page(stack.airflow, page)
    stack.door.shut = True
    stack.run("data_validation", AWAY)
    for page in (f"/reports/{CASE}/{DAY}", f"/model-health/{CASE}"):
        keep_page(stack.airflow, page)
    stack.door.shut = False


def written(secret: str) -> set[str]:
    """A secret as it may be written: itself, in an address, in a header of basic authentication."""
    login = base64.b64encode(f"ann:{secret}".encode()).decode()
    return {secret, quote(secret), quote(secret, safe=""), login, json.dumps(secret)[1:-1]}


def test_no_secret_appears_anywhere(stack: Stack) -> None:
    found = {
        (name, place)
        for place, text in left_behind(stack.airflow, stack.lake)
        for name, secret in SECRETS.items()
        if any(one in text for one in written(secret))
    }
    assert found == set()


def test_no_text_of_people_data_or_servers_is_rendered(stack: Stack) -> None:
    texts = [(place, text) for place, text in left_behind(stack.airflow, stack.lake)]
    assert [place for place, text in texts if RENDERED in text] == []
    shown = [place for place, text in texts if "var.value.canary" in text]
    assert any("table" in place for place in shown), "the texts came that far"


def test_all_of_it_failed_as_it_had_to(stack: Stack) -> None:
    """Else there was nothing to tell."""
    assert stack.ended == [
        "data_validation failed",
        "batch_inference failed",
        "ensemble_inference success",
        "model_retraining failed",
        "model_rollback failed",
        "model_monitoring failed",
        "housekeeping failed",
        "erasure failed",
        "data_validation failed",
    ]
