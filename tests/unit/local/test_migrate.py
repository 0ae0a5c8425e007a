"""What release 0.1 made is found again under its use case, however often the move is begun."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from include.errors import BadData
from include.registry import registry
from local import migrate
from tests.case import CASE
from tests.unit.conftest import OLD_DAY, History

BEFORE = "flight-delays"


@pytest.fixture
def root(history: History, tmp_path: Path) -> Path:
    """A lake as release 0.1 left it: tables in its root."""
    shutil.copytree(history.lake.root, tmp_path / "lake")
    return tmp_path / "lake"


@pytest.fixture
def old_registry(own_registry: Path) -> None:
    """A registry whose models and experiment have the names that release 0.1 gave them."""
    with registry.connection(CASE) as client:
        for model in client.search_registered_models():
            client.rename_registered_model(model.name, BEFORE + model.name.removeprefix(CASE.name))
        [version] = client.search_model_versions(f"name = '{BEFORE}'")
        members = version.tags[registry.MEMBERS].replace(f'"{CASE.name}.', f'"{BEFORE}.')
        client.set_model_version_tag(BEFORE, version.version, registry.MEMBERS, members)
        experiment = client.get_experiment_by_name(CASE.name)
        client.rename_experiment(experiment.experiment_id, BEFORE)


def test_tables_and_models_are_found_under_the_use_case(
    root: Path, history: History, old_registry: None
) -> None:
    assert registry.find_champion(CASE) is None
    assert migrate.main(["--usecase", CASE.name]) == 0
    assert CASE.lake.current("validated", OLD_DAY).read("flights").height > 500
    assert registry.champion(CASE) == history.champion
    members = registry.members(CASE, history.champion)
    assert {member.name for member in members.values()} == {
        f"{CASE.name}.{name}" for name in members
    }
    registry.load(CASE, members["xgboost"])
    assert MlflowClient().get_experiment_by_name(CASE.name) is not None


def test_a_move_that_was_killed_is_ended_by_another(
    root: Path, own_registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {path.name for path in root.iterdir()}
    rename: Callable[..., Any] = Path.rename
    left = [2]

    def killed(path: Path, target: Path) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            migrate.main(["--usecase", CASE.name])
    assert {path.name for path in (root / CASE.name).iterdir()} < tables
    assert migrate.main(["--usecase", CASE.name]) == 0
    assert {path.name for path in (root / CASE.name).iterdir()} == tables
    assert [path.name for path in root.iterdir()] == [CASE.name]
    assert migrate.main(["--usecase", CASE.name]) == 0, "there is nothing left to do"


def test_a_table_that_is_in_both_places_is_named_and_nothing_moves(
    root: Path, own_registry: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name for path in root.iterdir()}
    (root / CASE.name / "validated" / f"date={OLD_DAY}").mkdir(parents=True)
    with pytest.raises(BadData, match="Nothing was moved"):
        migrate.move_tables(root, CASE)
    assert migrate.main(["--usecase", CASE.name]) == 2
    assert "validated of" in capsys.readouterr().err
    assert {path.name for path in root.iterdir()} == before | {CASE.name}


@pytest.mark.parametrize("own", [False, True])
def test_the_models_of_a_lake_on_s3_are_renamed_and_its_tables_stay(
    own: bool,
    s3_root: str,
    history: History,
    old_registry: None,
    configure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if own:
        monkeypatch.setenv("ML_FLIGHT_DELAYS__LAKE_ROOT", s3_root)
    configure(lake_root=s3_root)
    assert migrate.main(["--usecase", CASE.name]) == 0
    assert registry.champion(CASE) == history.champion
    told = capsys.readouterr().out
    assert "No table was moved" in told
    assert f"Renamed in MLflow: {BEFORE}, {BEFORE}." in told
    assert (f"ML_FLIGHT_DELAYS__LAKE_ROOT={s3_root}" in told) is not own


def test_tables_that_the_use_case_uses_where_they_are_stay_there(
    root: Path,
    history: History,
    old_registry: None,
    configure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {path.name for path in root.iterdir()}
    monkeypatch.setenv("ML_FLIGHT_DELAYS__LAKE_ROOT", str(root))
    configure(data_dir=root.parent)
    assert migrate.main(["--usecase", CASE.name]) == 0
    assert {path.name for path in root.iterdir()} == before
    assert CASE.lake.current("validated", OLD_DAY).read("flights").height > 500
    assert registry.champion(CASE) == history.champion
    assert f"the lake_root of {CASE.name} is {root}" in capsys.readouterr().out


def test_models_are_found_among_more_than_a_page_of_others(own_registry: Path) -> None:
    with registry.connection(CASE) as client:
        for number in range(101):
            client.create_registered_model(f"another-{number:03}")
        client.create_registered_model(BEFORE + ".late")
    assert migrate.rename_models(CASE, BEFORE) == [BEFORE + ".late"]
