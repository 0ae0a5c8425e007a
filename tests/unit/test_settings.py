"""Settings: each is described, has a default, and is changed by its environment variable."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from include.settings import Settings, main, settings

Configure = Callable[..., None]


def test_every_setting_has_a_default_and_a_description() -> None:
    for name, field in Settings.model_fields.items():
        assert not field.is_required(), name
        assert len(field.description or "") > 10, name


def test_an_environment_variable_changes_a_setting(configure: Configure) -> None:
    assert settings().chunk_rows == 250_000
    configure(chunk_rows=1000)
    assert settings().chunk_rows == 1000


def test_mlflow_keeps_its_own_variable(configure: Configure) -> None:
    configure(mlflow_tracking_uri="http://127.0.0.1:5000")
    assert settings().registry == "http://127.0.0.1:5000"


def test_lake_and_registry_are_in_the_data_folder_unless_said_otherwise(
    monkeypatch: pytest.MonkeyPatch, configure: Configure, tmp_path: Path
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    configure(data_dir=tmp_path)
    assert settings().lake == str(tmp_path / "lake")
    assert settings().registry == f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}"


@pytest.mark.parametrize(
    ("name", "value"),
    [("chunk_rows", "many"), ("max_quarantine_share", 1.5), ("retry_base_seconds", 0)],
)
def test_a_wrong_value_is_an_error_that_names_the_setting(
    configure: Configure, name: str, value: object
) -> None:
    configure(**{name: value})
    with pytest.raises(ValidationError, match=name):
        settings()


def test_all_settings_are_listed_by_their_variables(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    listed = capsys.readouterr().out
    assert "ML_CHUNK_ROWS=250000" in listed
    assert "MLFLOW_TRACKING_URI=" in listed
    assert listed.count("\n") == 2 * len(Settings.model_fields)
