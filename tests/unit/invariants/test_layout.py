"""Tests are found by the name of what they test: `tests/unit` has the folders of `include`."""

import ast
from pathlib import Path

import pytest

from tests.conftest import FLIGHTS

UNIT = Path(__file__).parents[1]
REPO = UNIT.parents[1]
INCLUDE = REPO / "include"
CASES = Path("usecases")
OUTSIDE = ["deploy", "local", "plugins", "serving"]
"""Folders beside `include` whose tests have a folder of their name, too."""


def source_of(folder: Path) -> Path:
    """The folder of the code whose tests are in a folder below `tests/unit`."""
    if folder == CASES / FLIGHTS.name:  # wherever a fork has put it
        return FLIGHTS
    is_outside = any(folder.is_relative_to(name) for name in OUTSIDE)
    return REPO / folder if is_outside else INCLUDE / folder


def has_code(path: Path) -> bool:
    """Whether a file defines anything that can be called: others only describe or declare."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return any(isinstance(node, kinds) for node in ast.parse(path.read_text()).body)


def modules() -> list[Path]:
    """The modules with code, by their place in `include`; other use cases are a fork's own."""
    found = [path.relative_to(INCLUDE) for path in INCLUDE.rglob("*.py") if has_code(path)]
    shared = [place for place in found if place.parts[0] != CASES.name or len(place.parts) == 2]
    flights = [CASES / FLIGHTS.name / path.name for path in FLIGHTS.glob("*.py") if has_code(path)]
    return sorted([*shared, *flights])


def called(path: Path) -> str:
    """The name of a module, which of a package is that of its folder."""
    return path.parent.name if path.name == "__init__.py" else path.stem


@pytest.mark.parametrize("module", modules(), ids=str)
def test_a_module_has_its_tests_at_its_place(module: Path) -> None:
    assert (UNIT / module.parent / f"test_{called(module)}.py").is_file()


@pytest.mark.parametrize("file", sorted(UNIT.rglob("test_*.py")), ids=lambda file: file.stem)
def test_a_file_of_tests_begins_with_the_name_of_what_it_tests(file: Path) -> None:
    folder = file.relative_to(UNIT).parent
    if folder.name == "invariants":
        return
    names = [called(path) for path in source_of(folder).glob("*.py")]
    rest = file.stem.removeprefix("test_")
    assert [name for name in names if f"{rest}_".startswith(f"{name}_")]
