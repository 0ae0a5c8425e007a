"""Destinations that could never work are refused when the DAGs are parsed."""

from typing import Any

import pytest

from include.destinations import DeltaTable, SqlTable
from include.usecase import Member, UseCase

MEMBERS = [Member("one", "registry")]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DeltaTable("not this"), "becomes part of paths, tasks"),
        (lambda: DeltaTable(source="features"), "not predictions or ensemble_predictions"),
        (lambda: DeltaTable(columns={"late": "score"}), "lacks 'day'"),
        (lambda: DeltaTable(columns={"day": "day"}, types={"late": "int32"}), "types has late"),
        (lambda: SqlTable("x", "", "scores"), "name the connection"),
        (lambda: SqlTable("x", "c", "scores; DROP TABLE y"), "not a name such as scores"),
        (lambda: SqlTable("x", "c", "s", columns={"late": "score"}), "or set merge=True"),
    ],
)
def test_a_declaration_that_could_never_work_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_destinations_of_a_use_case_have_names_of_their_own() -> None:
    with pytest.raises(ValueError, match="destinations has delta twice"):
        UseCase("a", ("2026-01-01", "2026-02-01"), MEMBERS, [DeltaTable(), DeltaTable()])
    with pytest.raises(ValueError, match="not a DeltaTable"):
        UseCase("a", ("2026-01-01", "2026-02-01"), MEMBERS, ["scores"])


def test_predictions_go_to_a_delta_table_unless_declared_otherwise() -> None:
    case = UseCase("a", ("2026-01-01", "2026-02-01"), MEMBERS)
    assert list(case.destinations) == [DeltaTable()]
