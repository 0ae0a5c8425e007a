"""`make new-usecase` writes a use case that is whole at once, and nothing over what is there."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from include import usecases
from local import new_usecase
from local.in_process import model_retraining
from local.new_usecase import PLACEHOLDER, TARGETS, write
from local.seed import seed
from tests.unit.helpers import run_python


@pytest.fixture
def churn(tmp_path: Path) -> Path:
    return write("churn", tmp_path / "cases")


@pytest.fixture(params=TARGETS)
def of_each_target(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write("churn", tmp_path / "cases", request.param)


@pytest.mark.exhaustive
def test_it_passes_all_steps_at_once(of_each_target: Path, tmp_path: Path) -> None:
    churn = of_each_target
    done = run_python(churn, tmp_path / "data", "-m", "local.usecase")
    assert (done.returncode, done.stderr) == (0, "")
    assert "200 rows validated, 200 of them with a label" in done.stdout
    assert "its first days pass all steps" in done.stdout


def test_nothing_of_the_template_is_left_in_it(churn: Path) -> None:
    assert {file.name for file in churn.iterdir()} == {
        "__init__.py", "features.py", "models.py", "schema.py", "source.py",
    }  # fmt: skip
    assert not any(PLACEHOLDER in file.read_text() for file in churn.iterdir())
    case = usecases.load(churn)
    assert case.name == "churn"
    assert [one.model for one in case.members if one.kind == "remote"] == ["churn"]


@pytest.mark.exhaustive
def test_its_data_are_the_same_each_time_and_its_first_champion_passes_the_gate(
    of_each_target: Path, configure: Callable[..., None], tmp_path: Path
) -> None:
    case = usecases.load(of_each_target)
    configure(data_dir=tmp_path, mlflow_tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert seed(case, *case.first_window, say=lambda _: None) == 59
    rows = case.source.fetch("customers", date(2026, 1, 31))
    assert rows is not None
    assert rows.equals(case.lake.current("validated", "2026-01-31").read("customers"))
    verdict = model_retraining(case, *case.first_window, "the tests", "run")
    assert verdict.challenger is not None, verdict.markdown


@pytest.mark.parametrize("name", ["", "Churn", "late-payments", "../churn", "2late", "a__b", "a b"])
def test_a_name_that_cannot_be_everywhere_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(new_usecase, "OWN", tmp_path / "cases")
    assert new_usecase.main([name]) == 2
    told = capsys.readouterr().err
    assert "lower-case letters, digits and single underscores, such as late_payments" in told
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_there_is_not_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(new_usecase, "OWN", tmp_path / "cases")
    assert new_usecase.main(["churn", "--target", "ranking"]) == 2
    assert "there is binary, multiclass, regression. Nothing was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_existing_files_are_not_touched(
    churn: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(new_usecase, "OWN", churn.parent)
    (churn / "source.py").write_text("mine\n")
    assert new_usecase.main(["churn"]) == 2
    assert f"{churn} already exists: nothing was written" in capsys.readouterr().err
    assert (churn / "source.py").read_text() == "mine\n"
    assert [folder.name for folder in churn.parent.iterdir()] == ["churn"]


def test_a_half_written_folder_is_written_again(tmp_path: Path) -> None:
    half = tmp_path / ".churn.unfinished"
    half.mkdir()
    (half / "rubbish.py").write_text("1 / 0\n")
    assert not (write("churn", tmp_path) / "rubbish.py").exists()


def test_a_half_written_folder_is_not_a_use_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configure: Callable[..., None]
) -> None:
    configure(usecases="")
    (tmp_path / ".churn.unfinished").mkdir()
    (tmp_path / ".churn.unfinished" / "source.py").touch()
    write("late", tmp_path)
    monkeypatch.setattr(usecases, "OWN", tmp_path)
    assert [folder.name for folder in usecases.folders()] == ["late"]
