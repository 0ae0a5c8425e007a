"""What passes between tasks: dataclasses in their signatures, plain JSON in the XCom."""

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, get_type_hints, overload

import numpy as np
import pytest
from airflow.sdk.exceptions import AirflowSkipException
from hypothesis import given
from hypothesis import strategies as st

from include import messages
from include.errors import Overtaken
from include.messages import Chunk, Evaluated, ModelVersion, RollCall
from include.orchestration import alerting
from include.orchestration.retries import RetryByKind
from include.orchestration.tasks import TASK_DEFAULTS, skips_if_overtaken, typed
from tests.conftest import FLIGHTS
from tests.unit.helpers import run_python

KINDS = [kind for kind in vars(messages).values() if hasattr(kind, "__dataclass_fields__")]


JSON = st.dictionaries(st.text(), st.text() | st.integers(-(2**53), 2**53) | st.booleans())
"""What a source says of its rows, which may be any plain JSON."""


class Lazy(Sequence[Any]):
    """The results of a mapped task, as Airflow passes them: no list, and read one by one."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Any]: ...
    def __getitem__(self, place: int | slice) -> Any:
        return self.values[place]


@given(st.data())
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_message_comes_out_of_an_xcom_as_it_went_in(kind: Any, data: st.DataObject) -> None:
    own = {"origin": JSON} if "origin" in kind.__dataclass_fields__ else {}
    message = data.draw(st.builds(kind, **own))

    @typed
    def give() -> kind:
        return message

    @typed
    def take(message: kind) -> str:
        return repr(message)

    assert take(json.loads(json.dumps(give()))) == repr(message)


def test_the_results_of_mapped_tasks_are_taken_as_a_list() -> None:
    @typed
    def names(models: list[ModelVersion]) -> list[str]:
        return [model.name for model in models]

    assert names(Lazy([{"name": "a", "version": "1", "run_id": "r"}])) == ["a"]


def test_a_message_in_a_message_is_one_too() -> None:
    @typed
    def absent(roll: RollCall) -> str | None:
        return roll.champion.version if roll.champion else None

    told = {"champion": None, "answers": {}, "absent": {}, "lacking": ""}
    assert absent(told) is None
    assert absent(told | {"champion": {"name": "a", "version": "7", "run_id": "r"}}) == "7"


def test_what_a_newer_release_adds_is_ignored() -> None:
    @typed
    def take(member: Evaluated) -> str:
        return member.candidate

    assert take({"candidate": "a", "run_id": "r", "evaluation": "e", "new": 1}) == "a"


def test_a_message_of_another_kind_names_what_is_missing() -> None:
    @typed
    def take(chunk: Chunk) -> None: ...

    with pytest.raises(ValueError, match="missing required field `model`"):
        take({"features": "f"})


def test_what_airflow_gives_is_passed_unchanged() -> None:
    context = object()

    @typed
    def take(model: ModelVersion, *, ti: Any = None, run_id: str | None = None) -> bool:
        return ti is context and run_id == "r" and isinstance(model, ModelVersion)

    assert take({"name": "a", "version": "1", "run_id": "r"}, ti=context, run_id="r")


def test_a_number_of_numpy_is_one_in_the_xcom_and_what_json_cannot_hold_is_named() -> None:
    @typed
    def give(value: Any) -> Any:
        return value

    assert json.dumps(give(np.float64(0.5))) == "0.5"
    with pytest.raises(TypeError, match="a task returns a complex, which JSON cannot hold"):
        give(1j)


def test_airflow_makes_no_xcoms_of_the_keys_of_a_result() -> None:
    @typed
    def counts() -> dict[str, int]:
        return {"a": 1}

    assert get_type_hints(counts)["return"] is Any


def test_the_owner_and_the_retries_of_tasks_are_settings(
    tmp_path: Path, configure: Callable[..., None]
) -> None:
    configure(owner="ana", retries=9, retry_base_seconds=8, retry_max_seconds=70)
    program = (
        "from include.orchestration.tasks import TASK_DEFAULTS as found\n"
        "delays = found['retry_delay'].seconds, found['max_retry_delay'].seconds\n"
        "print(found['owner'], found['retries'], *delays)"
    )
    done = run_python(FLIGHTS, tmp_path, "-c", program)
    assert done.stdout.splitlines()[-1] == "ana 9 8 70", done.stderr


def test_every_task_has_retries_by_kind_a_time_limit_and_an_alert() -> None:
    assert isinstance(TASK_DEFAULTS["retry_policy"], RetryByKind)
    assert TASK_DEFAULTS["on_failure_callback"] is alerting.report_failure
    assert TASK_DEFAULTS["execution_timeout"] > timedelta(0)


def test_a_task_that_was_overtaken_is_skipped_and_says_why() -> None:
    @skips_if_overtaken
    def publish(rows: int) -> int:
        if rows:
            return rows
        raise Overtaken("2013-03-01 is not published")

    assert publish(3) == 3
    with pytest.raises(AirflowSkipException, match="2013-03-01 is not published"):
        publish(0)
