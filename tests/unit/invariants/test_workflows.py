"""CI runs what was reviewed and what one can run oneself, with no more rights than it needs."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

REPO = Path(__file__).parents[3]
WORKFLOWS = sorted((REPO / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (REPO / "Makefile").read_text(), re.MULTILINE))

each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())["jobs"]
    return found


def commands() -> list[str]:
    """What the workflows and the commit hook run, and what `.ci/run` runs with make."""
    steps = [step for path in WORKFLOWS for job in jobs(path).values() for step in job["steps"]]
    [repo] = yaml.safe_load((REPO / ".pre-commit-config.yaml").read_text())["repos"]
    script = (REPO / ".ci" / "run").read_text()
    return [
        *(step["run"] for step in steps if "run" in step),
        *(hook["entry"] for hook in repo["hooks"]),
        *re.findall(r"^ *(make (?!--)[a-z].*)", script, re.MULTILINE),
    ]


@each_workflow
def test_actions_are_pinned_and_get_no_token_that_writes(path: Path) -> None:
    used = re.findall(r"uses: (.+)", path.read_text())
    assert used
    for action in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
    for job in jobs(path).values():
        assert "permissions" not in job
        for step in job["steps"]:
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False


@each_workflow
def test_every_job_ends_in_time(path: Path) -> None:
    assert all(job["timeout-minutes"] <= 90 for job in jobs(path).values())


@pytest.mark.parametrize("command", commands())
def test_ci_and_the_commit_hook_run_what_is_there(command: str) -> None:
    if command == "bash .ci/run":
        assert (REPO / ".ci" / "run").is_file()
    else:
        program, *words = command.split()
        assert program == "make"
        assert TARGETS.issuperset(word for word in words if re.fullmatch("[a-z-]+", word))


def test_ci_begins_with_what_a_commit_is_held_to() -> None:
    fast = jobs(REPO / ".github" / "workflows" / "ci.yml")["fast"]
    assert next(step["run"] for step in fast["steps"] if "run" in step) == "make lint"
    first = re.search("^make .*", (REPO / ".ci" / "run").read_text(), re.MULTILINE)
    assert first is not None
    assert first[0] == "make lint"


def test_every_python_that_the_project_allows_is_tried_each_night() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    allowed = SpecifierSet(project["requires-python"])
    nightly = jobs(REPO / ".github" / "workflows" / "nightly.yml")
    assert nightly["everything"]["strategy"]["matrix"]["python"] == [
        version for version in (f"3.{minor}" for minor in range(50)) if version in allowed
    ]


@each_workflow
def test_make_takes_the_python_that_was_set_up(path: Path) -> None:
    assert yaml.safe_load(path.read_text())["env"]["PYTHON"] == "python"


def test_dependabot_looks_where_versions_are() -> None:
    updates = yaml.safe_load((REPO / ".github" / "dependabot.yml").read_text())["updates"]
    places = {one["package-ecosystem"]: set(one["directories"]) for one in updates}
    dockerfiles = [REPO / "Dockerfile", *REPO.glob("deploy/*/Dockerfile")]
    folders = {path.parent.relative_to(REPO).as_posix() for path in dockerfiles}
    assert places == {
        "pip": {"/"},
        "github-actions": {"/"},
        "docker": {f"/{folder}".replace("/.", "/") for folder in folders},
        "docker-compose": {"/"},
    }
