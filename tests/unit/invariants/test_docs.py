"""What README and docs/ name is there: pages, headings, pictures, make targets, settings, files."""

import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from include.settings import PER_USECASE, Settings, variable

REPO = Path(__file__).resolve().parents[3]
README = REPO / "README.md"
DOCS = sorted(REPO.glob("docs/*.md"))
PAGES = sorted(REPO.glob("*.md")) + DOCS
IMAGES = REPO / "docs" / "images"

CODE = re.compile(r"^```.*?^```$|^ {4}[^\n]*$|`[^`]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:href|src|srcset)=\"([^\"]+)\"")
SOURCE = re.compile(r"[\w.-]+\.(?:md|py|sh|toml|ya?ml)")

TARGETS = set(re.findall(r"^([a-z0-9-]+):", (REPO / "Makefile").read_text(), re.MULTILINE))
SETTINGS = {variable(name) for name in Settings.model_fields}
OF_ONE = {variable(name) for name in PER_USECASE}

MADE = ("data/", "dist/", "dags/include", "include/COMMIT", "include/usecases/late_payments")
"""What runs, builds and forks make, on a machine or in a bucket."""

ROOMS = [path for path in REPO.iterdir() if path.is_dir() and f"{path.name}/" not in MADE]
NAMES = {path.name for path in REPO.iterdir()} | {
    path.name for room in ROOMS if room.name[0] != "." for path in room.rglob("*")
}


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    """The anchors of a page; a heading that is there again gets a number."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    found: list[str] = [slug(title) for title in re.findall(r"^#+ (.+?) *$", text, re.MULTILINE)]
    again = [found[:place].count(one) for place, one in enumerate(found)]
    return {f"{one}-{n}" if n else one for one, n in zip(found, again, strict=True)}


def links(prose: str) -> list[str]:
    """Targets of links and pictures."""
    return [first or second for first, second in LINK.findall(prose)]


def leads_somewhere(link: str, page: Path) -> bool:
    if ":" in link:
        return link.startswith(("https://", "http://127.0.0.1:", "mailto:"))
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    return target.exists() and (not anchor or anchor in anchors(target))


def is_setting(name: str) -> bool:
    """Whether there is such a setting, or some that begin so: `ML_GATE_…`.

    It may be one use case's: `ML_LATE_PAYMENTS__SEED`.
    """
    name = re.sub(r"^ML_([A-Z0-9]+_)+_(?=[A-Z])", "ML_", of_one := name)
    known, whole = (SETTINGS if name == of_one else OF_ONE), name.rstrip("…*")
    return whole in known if whole == name else any(one.startswith(whole) for one in known)


def is_there(word: str) -> bool:
    """Whether a word of code is no path of the project, or one that exists."""
    room, slash, _ = word.partition("/")
    if word.startswith(MADE):
        return True
    if slash and REPO / room in ROOMS:
        return (REPO / word).exists()
    return not SOURCE.fullmatch(word) or word in NAMES


def faults(page: Path) -> list[str]:
    """What a page names and is not there."""
    text = page.read_text()
    prose, code = CODE.sub("`", text), "\n".join(CODE.findall(text))
    urls = re.findall(r"(?<!\()https?://[^\s)>]+", prose)
    return [
        *(link for link in [*links(prose), *urls] if not leads_somewhere(link, page)),
        *re.findall(r"!\[\s*\]", prose),  # a picture without words, for who does not see it
        *(name for name in re.findall(r"\bmake ([a-z0-9-]+)", code) if name not in TARGETS),
        *(name for name in re.findall(r"\bML_[A-Z0-9_]*[…*]?", text) if not is_setting(name)),
        *(word for word in re.findall(r"[\w./-]+", code) if not is_there(word)),
        *(name for name in re.findall(r"python -m ([\w.]+)", code) if find_spec(name) is None),
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_all_that_a_page_names_is_there(page: Path) -> None:
    assert faults(page) == []


WRONG = [
    "see [there](gone.md)", "see [there](#nowhere)", "see [there](other.md#nowhere)",
    "see [there](http://example.com)", "see http://example.com",
    "![a picture](images/gone.png)", '<img src="images/gone.png">', "![](other.md)",
    "`make nothing`", "    make nothing", "set `ML_CHUNK_ROW`", "all of `ML_GATES_…`",
    "`ML_LATE_PAYMENTS__SEEDS`", "`ML_LATE_PAYMENTS__RETRIES`",
    "`include/gone.py`", "`gone.py`", "`python -m include.gone`",
]  # fmt: skip


@pytest.mark.parametrize("line", WRONG)
def test_what_is_not_there_is_found(line: str, tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# Somewhere\n")
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{line}\n")
    assert len(faults(page)) == 1


def test_what_exists_is_not_a_fault(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A heading\n\n## What's `this`?\n\n## What's `this`?\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Title\n\n"
        "[1](other.md), [2](other.md#a-heading), [3](other.md#whats-this), [4](#title),\n"
        "[5](other.md#whats-this-1), [6](https://example.com), `[7](gone)`, `http://mlflow:5000`,\n"
        "https://example.com, <http://127.0.0.1:9090/targets>\n"
        "`ML_LATE_PAYMENTS__SEED`, `ML_LATE__GATE_…`, `include/usecases/late_payments/source.py`,\n"
        "`ML_CHUNK_ROWS`, `ML_GATE_…`, `include/settings.py`, `settings.py`, `dags/`, `dist/mwaa`\n"
        "`make logs SERVICE=x`, `python -m local.settings`; to make nothing of it\n"
    )
    assert faults(page) == []


def test_the_readme_leads_to_every_page() -> None:
    assert {f"docs/{page.name}" for page in DOCS} <= set(links(README.read_text()))


def test_no_picture_is_left_over_or_heavy() -> None:
    shown = {Path(link).name for page in PAGES for link in links(page.read_text())}
    assert {path.name for path in IMAGES.iterdir()} <= shown
    assert max(path.stat().st_size for path in IMAGES.iterdir()) <= 250_000


def test_the_picture_of_the_architecture_shows_every_dag() -> None:
    picture = (IMAGES / "architecture.svg").read_text()
    dags = {file.stem for file in REPO.glob("dags/*.py")} - {"broken_usecases"}
    assert [dag for dag in dags if dag not in picture] == []


def test_the_newest_release_of_the_changelog_is_the_version_of_the_project() -> None:
    text = (REPO / "CHANGELOG.md").read_text()
    releases = re.findall(r"^## (\d+\.\d+\.\d+)(?: - \d{4}-\d\d-\d\d)?$", text, re.MULTILINE)
    others = set(re.findall(r"^## (\D.*)$", text, re.MULTILINE))
    assert others <= {"Unreleased"}
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    assert releases[0] == project["version"]
