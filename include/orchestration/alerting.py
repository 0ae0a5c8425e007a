"""Who is told what: a record of every failed task in the log, and pages to the notifiers.

A page is tried for each notifier by a task of its own, so that one that is down delays no other,
and a retry reaches only those that have not got it.
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
from include.partitions import midnight
from include.usecase import UseCase
from include.wording import literal

if TYPE_CHECKING:
    from apprise import Apprise

log = logging.getLogger(__name__)


def report_failure(context: Mapping[str, Any]) -> None:
    """Log one JSON record of a failed task: what failed, for which partition, and of what kind.

    It is every task's `on_failure_callback`, so it runs once, after the last try.
    """
    record = failure_record(context)
    log.error("task_failed %s", json.dumps(record))
    usecase, dag = parted(record["dag_id"])
    labels = {"dag": dag, "task": record["task_id"]}
    kinds = get_args(Kind)
    metrics.count_one(usecase, "task_failures_total", "kind", record["kind"], kinds, **labels)


def run_failed(context: Mapping[str, Any]) -> None:
    """Tell the metrics for when a run has failed: every DAG's `on_failure_callback`."""
    usecase, dag = parted(context["dag"].dag_id)
    metrics.send(usecase, "run_failed_timestamp_seconds", _due(context), dag=dag)


def run_succeeded(context: Mapping[str, Any]) -> None:
    """Tell the metrics for when a run has succeeded: every DAG's `on_success_callback`."""
    usecase, dag = parted(context["dag"].dag_id)
    metrics.send(usecase, "run_succeeded_timestamp_seconds", _due(context), dag=dag)


def parted(dag_id: str) -> tuple[str, str]:
    """The use case and the pipeline of a DAG."""
    usecase, _, pipeline = dag_id.rpartition(".")
    return usecase, pipeline


def _due(context: Mapping[str, Any]) -> float:
    """The day that a run was for, or when it was due, in seconds since 1970.

    Airflow leaves the run out of the context if the DAG has lost the task that ended last.
    """
    run = context.get("dag_run")
    due = run.run_after if run else datetime.now(UTC)
    if run and run.partition_key:
        with suppress(BadData):  # no date: its tasks have refused it
            due = midnight(run.partition_key)
    return float(due.timestamp())


def report_and_call(context: Mapping[str, Any]) -> None:
    """`report_failure`, and tell every notifier at once: for tasks without which nobody is called.

    It is the last thing a failed task does, so a notifier that is down is only logged.
    """
    report_failure(context)
    record = failure_record(context)
    title = f"{record['dag_id']}.{record['task_id']} has failed for {record['partition']}"
    body = "\n\n".join(map(literal, record["message"].splitlines()))
    case = usecases.find(parted(record["dag_id"])[0])
    for place in page(case, title, body, record["log_url"]):
        try:
            notify(case, place, title, body, record["log_url"])
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


def page(case: UseCase, title: str, body: str, link: str | None = None) -> list[int]:
    """Log one JSON record of what a person has to see, and say which notifiers are to tell it.

    Args:
        title: one line.
        body: Markdown, of one line or more.
        link: address of a page with more.

    Returns:
        The places of the notifiers in the setting `notify_urls`, for `notify`; none if it is empty.
    """
    count = len(_urls(case))
    record = {"title": title, "body": body, "link": link, "notifiers": count}
    log.warning("page %s", json.dumps(record))
    metrics.send(case.name, "pages_total")
    return list(range(count))


def check_notifiers(case: UseCase) -> None:
    """Say early which of the notifiers could never take a page.

    Raises:
        BadData: naming them.
    """
    urls = enumerate(_urls(case))
    wrong = [_name(place, None, url) for place, url in urls if _open(url) is None]
    if wrong:
        raise BadData(_not_understood(wrong))


def notify(case: UseCase, place: int, title: str, body: str, link: str | None = None) -> None:
    """Tell one notifier, once. A server that says nothing is left after Apprise's time limits.

    They are seconds for each answer, in the notifier's URL: `?cto=4&rto=4`.

    Args:
        place: which one, as `page` has returned it.
        title: one line of text.
        body: Markdown, of one line or more.
        link: address of a page with more.

    Raises:
        BadData: there is no such notifier, or Apprise does not understand its URL.
        DependencyDown: it has not taken the message.
    """
    from apprise import NotifyFormat, NotifyType

    urls = _urls(case)
    if place >= len(urls):
        raise BadData(
            f"There is no notifier {place}: ML_NOTIFY_URLS has been changed since the page was "
            f"requested, and names {len(urls)}. Clear the task that lists them, and what follows."
        )
    server = _open(urls[place])
    name = _name(place, server, urls[place])
    if server is None:
        raise BadData(_not_understood([name]))
    with _kept_from_the_log() as complaints:
        taken = server.notify(
            body=f"{body}\n\n[{link}]({link})" if link else body,
            title=literal(title),  # for some services it is the first line of the Markdown
            body_format=NotifyFormat.MARKDOWN,
            notify_type=NotifyType.FAILURE,
        )
    if not taken:
        said = "; ".join(complaint.getMessage() for complaint in complaints)
        why = _without_secrets(said, urls[place]) or "no reason is known"
        raise DependencyDown(f"Notifier {name} has not taken the page {title!r}: {why}")
    log.info("Notifier %s has taken the page", name)


def _urls(case: UseCase) -> list[str]:
    return case.settings.notify_urls.get_secret_value().split()


def _open(url: str) -> "Apprise | None":
    """A notifier, not yet connected; None if its URL is not understood."""
    from apprise import Apprise

    server = Apprise()
    with _kept_from_the_log():
        return server if server.add(url) and len(server) == 1 else None


def _name(place: int, server: "Apprise | None", url: str) -> str:
    """Place, kind and masked host. Paths, users and options may be secrets: they are left out."""
    if server is None:
        scheme, found, _ = url.partition("://")
        return f"{place} ({scheme}://...)" if found else f"{place} (no URL)"
    parts = urlsplit(server[0].url(privacy=True))
    return f"{place} ({parts.scheme}://{parts.netloc.rpartition('@')[2]})"


def _not_understood(names: list[str]) -> str:
    return (
        f"Not understood, in ML_NOTIFY_URLS, counted from 0: {', '.join(names)}. Each has to be a "
        "URL as Apprise describes them, percent-encoded, with spaces between."
    )


@contextmanager
def _kept_from_the_log() -> Iterator[list[logging.LogRecord]]:
    """Collect what Apprise complains of; it and urllib3 would log whole URLs, with their tokens."""
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
    """A text without anything that the URL says."""
    parts = {part for part in re.split(r"[/:@?&=+]+", url) if len(part) > 3}
    login = urlsplit(url)
    parts |= {part for part in (login.username, login.password) if part}
    for part in sorted(parts | {unquote(part) for part in parts}, key=len, reverse=True):
        text = text.replace(part, "****")
    return text
