"""What the page of models is drawn from, and the page, of which each picture is well-formed XML."""

import re
from datetime import date, timedelta
from xml.etree import ElementTree

from include.lake.tables import Lake
from include.messages import Decision, Reason
from include.monitoring import decision as decisions
from include.monitoring import history, policy
from include.monitoring.history import Figure
from include.monitoring.page.health import Health
from include.monitoring.page.health_page import Approval, render
from tests.case import CASE, at
from tests.unit.conftest import OLD_DAY


def page(found: Health, approvals: list[Approval] | None = None) -> str:
    html = render(CASE, found, approvals, nonce="x")
    for picture in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        ElementTree.fromstring(picture)
    return html


def days(last: str, count: int) -> list[str]:
    return [str(date.fromisoformat(last) - timedelta(back)) for back in reversed(range(count))]


def remember(lake: Lake, last: str = OLD_DAY, count: int = 30, feature: str = "distance") -> None:
    """A history: the model decays and is replaced five days before its end."""
    for number, key in enumerate(days(last, count)):
        version = "2" if number >= count - 5 else "1"
        about = {"model": "champion", "slice": "all"}
        loss = 0.4 + 0.003 * number
        drift = {"feature": feature, "kind": "stable", "reference": "trailing", "days": "1"}
        figures = [
            Figure("outcomes", "log_loss", loss, 900, version, about),
            Figure("outcomes", "base_log_loss", 0.5, 900, version, about),
            Figure("drift", "psi", 0.9 if key == last else 0.01, 900, "", drift),
        ]
        history.append(at(lake), key, figures)


def decide(lake: Lake, key: str = OLD_DAY, words: bool = True) -> Decision:
    rules = [Reason("age", "retrain", "63 days old", "≤ 28"), Reason("truth", "healthy", "", "")]
    found = Decision(key, "retrain", rules)
    history.append(at(lake), key, policy.figures(found))
    if words:
        decisions.keep(at(lake), found)
    return found
