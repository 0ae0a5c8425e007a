"""What was decided about a day, and where that is kept: beside the day's report."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from include.lake.lake import Lake, put_text, read_json

Action = Literal["healthy", "watch", "retrain", "page"]
ACTIONS: list[Action] = ["healthy", "watch", "retrain", "page"]
"""The position is the decision's value in the history: the higher, the graver."""

DATA_RULES = ("features", "published")
"""Rules that call a person for the data's sake: no model is to be trained on them."""

TABLE = "reports"


@dataclass(frozen=True)
class Reason:
    """One rule's answer.

    Attributes:
        rule: its name.
        action: what it asks for; `healthy` if it is content.
        found: the figure, in words.
        bound: what it was held to, in words.
    """

    rule: str
    action: Action
    found: str
    bound: str


@dataclass(frozen=True)
class Decision:
    """What is to be done, and why.

    Attributes:
        key: the day.
        action: the gravest of what the rules ask for.
        reasons: every rule's answer, the gravest first.
    """

    key: str
    action: Action
    reasons: list[Reason]

    @property
    def why(self) -> str:
        """The reasons of the decision in one line."""
        return self._told(self.action)

    @property
    def retrain_for(self) -> str:
        """Why the model is to be trained anew, in one line; empty if it is not.

        It may be so while a person is called, but for a fault of the data.
        """
        faults = [one for one in self.reasons if one.action == "page" and one.rule in DATA_RULES]
        return "" if faults else self._told("retrain")

    @property
    def in_a_sentence(self) -> str:
        """The same for a person, who may have nothing to do."""
        if not self.reasons:
            return "No rule had anything to judge."
        if self.action == "healthy":
            return f"All {len(self.reasons)} rules are content."
        return f"{self.why}."

    def _told(self, action: Action) -> str:
        asking = [one for one in self.reasons if one.action == action]
        return "; ".join(f"{one.rule}: {one.found}" if one.found else one.rule for one in asking)


def as_decision(found: dict[str, Any]) -> Decision:
    """A decision from its `asdict`, as it travels in XComs."""
    return Decision(found["key"], found["action"], [Reason(**one) for one in found["reasons"]])


def keep(lake: Lake, decision: Decision) -> None:
    """Write a decision where `read` finds it: the history knows its figures, not its words."""
    path = lake.partition_path(TABLE, decision.key) / "decision.json"
    put_text(path, json.dumps(asdict(decision), indent=1))


def read(lake: Lake, key: str) -> Decision:
    """What was decided about a day.

    Raises:
        FileNotFoundError: nothing was.
        BadData: the file is damaged.
    """
    return read_json(lake.partition_path(TABLE, key) / "decision.json", Decision)
