"""A use case that is broken is named with its folder, and those beside it go on working."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from include import usecases
from include.settings import settings
from include.usecase import UsecaseInvalid
from local.choose import chosen
from tests.case import CASE, SECOND
from tests.conftest import FLIGHTS
from tests.dags.parsing import DAGS, parse
from tests.unit.helpers import copied, edit, run_python


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["-m", "local.seed"], 2),
        (["-m", "local.demo"], 2),
        (["-m", "local.days"], 2),
        (["-m", "local.embedded", "start"], 2),
        (["-m", "local.settings"], 2),
        (["-m", "local.usecase"], 1),
        (["-m", "serving"], 2),
        (["dags/broken_usecases.py"], 1),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, list) else "",
)
def test_nothing_runs_without_a_piece(
    command: list[str], code: int, copy: Path, tmp_path: Path
) -> None:
    edit(copy / "schema.py", "TRUTH =", "WHAT_CAME =")
    (copy / "source.py").write_text("raise SystemExit('this file was run')\n")
    done = run_python(copy, tmp_path / "data", *command)
    assert done.returncode == code
    lacking = f"The use case in {copy} lacks fetch in source.py, TRUTH in schema.py."
    assert any(lacking in line for line in done.stderr.splitlines())
    assert ("Traceback" in done.stderr) == (code == 1 and command[0].startswith("dags"))
    assert not (tmp_path / "data" / "lake").exists()
    assert not (tmp_path / "data" / "airflow" / "airflow.db").exists()


@pytest.mark.parametrize("command", ["local.seed", "local.settings", "serving"])
def test_nothing_runs_with_a_variable_for_a_use_case_that_does_not_exist(
    command: str, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_DOCTOR_VISIT__CHUNK_ROWS", "9")
    done = run_python(copy, tmp_path / "data", "-m", command)
    assert done.returncode == 2
    assert done.stderr.startswith("ML_DOCTOR_VISIT__CHUNK_ROWS is for a use case that does not")
    assert done.stderr.count("\n") == 1


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = run_python(tmp_path / "nowhere", tmp_path / "data", "-m", "local.seed")
    assert f"The use case in {tmp_path / 'nowhere'} lacks the file __init__.py" in done.stderr
    assert "name it in the variable ML_USECASES" in done.stderr


def only_second_is_broken() -> str:
    """What is wrong with the second use case; the first is not touched."""
    assert usecases.enabled() == [CASE]
    [wrong] = usecases.broken().values()
    return str(wrong)


BROKEN: dict[str, tuple[str, str, str]] = {
    "lacks a piece": ("schema.py", "TRUTH =", "lacks TRUTH in schema.py"),
    "lacks the use case": ("__init__.py", "USECASE =", "lacks USECASE in __init__.py"),
    "is no Python": ("features.py", "\n\nimport polars", "of features.py is not valid Python"),
    "has another name": (
        "__init__.py",
        'name="doctor_visits"',
        "is called something_else, and has to be",
    ),
    "has no member": ("__init__.py", "members=[", "TypeError"),
    "raises": (
        "__init__.py",
        "from include.usecase import Member",
        "ImportError: cannot import name",
    ),
}


REPLACED = {
    "is no Python": "import = polars",
    "has another name": 'name="something_else"',
    "has no member": "crew=[",
    "raises": "from include.usecase import Remember, Member",
}


@pytest.mark.parametrize("way", BROKEN)
def test_a_broken_use_case_is_reported_with_its_folder_and_does_not_affect_the_other(
    way: str, copy: Path, enable: Callable[..., None]
) -> None:
    file, old, words = BROKEN[way]
    edit(copy / file, old, REPLACED.get(way, "WHATEVER ="))
    enable(FLIGHTS, copy)
    told = only_second_is_broken()
    assert str(copy) in told
    assert words in told
    assert "It has no DAGs until this is fixed." in told
    with pytest.raises(UsecaseInvalid, match=words):
        usecases.find("doctor_visits")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", r"it ends the program by SystemExit\(3\)"),
        ("import not_installed", "ModuleNotFoundError: No module named 'not_installed'"),
        ("def f(): f()\nf()", "RecursionError"),
        ("USECASE = 7", "USECASE in .* is 7, and has to be a UseCase called doctor_visits"),
    ],
)
def test_any_failure_of_an_import_is_reported_with_its_folder(
    code: str, words: str, copy: Path, enable: Callable[..., None]
) -> None:
    with (copy / "__init__.py").open("a") as file:
        file.write(f"\n{code}\n")
    enable(FLIGHTS, copy)
    assert re.search(words, only_second_is_broken())


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\0", b"(" * 10_000])
def test_a_file_that_cannot_be_read_is_reported_with_its_folder(
    content: bytes, copy: Path, enable: Callable[..., None]
) -> None:
    (copy / "models.py").write_bytes(content)
    enable(FLIGHTS, copy)
    assert str(copy) in only_second_is_broken()


@pytest.mark.parametrize("code", ["import time; time.sleep(60)", "while True: pass"])
def test_an_import_that_hangs_is_given_up(
    code: str, copy: Path, enable: Callable[..., None], tmp_path: Path
) -> None:
    with (copy / "__init__.py").open("a") as file:
        file.write(f"\n{code}\n")
    program = (
        "from include import usecases; usecases.IMPORT_SECONDS = 1\n"
        "assert [case.name for case in usecases.enabled()] == ['flight_delays']\n"
        "raise SystemExit(str(*usecases.broken().values()))"
    )
    began = time.monotonic()
    done = run_python(f"{FLIGHTS},{copy}", tmp_path, "-c", program)
    assert time.monotonic() - began < 20
    assert f"The use case in {copy} cannot be imported" in done.stderr
    assert "it has not ended within 1 seconds" in done.stderr


def test_whoever_needs_one_use_case_imports_no_other(copy: Path, tmp_path: Path) -> None:
    with (copy / "__init__.py").open("a") as file:
        file.write("\nprint('imported', flush=True)\n")
    program = "from include import usecases; print(usecases.find('flight_delays'))"
    done = run_python(f"{FLIGHTS},{copy}", tmp_path, "-c", program)
    assert (done.stdout, done.stderr) == ("flight_delays\n", "")


def test_threads_that_come_at_once_find_the_same_use_case(copy: Path, tmp_path: Path) -> None:
    with (copy / "__init__.py").open("a") as file:
        file.write("\nimport time; time.sleep(0.5)\n")
    program = (
        "from concurrent.futures import ThreadPoolExecutor as Pool\n"
        "from include import usecases\n"
        "found = list(Pool(8).map(lambda _: usecases.enabled(), range(8)))\n"
        "print(*{str(*one) for one in found}, len({id(*one) for one in found}))"
    )
    done = run_python(copy, tmp_path, "-c", program)
    assert (done.stdout, done.stderr) == ("doctor_visits 1\n", "")


def test_use_cases_that_would_share_a_lake_are_both_refused(
    copy: Path, enable: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_FLIGHT_DELAYS__LAKE_ROOT", "s3://bucket/lake")
    monkeypatch.setenv("ML_DOCTOR_VISITS__LAKE_ROOT", "s3://bucket/lake/")
    enable(FLIGHTS, copy)
    assert usecases.enabled() == []
    for wrong in usecases.broken().values():
        assert "flight_delays, doctor_visits have the same lake, s3://bucket/lake," in str(wrong)
    with pytest.raises(UsecaseInvalid, match="have the same lake"):
        chosen("doctor_visits")
    monkeypatch.setenv("ML_DOCTOR_VISITS__LAKE_ROOT", "")
    enable(FLIGHTS, copy)
    first, second = [case.settings.lake_of(case.name) for case in usecases.enabled()]
    assert first == "s3://bucket/lake"
    assert second.endswith("/lake/doctor_visits")


@pytest.mark.parametrize(
    "own", ["{lake}/flight_delays", "file://{lake}/flight_delays/", "{lake}/../lake/flight_delays"]
)
def test_a_lake_may_not_be_the_folder_of_another_use_case(
    own: str, copy: Path, enable: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_DOCTOR_VISITS__LAKE_ROOT", own.format(lake=settings().lake))
    enable(FLIGHTS, copy)
    assert usecases.enabled() == []
    assert all("have the same lake" in str(wrong) for wrong in usecases.broken().values())


def test_what_an_import_prints_goes_to_stderr(copy: Path, tmp_path: Path) -> None:
    with (copy / "__init__.py").open("a") as file:
        file.write("\nprint('hello', flush=True)\n")
    program = "from include import usecases; print(*usecases.enabled())"
    done = run_python(copy, tmp_path, "-c", program)
    assert (done.stdout, done.stderr) == ("doctor_visits\n", "hello\n")


def test_what_a_module_does_is_not_done_before_it_is_used(
    copy: Path, enable: Callable[..., None]
) -> None:
    (copy / "source.py").write_text("fetch = 1 / 0\n")
    enable(copy)
    [case] = usecases.enabled()
    with pytest.raises(ZeroDivisionError):
        _ = case.source


@pytest.mark.parametrize("name", ["doctor-visits", "Doctor", "2021", "doctor visits"])
def test_a_folder_with_an_impossible_name_is_reported(
    name: str, tmp_path: Path, enable: Callable[..., None]
) -> None:
    folder = copied(tmp_path / name)
    enable(FLIGHTS, folder)
    assert f"a use case cannot be called {name!r}" in only_second_is_broken()


def test_two_use_cases_with_one_name_are_both_reported_and_the_others_work(
    copy: Path, enable: Callable[..., None]
) -> None:
    enable(FLIGHTS, SECOND, copy)
    assert usecases.enabled() == [CASE]
    told = [str(one) for one in usecases.broken().values()]
    assert len(told) == 2
    for one in told:
        assert "2 use cases are called doctor_visits" in one
        assert str(SECOND) in one
        assert str(copy) in one
    with pytest.raises(UsecaseInvalid, match="2 use cases are called doctor_visits"):
        usecases.find("doctor_visits")


def test_one_that_is_named_twice_is_there_once(enable: Callable[..., None]) -> None:
    enable(FLIGHTS, SECOND, f"{SECOND}/", "tests/usecases/doctor_visits", f" {FLIGHTS} ")
    assert [case.name for case in usecases.enabled()] == ["flight_delays", "doctor_visits"]


def test_a_folder_may_have_blanks_on_its_way(tmp_path: Path, enable: Callable[..., None]) -> None:
    enable(copied(tmp_path / "my own cases" / "doctor_visits"))
    assert [case.name for case in usecases.enabled()] == ["doctor_visits"]


def test_a_missing_use_case_is_reported(enable: Callable[..., None]) -> None:
    enable(FLIGHTS, "churn")
    told = only_second_is_broken()
    assert "include/usecases/churn lacks the file __init__.py" in told
    assert "name it in the variable ML_USECASES" in told


@pytest.mark.parametrize("name", ["doctor_visits", "tests/usecases/doctor_visits", str(SECOND)])
def test_one_is_found_by_its_name_and_by_its_path(name: str, enable: Callable[..., None]) -> None:
    enable(FLIGHTS, "tests/usecases/doctor_visits")
    assert usecases.find(name).name == chosen(name).name == "doctor_visits"


def test_another_folder_of_a_name_takes_the_place_of_the_one_before(
    copy: Path, enable: Callable[..., None]
) -> None:
    enable(SECOND)
    [before] = usecases.enabled()
    assert len(before.inputs) == 2
    edit(copy / "schema.py", "INPUTS = [", "INPUTS = 2 * [")
    enable(copy)
    [after] = usecases.enabled()
    assert len(after.inputs) == 4


def test_one_broken_folder_leaves_the_others_dags_standing(copy: Path) -> None:
    edit(copy / "schema.py", "TRUTH =", "WHAT_CAME =")
    found = parse(DAGS, {"ML_USECASES": f"{FLIGHTS},{copy}"})
    pipelines = {file.stem for file in DAGS.glob("*.py")} - {"broken_usecases"}
    assert set(found["dags"]) == {f"flight_delays.{name}" for name in pipelines}
    [(file, error)] = found["errors"].items()
    assert Path(file).name == "broken_usecases.py"
    assert f"The use case in {copy} lacks TRUTH in schema.py." in error
