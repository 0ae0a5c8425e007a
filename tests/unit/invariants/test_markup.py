"""Text from data, models and people is shown as text: no page and no message takes it for more."""

import re
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import markdown
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from include.lake.tables import Lake
from include.messages import Decision, Reason, RowCheck
from include.monitoring import policy
from include.monitoring.page import health
from include.monitoring.page.health_page import Approval, render
from include.registry import registry
from include.validation import report
from include.wording import literal
from tests.case import CASE

HOSTILE = [
    "![x](http://evil.example/x.png)",
    "[click](javascript:alert(1))",
    "<img src=x onerror=alert(1)>",
    "`code` <script>alert(1)</script>",
    "see http://evil.example or www.evil.example, me@evil.example",
    "a | b | ![x][y]\n\n[y]: http://evil.example",
    "``![x](http://evil.example/x.png)``",
    "\\`![x](http://evil.example/x.png)",
    "&#60;img src=x&#62;",
    "# title\n\n- item\n1. item\n> quote\n\n---\n**bold** _it_ ~~no~~",
    "{{ var.value.x }} {% raw %}",
]
PLAIN = ["skill 0.012 (0.001 to 0.020 in 90 %)", "dep_hour: PSI ≤ 0.2", "größe, x=1; y", "✓ 0.138"]
STRUCTURE = re.compile(r"<(?!/?(p|code|table|thead|tbody|tr|th|td)\b)[a-z!/]")
"""A tag that no text of ours and no table makes."""

text = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.sampled_from("[]()!<>`\\|*_~#&;:/.@ahtpw\n -+1x"), max_size=40),
)


def rendered(source: str) -> list[str]:
    """What Airflow's dialect (CommonMark with GitHub's tables) and that of e-mails make of it."""
    github = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return [github.render(source), markdown.markdown(source, extensions=["tables"])]


@given(text)
@example(HOSTILE[5])
def test_no_text_becomes_a_link_a_picture_or_a_tag(found: str) -> None:
    for html in rendered(f"Why: {literal(found)}"):
        assert not STRUCTURE.search(html), html


@given(text, text)
def test_no_text_leaves_its_cell_of_a_table(found: str, bound: str) -> None:
    decision = Decision("2013-03-01", "page", [Reason("features", "page", found, bound)])
    github, _ = rendered(policy.table(decision).partition("\n\n")[2])
    assert not STRUCTURE.search(github), github
    assert github.count("<tr>") == 2
    assert github.count("<td>") == 4


@pytest.mark.parametrize("plain", PLAIN)
def test_plain_text_is_unchanged(plain: str) -> None:
    assert literal(plain) == plain


@given(text)
def test_nothing_but_backticks_and_line_breaks_is_lost(found: str) -> None:
    shown = literal(found).strip("`").replace("\\|", "|")
    assert shown == " ".join(found.split()).replace("`", "'").replace("\\|", "|")


# --- pages ----------------------------------------------------------------------------------------


def written(value: Any, text: str) -> Any:
    """A value with this text wherever it holds one, but for what the library chooses itself."""
    if is_dataclass(value) and not isinstance(value, type):
        kept = {"action", "key", "how", "last_day"}
        found = {field.name: getattr(value, field.name) for field in fields(value)}
        changed = {name: written(one, text) for name, one in found.items() if name not in kept}
        return replace(value, **changed)
    if isinstance(value, list):
        return [written(one, text) for one in value]
    if isinstance(value, dict):
        return {written(name, text): written(one, text) for name, one in value.items()}
    return text if isinstance(value, str) else value


class Tags(HTMLParser):
    """Every tag of a page with the names of its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[str]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, [name for name, _ in attrs]))


MARKUP = '"><img src=x onerror=alert(1)><script>alert(1)</script>{{ 7 * 7 }}'


def test_the_page_of_models_has_no_other_tag_whatever_is_in_its_texts() -> None:
    judged = registry.Judged("a", "snapshot", "why", datetime.now(UTC), True, "", True, 0.5)
    decision = Decision("2013-03-01", "page", [Reason("features", "page", "found", "bound")])
    partition = health.Partition("2013-03-01", 9, 1, 8, 0, 8, "1", 8, "champion", ["remote"], 7)
    champion = health.Champion(
        "2", "a", "2013-03-01T00:00:00", "promoted", "why", "ana", "1", "2013-02-28"
    )
    found = health.Health(
        decision, True, champion, [partition], [health.Gate("why", datetime.now(UTC), [judged])],
        problems=["a problem"],
    )  # fmt: skip
    asked = [Approval("Promote?", datetime.now(UTC), "/dags/x")]
    plain = render(CASE, found, asked)
    hostile = render(CASE, written(found, MARKUP), written(asked, MARKUP))
    assert Tags(hostile).found == Tags(plain).found
    assert "{{ 7 * 7 }}" in hostile


def test_a_report_of_a_day_has_no_other_tag_whatever_is_in_its_texts(tmp_path: Path) -> None:
    version = Lake(str(tmp_path)).new_version("validated", "2013-03-01")
    check = RowCheck("v", "flights", 9, 8, 1, 0, {"reason": 1}, {"column": 0.1}, "now")
    pages = [
        Path(
            report.write_report(version, written(["b"], text), written(["w"], text), checks)
        ).read_text()
        for text, checks in (("plain", [check]), (MARKUP, written([check], MARKUP)))
    ]
    assert Tags(pages[1]).found == Tags(pages[0]).found
    assert "{{ 7 * 7 }}" in pages[1]
