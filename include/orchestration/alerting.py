"""Alerts: a log record of every failed task, and pages to the notifiers.

Each notifier has its own task, so a notifier that is down does not delay the others, and a retry
reaches only those that have not received the page.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from logging.handlers import BufferingHandler
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import unquote, urlsplit

from include import metrics, usecases
from include.errors import BadData, DependencyDown, Kind, PipelineError, kind_of
from include.messages import Page
from include.partitions import midnight
from include.usecase import UseCase, parted
from include.wording import literal

if TYPE_CHECKING:
    from apprise import Apprise

log = logging.getLogger(__name__)


def report_failure(context: Mapping[str, Any]) -> None:
    """Log one JSON record of a failed task: what failed, for which partition, and the kind.

    It is every task's `on_failure_callback`, so it runs once, after the last try.
    """
    record = failure_record(context)
    log.error("task_failed %s", json.dumps(record))
    usecase, dag = parted(record["dag_id"])
    labels = {"dag": dag, "task": record["task_id"]}
    kinds = get_args(Kind)
    metrics.count_one(usecase, "task_failures_total", "kind", record["kind"], kinds, **labels)


def run_failed(context: Mapping[str, Any]) -> None:
    """Send the day of a failed run to the metrics: every DAG's `on_failure_callback`."""
    usecase, dag = parted(context["dag"].dag_id)
    metrics.send(usecase, "run_failed_timestamp_seconds", _due(context), dag=dag)


def run_succeeded(context: Mapping[str, Any]) -> None:
    """Send the day of a successful run to the metrics: every DAG's `on_success_callback`."""
    usecase, dag = parted(context["dag"].dag_id)
    metrics.send(usecase, "run_succeeded_timestamp_seconds", _due(context), dag=dag)


def _due(context: Mapping[str, Any]) -> float:
    """The day of a run, or the time when it was due, in seconds since 1970.

    Airflow omits the run from the context if the DAG no longer has the task that ended last.
    """
    run = context.get("dag_run")
    due = run.run_after if run else datetime.now(UTC)
    if run and run.partition_key:
        with suppress(BadData):  # not a date: its tasks have refused it
            due = midnight(run.partition_key)
    return float(due.timestamp())


def report_and_page(context: Mapping[str, Any]) -> None:
    """`report_failure`, and page every notifier: for the tasks that would otherwise do the paging.

    This is the last thing that a failed task does, so a notifier that is down is only logged.
    """
    report_failure(context)
    record = failure_record(context)
    usecase, dag = parted(record["dag_id"])
    what = f"{dag}.{record['task_id']} has failed for {record['partition']}"
    body = "\n\n".join(map(literal, record["message"].splitlines()))
    case = usecases.find(usecase)
    for one in pages(case, what, body, record["log_url"]):
        try:
            notify(case, one)
        except PipelineError as error:
            log.error("%s", error)


