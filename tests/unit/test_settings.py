"""Every knob, once: described, with a default, changed by its variable, refused when wrong."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Literal, get_args, get_origin

import pytest
from annotated_types import Le
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from include.errors import BadData
from include.settings import PROJECT, Settings, main, settings, variable
from include.usecase import FIRST_WINDOW
from local import reference

FIELDS = Settings.model_fields.items()


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_every_setting_has_a_description_and_a_default(name: str, field: FieldInfo) -> None:
    assert field.description
    assert field.description.endswith(".")
    assert not field.is_required()


def test_the_defaults_are_right_by_themselves(configure) -> None:
    configure()
    assert Settings(**{name: getattr(Settings(), name) for name, _ in FIELDS}) == Settings()


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_every_setting_is_changed_by_its_variable(
    name: str, field: FieldInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = getattr(settings(), name)
    new: object = "x"
    if get_origin(field.annotation) is Literal:
        monkeypatch.setenv(variable(name), get_args(field.annotation)[-1])
        settings.cache_clear()
        assert getattr(settings(), name) == get_args(field.annotation)[-1] != before
        return
    if isinstance(before, date):
        new = before + timedelta(days=1)
    elif isinstance(before, bool):
        new = not before
    elif isinstance(before, int):
        new = before + 1
    elif isinstance(before, float):
        upper = [bound.le for bound in field.metadata if isinstance(bound, Le)]
        new = (before + upper[0]) / 2 if upper else before * 2  # within the setting's bounds
    monkeypatch.setenv(variable(name), str(new))
    settings.cache_clear()
    assert getattr(settings(), name) == (type(before)("x") if new == "x" else new)


WRONG = [
    ("chunk_rows", "many"), ("chunk_rows", "0"), ("chunk_rows", "1.5"), ("batch_rows", "-1"),
    ("max_quarantine_share", "5%"), ("max_quarantine_share", "1.1"), ("train_start", "2013-2-28"),
    ("max_rejected_share", "-1"), ("retries", "-1"), ("max_score_psi", "0"),
    ("retry_base_seconds", ""), ("experiment", "yes"), ("ab_share", "1"), ("ab_share", "0"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_an_error_that_names_it(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"ML_{name.upper()}", value)
    settings.cache_clear()
    with pytest.raises(ValidationError, match=name) as failure:
        settings()
    assert repr(value) in str(failure.value)


def test_a_secret_is_not_shown(
    configure: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    configure(notify_urls="json://user:secret@localhost/hook")
    main()
    assert "ML_NOTIFY_URLS=**********" in capsys.readouterr().out


def test_a_notifier_that_could_never_be_told_is_named_when_settings_are_shown(
    configure: Callable[..., None],
) -> None:
    configure(notify_urls="slck://secret")
    with pytest.raises(SystemExit, match=r"ML_NOTIFY_URLS.*slck") as failure:
        main()
    assert "secret" not in str(failure.value)


def test_settings_are_read_once_and_cannot_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = settings()
    monkeypatch.setenv("ML_CHUNK_ROWS", "5")
    assert settings() is before
    with pytest.raises(ValidationError, match="frozen"):
        before.chunk_rows = 5  # type: ignore[misc]


def test_everything_is_in_the_data_folder_unless_said_otherwise(
    configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ML_DATA_DIR", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name)
    configure()
    assert settings().lake == str(PROJECT / "data" / "lake")
    assert settings().registry == f"sqlite:///{PROJECT / 'data' / 'mlflow' / 'mlflow.db'}"
    configure(data_dir="/elsewhere", lake_root="s3://conn@bucket/lake")
    assert settings().lake == "s3://conn@bucket/lake"
    assert settings().registry == "sqlite:////elsewhere/mlflow/mlflow.db"
    configure(mlflow_tracking_uri="http://mlflow:5000")
    assert settings().registry == "http://mlflow:5000"


@pytest.mark.parametrize(
    ("place", "variable"), [("lake", "ML_LAKE_ROOT"), ("registry", "MLFLOW_TRACKING_URI")]
)
def test_what_is_deployed_keeps_nothing_on_a_disk_that_nobody_has_chosen(
    place: str,
    variable: str,
    configure: Callable[..., None],
    deployed: None,
) -> None:
    with pytest.raises(BadData, match=f"{variable} is not set.*Deployment.*startup.sh"):
        getattr(settings(), place)
    configure(lake_root="s3://bucket/lake", mlflow_tracking_uri="http://mlflow:5000")
    assert getattr(settings(), place).endswith(("/lake", ":5000"))
    configure(lake_root="", mlflow_tracking_uri="", data_dir="/shared")
    assert "/shared/" in getattr(settings(), place)


def test_the_page_of_settings_is_what_the_settings_say() -> None:
    assert reference.SETTINGS.read_text() == reference.settings_page(), "run `make reference`"


def test_the_page_depends_on_no_machine_and_no_use_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_OWNER", "this-machine")
    settings.cache_clear()
    page = reference.settings_page()
    assert "this-machine" not in page
    assert str(PROJECT) not in page
    assert FIRST_WINDOW[0] not in page
