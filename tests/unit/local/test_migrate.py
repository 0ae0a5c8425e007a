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


def as_before(history: History) -> None:
    """Call the models as release 0.1 did."""
    client = MlflowClient()
    for model in client.search_registered_models():
        client.rename_registered_model(model.name, BEFORE + model.name.removeprefix(CASE.name))
    [version] = client.search_model_versions(f"name = '{BEFORE}'")
    members = version.tags[registry.MEMBERS].replace(f'"{CASE.name}.', f'"{BEFORE}.')
    client.set_model_version_tag(BEFORE, version.version, registry.MEMBERS, members)
    experiment = client.get_experiment_by_name(CASE.name)
    client.rename_experiment(experiment.experiment_id, BEFORE)


def test_tables_and_models_are_found_under_the_use_case(
    root: Path, history: History, own_registry: Path
) -> None:
    with registry.connection(CASE):
        as_before(history)
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


def test_a_lake_on_s3_stays_where_it_is_and_that_is_said(
    s3_root: str, configure: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    configure(lake_root=s3_root)
    assert migrate.main(["--usecase", CASE.name]) == 2
    assert f"ML_FLIGHT_DELAYS__LAKE_ROOT={s3_root}" in capsys.readouterr().err
