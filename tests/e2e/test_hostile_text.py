"""Text of people, data, models and servers stays text: in every DAG, on every page, in messages.

Each place where such text comes from has a template, which would show a secret Variable, and markup
that would ask a foreign server for a picture. All DAGs go on to their end here; with all that they
need away or failing they are in `test_nothing_is_told`.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import quote

import markdown
import polars as pl
import pytest
from airflow.api_fastapi.auth.tokens import JWTGenerator
from playwright.sync_api import Page, expect

from include.lake.tables import Lake
from include.partitions import parse_key
from include.registry import registry
from include.usecases.flight_delays import source
from local.client import Airflow, poll
from tests.case import CASE
from tests.e2e.browser import PATIENCE, needs_browser, new_page
from tests.e2e.conftest import Pages
from tests.e2e.dag_ids import RETRAINING
from tests.e2e.own_airflow import left_behind, own_airflow, own_data

pytestmark = [pytest.mark.exhaustive, needs_browser]  # an Airflow of its own: three minutes

FLIGHTS = Path(source.__file__).parent
FIRST, LAST, DAY, BROKEN = "2013-01-01", "2013-02-10", "2013-02-11", "2013-02-12"
TEMPLATE = "{{ var.value.canary }}"
RENDERED = "the-variable-was-rendered"
SIGNED_WITH = "x" * 64

SETTINGS = {
    "ML_RETRIES": "1",
    "ML_ENSEMBLE_QUORUM": "1",
    "ML_APPROVAL_HOURS": "1",
    "ML_MONITORING_ACTS": "false",  # Airflow starts the monitor for yesterday, too
    "ML_GATE_CONFIDENCE": "0",
    "ML_GATE_MAX_SKILL": "1",
    "ML_GATE_MAX_SKILL_GAIN": "1",
    "ML_GATE_MIN_SLICE_ROWS": "1",
    "ML_GATE_MAX_SLICE_SKILL_LOSS": "10",
    "ML_GATE_MAX_CALIBRATION_ERROR": "1",
    "ML_GATE_MAX_SHIFT_RATIO": "1000",
    "AIRFLOW_VAR_CANARY": RENDERED,
    "AIRFLOW__API_AUTH__JWT_SECRET": SIGNED_WITH,
}

SHOWN = {
    "approval": ["reason", "category"],
    "health before": ["tag", "reason"],
    "health after": ["approver", "reason"],
    "health at the end": ["rollback"],
    "report": ["feature", "file"],
    "refused day": ["column"],
    "message": ["feature", "file"],
}
"""What is looked at, and whose text has to be there to be read."""


class Foreign(ThreadingHTTPServer):
    """A server that no page may ask for anything; a member of the ensemble is told off by it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ForeignHandler)
        self.asked: list[str] = []
        Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def text(self, place: str) -> str:
        """Hostile text that says where it came from."""
        url = f"{self.address}/{place}"
        return (
            f"{place} {TEMPLATE} {{% if 1 %}}{TEMPLATE}{{% endif %}} ![x]({url}) "
            f'<img src={url} onerror="fetch(`{url}`)"><script src="{url}"></script>'
        )


class ForeignHandler(BaseHTTPRequestHandler):
    server: Foreign

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.path.startswith("/v2/"):  # that is how members ask
            self.server.asked.append(self.path)
        body = json.dumps({"error": self.server.text("server")}).encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@dataclass
class Stack:
    """What runs, and what was seen of it: how runs have ended, and pages as HTML."""

    airflow: Airflow
    lake: Lake
    foreign: Foreign
    browser: Page
    ended: list[str] = field(default_factory=list)
    seen: dict[str, str] = field(default_factory=dict)

    def run(self, pipeline: str, key: str | None = None, conf: dict | None = None) -> None:
        """Run a DAG to its end."""
        run_id = self.start(pipeline, key, conf)
        self.ended.append(f"{pipeline} {self.airflow.wait(CASE.dag_id(pipeline), run_id)}")

    def start(self, pipeline: str, key: str | None = None, conf: dict | None = None) -> str:
        dag_id = CASE.dag_id(pipeline)
        self.airflow.unpause(dag_id)
        return self.airflow.trigger(dag_id, conf, partition_key=key)

    def look(self, name: str, address: str, heading: str) -> None:
        """Look at a page with the browser once it shows something, and keep what it shows."""
        self.browser.goto(address)
        expect(self.browser.get_by_text(heading).first).to_be_visible(timeout=PATIENCE)
        self.browser.wait_for_load_state("networkidle")
        picture = self.airflow.data / "seen" / f"{name}.png"
        self.browser.screenshot(path=picture, full_page=True)
        self.seen[name] = self.browser.content()


