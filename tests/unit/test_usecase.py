"""A use case that lacks a piece or declares what cannot work is refused with a message."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandera.polars
import polars as pl
import pytest

from include.usecase import MODULES, Input, Member, UseCase, UsecaseInvalid, check_pieces
from tests.unit.helpers import edit

REPO = Path(__file__).resolve().parents[2]

PIECES = [
    ("__init__", "USECASE"),
    *((module, name) for module, protocol in MODULES.items() for name in protocol.__annotations__),
]
each_piece = pytest.mark.parametrize(("module", "name"), PIECES, ids=str)


@each_piece
def test_a_piece_that_is_missing_is_named(module: str, name: str, copy: Path) -> None:
    file = copy / f"{module}.py"
    file.write_text(re.sub(rf"\b{name}\b", "something_else", file.read_text()))
    with pytest.raises(UsecaseInvalid, match=rf"lacks {name} in {file.name}\. It has no DAGs"):
        check_pieces(copy)


def test_all_that_is_missing_is_named_at_once(copy: Path) -> None:
    (copy / "source.py").unlink()
    edit(copy / "features.py", "SEASONAL", "IN_SEASON")
    with pytest.raises(UsecaseInvalid) as error:
        check_pieces(copy)
    assert (
        "lacks the file source.py, SEASONAL in features.py. It has no DAGs until this is fixed."
        in str(error.value)
    )
    assert "docs/fork.md" in str(error.value)


ROWS = [rf"`{module}\.py` \| `{name}" for module, name in PIECES[1:]] + [
    f"`{field.name}" for field in fields(UseCase)
]


@pytest.mark.parametrize("row", ROWS)
def test_the_way_to_a_fork_says_what_a_piece_is(row: str) -> None:
    text = (REPO / "docs" / "fork.md").read_text()
    assert re.search(rf"^\| {row}\b", text, flags=re.MULTILINE)


# --- what a use case declares ---------------------------------------------------------------------

TREES = Member("trees", "registry")


@pytest.mark.parametrize(
    "name",
    ["", "Late", "late-payments", "late payments", "late.payments", "2late", "_late", "late_",
     "late__payments", "späte", "late/x", "../x", "late\n", 7, None],
)  # fmt: skip
def test_a_name_that_cannot_be_everywhere_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be called .* lower-case letters, digits and"):
        UseCase(name, ("2026-01-01", "2026-02-28"), [TREES])


@pytest.mark.parametrize("window", [("2026-01-01", "1 May"), ("2026-01-01",), "2026", None])
def test_a_window_is_two_dates(window: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=r"first_window is .* must be two dates"):
        UseCase("late", window, [TREES])


def test_a_window_ends_after_it_begins() -> None:
    with pytest.raises(ValueError, match="first_window ends on 2026-01-01, before it begins"):
        UseCase("late", ("2026-02-28", "2026-01-01"), [TREES])


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([], "late has no members"),
        (["trees"], "members has 'trees', which is not a Member"),
        ([TREES, Member("b", "registry"), TREES], "members has trees twice"),
    ],
)
def test_members_are_some_and_different(members: list[Member], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        UseCase("late", ("2026-01-01", "2026-02-28"), members)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"kind": "registry", "weight": -1}, "weight is -1, not a number from 0 to"),
        ({"kind": "registry", "weight": float("nan")}, "weight is nan"),
        ({"kind": "registry", "minutes": "30"}, "minutes is '30', not a number"),
        ({"kind": "registry", "retries": -1}, "retries is -1"),
        ({"kind": "registry", "retries": 1.5}, "retries is 1.5, not a whole number from 0 to 100"),
        ({"kind": "registry", "retries": True}, "retries is True"),
        ({"kind": "registry", "weight": True}, "weight is True"),
        ({"kind": "registry", "slots": 0}, "slots is 0"),
        ({"kind": "local"}, "its kind is 'local', not registry or remote"),
        ({"kind": "registry", "name": "publish"}, "cannot be called publish"),
        ({"kind": "registry", "name": "a" * 65}, "64 at most"),
        ({"kind": "remote", "model": "x"}, "name its connection"),
    ],
)
def test_a_member_that_could_never_work_is_refused_when_it_is_declared(
    wrong: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        Member(**({"name": "a"} | wrong))


@pytest.mark.parametrize(
    "wrong",
    [{"validated_at": "6:00"}, {"monitored_at": "24:00"}, {"validated_at": None},
     {"truth_delay_days": 0}, {"truth_delay_days": 61}, {"truth_delay_days": True},
     {"truth_delay_days": "1"}],
)  # fmt: skip
def test_a_time_that_no_day_has_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is "):
        UseCase("late", ("2026-01-01", "2026-02-28"), [TREES], **wrong)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (
            {"event_time": "time"},
            ["time", "Datetime", "a datetime with a time zone", "replace_time_zone"],
        ),
        ({"event_time": "day"}, ["event_time names day", "not a column"]),
        ({"event_time": "id"}, ["event_time names id", "Int64"]),
        ({"max_null_rate": {"price": 0.1}}, ["max_null_rate names price", "id, time"]),
        ({"max_text_bytes": {"note": 9}}, ["max_text_bytes names note", "id, time"]),
    ],
)
def test_a_contract_that_could_never_be_checked_is_refused_when_it_is_declared(
    declared: dict[str, Any], words: list[str]
) -> None:
    columns = {"id": pandera.polars.Column(pl.Int64), "time": pandera.polars.Column(pl.Datetime)}
    schema = pandera.polars.DataFrameSchema(columns)
    with pytest.raises(ValueError, match="input readings: ") as failure:
        Input("readings", schema, ["id"], lambda day: pl.lit(True), **declared)
    assert [word for word in words if word not in str(failure.value)] == []