def failure_record(context: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a failed task from Airflow's context of its run."""
    instance = context["task_instance"]
    error = context.get("exception")
    return {
        "dag_id": instance.dag_id,
        "run_id": instance.run_id,
        "task_id": instance.task_id,
        "map_index": instance.map_index,
        "try_number": instance.try_number,
        "partition": context.get("partition_key"),
        "kind": kind_of(error) if isinstance(error, BaseException) else "killed",
        "error": type(error).__name__ if error else "unknown",
        "message": str(error or context.get("reason") or "") or repr(error),
        "log_url": getattr(instance, "log_url", None),
    }


def pages(case: UseCase, what: str, body: str, link: str | None = None) -> list[Page]:
    """Log one JSON record of a page, and return the page for each notifier.

    Args:
        what: one line, which becomes the title after the name of the use case.
        body: Markdown, at least one line.
        link: address of a page with details.

    Returns:
        One page per notifier in the setting `notify_urls`, for `notify`; empty if it is empty.
    """
    title, count = f"{case} {what}", len(_urls(case))
    record = {"title": title, "body": body, "link": link, "notifiers": count}
    log.warning("page %s", json.dumps(record))
    metrics.send(case.name, "pages_total")
    return [Page(place, title, body, link) for place in range(count)]


def check_notifiers(case: UseCase) -> None:
    """Check early that all notifiers are valid.

    Raises:
        BadData: names the invalid ones.
    """
    urls = enumerate(_urls(case))
    wrong = [_name(place, None, url) for place, url in urls if _open(url) is None]
    if wrong:
        raise BadData(_not_understood(case, wrong))


def notify(case: UseCase, page: Page) -> None:
    """Send a page to one notifier, once. A silent server times out by Apprise's limits.

    These are seconds per answer, set in the notifier's URL: `?cto=4&rto=4`.

    Raises:
        BadData: the notifier does not exist, or Apprise does not understand its URL.
        DependencyDown: it did not accept the message.
    """
    from apprise import NotifyFormat, NotifyType

    urls, place, link = _urls(case), page.place, page.link
    if place >= len(urls):
        raise BadData(
            f"There is no notifier {place}: {case.settings.where_set('notify_urls')} has been "
            f"changed since the page was requested, and names {len(urls)}. Clear the task that "
            "lists them, with downstream."
        )
    server = _open(urls[place])
    name = _name(place, server, urls[place])
    if server is None:
        raise BadData(_not_understood(case, [name]))
    with _kept_from_the_log() as complaints:
        taken = server.notify(
            body=f"{page.body}\n\n[{link}]({link})" if link else page.body,
            title=literal(page.title),  # for some services it is the first line of the Markdown
            body_format=NotifyFormat.MARKDOWN,
            notify_type=NotifyType.FAILURE,
        )
    if not taken:
        said = "; ".join(complaint.getMessage() for complaint in complaints)
        why = _without_secrets(said, urls[place]) or "no reason is known"
        raise DependencyDown(f"Notifier {name} did not accept the page {page.title!r}: {why}")
    log.info("Notifier %s accepted the page", name)


def _urls(case: UseCase) -> list[str]:
    return case.settings.notify_urls.get_secret_value().split()


def _open(url: str) -> "Apprise | None":
    """A notifier, not yet connected; None if Apprise does not understand its URL."""
    from apprise import Apprise

    server = Apprise()
    with _kept_from_the_log():
        return server if server.add(url) and len(server) == 1 else None


def _name(place: int, server: "Apprise | None", url: str) -> str:
    """Index, kind and masked host. Paths, users and options may be secrets and are left out."""
    if server is None:
        scheme, found, _ = url.partition("://")
        return f"{place} ({scheme}://...)" if found else f"{place} (no URL)"
    parts = urlsplit(server[0].url(privacy=True))
    return f"{place} ({parts.scheme}://{parts.netloc.rpartition('@')[2]})"


def _not_understood(case: UseCase, names: list[str]) -> str:
    return (
        f"Invalid URLs in {case.settings.where_set('notify_urls')}, counted from 0: "
        f"{', '.join(names)}. Each must be a URL in Apprise's format, percent-encoded, and "
        "separated by spaces."
    )


@contextmanager
def _kept_from_the_log() -> Iterator[list[logging.LogRecord]]:
    """Collect Apprise's complaints; it and urllib3 would log whole URLs, with their tokens."""
    collector = BufferingHandler(capacity=1000)
    library = logging.getLogger("apprise")
    before = library.propagate, logging.root.manager.disable
    library.propagate = False
    library.addHandler(collector)
    logging.disable(logging.INFO)
    try:
        yield collector.buffer
    finally:
        library.removeHandler(collector)
        library.propagate = before[0]
        logging.disable(before[1])


def _without_secrets(text: str, url: str) -> str:
    """A text without any part of the URL."""
    parts = {part for part in re.split(r"[/:@?&=+]+", url) if len(part) > 3}
    login = urlsplit(url)
    parts |= {part for part in (login.username, login.password) if part}
    for part in sorted(parts | {unquote(part) for part in parts}, key=len, reverse=True):
        text = text.replace(part, "****")
    return text
