"""A use case that lacks a piece is refused with a message, and the others keep working."""

import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandera.polars
import polars as pl
import pytest

from include import usecases
from include.usecase import MODULES, Input, Member, UseCase, UsecaseInvalid, check_pieces
from local.choose import chosen
from tests.case import CASE
from tests.dags.parsing import DAGS, parse
from tests.unit.helpers import run_python

REPO = Path(__file__).resolve().parents[2]
SECOND = REPO / "tests" / "usecases" / "doctor_visits"
INIT = "__init__.py"

PIECES = [
    ("__init__", "USECASE"),
    *((module, name) for module, protocol in MODULES.items() for name in protocol.__annotations__),
]
each_piece = pytest.mark.parametrize(("module", "name"), PIECES, ids=str)

Enable = Callable[..., None]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the second use case, to break."""
    return copied(tmp_path / "broken" / "doctor_visits")


def copied(folder: Path) -> Path:
    shutil.copytree(SECOND, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def enable(configure: Callable[..., None]) -> Iterator[Enable]:
    """Enable use cases; what this process has imported of others than the first is forgotten."""

    def forget() -> None:
        usecases._loaded.cache_clear()
        for name in [name for name in sys.modules if name.startswith("include.usecases.")]:
            if not name.startswith(CASE.package):
                del sys.modules[name]

    forget()
    yield lambda *named: configure(usecases=",".join(map(str, named)))
    forget()


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@each_piece
def test_a_piece_that_is_missing_is_named(module: str, name: str, copy: Path) -> None:
    file = copy / f"{module}.py"
    file.write_text(re.sub(rf"\b{name}\b", "something_else", file.read_text()))
    with pytest.raises(UsecaseInvalid, match=rf"lacks {name} in {file.name}\. None of its DAGs"):
        check_pieces(copy)


def test_all_that_is_missing_is_named_at_once(copy: Path) -> None:
    (copy / "source.py").unlink()
    replace(copy / "features.py", "SEASONAL", "IN_SEASON")
    with pytest.raises(UsecaseInvalid) as error:
        check_pieces(copy)
    assert "lacks the file source.py, SEASONAL in features.py. None of its DAGs is there." in str(
        error.value
    )
    assert "docs/fork.md" in str(error.value)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["-m", "local.seed"], 2),
        (["-m", "local.demo"], 2),
        (["-m", "local.days"], 2),
        (["-m", "local.embedded", "start"], 2),
        (["-m", "local.clean_lake"], 2),
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
    replace(copy / "schema.py", "TRUTH =", "WHAT_CAME =")
    (copy / "source.py").write_text("raise SystemExit('this file was run')\n")
    done = run_python(copy, tmp_path / "data", *command)
    assert done.returncode == code
    lacking = f"The use case in {copy} lacks fetch in source.py, TRUTH in schema.py."
    assert any(lacking in line for line in done.stderr.splitlines())
    assert ("Traceback" in done.stderr) == (code == 1 and command[0].startswith("dags"))
    assert not (tmp_path / "data" / "lake").exists()
    assert not (tmp_path / "data" / "airflow" / "airflow.db").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = run_python(tmp_path / "nowhere", tmp_path / "data", "-m", "local.seed")
    assert f"The use case in {tmp_path / 'nowhere'} lacks the file __init__.py" in done.stderr
    assert "ML_USECASES names it" in done.stderr


def test_the_second_use_case_is_whole_and_its_first_days_come_through(tmp_path: Path) -> None:
    done = run_python("tests/usecases/doctor_visits", tmp_path / "data", "-m", "local.usecase")
    assert done.returncode == 0, done.stderr
    assert "2021-03-05: 160 rows validated, 160 of them with a label" in done.stdout
    assert "Model server: 100 rows answered over HTTP, as by the batch" in done.stdout
    assert "its first days go the whole way" in done.stdout


def test_names_that_do_not_meet_are_told_before_a_row_is_fetched(
    copy: Path, tmp_path: Path
) -> None:
    replace(copy / "features.py", 'SLICES = ["plan"]', 'SLICES = ["colour"]')
    replace(copy / INIT, '"straight_line"', '"crooked_line"')
    replace(copy / INIT, '"2021-04-11"', '"2021-03-03"')
    (copy / "source.py").write_text("def fetch(*_): raise SystemExit('rows were fetched')\n")
    done = run_python(copy, tmp_path / "data", "-m", "local.usecase")
    assert done.returncode == 1
    assert "SLICES names colour, and KEY and FEATURES are date, person" in done.stderr
    assert "members names crooked_line, and CANDIDATES are shallow_trees" in done.stderr
    assert "first_window has less than 28 days, two holdouts" in done.stderr
    assert "rows were fetched" not in done.stderr


def test_a_group_of_unknown_features_or_without_a_model_of_its_own_is_told(
    copy: Path, tmp_path: Path
) -> None:
    group = 'GROUPS = [Group("answers", ["health", "wealth"])]'
    replace(copy / "features.py", "GROUPS: list[Group] = []", group)
    done = run_python(copy, tmp_path / "data", "-m", "local.usecase")
    assert "the group answers of GROUPS names wealth, and FEATURES are coinsurance" in done.stderr
    assert "GROUPS names without_answers, and the candidates of WITHOUT are none" in done.stderr

    replace(copy / "features.py", '"wealth"', '"limitation", "diseases"')
    replace(copy / "models.py", "= {}", '= {"without_question": shallow_trees}')
    done = run_python(copy, tmp_path / "data", "-m", "local.usecase")
    assert "WITHOUT names without_question, and the paths of GROUPS are without_ans" in done.stderr


@pytest.mark.parametrize("piece", ["schema.INPUTS", "models.CANDIDATES"])
def test_a_piece_that_is_empty_and_must_not_be_is_told(
    piece: str, copy: Path, tmp_path: Path
) -> None:
    module, name = piece.split(".")
    with (copy / f"{module}.py").open("a") as file:
        file.write(f"\n{name} = type({name})()\n")
    done = run_python(copy, tmp_path / "data", "-m", "local.usecase")
    assert done.returncode == 1
    assert done.stderr == f"Not as it should be: {name} in {module}.py is empty.\n"


def test_a_piece_of_another_type_is_told(copy: Path, tmp_path: Path) -> None:
    replace(copy / "features.py", 'REQUIRED = ["coinsurance", "plan"]', 'REQUIRED = "plan"')
    done = run_python(copy, tmp_path / "data", "-m", "local.usecase")
    assert "REQUIRED in features.py is 'plan', and not of the type list[str]" in done.stderr


ROWS = [rf"`{module}\.py` \| `{name}" for module, name in PIECES[1:]] + [
    f"`{field.name}" for field in fields(UseCase)
]


@pytest.mark.parametrize("row", ROWS)
def test_the_way_to_a_fork_says_what_a_piece_is(row: str) -> None:
    text = (REPO / "docs" / "fork.md").read_text()
    assert re.search(rf"^\| {row}\b", text, flags=re.MULTILINE)


# --- what a use case declares ---------------------------------------------------------------------

TREES = Member("trees", "registry")


@pytest.mark.parametrize(
    "name",
    ["", "Late", "late-payments", "late payments", "late.payments", "2late", "_late", "late_",
     "late__payments", "späte", "late/x", "../x", "late\n", 7, None],
)  # fmt: skip
def test_a_name_that_cannot_be_everywhere_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be called .* lower-case letters, digits and"):
        UseCase(name, ("2026-01-01", "2026-02-28"), [TREES])


@pytest.mark.parametrize("window", [("2026-01-01", "1 May"), ("2026-01-01",), "2026", None])
def test_a_window_is_two_dates(window: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=r"first_window is .* has to be two dates"):
        UseCase("late", window, [TREES])


def test_a_window_ends_after_it_begins() -> None:
    with pytest.raises(ValueError, match="first_window ends on 2026-01-01, before it begins"):
        UseCase("late", ("2026-02-28", "2026-01-01"), [TREES])


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([], "late has no members"),
        (["trees"], "members has 'trees', which is no Member"),
        ([TREES, Member("b", "registry"), TREES], "members has trees twice"),
    ],
)
def test_members_are_some_and_different(members: list[Member], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        UseCase("late", ("2026-01-01", "2026-02-28"), members)


# --- one beside another ---------------------------------------------------------------------------


def only_second_is_broken() -> str:
    """What is wrong with the second use case; the first is not touched."""
    assert usecases.enabled() == [CASE]
    [wrong] = usecases.broken().values()
    return str(wrong)


BROKEN: dict[str, tuple[str, str, str]] = {
    "lacks a piece": ("schema.py", "TRUTH =", "lacks TRUTH in schema.py"),
    "lacks the use case": (INIT, "USECASE =", "lacks USECASE in __init__.py"),
    "is no Python": ("features.py", "\n\nimport polars", "of features.py is no Python"),
    "has another name": (INIT, 'name="doctor_visits"', "is called something_else, and has to be"),
    "has no member": (INIT, "members=[", "TypeError"),
    "raises": (INIT, "from include.usecase import Member", "ImportError: cannot import name"),
}
REPLACED = {
    "is no Python": "import = polars",
    "has another name": 'name="something_else"',
    "has no member": "crew=[",
    "raises": "from include.usecase import Remember, Member",
}


@pytest.mark.parametrize("way", BROKEN)
def test_a_broken_one_is_told_with_its_folder_and_leaves_the_other_alone(
    way: str, copy: Path, enable: Enable
) -> None:
    file, old, words = BROKEN[way]
    replace(copy / file, old, REPLACED.get(way, "WHATEVER ="))
    enable("flight_delays", copy)
    told = only_second_is_broken()
    assert str(copy) in told
    assert words in told
    assert "None of its DAGs is there." in told
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
def test_whatever_an_import_does_is_told_of_its_folder(
    code: str, words: str, copy: Path, enable: Enable
) -> None:
    with (copy / INIT).open("a") as file:
        file.write(f"\n{code}\n")
    enable("flight_delays", copy)
    assert re.search(words, only_second_is_broken())


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\0", b"(" * 10_000])
def test_a_file_that_cannot_be_read_is_reported_with_its_folder(
    content: bytes, copy: Path, enable: Enable
) -> None:
    (copy / "models.py").write_bytes(content)
    enable("flight_delays", copy)
    assert str(copy) in only_second_is_broken()


@pytest.mark.parametrize("code", ["import time; time.sleep(60)", "while True: pass"])
def test_an_import_that_hangs_is_given_up(
    code: str, copy: Path, enable: Enable, tmp_path: Path
) -> None:
    with (copy / INIT).open("a") as file:
        file.write(f"\n{code}\n")
    program = (
        "from include import usecases; usecases.IMPORT_SECONDS = 1\n"
        "assert [case.name for case in usecases.enabled()] == ['flight_delays']\n"
        "raise SystemExit(str(*usecases.broken().values()))"
    )
    began = time.monotonic()
    done = run_python(f"flight_delays,{copy}", tmp_path, "-c", program)
    assert time.monotonic() - began < 20
    assert f"The use case in {copy} cannot be imported" in done.stderr
    assert "it has not ended within 1 seconds" in done.stderr


def test_what_an_import_prints_goes_to_stderr(copy: Path, tmp_path: Path) -> None:
    with (copy / INIT).open("a") as file:
        file.write("\nprint('hello', flush=True)\n")
    program = "from include import usecases; print(*usecases.enabled())"
    done = run_python(copy, tmp_path, "-c", program)
    assert (done.stdout, done.stderr) == ("doctor_visits\n", "hello\n")


def test_what_a_module_does_is_not_done_before_it_is_used(copy: Path, enable: Enable) -> None:
    (copy / "source.py").write_text("fetch = 1 / 0\n")
    enable(copy)
    [case] = usecases.enabled()
    with pytest.raises(ZeroDivisionError):
        _ = case.source


@pytest.mark.parametrize("name", ["doctor-visits", "Doctor", "2021", "doctor visits"])
def test_a_folder_of_no_possible_name_is_told(name: str, tmp_path: Path, enable: Enable) -> None:
    folder = copied(tmp_path / name)
    enable("flight_delays", folder)
    assert f"a use case cannot be called {name!r}" in only_second_is_broken()


def test_two_of_one_name_are_both_told_and_the_others_stand(copy: Path, enable: Enable) -> None:
    enable("flight_delays", SECOND, copy)
    assert usecases.enabled() == [CASE]
    told = [str(one) for one in usecases.broken().values()]
    assert len(told) == 2
    for one in told:
        assert "2 use cases are called doctor_visits" in one
        assert str(SECOND) in one
        assert str(copy) in one
    with pytest.raises(UsecaseInvalid, match="2 use cases are called doctor_visits"):
        usecases.find("doctor_visits")


def test_one_that_is_named_twice_is_there_once(enable: Enable) -> None:
    enable("flight_delays", SECOND, f"{SECOND}/", "tests/usecases/doctor_visits", " flight_delays ")
    assert [case.name for case in usecases.enabled()] == ["flight_delays", "doctor_visits"]


def test_a_folder_may_have_blanks_on_its_way(tmp_path: Path, enable: Enable) -> None:
    enable(copied(tmp_path / "my own cases" / "doctor_visits"))
    assert [case.name for case in usecases.enabled()] == ["doctor_visits"]


def test_a_name_that_is_not_there_is_told(enable: Enable) -> None:
    enable("flight_delays", "churn")
    told = only_second_is_broken()
    assert "include/usecases/churn lacks the file __init__.py" in told
    assert "the variable ML_USECASES names it" in told


@pytest.mark.parametrize("name", ["doctor_visits", "tests/usecases/doctor_visits", str(SECOND)])
def test_one_is_found_by_its_name_and_by_its_path(name: str, enable: Enable) -> None:
    enable("flight_delays", "tests/usecases/doctor_visits")
    assert usecases.find(name).name == chosen(name).name == "doctor_visits"


def test_a_command_is_about_the_only_one_or_about_the_one_it_names(enable: Enable) -> None:
    enable(SECOND)
    assert chosen(None).name == chosen("").name == "doctor_visits"
    with pytest.raises(UsecaseInvalid, match=r"no use case 'churn': enabled is doctor_visits"):
        chosen("churn")
    enable("flight_delays", SECOND)
    assert chosen("flight_delays") is CASE
    assert chosen("doctor_visits").name == "doctor_visits"
    with pytest.raises(UsecaseInvalid, match=r"enabled: flight_delays, doctor_visits\. Say which"):
        chosen(None)


@pytest.mark.parametrize("module", ["seed", "days", "usecase", "rollback --reason x"])
def test_a_command_that_needs_one_of_several_says_which_there_are(
    module: str, tmp_path: Path
) -> None:
    enabled = "flight_delays,tests/usecases/doctor_visits"
    done = run_python(enabled, tmp_path / "data", "-m", *f"local.{module}".split())
    assert done.returncode == 2
    assert done.stderr.startswith("Several use cases are enabled: flight_delays, doctor_visits. ")
    assert not (tmp_path / "data").exists()


def test_another_folder_of_a_name_takes_the_place_of_the_one_before(
    copy: Path, enable: Enable
) -> None:
    enable(SECOND)
    [before] = usecases.enabled()
    assert len(before.inputs) == 2
    replace(copy / "schema.py", "INPUTS = [", "INPUTS = 2 * [")
    enable(copy)
    [after] = usecases.enabled()
    assert len(after.inputs) == 4


def test_one_broken_folder_leaves_the_others_dags_standing(copy: Path) -> None:
    replace(copy / "schema.py", "TRUTH =", "WHAT_CAME =")
    found = parse(DAGS, {"ML_USECASES": f"flight_delays,{copy}"})
    pipelines = {file.stem for file in DAGS.glob("*.py")} - {"broken_usecases"}
    assert set(found["dags"]) == {f"flight_delays.{name}" for name in pipelines}
    [(file, error)] = found["errors"].items()
    assert Path(file).name == "broken_usecases.py"
    assert f"The use case in {copy} lacks TRUTH in schema.py." in error


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"event_time": "time"}, ["time", "Datetime", "a time with a zone", "replace_time_zone"]),
        ({"event_time": "day"}, ["event_time names day", "no column"]),
        ({"event_time": "id"}, ["event_time names id", "Int64"]),
        ({"max_null_rate": {"price": 0.1}}, ["max_null_rate names price", "id, time"]),
        ({"max_text_bytes": {"note": 9}}, ["max_text_bytes names note", "id, time"]),
    ],
)
def test_a_contract_that_could_never_be_checked_is_refused_when_it_is_declared(
    declared: dict[str, Any], words: list[str]
) -> None:
    columns = {"id": pandera.polars.Column(pl.Int64), "time": pandera.polars.Column(pl.Datetime)}
    schema = pandera.polars.DataFrameSchema(columns)
    with pytest.raises(ValueError, match="input readings: ") as failure:
        Input("readings", schema, ["id"], lambda day: pl.lit(True), **declared)
    assert [word for word in words if word not in str(failure.value)] == []
