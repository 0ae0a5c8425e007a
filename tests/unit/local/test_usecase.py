"""`make usecase` goes the whole way with the first days, or says first what cannot work."""

from pathlib import Path

import pytest

from tests.unit.helpers import edit, run_python


@pytest.mark.exhaustive
def test_the_second_use_case_is_whole_and_its_first_days_come_through(tmp_path: Path) -> None:
    done = run_python("tests/usecases/doctor_visits", tmp_path / "data", "-m", "local.usecase")
    assert done.returncode == 0, done.stderr
    assert "2021-03-05: 160 rows validated, 160 of them with a label" in done.stdout
    assert "Model server: 100 rows answered over HTTP, as by the batch" in done.stdout
    assert "its first days pass all steps" in done.stdout


def test_names_that_do_not_match_are_reported_before_a_row_is_fetched(
    copy: Path, tmp_path: Path
) -> None:
    edit(copy / "features.py", 'SLICES = ["plan"]', 'SLICES = ["colour"]')
    edit(copy / "__init__.py", '"straight_line"', '"crooked_line"')
    edit(copy / "__init__.py", '"2021-04-11"', '"2021-03-03"')
    (copy / "source.py").write_text("def fetch(*_): raise SystemExit('rows were fetched')\n")
    done = run_python(copy, tmp_path / "data", "-m", "local.usecase")
    assert done.returncode == 1
    assert "SLICES names colour, and KEY and FEATURES are date, person" in done.stderr
    assert "members names crooked_line, and CANDIDATES are shallow_trees" in done.stderr
    assert "first_window has less than 28 days, two holdouts" in done.stderr
    assert "rows were fetched" not in done.stderr


def test_a_group_of_unknown_features_or_without_its_own_model_is_reported(
    copy: Path, tmp_path: Path
) -> None:
    group = 'GROUPS = [Group("answers", ["health", "wealth"])]'
    edit(copy / "features.py", "GROUPS: list[Group] = []", group)
    done = run_python(copy, tmp_path / "data", "-m", "local.usecase")
    assert "the group answers of GROUPS names wealth, and FEATURES are coinsurance" in done.stderr
    assert "GROUPS names without_answers, and the candidates of WITHOUT are none" in done.stderr

    edit(copy / "features.py", '"wealth"', '"limitation", "diseases"')
    edit(copy / "models.py", "= {}", '= {"without_question": shallow_trees}')
    done = run_python(copy, tmp_path / "data", "-m", "local.usecase")
    assert "WITHOUT names without_question, and the paths of GROUPS are without_ans" in done.stderr


@pytest.mark.parametrize("piece", ["schema.INPUTS", "models.CANDIDATES"])
def test_a_piece_that_must_not_be_empty_is_reported(piece: str, copy: Path, tmp_path: Path) -> None:
    module, name = piece.split(".")
    with (copy / f"{module}.py").open("a") as file:
        file.write(f"\n{name} = type({name})()\n")
    done = run_python(copy, tmp_path / "data", "-m", "local.usecase")
    assert done.returncode == 1
    assert done.stderr == f"Not as it should be: {name} in {module}.py is empty.\n"


def test_a_piece_of_another_type_is_reported(copy: Path, tmp_path: Path) -> None:
    edit(copy / "features.py", 'REQUIRED = ["coinsurance", "plan"]', 'REQUIRED = "plan"')
    done = run_python(copy, tmp_path / "data", "-m", "local.usecase")
    assert "REQUIRED in features.py is 'plan', which is not of type list[str]" in done.stderr
