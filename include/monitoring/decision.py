"""Stores the decision about a day beside its report."""

import json
from dataclasses import asdict

from include.lake.files import put_text, read_json
from include.messages import Action, Decision
from include.usecase import UseCase

ACTIONS: list[Action] = ["healthy", "watch", "retrain", "page"]
"""The position is the decision's value in the history; higher is more severe."""

PAGE = ACTIONS.index("page")
TABLE = "reports"


def keep(case: UseCase, decision: Decision) -> None:
    """Store a decision for `read`: the history has its figures, but not its words."""
    path = case.lake.partition_path(TABLE, decision.key) / "decision.json"
    put_text(path, json.dumps(asdict(decision), indent=1))


def read(case: UseCase, key: str) -> Decision:
    """The decision about a day.

    Raises:
        FileNotFoundError: there is none.
        BadData: the file is damaged.
    """
    return read_json(case.lake.partition_path(TABLE, key) / "decision.json", Decision)
