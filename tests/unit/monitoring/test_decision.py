"""A decision is kept in words beside its day's report, and read as it was kept or refused."""

import re
from pathlib import Path

import pytest

from include.errors import BadData
from include.lake.files import put_text, read_text
from include.lake.tables import Lake
from include.messages import Decision, Reason
from include.monitoring import decision
from tests.case import at
from tests.unit.helpers import damaged

KEY = "2013-03-01"
FOUND = Decision(KEY, "watch", [Reason("scores", "watch", "PSI “0.3” größer", "≤ 0.2")])


def test_a_decision_is_read_as_it_was_stored_and_the_last_one_counts(root: str) -> None:
    case = at(Lake(root))
    decision.keep(case, Decision(KEY, "healthy", []))
    decision.keep(case, FOUND)
    assert decision.read(case, KEY) == FOUND


def test_a_day_without_a_decision_has_none_to_read(root: str) -> None:
    with pytest.raises(FileNotFoundError):
        decision.read(at(Lake(root)), KEY)


def test_a_damaged_decision_is_refused_by_its_path(tmp_path: Path) -> None:
    case = at(Lake(str(tmp_path)))
    decision.keep(case, FOUND)
    path = case.lake.partition_path(decision.TABLE, KEY) / "decision.json"
    for content in damaged(read_text(path)):
        put_text(path, content)
        with pytest.raises(BadData, match=re.escape(str(path))):
            decision.read(case, KEY)
