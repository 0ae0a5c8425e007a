"""Tests are found by the name of what they test: `tests/unit` has the folders of `include`."""

import ast
from pathlib import Path

import pytest

from tests.conftest import FLIGHTS

UNIT = Path(__file__).parents[1]
REPO = UNIT.parents[1]
CASES = Path("usecases")
OUTSIDE = ["deploy", "local", "plugins", "serving"]
"""Folders beside `include` whose tests have a folder of their name, too."""


def source_of(folder: Path) -> Path:
    """The folder of the code whose tests are in a folder below `tests/unit`."""
    if folder == CASES / FLIGHTS.name:  # wherever a fork has put it
        return FLIGHTS
    is_outside = any(folder.is_relative_to(name) for name in OUTSIDE)
    return REPO / folder if is_outside else REPO / "include" / folder


def has_code(path: Path) -> bool:
    """Whether a file defines anything that can be called: others only describe or declare."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return any(isinstance(node, kinds) for node in ast.parse(path.read_text()).body)


def modules() -> list[Path]:
    """What is to be tested, by its place in `include`. A use case of a fork is not among it."""
    roots = {Path(): REPO / "include", CASES / FLIGHTS.name: FLIGHTS}
    found = {
        place / path.relative_to(root)
        for place, root in roots.items()
        for path in root.rglob("*.py")
        if has_code(path)
    }
    others = {one for one in found if one.parts[0] == "usecases" and len(one.parts) > 2}
    return sorted(found - {one for one in others if one.parts[1] != FLIGHTS.name})


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
