"""The queries of Grafana's boards, as Prometheus takes them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BOARDS = Path(__file__).resolve().parents[2] / "grafana" / "dashboards"
DURATIONS = {"__interval": "1m", "__rate_interval": "1m", "__range": "1d"}
"""What Grafana puts for its own variables; a board's variables are set to all values."""


def boards() -> list[dict[str, Any]]:
    """All boards, by the names of their files."""
    return [json.loads(path.read_text()) for path in sorted(BOARDS.glob("*.json"))]


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The panels of a board, also those of rows that are folded; rows are none."""
    for panel in board["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def panel_queries() -> list[tuple[str, str, str]]:
    """Every query: the board's uid, the panel's title, and the expression without variables."""
    return [
        (board["uid"], panel["title"], without_variables(target["expr"]))
        for board in boards()
        for panel in panels(board)
        for target in panel["targets"]
    ]


def without_variables(expression: str) -> str:
    """An expression with a duration, or a regular expression for all, in place of each variable."""
    return re.sub(
        r"\$\{?(\w+)(?::\w+)?\}?", lambda found: DURATIONS.get(found[1], ".+"), expression
    )


def without_fallback(expression: str) -> str:
    """A query without what it shows where there is nothing to show."""
    return re.sub(r" or (on\(\) (label_replace\()?)?vector\(0\).*$", "", expression)
