"""A small client of Airflow's REST API: the demo, the tests and the benchmarks drive it with it."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

import httpx
from tenacity import (
    Retrying,
    retry_if_exception,
    retry_if_result,
    stop_after_attempt,
    stop_after_delay,
    stop_all,
    wait_exponential_jitter,
)

from include.masking import masked
from include.wording import cut

FINISHED = {"success", "failed"}
REPEAT_SECONDS, REPEATS = 30, 3
"""How long the API may have faults before one is an error, and how often, be each a long wait."""

Found = TypeVar("Found")
Json = dict[str, Any]


class EmbeddedError(Exception):
    """Something a person has to know; the message says it all, no traceback is needed."""


@dataclass
class Airflow:
    """A running Airflow, driven over its REST API; dictionaries are as that API answers them.

    Attributes:
        data: folder of an embedded one.
        login: user and password, where not everyone is admin.
    """

    url: str
    data: Path
    login: tuple[str, str] | None = None
    _http: httpx.Client = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # A proxy in the environment is not wanted.
        self._http = httpx.Client(base_url=self.url, timeout=60, trust_env=False)
        if self.login is not None:
            user = dict(zip(("username", "password"), self.login, strict=True))
            token = self._http.post("/auth/token", json=user).raise_for_status().json()
            self._http.headers["Authorization"] = f"Bearer {token['access_token']}"

    def request(self, method: str, path: str, **kwargs: Any) -> Any:
        """Call `/api/v2<path>` and return its JSON; an error answer is one clear line.

        A request that the server could not answer is sent again for half a minute, if that does
        nothing twice: it may be repeated, or the database was locked and nothing was done.
        """
        repeatable = method != "POST"

        def is_fault(answer: httpx.Response) -> bool:
            return answer.is_server_error and (repeatable or "Database error" in answer.text)

        def was_cut_off(error: BaseException) -> bool:
            lost = httpx.RemoteProtocolError | httpx.ReadError | httpx.ReadTimeout
            return repeatable and isinstance(error, lost)

        ask = Retrying(
            retry=retry_if_result(is_fault) | retry_if_exception(was_cut_off),
            wait=wait_exponential_jitter(multiplier=0.2, max=5, jitter=0.2),
            stop=stop_all(stop_after_delay(REPEAT_SECONDS), stop_after_attempt(REPEATS)),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        try:
            answer = ask(self._http.request, method, f"/api/v2{path}", **kwargs)
        except httpx.HTTPError as error:
            said = self._masked(repr(error))
            raise EmbeddedError(f"Airflow at {self.url} does not answer: {said}") from error
        if answer.is_error:
            said = cut(self._masked(answer.text), 500)
            raise EmbeddedError(f"{method} {path}: {answer.status_code} {said}")
        return answer.json() if answer.content else None

    def _masked(self, text: str) -> str:
        """A text without the password and the token, which a server may repeat."""
        token = self._http.headers.get("Authorization", "").removeprefix("Bearer ")
        return masked(text, [token, *(self.login or ())[1:]], self.login)

    def page(self, path: str) -> str:
        """A page of the UI that is rendered on the server, as HTML."""
        return self._http.get(path).raise_for_status().text

    def health(self) -> Json:
        """Status and latest heartbeat of each component."""
        health: Json = self.request("GET", "/monitor/health")
        return health

    def dags(self) -> list[Json]:
        """All DAGs that are there now."""
        return self._all("/dags", "dags")

    def import_errors(self) -> list[Json]:
        """DAG files that cannot be imported: `filename` and `stack_trace`."""
        return self._all("/importErrors", "import_errors")

    def unpause(self, dag_id: str) -> None:
        """Let a DAG run; new DAGs are paused."""
        self.request("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def pause(self, dag_id: str) -> None:
        """Start no more runs of a DAG."""
        self.request("PATCH", f"/dags/{dag_id}", json={"is_paused": True})

    def trigger(
        self,
        dag_id: str,
        conf: Json | None = None,
        partition_key: str | None = None,
        run_id: str | None = None,
    ) -> str:
        """Start a run, of one partition if a key is given, and return its run id."""
        run_id = run_id or f"manual__{_now()}_{token_hex(4)}"
        body = {
            "dag_run_id": run_id,
            "logical_date": None,
            "conf": conf or {},
            "partition_key": partition_key,
        }
        try:
            self.request("POST", f"/dags/{dag_id}/dagRuns", json=body)
        except EmbeddedError:
            # If the answer was lost or an error, the run may exist: its id is unique.
            if all(run["dag_run_id"] != run_id for run in self.runs(dag_id)):
                raise
        return run_id

    def runs(self, dag_id: str = "~", **filters: Any) -> list[Json]:
        """Runs of a DAG (or of all), oldest first, with `state` and `partition_key`."""
        return self._all(f"/dags/{dag_id}/dagRuns", "dag_runs", **filters)

    def task_instances(self, dag_id: str, run_id: str) -> list[Json]:
        """Task instances of a run, mapped ones each for itself."""
        return self._all(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", "task_instances")

    def log(
        self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1
    ) -> str:
        """Log of one try of a task: a line for each event, and for each exception."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        answer = self.request("GET", path, params={"map_index": map_index, "full_content": True})
        lines = []
        for entry in answer["content"]:
            lines.append(entry["event"])
            lines += [f"{e['exc_type']}: {e['exc_value']}" for e in entry.get("error_detail") or []]
        return "\n".join(lines)

    def why_failed(self, dag_id: str, run_id: str) -> str:
        """The message of the first failed task of a run, from its log; empty if it has none."""
        for task in self.task_instances(dag_id, run_id):
            if task["state"] == "failed":
                place = (task["task_id"], task["try_number"], task["map_index"])
                for line in self.log(dag_id, run_id, *place).splitlines():
                    if line.startswith("task_failed "):
                        return str(json.loads(line.removeprefix("task_failed "))["message"])
        return ""

    def xcom(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """What a task returned."""
        task = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        entry = self.request("GET", f"{task}/xcomEntries/return_value")
        return entry["value"]

    def waiting_approvals(self, dag_id: str, run_id: str) -> list[Json]:
        """Unanswered questions of a run: `subject`, `body`, `options`."""
        found = self._all(f"/dags/{dag_id}/dagRuns/{run_id}/hitlDetails", "hitl_details")
        return [question for question in found if not question["response_received"]]

    def answer(self, dag_id: str, run_id: str, task_id: str, option: str) -> None:
        """Answer a task that waits for a person, as the form in the UI does."""
        task = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/-1"
        body = {"chosen_options": [option], "params_input": {}}
        self.request("PATCH", f"{task}/hitlDetails", json=body)

    def clear(self, dag_id: str, run_id: str, only_failed: bool = False) -> None:
        """Run the tasks of a run again, all or those that failed."""
        body = {"dry_run": False, "only_failed": only_failed}
        self.request("POST", f"/dags/{dag_id}/dagRuns/{run_id}/clear", json=body)

    def forget(self, dag_id: str, run_id: str) -> None:
        """Delete a run, if there is one."""
        if any(run["dag_run_id"] == run_id for run in self.runs(dag_id)):
            self.request("DELETE", f"/dags/{dag_id}/dagRuns/{run_id}")

    def wait(self, dag_id: str, run_id: str, timeout: float = 300) -> str:
        """Wait until a run has ended and return its state."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}"
        try:
            run = poll(lambda: _ended(self.request("GET", path)), timeout)
        except TimeoutError:
            state = self.request("GET", path)["state"]
            raise EmbeddedError(
                f"{run_id} of {dag_id} is still {state} after {timeout:.0f} s: see "
                f"{self.url}/dags/{dag_id}/runs"
            ) from None
        return str(run["state"])

    def wait_partition(
        self, dag_id: str, partition_key: str, timeout: float = 300, known: int = 0
    ) -> Json:
        """Wait until a partition has more runs than known and the newest has ended; return that."""

        def newest() -> Json | None:
            runs = self.runs(dag_id, partition_key_pattern=partition_key)
            return _ended(runs[-1]) if len(runs) > known else None

        try:
            return poll(newest, timeout)
        except TimeoutError:
            raise EmbeddedError(
                f"{dag_id} has no finished run of {partition_key} after {timeout:.0f} s"
            ) from None

    def _all(self, path: str, key: str, **params: Any) -> list[Json]:
        items: list[Json] = []
        while True:
            page = self.request("GET", path, params={"limit": 100, "offset": len(items), **params})
            items += page[key]
            if not page[key] or len(items) >= page["total_entries"]:
                return items


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _ended(run: Json) -> Json | None:
    return run if run["state"] in FINISHED else None


def poll(look: Callable[[], Found | None], timeout: float, every: float = 0.5) -> Found:
    """Look until there is something; TimeoutError if there is nothing after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(every)
    return found
