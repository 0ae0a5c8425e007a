"""A use case is whole, or is told what it lacks before anything runs; one setting chooses it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from include.usecase import PIECES, Piece, UsecaseInvalid, check_pieces

REPO = Path(__file__).resolve().parents[2]
SECOND = REPO / "tests" / "doctor_visits"

each_piece = pytest.mark.parametrize("piece", PIECES, ids=lambda piece: piece.name)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the second use case, to break."""
    shutil.copytree(SECOND, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "copy"


def run(folder: Path, data: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python with a use case."""
    chosen = {"ML_USECASE": str(folder), "ML_DATA_DIR": str(data), "PYTHONPATH": str(REPO)}
    return subprocess.run(
        [sys.executable, *command],
        cwd=REPO,
        env=os.environ | chosen,
        capture_output=True,
        text=True,
    )


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@each_piece
def test_a_piece_that_is_missing_is_named(piece: Piece, copy: Path) -> None:
    file = copy / f"{piece.module}.py"
    file.write_text(re.sub(rf"\b{piece.name}\b", "something_else", file.read_text()))
    with pytest.raises(UsecaseInvalid, match=rf"lacks {piece.name} in {file.name}\. Nothing"):
        check_pieces(copy)


def test_all_that_is_missing_is_named_at_once(copy: Path) -> None:
    (copy / "members.py").unlink()
    replace(copy / "features.py", "SEASONAL", "IN_SEASON")
    with pytest.raises(UsecaseInvalid) as error:
        check_pieces(copy)
    assert "lacks SEASONAL in features.py, the file members.py. Nothing was run." in str(
        error.value
    )
    assert "docs/fork.md" in str(error.value)


@pytest.mark.parametrize(
    "command",
    [["-m", "local.seed"], ["-m", "local.demo"], ["-m", "serving"], ["dags/data_validation.py"]],
    ids=" ".join,
)
def test_nothing_runs_without_a_piece(command: list[str], copy: Path, tmp_path: Path) -> None:
    replace(copy / "schema.py", "TRUTH =", "WHAT_CAME =")
    (copy / "source.py").write_text("raise SystemExit('this file was run')\n")
    done = run(copy, tmp_path / "data", *command)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert f"The use case in {copy} lacks fetch in source.py, TRUTH in schema.py." in last
    assert ("Traceback" in done.stderr) == ("local" not in " ".join(command))
    assert not (tmp_path / "data").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = run(tmp_path / "nowhere", tmp_path / "data", "-m", "local.seed")
    assert f"The use case in {tmp_path / 'nowhere'} lacks the file __init__.py" in done.stderr
    assert "ML_USECASE names it" in done.stderr


def test_the_second_use_case_is_whole_and_its_first_days_come_through(tmp_path: Path) -> None:
    done = run(Path("tests/doctor_visits"), tmp_path / "data", "-m", "local.usecase")
    assert done.returncode == 0, done.stderr
    assert "2021-03-05: 160 rows validated, 160 of them with a label" in done.stdout
    assert "Model server: 100 rows answered over HTTP, as by the batch" in done.stdout
    assert "its first days go the whole way" in done.stdout


def test_names_that_do_not_meet_are_told_before_a_row_is_fetched(
    copy: Path, tmp_path: Path
) -> None:
    replace(copy / "features.py", 'SLICES = ["plan"]', 'SLICES = ["colour"]')
    replace(copy / "members.py", '"straight_line"', '"crooked_line"')
    replace(copy / "__init__.py", '"2021-04-11"', '"2021-03-03"')
    (copy / "source.py").write_text("def fetch(*_): raise SystemExit('rows were fetched')\n")
    done = run(copy, tmp_path / "data", "-m", "local.usecase")
    assert done.returncode == 1
    assert "SLICES names colour, and KEY and FEATURES are date, person" in done.stderr
    assert "MEMBERS names crooked_line, and CANDIDATES are shallow_trees" in done.stderr
    assert "FIRST_WINDOW has less than 28 days, two holdouts" in done.stderr
    assert "rows were fetched" not in done.stderr


def test_a_group_of_unknown_features_or_without_a_model_of_its_own_is_told(
    copy: Path, tmp_path: Path
) -> None:
    group = 'GROUPS = [Group("answers", ["health", "wealth"])]'
    replace(copy / "features.py", "GROUPS: list[Group] = []", group)
    done = run(copy, tmp_path / "data", "-m", "local.usecase")
    assert "the group answers of GROUPS names wealth, and FEATURES are coinsurance" in done.stderr
    assert "GROUPS names without_answers, and the candidates of WITHOUT are none" in done.stderr

    replace(copy / "features.py", '"wealth"', '"limitation", "diseases"')
    replace(copy / "models.py", "= {}", '= {"without_question": shallow_trees}')
    done = run(copy, tmp_path / "data", "-m", "local.usecase")
    assert "WITHOUT names without_question, and the paths of GROUPS are without_ans" in done.stderr


@pytest.mark.parametrize("piece", ["schema.INPUTS", "models.CANDIDATES", "members.MEMBERS"])
def test_a_piece_that_is_empty_and_must_not_be_is_told(
    piece: str, copy: Path, tmp_path: Path
) -> None:
    module, name = piece.split(".")
    with (copy / f"{module}.py").open("a") as file:
        file.write(f"\n{name} = type({name})()\n")
    done = run(copy, tmp_path / "data", "-m", "local.usecase")
    assert done.returncode == 1
    assert done.stderr == f"Not as it should be: {name} in {module}.py is empty.\n"


def test_a_piece_of_another_type_is_told(copy: Path, tmp_path: Path) -> None:
    replace(copy / "features.py", 'REQUIRED = ["coinsurance", "plan"]', 'REQUIRED = "plan"')
    done = run(copy, tmp_path / "data", "-m", "local.usecase")
    assert "REQUIRED in features.py is 'plan', and not of the type list[str]" in done.stderr


@each_piece
def test_the_way_to_a_fork_says_what_a_piece_is(piece: Piece) -> None:
    row = rf"^\| `{piece.module}\.py` \| `{piece.name}\b"
    assert re.search(row, (REPO / "docs" / "fork.md").read_text(), flags=re.MULTILINE)