@pytest.fixture(scope="module")
def stack(
    pages_server: tuple[Pages, int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """An Airflow that has been through all of it."""
    foreign, data = Foreign(), tmp_path_factory.mktemp("hostile")
    usecase = hostile_usecase(tmp_path_factory.mktemp("usecase") / CASE.name, foreign)
    server = {"conn_type": "http", "host": "127.0.0.1", "port": foreign.server_port}
    told = {
        "ML_NOTIFY_URLS": f"mmost://127.0.0.1:{pages_server[1]}/{'x' * 24}",
        "AIRFLOW_CONN_MODEL_SERVER": json.dumps(server),
    }
    with own_data(data, {"ML_USECASES": str(usecase)}) as lake:
        seed = [sys.executable, "-m", "local.seed", "--from", FIRST, "--to", LAST]
        subprocess.run(seed, check=True)  # in a process that takes this use case for its own
        registry.create_store(CASE)
        pages_server[0].taken.clear()
        with own_airflow(data, SETTINGS | told) as airflow, new_page() as browser:
            found = Stack(airflow, lake, foreign, browser)
            go_through_all(found)
            found.seen["message"] = "\n".join(
                markdown.markdown(page["text"], extensions=["tables"])
                for page in pages_server[0].taken
            )
            yield found
    foreign.shutdown()


def hostile_usecase(folder: Path, foreign: Foreign) -> Path:
    """The use case with any text as a carrier, hostile in each row, and in a feature's name."""
    shutil.copytree(FLIGHTS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    feature = repr(foreign.text("feature"))
    features = folder / "features.py"
    text = features.read_text().replace('"plane_age"', feature)
    made = 'plane_age=pl.col("date").dt.year() - pl.col("plane_year")'
    assert made in text
    features.write_text(text.replace(made, f"**{{{feature}: {made.partition('=')[2]}}}"))
    declared = folder / "__init__.py"
    lines = declared.read_text().splitlines(keepends=True)
    declared.write_text("".join(line for line in lines if "boost" not in line))
    added = {
        "schema": "for one in (FLIGHTS, ACTUALS):\n    one.schema.columns['carrier'].checks = []\n",
        "models": "CANDIDATES = {'logistic_regression': logistic_regression}\n",
        "source": f"""
honest = fetch
def fetch(input_name, day):
    rows = honest(input_name, day)
    if 'carrier' not in rows.columns:
        return rows
    return rows.with_columns(pl.col('carrier') + {" " + foreign.text("category")!r})
""",
    }
    for module, code in added.items():
        with (folder / f"{module}.py").open("a") as file:
            file.write(code)
    return folder


def go_through_all(stack: Stack) -> None:
    """Every DAG, with hostile text wherever people, data, models and servers may put some."""
    (stack.airflow.data / "seen").mkdir()
    text, health = stack.foreign.text, f"{stack.airflow.url}/model-health/{CASE}"
    window = {"start": FIRST, "end": "2013-01-21", "holdout_days": 5}
    stack.run("model_retraining", conf={"reason": text("reason"), **window})
    write_tags(text("tag"))

    land(stack)
    stack.run("data_validation", DAY)
    stack.run("data_validation", BROKEN)
    stack.run("batch_inference", DAY)
    stack.run("ensemble_inference", DAY)
    stack.run("model_monitoring", DAY, {"act": True})
    stack.look("report", f"{stack.airflow.url}/reports/{CASE}/{DAY}", "Reasons")
    [page] = stack.lake.partition_path("validated", BROKEN).rglob("report.html")
    stack.look("refused day", Path(str(page)).as_uri(), "Why it failed")

    window = {"start": FIRST, "end": LAST, "holdout_days": 5}
    asked = {"reason": text("reason"), "require_approval": True, **window}
    run_id = stack.start("model_retraining", conf=asked)
    poll(lambda: stack.airflow.waiting_approvals(RETRAINING, run_id), timeout=180)
    time.sleep(3)  # an answer that comes before Airflow has seen the asking process end is lost
    question = f"{stack.airflow.url}/dags/{RETRAINING}/runs/{quote(run_id)}/tasks/approve"
    stack.look("approval", f"{question}/required_actions", f"of {CASE} to champion?")
    stack.look("health before", health, "Waiting for a person")
    visitor = logged_in(stack.airflow, text("approver"))
    visitor.answer(RETRAINING, run_id, "approve", "Approve")
    stack.ended.append(f"approval {stack.airflow.wait(RETRAINING, run_id)}")
    stack.look("health after", health, "Version 2")
    stack.run("model_rollback", conf={"reason": text("rollback")})
    stack.run("housekeeping", conf={"dry_run": False})
    keys = stack.airflow.data / "keys.jsonl"
    keys.write_text(json.dumps({"carrier": text("erased")}))
    stack.run("erasure", conf={"file": str(keys), "dry_run": False})
    stack.look("health at the end", health, "Rolled back to")


def write_tags(text: str) -> None:
    """Say so of the champion and its training, as anybody can in MLflow."""
    champion = registry.champion(CASE)
    with registry.connection(CASE) as client:
        for name in ("candidate", "approved_by", "judged_against", "git_commit"):
            client.set_model_version_tag(champion.name, champion.version, name, text)
        for run in client.search_runs([client.get_run(champion.run_id).info.experiment_id]):
            client.set_tag(run.info.run_id, "refused_by", text)


def land(stack: Stack) -> None:
    """A day with a fault that calls a person, a bad row and a strange file beside it; then a file
    with a column that nobody knows."""
    text = stack.foreign.text
    for key in (DAY, BROKEN):
        rows = source.fetch("flights", parse_key(key))
        assert rows is not None
        rows = rows.with_columns(pl.col("carrier") + f" {text('category')}")
        if key == DAY:
            is_first = pl.int_range(pl.len()) == 0
            rows = rows.with_columns(
                dest=pl.when(is_first).then(pl.lit(text("value"))).otherwise("dest"),
                plane_year=pl.lit(1930, pl.Int32),
            )
        else:
            rows = rows.with_columns(pl.lit(1).alias(text("column")))
        path = Path(str(stack.lake.landing_path("flights", key)))
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.write_parquet(path)
    folder = Path(str(stack.lake.partition_path("history", LAST)))
    folder.mkdir(parents=True)
    name = text("file").replace("/", "&#47;").partition("<script")[0]
    (folder / f"{name}.parquet").write_bytes(b"no Parquet")


def logged_in(airflow: Airflow, name: str) -> Airflow:
    """The same Airflow for a user of this name, who may do everything."""
    tokens = JWTGenerator(secret_key=SIGNED_WITH, valid_for=600, audience="apache-airflow")
    found = Airflow(airflow.url, airflow.data)
    token = tokens.generate({"sub": name, "role": "admin"})
    found._http.headers["Authorization"] = f"Bearer {token}"
    return found


class Shown(HTMLParser):
    """What a page shows: its text, and all that its tags say."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.attributes = "", []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs


def test_every_dag_went_to_its_end(stack: Stack) -> None:
    assert stack.ended == [
        "model_retraining success",
        "data_validation success",
        "data_validation failed",
        "batch_inference success",
        "ensemble_inference success",
        "model_monitoring success",
        "approval success",
        "model_rollback success",
        "housekeeping success",
        "erasure success",
    ]


def test_no_text_was_rendered_as_a_template(stack: Stack) -> None:
    texts = [*left_behind(stack.airflow, stack.lake), *stack.seen.items()]
    assert [place for place, text in texts if RENDERED in text] == []
    came = {
        name: [place for place, text in texts if f"{name} {TEMPLATE}" in text]
        for name in ("reason", "tag", "approver", "rollback", "server", "column", "feature")
    }
    assert all(came.values()), came


@pytest.mark.parametrize("name", SHOWN)
def test_a_page_shows_the_text_and_neither_loads_nor_links_nor_runs_it(
    stack: Stack, name: str
) -> None:
    shown = Shown(stack.seen[name])
    for place in SHOWN[name]:
        assert f"{place} {TEMPLATE}" in shown.text
    followed = {"src", "href", "srcset", "action", "onerror", "style"}
    assert [
        (attribute, value)
        for attribute, value in shown.attributes
        if attribute in followed and stack.foreign.address in (value or "")
    ] == []


def test_no_page_asked_the_foreign_server(stack: Stack) -> None:
    assert stack.foreign.asked == []
    stack.browser.goto(f"{stack.airflow.url}/api/v2/version")  # without our rules for loading
    stack.browser.set_content(markdown.markdown(f"![x]({stack.foreign.address}/trap)"))
    poll(lambda: stack.foreign.asked, timeout=30)  # so it would have been noticed
