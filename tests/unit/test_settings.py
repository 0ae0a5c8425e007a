"""Every knob, once: described, with a default, changed by its variable, refused when wrong."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from annotated_types import Le
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from include import usecases
from include.errors import BadData
from include.settings import INSTALLATION, PER_USECASE, PROJECT, Settings, settings, variable
from include.usecase import UseCase, UsecaseInvalid
from local import days, demo, embedded, reference, rollback, seed, usecase
from local.settings import main
from tests.case import BOTH, CASE

FIELDS = Settings.model_fields.items()


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_every_setting_has_a_description_and_a_default(name: str, field: FieldInfo) -> None:
    assert field.description
    assert field.description.endswith(".")
    assert not field.is_required()


def test_the_defaults_are_right_by_themselves(configure) -> None:
    configure()
    assert Settings(**{name: getattr(Settings(), name) for name, _ in FIELDS}) == Settings()


def another(field: FieldInfo) -> str | float | date:
    """A valid value of a setting that is not its default."""
    before = field.default
    if get_origin(field.annotation) is Literal:
        return next(value for value in get_args(field.annotation) if value != before)
    if field.annotation == date | None:
        return date(2026, 2, 1)
    if isinstance(before, bool):
        return not before
    if field.annotation is int:
        return before + 1
    if field.annotation is float:
        upper = [bound.le for bound in field.metadata if isinstance(bound, Le)]
        return (before + float(str(upper[0]))) / 2 if upper else before * 2.0
    return "x"


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_every_setting_is_changed_by_its_variable(
    name: str, field: FieldInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = another(field)
    monkeypatch.setenv(variable(name), str(new))
    settings.cache_clear()
    assert getattr(CASE.settings, name) == (type(field.default)("x") if new == "x" else new)


WRONG = [
    ("chunk_rows", "many", "a whole number ≥ 1"),
    ("chunk_rows", "0", "a whole number ≥ 1"),
    ("chunk_rows", "1.5", "a whole number ≥ 1"),
    ("batch_rows", "-1", "a whole number ≥ 1"),
    ("retry_base_seconds", "", "a number > 0 and ≤ 86400"),
    ("retries", "1000000", "a whole number ≥ 0 and ≤ 100"),
    ("max_quarantine_share", "5%", "a number ≥ 0 and ≤ 1"),
    ("max_quarantine_share", "7", "a number ≥ 0 and ≤ 1"),
    ("max_rejected_share", "nan", "a number ≥ 0 and ≤ 1"),
    ("max_score_psi", "inf", "a number > 0"),
    ("gate_min_skill_gain", "nan", "a number"),
    ("ab_share", "1", "a number > 0 and < 1"),
    ("train_start", "2013-2-28", "a date such as 2026-01-31"),
    ("experiment", "yes", "one of off, shadow, ab"),
    ("refit", "maybe", "true or false"),
    ("lake_root", "s3:/oops", "a folder, or a URI with two slashes such as s3://bucket/lake"),
    ("lake_root", "s3:///oops", "a folder, or a URI with two slashes such as s3://bucket/lake"),
    ("data_dir", "s3://x", "a folder on this machine; use ML_LAKE_ROOT for a lake elsewhere"),
    ("mlflow_tracking_uri", "http:mlflow", "a folder, or a URI with two slashes such as s3://buck"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), WRONG)
def test_a_wrong_value_is_one_line_with_variable_value_and_what_is_allowed(
    name: str, value: str, allowed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable(name), value)
    settings.cache_clear()
    with pytest.raises(BadData) as failure:
        _ = CASE.settings
    assert str(failure.value).startswith(f"{variable(name)}={value} is wrong: it must be {allowed}")
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lake_root", "s3://conn@bucket/lake"), ("lake_root", "relative/lake"),
        ("lake_root", "file:///lake"), ("mlflow_tracking_uri", "sqlite:////data/mlflow.db"),
        ("mlflow_tracking_uri", "http://mlflow:5000"), ("mlflow_tracking_uri", "databricks"),
        ("mlflow_tracking_uri", "postgresql+psycopg2://user:word@host/db"),
    ],
)  # fmt: skip
def test_places_of_all_kinds_are_taken(
    name: str, value: str, configure: Callable[..., None]
) -> None:
    configure(**{name: value})
    assert getattr(CASE.settings, name) == value


def test_every_wrong_setting_has_its_line(
    configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_CHUNK_ROW", "5")
    configure(chunk_rows="abc", ab_share=2)
    with pytest.raises(BadData) as failure:
        _ = CASE.settings
    assert str(failure.value).splitlines() == [
        "ML_CHUNK_ROW is not a setting: did you mean ML_CHUNK_ROWS?",
        "ML_CHUNK_ROWS=abc is wrong: it must be a whole number ≥ 1",
        "ML_AB_SHARE=2 is wrong: it must be a number > 0 and < 1",
    ]


NAMES = [variable(name) for name, _ in FIELDS if variable(name).startswith("ML_")]


@given(st.sampled_from(NAMES), st.data())
def test_a_misspelt_name_is_refused_with_the_name_that_was_meant(
    name: str, data: st.DataObject
) -> None:
    at = data.draw(st.integers(len("ML_"), len(name) - 1))
    before, letter, after = name[:at], name[at], name[at + 1 :]
    typo = data.draw(
        st.sampled_from([before + after, before + letter * 2 + after, before + "X" + after])
    )
    assume(typo not in NAMES and "__" not in typo)  # with two it is a use case's
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(typo, "slack://secret")
        settings.cache_clear()
        with pytest.raises(BadData, match=f"{typo} is not a setting: did you mean ML_") as failure:
            _ = CASE.settings
    settings.cache_clear()
    assert str(failure.value).count("did you mean") == 1
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize("name", ["ML_PLATFORM_TEAM", "ML_X", "ml_chunk_rows", "HTML_CHUNK_ROW"])
def test_names_that_may_be_somebody_elses_are_left_alone(
    name: str, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "5")
    configure()
    assert CASE.settings.chunk_rows == (5 if name == "ml_chunk_rows" else 250_000)


COMMANDS: list[tuple[Callable[..., int], list[str]]] = [
    (embedded.main, ["start"]), (demo.main, []), (seed.main, []), (days.main, []),
    (rollback.main, ["--reason", "x"]), (usecase.main, []), (main, []),
]  # fmt: skip


@pytest.mark.usefixtures("process_as_before")
@pytest.mark.parametrize(
    ("command", "arguments"), COMMANDS, ids=lambda one: getattr(one, "__module__", "")
)
def test_no_command_starts_anything_with_a_wrong_setting(
    command: Callable[..., int],
    arguments: list[str],
    configure: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(data_dir=tmp_path / "data", max_quarantine_share=7)
    assert command(arguments) == 2
    told = capsys.readouterr()
    assert told.err == "ML_MAX_QUARANTINE_SHARE=7 is wrong: it must be a number ≥ 0 and ≤ 1\n"
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("program", [["-m", "serving"], ["dags/batch_inference.py"]], ids=" ".join)
def test_the_model_server_and_every_dag_end_with_the_same_line(
    program: list[str], tmp_path: Path
) -> None:
    wrong = {"ML_MAX_QUARANTINE_SHARE": "7", "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, *program],
        cwd=PROJECT, env=os.environ | wrong, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == (2 if "serving" in program else 1)
    last = done.stderr.splitlines()[-1]
    assert last.endswith("ML_MAX_QUARANTINE_SHARE=7 is wrong: it must be a number ≥ 0 and ≤ 1")


def test_a_password_in_an_address_is_not_shown(
    configure: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    configure(mlflow_tracking_uri="https://user:hidden@mlflow/x")
    assert main([]) == 0
    assert "MLFLOW_TRACKING_URI=https://***@mlflow/x" in capsys.readouterr().out
    configure(mlflow_tracking_uri="https:/user:hidden@mlflow/x")
    assert main([]) == 2
    assert "hidden" not in "".join(capsys.readouterr())


def test_a_secret_is_not_shown(
    configure: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    configure(notify_urls="json://user:secret@localhost/hook")
    main([])
    assert "ML_NOTIFY_URLS=**********" in capsys.readouterr().out


def test_an_invalid_notifier_is_named_when_settings_are_shown(
    configure: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(notify_urls="slck://secret")
    assert main([]) == 2
    told = capsys.readouterr().err
    assert re.search(r"ML_NOTIFY_URLS.*slck", told)
    assert "secret" not in told


def test_settings_are_read_once_and_cannot_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = CASE.settings
    monkeypatch.setenv("ML_CHUNK_ROWS", "5")
    assert CASE.settings is before
    with pytest.raises(ValidationError, match="frozen"):
        before.chunk_rows = 5  # type: ignore[misc]


def test_everything_is_in_the_data_folder_unless_said_otherwise(
    configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ML_DATA_DIR", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name)
    configure()
    assert CASE.settings.lake == str(PROJECT / "data" / "lake")
    assert CASE.settings.registry == f"sqlite:///{PROJECT / 'data' / 'mlflow' / 'mlflow.db'}"
    configure(data_dir="/elsewhere", lake_root="s3://conn@bucket/lake")
    assert CASE.settings.lake == "s3://conn@bucket/lake"
    assert CASE.settings.registry == "sqlite:////elsewhere/mlflow/mlflow.db"
    configure(mlflow_tracking_uri="http://mlflow:5000")
    assert CASE.settings.registry == "http://mlflow:5000"


@pytest.mark.parametrize(
    ("place", "variable"), [("lake", "ML_LAKE_ROOT"), ("registry", "MLFLOW_TRACKING_URI")]
)
def test_a_deployment_stores_nothing_on_a_disk_that_was_not_chosen(
    place: str,
    variable: str,
    configure: Callable[..., None],
    deployed: None,
) -> None:
    with pytest.raises(BadData, match=f"{variable} is not set.*Deployment.*startup.sh"):
        getattr(CASE.settings, place)
    configure(lake_root="s3://bucket/lake", mlflow_tracking_uri="http://mlflow:5000")
    assert getattr(CASE.settings, place).endswith(("/lake", ":5000"))
    configure(lake_root="", mlflow_tracking_uri="", data_dir="/shared")
    assert "/shared/" in getattr(CASE.settings, place)


def test_the_page_of_settings_is_what_the_settings_say() -> None:
    assert reference.SETTINGS.read_text() == reference.settings_page(), "run `make reference`"


def test_the_page_depends_on_no_machine_and_no_use_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_OWNER", "this-machine")
    settings.cache_clear()
    page = reference.settings_page()
    assert "this-machine" not in page
    assert str(PROJECT) not in page
    assert CASE.first_window[0] not in page


# --- of one use case ------------------------------------------------------------------------------


def with_own(**values: object) -> UseCase:
    """The use case with values in its folder."""
    return replace(CASE, own_settings=values)


def test_a_value_comes_from_the_most_special_place_that_has_one(
    configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, own = CASE, with_own(gate_max_skill=0.7)
    configure()
    assert (plain.settings.gate_max_skill, own.settings.gate_max_skill) == (0.25, 0.7)
    configure(gate_max_skill=0.6)
    assert (plain.settings.gate_max_skill, own.settings.gate_max_skill) == (0.6, 0.7)
    monkeypatch.setenv("ML_FLIGHT_DELAYS__GATE_MAX_SKILL", "0.9")
    configure(gate_max_skill=0.6)
    assert (plain.settings.gate_max_skill, own.settings.gate_max_skill) == (0.9, 0.9)
    assert settings().gate_max_skill == 0.6


def test_a_message_names_the_place_whose_value_is_in_force(
    configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, own = CASE, with_own(gate_max_skill=0.7)
    configure(gate_max_skill=0.6)
    assert plain.settings.where_set("gate_max_skill") == "ML_GATE_MAX_SKILL"
    in_folder = "gate_max_skill in own_settings of flight_delays"
    assert own.settings.where_set("gate_max_skill") == in_folder
    assert own.settings.where_set("gate_min_days") == "ML_GATE_MIN_DAYS"
    monkeypatch.setenv("ML_FLIGHT_DELAYS__GATE_MAX_SKILL", "0.9")
    configure(gate_max_skill=0.6)
    assert own.settings.where_set("gate_max_skill") == "ML_FLIGHT_DELAYS__GATE_MAX_SKILL"


def texts_of(path: Path) -> str:
    """The string constants of a module, without those that are docstrings."""
    tree = ast.parse(path.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return "\n".join(
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docstrings
    )


def test_no_message_about_a_use_case_names_the_variable_of_the_installation() -> None:
    """The use case may have its own value; `where_set` says where."""
    variables = {variable(name) for name in PER_USECASE}
    library = PROJECT / "include"
    pipelines = ("inference", "monitoring", "orchestration", "training", "validation")
    for path in [
        library / "landed.py",
        *(p for f in pipelines for p in (library / f).rglob("*.py")),
    ]:
        assert not variables & set(re.findall(r"ML_\w+", texts_of(path))), path


def test_a_use_case_does_not_see_the_settings_of_another_one(
    configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(CASE, name="flight")  # whose variables begin almost the same
    monkeypatch.setenv("ML_FLIGHT_DELAYS__SEED", "8")
    monkeypatch.setenv("ML_FLIGHT__SEED", "9")
    configure()
    assert (CASE.settings.seed, other.settings.seed, settings().seed) == (8, 9, 7)


@pytest.mark.parametrize("name", PER_USECASE)
def test_every_other_setting_can_be_one_use_cases(
    name: str, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable(name, CASE.name), str(another(Settings.model_fields[name])))
    configure()
    own, installation = CASE.settings.model_dump(), settings().model_dump()
    assert {key for key in own if own[key] != installation[key]} == {name}


def test_a_variable_of_a_use_case_may_be_in_lower_case_as_others_may(
    configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ml_flight_delays__chunk_rows", "5")
    configure()
    assert CASE.settings.chunk_rows == 5


@pytest.mark.parametrize(
    ("variables", "own", "line"),
    [
        (
            {"ML_FLIGHT_DELAYS__AB_SHARE": "2"},
            {},
            "ML_FLIGHT_DELAYS__AB_SHARE=2 is wrong: it must be a number > 0 and < 1",
        ),
        (
            {},
            {"ab_share": 2},
            "ab_share in own_settings of flight_delays=2 is wrong: it must be a number > 0 and < 1",
        ),
        (
            {"ML_FLIGHT_DELAYS__AB_SHAR": "0.2"},
            {},
            "ML_FLIGHT_DELAYS__AB_SHAR is not a setting: did you mean ML_FLIGHT_DELAYS__AB_SHARE?",
        ),
        (
            {"ML_FLIGHT_DELAYS__COLOUR": "red"},
            {},
            "ML_FLIGHT_DELAYS__COLOUR names 'colour', which is not a setting",
        ),
        (
            {},
            {"colour": "red"},
            "own_settings of flight_delays has 'colour', which is not a setting",
        ),
    ],
)
def test_what_is_wrong_for_one_use_case_is_a_line_that_says_where_it_is(
    variables: dict[str, str],
    own: dict[str, object],
    line: str,
    configure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    configure()
    with pytest.raises(BadData) as failure:
        _ = with_own(**own).settings
    assert str(failure.value) == line


@pytest.mark.parametrize("name", sorted(INSTALLATION))
def test_what_all_use_cases_share_is_refused_for_one(
    name: str, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = "which is the same for all use cases"
    configure()
    with pytest.raises(BadData, match=f"own_settings of flight_delays has '{name}', {shared}"):
        _ = with_own(**{name: "x"}).settings
    monkeypatch.setenv(f"ML_FLIGHT_DELAYS__{name.upper()}", "x")
    configure()
    with pytest.raises(BadData, match=f"^ML_FLIGHT_DELAYS__{name.upper()} names .*, {shared}$"):
        _ = CASE.settings


def test_a_value_that_cannot_be_converted_is_reported_with_its_use_case(
    configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usecases, "_loaded", lambda _: with_own(notify_urls=["a", "b"]))
    configure()
    assert usecases.enabled() == []
    with pytest.raises(UsecaseInvalid, match="own_settings of flight_delays has notify_urls"):
        usecases.find(CASE.name)


@pytest.mark.parametrize("name", ["ML_NOBODY__GATE_MAX_SKILL", "ML_FLIGHT_DELAY__GATE_MAX_SKILLS"])
@pytest.mark.parametrize("command", [seed.main, demo.main, days.main, main])
def test_a_variable_for_a_missing_use_case_is_reported(
    command: Callable[..., int],
    name: str,
    configure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    process_as_before: None,
) -> None:
    monkeypatch.setenv(name, "secret")
    configure()
    if command is demo.main:  # which has settings of its own
        monkeypatch.setattr(demo, "check_start", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            command([])
        return
    assert command([]) == 2
    told = capsys.readouterr().err
    assert told == f"{name} is for a use case that does not exist: enabled is flight_delays\n"


@pytest.mark.parametrize("name", ["ML_NOBODY__COLOUR", "ML_PLATFORM__TEAM", "ML__", "ML___X"])
def test_variables_of_that_form_may_be_anybodys(
    name: str, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "x")
    configure()
    assert usecases.enabled() == [CASE]


def test_a_use_case_that_is_not_enabled_keeps_its_variables(
    configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_FLIGHT_DELAYS__SEED", "8")
    configure(usecases="tests/usecases/doctor_visits")
    assert [case.name for case in usecases.enabled()] == ["doctor_visits"]


def test_wrong_settings_of_one_use_case_leave_the_others_alone(
    configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_FLIGHT_DELAYS__SEED", "many")
    configure(usecases=BOTH)
    assert [case.name for case in usecases.enabled()] == ["doctor_visits"]
    [wrong] = usecases.broken().values()
    assert "flight_delays cannot work: ML_FLIGHT_DELAYS__SEED=many is wrong" in str(wrong)


def test_the_settings_of_a_use_case_are_shown_with_where_they_come_from(
    configure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ML_FLIGHT_DELAYS__SEED", "8")
    monkeypatch.setattr(usecases, "_loaded", lambda _: with_own(chunk_rows=9))
    configure(holdout_days=20)
    assert main(["--usecase", "flight_delays"]) == 0
    told = capsys.readouterr().out
    for line in (
        "ML_SEED=8  (ML_FLIGHT_DELAYS__SEED)",
        "ML_CHUNK_ROWS=9  (chunk_rows in own_settings of flight_delays)",
        "ML_HOLDOUT_DAYS=20  (ML_HOLDOUT_DAYS)",
        "ML_BATCH_ROWS=65536  (default)",
    ):
        assert f"{line}\n" in told
    assert main([]) == 0
    told = capsys.readouterr().out
    assert "ML_SEED=7  (default)\n    for flight_delays: 8  (ML_FLIGHT_DELAYS__SEED)\n" in told
