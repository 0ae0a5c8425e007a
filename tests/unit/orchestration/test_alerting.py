"""A page is logged first, then tried for each notifier by itself, and tells no secret."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import markdown
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import AsyncMessage
from apprise.plugins.slack import NotifySlack

from include.errors import BadData, DependencyDown
from include.messages import Page
from include.orchestration import alerting
from tests.case import CASE

WHAT, TITLE = "2013-03-01: skill", "flight_delays 2013-03-01: skill"
BODY, LINK = "**skill** is 0.01\n\n- at least 0.03", "http://airflow/x"
SECRET = "TIiajkdnlazkcOXrIdevi7"  # pragma: allowlist secret


class Web(ThreadingHTTPServer):
    """Accepts every POST, unless a test makes it refuse or hang."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), WebHandler)
        self.posts: list[tuple[str, Any]] = []
        self.status = 200
        self.go_on = Event()
        self.go_on.set()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class WebHandler(BaseHTTPRequestHandler):
    server: Web

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.posts.append((self.path, body))
        self.server.go_on.wait()
        self.send_response(self.server.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.go_on.set()
    server.shutdown()
    thread.join()
    server.server_close()


class Mailbox(AsyncMessage):
    def __init__(self) -> None:
        super().__init__()
        self.mails: list[EmailMessage] = []

    def prepare_message(self, session: Any, envelope: Any) -> EmailMessage:
        return BytesParser(policy=default).parsebytes(envelope.content)

    async def handle_message(self, message: Any) -> None:
        self.mails.append(message)


class MailServer(Controller):
    """On a free port, which it learns when it starts."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@pytest.fixture
def post_office() -> Iterator[tuple[str, Mailbox]]:
    """An SMTP server's Apprise URL, and what it has got."""
    mailbox = Mailbox()
    server = MailServer(mailbox, hostname="127.0.0.1", port=0)
    server.start()
    url = f"mailto://127.0.0.1:{server.port}?smtp=127.0.0.1&mode=insecure"
    yield f"{url}&from=ml@example.com&to=oncall@example.com", mailbox
    server.stop()


@pytest.fixture
def told(configure: Callable[..., None]) -> Callable[..., list[Exception | None]]:
    """Page these notifiers, each by itself as the DAG does; gives what each of them raised."""

    def tell(*urls: str) -> list[Exception | None]:
        configure(notify_urls=" ".join(urls))
        return [attempt(page) for page in alerting.pages(CASE, WHAT, BODY, LINK)]

    def attempt(page: Page) -> Exception | None:
        try:
            alerting.notify(CASE, page)
        except Exception as error:
            return error
        return None

    return tell


def test_without_notifiers_a_page_is_one_line_of_json_in_the_log(
    told, caplog: pytest.LogCaptureFixture
) -> None:
    assert told() == []
    (record,) = caplog.records
    name, _, text = record.getMessage().partition(" ")
    assert name == "page"
    assert "\n" not in text
    assert json.loads(text) == {"title": TITLE, "body": BODY, "link": LINK, "notifiers": 0}


def test_a_mail_is_readable_and_links_to_the_report(told, post_office) -> None:
    url, mailbox = post_office
    assert told(url) == [None]
    (mail,) = mailbox.mails
    assert (mail["To"], mail["Subject"]) == ("oncall@example.com", TITLE)
    html = mail.get_body(("html",)).get_content()
    assert "<strong>skill</strong>" in html
    assert f'<a href="{LINK}">' in html


def test_slack_and_any_other_server_get_the_page(
    told, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NotifySlack, "webhook_url", f"http://{web.host}/services")
    slack = f"slack://T1JJ3T3L2/A1BRTD4JD/{SECRET}/#oncall"
    assert told(slack, f"json://{web.host}/hook") == [None, None]
    (slack_path, slack_post), (path, post) = web.posts
    assert slack_path == f"/services/T1JJ3T3L2/A1BRTD4JD/{SECRET}"
    assert slack_post["channel"] == "#oncall"
    assert LINK in json.dumps(slack_post)
    assert path == "/hook"
    assert (post["title"], post["type"]) == (TITLE, "failure")
    assert "skill" in post["message"]
    assert LINK in post["message"]


def test_a_title_that_becomes_part_of_a_markdown_message_stays_text(
    configure: Callable[..., None], web: Web
) -> None:
    configure(notify_urls=f"mmost://{web.host}/{'x' * 24}")
    why = "![x](http://evil.example/x.png) <img src=x onerror=alert(1)>"
    alerting.notify(CASE, Page(0, f"2013-03-01: {why}", BODY))
    [(_, post)] = web.posts
    assert why in post["text"]
    html = markdown.markdown(post["text"])
    assert "<img" not in html
    assert "<strong>skill</strong>" in html


def test_one_that_is_down_one_that_hangs_and_a_wrong_one_keep_it_from_no_other(
    told, web: Web, post_office, unused_port: int
) -> None:
    slow = Web()
    slow.go_on.clear()
    Thread(target=slow.serve_forever, daemon=True).start()
    down, hanging, wrong, good = told(
        f"json://127.0.0.1:{unused_port}/x",
        f"json://{slow.host}/x?rto=0.2",
        "carrierpigeon://coop",
        f"json://{web.host}/x",
    )
    slow.go_on.set()
    slow.shutdown()
    slow.server_close()
    assert isinstance(down, DependencyDown)
    assert isinstance(hanging, DependencyDown)
    assert isinstance(wrong, BadData)
    assert good is None
    assert len(web.posts) == 1
    assert "onnection" in str(down)
    assert "2 (carrierpigeon://...)" in str(wrong)


@pytest.mark.parametrize(
    ("url", "status"),
    [
        (f"json://user:{SECRET}@HOST/hook", 200),
        (f"json://user:{SECRET}@HOST/hook", 403),
        (f"json://HOST/hook/{SECRET}?+Authorization={SECRET}", 500),
        (f"json://127.0.0.1:1/{SECRET}?+Authorization={SECRET}", 200),
        (f"mailto://user:{SECRET}@127.0.0.1:1?smtp=127.0.0.1&mode=insecure&to=a@example.com", 200),
        (f"slack://T1JJ3T3L2/A1BRTD4JD!/{SECRET}", 200),
        (f"slack://T1JJ3T3L2/A1BRTD4JD/{SECRET}!", 200),
        (f"slak://T1JJ3T3L2/A1BRTD4JD/{SECRET}", 200),
        (SECRET, 200),
    ],
)
def test_no_log_and_no_message_contains_a_secret(
    url: str, status: int, told, web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    web.status = status
    with caplog.at_level(logging.DEBUG):
        (error,) = told(url.replace("HOST", web.host))
    assert SECRET not in caplog.text + str(error)
    assert "page" in caplog.text
    if error is not None:
        assert "0 (" in str(error)
        assert error.__cause__ is error.__context__ is None


def test_the_reason_of_a_refusal_is_passed_on(told, web: Web) -> None:
    web.status = 403
    (error,) = told(f"json://{web.host}/hook")
    assert "403" in str(error)


def test_invalid_notifiers_are_named_early(
    configure: Callable[..., None],
) -> None:
    configure(notify_urls="json://localhost/x slak://a/b  mailto://nobody")
    with pytest.raises(BadData, match=r"0: 1 \(slak://\.\.\.\), 2 \(mailto://\.\.\.\)\."):
        alerting.check_notifiers(CASE)
    configure(notify_urls=" json://localhost/x ")
    alerting.check_notifiers(CASE)


def test_a_notifier_that_was_removed_meanwhile_is_named(configure: Callable[..., None]) -> None:
    configure(notify_urls="json://localhost/x")
    with pytest.raises(BadData, match=r"no notifier 1: .* names 1"):
        alerting.notify(CASE, Page(1, TITLE, BODY))


def test_a_monitor_that_fails_calls_everybody_it_can_reach(
    configure: Callable[..., None], web: Web, unused_port: int
) -> None:
    configure(notify_urls=f"json://127.0.0.1:{unused_port}/ json://{web.host}/hook")
    instance = SimpleNamespace(
        dag_id="flight_delays.model_monitoring",
        run_id="run",
        task_id="decide",
        map_index=-1,
        try_number=8,
    )
    error = DependencyDown("the lake is full")
    context = {"task_instance": instance, "exception": error, "partition_key": "2013-03-01"}
    alerting.report_and_page(context)
    [(_, post)] = web.posts
    assert post["title"] == "flight_delays model_monitoring.decide has failed for 2013-03-01"
    assert "the lake is full" in post["message"]


def test_parsing_dags_does_not_import_apprise() -> None:
    script = "import sys, include.orchestration.alerting; sys.exit('apprise' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


@dataclass
class Instance:
    """What of Airflow's task instance a record needs."""

    dag_id: str = "batch_inference"
    run_id: str = "run-1"
    task_id: str = "score"
    map_index: int = 3
    try_number: int = 5
    log_url: str = "http://airflow/log"


def test_a_record_says_what_failed_for_which_day_and_of_what_kind() -> None:
    record = alerting.failure_record(
        {
            "task_instance": Instance(),
            "partition_key": "2013-03-01",
            "exception": BadData("Partition 2013-03-01 is not published: größe"),
        }
    )
    assert record == {
        "dag_id": "batch_inference",
        "run_id": "run-1",
        "task_id": "score",
        "map_index": 3,
        "try_number": 5,
        "partition": "2013-03-01",
        "kind": "bad data",
        "error": "BadData",
        "message": "Partition 2013-03-01 is not published: größe",
        "log_url": "http://airflow/log",
    }


@pytest.mark.parametrize(
    ("context", "kind", "message"),
    [
        ({}, "killed", "None"),
        ({"exception": None, "reason": "heartbeat timeout"}, "killed", "heartbeat timeout"),
        ({"exception": "killed externally"}, "killed", "killed externally"),
        ({"exception": KeyError("x")}, "bug", "'x'"),
        ({"exception": AssertionError()}, "bug", "AssertionError()"),
    ],
)
def test_a_record_is_made_of_whatever_airflow_passes_on(
    context: dict[str, object], kind: str, message: str
) -> None:
    record = alerting.failure_record({"task_instance": Instance(), **context})
    assert (record["kind"], record["message"]) == (kind, message)
    assert record["partition"] is None


def test_a_failure_is_logged_as_one_line_of_json(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        alerting.report_failure(
            {"task_instance": Instance(), "exception": BadData("one\ntwo"), "partition_key": "x"}
        )
    (line,) = [record.getMessage() for record in caplog.records]
    name, _, text = line.partition(" ")
    assert name == "task_failed"
    assert "\n" not in line
    assert json.loads(text)["message"] == "one\ntwo"
