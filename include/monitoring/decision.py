"""What was decided about a day, and where that is kept: beside the day's report."""

import json
from dataclasses import asdict

from include.lake.files import put_text, read_json
from include.messages import Action, Decision
from include.usecase import UseCase

ACTIONS: list[Action] = ["healthy", "watch", "retrain", "page"]
"""The position is the decision's value in the history: the higher, the graver."""

PAGE = ACTIONS.index("page")
TABLE = "reports"


def keep(case: UseCase, decision: Decision) -> None:
    """Write a decision where `read` finds it: the history knows its figures, not its words."""
    path = case.lake.partition_path(TABLE, decision.key) / "decision.json"
    put_text(path, json.dumps(asdict(decision), indent=1))


def read(case: UseCase, key: str) -> Decision:
    """What was decided about a day.

    Raises:
        FileNotFoundError: nothing was.
        BadData: the file is damaged.
    """
    return read_json(case.lake.partition_path(TABLE, key) / "decision.json", Decision)
