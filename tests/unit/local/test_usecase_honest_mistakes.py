"""`make usecase` says of each honest mistake what it is, in which file, and what it should be."""

import re
import shutil
from collections.abc import Callable, Iterator
from multiprocessing import forkserver, get_context
from pathlib import Path
from typing import Any

import pytest

from tests.unit.tried_usecase import PRELOADED, look_at

SECOND = Path(__file__).resolve().parents[2] / "usecases" / "doctor_visits"
MINUTE = 120

Try = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def processes() -> Iterator[Any]:
    """Starts processes that have imported no use case yet, whatever ran in this one before."""
    context = get_context("forkserver")
    forkserver._forkserver._stop()  # there is one in a process, and it may be another file's
    context.set_forkserver_preload(PRELOADED)
    yield context
    forkserver._forkserver._stop()


@pytest.fixture
def attempt(processes: Any, tmp_path: Path) -> Try:
    """Looks at a copy of the second use case in which texts are replaced, by file."""

    def tried(*changes: tuple[str, str, str]) -> tuple[int, str]:
        folder, output = tmp_path / "copy" / "doctor_visits", tmp_path / "output"
        shutil.copytree(SECOND, folder, ignore=shutil.ignore_patterns("__pycache__"))
        for file, old, new in changes:
            text = (folder / file).read_text()
            assert old in text, (file, old)
            (folder / file).write_text(text.replace(old, new))
        arguments = (str(folder), str(tmp_path / "data"), str(output))
        process = processes.Process(target=look_at, args=arguments)
        process.start()
        process.join(MINUTE)
        assert process.exitcode is not None
        return process.exitcode, output.read_text()

    return tried


INIT, SOURCE, SCHEMA = "__init__.py", "source.py", "schema.py"
FEATURES, MODELS = "features.py", "models.py"
ROWS = "    rows = rows.with_columns(date=pl.lit(day))\n"
SELECT = "    return rows.select(*KEY, pl.col(NUMERIC).cast(pl.Float32), *CATEGORICAL)\n"
LABEL = 'label=(pl.col("visits") > 0).cast(pl.Int8)'
PREDICTOR = '"sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"'
PIPELINE = (
    'return Pipeline([("encode", FeatureEncoder(NUMERIC, CATEGORICAL)), ("classify", classifier)])'
)


def source(code: str) -> tuple[str, str, str]:
    """A change of what the source gives, for all inputs of a day."""
    return SOURCE, ROWS, f"{ROWS}    {code}\n"


def rows(code: str) -> tuple[str, str, str]:
    """A change of the features before they are returned."""
    return FEATURES, SELECT, f"    rows = {code}\n{SELECT}"


def labels(code: str) -> tuple[str, str, str]:
    return FEATURES, LABEL, code


MISTAKES: dict[str, tuple[list[tuple[str, str, str]], list[str]]] = {
    # The source
    "nothing for a day": (
        [source("return None")],
        ["fetch in source.py gives nothing for enrolments of 2021-03-01", "`expected`"],
    ),
    "an empty frame": (
        [source("rows = rows.clear()")],
        ["the file has no rows: enrolments of 2021-03-01, as fetch in source.py gives it"],
    ),
    "a bug": (
        [source("rows = {}[day]")],
        ["line 28 of source.py, in fetch: KeyError: datetime.date(2021, 3, 1)"],
    ),
    "a frame of pandas": (
        [source("return rows.to_pandas()")],
        ["fetch('enrolments', 2021-03-01)", "a DataFrame of pandas", "pl.from_pandas"],
    ),
    "an undefined connection": (
        [source("from airflow.sdk import Connection; Connection.get('warehouse')")],
        ["source.py, in fetch: AirflowNotFoundException", "AIRFLOW_CONN_", "docs/fork.md"],
    ),
    "another type": (
        [(SOURCE, "pl.int_range(pl.len(), dtype=pl.Int32)", "pl.int_range(pl.len())")],
        ["enrolments of 2021-03-01", "column 'person' is Int64, must be Int32"],
    ),
    "a column too many": (
        [(SOURCE, '"coinsurance", "incentive")', '"coinsurance", "incentive", "diseases")')],
        ["column 'diseases' is not in the contract"],
    ),
    "a column too few": (
        [(SOURCE, '"coinsurance", "incentive")', '"coinsurance")')],
        ["column 'incentive' is missing"],
    ),
    "columns in another order": (
        [(SOURCE, '"date", "person", "plan"', '"person", "date", "plan"')],
        ["columns are in another order: person, date, plan"],
    ),
    "rows of another day": (
        [(SOURCE, "date=pl.lit(day))", "date=pl.lit(day).dt.offset_by('1d'))")],
        ["160 of 160 rows are bad", "row of another day × 160", "change schema.py, else source.py"],
    ),
    "keys that repeat": (
        [source("rows = rows.with_columns(pl.col('person') // 2 * 2)")],
        ["of 160 rows share their key with another, more than 1.0%"],
    ),
    "a key that is null": (
        [source("rows = rows.with_columns(pl.when(pl.col('person') % 10 != 1).then('person'))")],
        ["rows are bad", "person: missing × "],
    ),
    "texts that are null": (
        [source("rows = rows.with_columns(plan=pl.lit(None, pl.String))")],
        ["plan: missing × 160"],
    ),
    "a value that is not allowed": (
        [source("rows = rows.with_columns(plan=pl.lit('gold'))")],
        ["160 of 160 rows are bad", "plan: isin("],
    ),
    "five rows a day": (
        [(SOURCE, "ROWS_A_DAY = 160", "ROWS_A_DAY = 5")],
        ["a day has 5 rows, and with fewer than 20", "a partition is a day"],
    ),
    # Name, window and schema
    "a name that the registry refuses": (
        [(INIT, 'name="doctor_visits"', 'name="Doctor Visits/EU"')],
        ["a use case cannot be called 'Doctor Visits/EU'", INIT, "lower-case", "late_payments"],
    ),
    "a window that is no date": (
        [(INIT, '"2021-04-11"', '"11 April"')],
        ["first_window is ('2021-03-01', '11 April') and must be two dates", INIT],
    ),
    "time stamps without a zone": (
        [
            (SCHEMA, '"person": PERSON,', '"person": PERSON, "at": pa.Column(pl.Datetime("us")),'),
            (SCHEMA, 'name="enrolments"', 'name="enrolments", event_time="at"'),
        ],
        ["schema.py", "input enrolments: event_time names at", "a datetime with a time zone"],
    ),
    "a key of no column": (
        [(SCHEMA, 'KEY = ["date", "person"]', 'KEY = ["date", "patient"]')],
        ["KEY names patient, and the columns of enrolments are date, person, plan"],
    ),
    "a column that the library adds": (
        [(FEATURES, "FEATURES = [*", "FEATURES = ['score_' + 'band', *")],
        ["FEATURES in features.py names the column 'score_band'", "'input_score_band'"],
    ),
    "an input of the truth's name": (
        [(SCHEMA, 'name="questionnaires"', 'name="visits"')],
        ["2 inputs are called visits"],
    ),
    "an input of no possible name": (
        [(SCHEMA, 'name="questionnaires"', 'name="the questionnaires"')],
        ["schema.py", "input 'the questionnaires'", "letters, digits and underscores"],
    ),
    "a column twice": (
        [(FEATURES, '"limitation", "diseases"]', '"limitation", "limitation"]')],
        ["FEATURES names limitation twice"],
    ),
    "no Python": (
        [(FEATURES, "REQUIRED = [", "REQUIRED = = [")],
        ["line 17 of features.py is not valid Python: invalid syntax"],
    ),
    "an import of what is not installed": (
        [(MODELS, "from sklearn.impute", "import catboost_or_so\nfrom sklearn.impute")],
        ["of models.py, in <module>: ModuleNotFoundError: No module named 'catboost_or_so'"],
    ),
    # The features
    "a column that no input has": (
        [rows("rows.with_columns(cost=pl.col('price') * 2)")],
        ["line 34 of features.py, in build_features: ColumnNotFoundError", "price", "schema.py"],
    ),
    "numbers that are no Float32": (
        [(FEATURES, ".cast(pl.Float32)", "")],
        ["coinsurance of build_features is Float64, and has to be Float32"],
    ),
    "a feature that is missing": (
        [(FEATURES, "*CATEGORICAL)\n", "*CATEGORICAL[1:])\n")],
        ["plan of build_features is missing, and has to be String"],
    ),
    "columns that are no features": (
        [(FEATURES, "*CATEGORICAL)\n", "*CATEGORICAL, more=1)\n")],
        ["build_features gives more, and is to give KEY and FEATURES only"],
    ),
    "rows in another order": (
        [rows("rows.reverse()")],
        ["build_features gives other rows than those of enrolments, or another order: row 0"],
    ),
    "rows that are dropped": (
        [rows("rows.head(100)")],
        ["build_features gives 100 rows of features for 160 rows of enrolments"],
    ),
    "rows that are doubled": (
        [rows("pl.concat([rows, rows])")],
        ["build_features gives 320 rows of features for 160 rows of enrolments"],
    ),
    "an input that may be absent": (
        [(FEATURES, 'if "questionnaires" in inputs:', "if True:")],
        ["of features.py, in build_features, on a day without questionnaires: KeyError"],
    ),
    "an input that may be empty": (
        [
            (SCHEMA, 'name="enrolments"', 'name="enrolments", may_be_empty=True'),
            rows("rows.with_columns(pl.lit(rows['incentive'].to_list()[0]).alias('first'))"),
        ],
        ["of features.py, in build_features, on a day without enrolments: IndexError"],
    ),
    # The labels
    "labels that are true or false": (
        [labels('label=pl.col("visits") > 0')],
        ["label of build_labels has to be Int8, and never null: it is Boolean"],
    ),
    "labels that are counts": (
        [labels('label=pl.col("visits").cast(pl.Int8)')],
        ["label of build_labels has to be 0 or 1: there are 2, 3, 4, 5, 6 and", "more, too"],
    ),
    "labels that are -1 and 1": (
        [labels(f"{LABEL} * 2 - 1")],
        ["label of build_labels has to be 0 or 1: there are -1, too"],
    ),
    "labels that are null": (
        [labels(f"{LABEL}.replace(0, None)")],
        ["label of build_labels has to be Int8, and never null: it is Int8 with"],
    ),
    "labels of one kind": (
        [labels("label=pl.lit(1, pl.Int8)")],
        ["too little can be learned from the labels of 42 days", "only one class"],
    ),
    "labels with more columns": (
        [labels(f'"visits", {LABEL}')],
        ["build_labels gives date, person, visits, label, and is to give KEY and label"],
    ),
    # The models
    "a regressor": (
        [(MODELS, "HistGradientBoostingClassifier", "HistGradientBoostingRegressor")],
        ["shallow_trees in models.py ends with a HistGradientBoostingRegressor", "predict_proba"],
    ),
    "a classifier alone": (
        [(MODELS, PIPELINE, "return classifier")],
        ["shallow_trees in models.py gives a HistGradientBoostingClassifier, and has to give a"],
    ),
    "a model that takes no nulls": (
        [(MODELS, '            ("fill", SimpleImputer()),\n', "")],
        ["straight_line in models.py cannot be trained: ValueError", "NaN"],
    ),
    "a parameter that is not there": (
        [(MODELS, "max_iter=60", "max_itre=60")],
        ["of models.py, in shallow_trees: TypeError", "max_itre"],
    ),
    "a type that no file may hold": (
        [(MODELS, f"    {PREDICTOR},\n", "")],
        ["TRUSTED_TYPES in models.py lacks types of shallow_trees", "TreePredictor"],
    ),
    "a candidate of no possible name": (
        [(MODELS, '"straight_line": ', '"a/b": straight_line, "straight_line": ')],
        ["candidate 'a/b'", "letters, digits and underscores"],
    ),
    "a member of a name that is taken": (
        [(INIT, '"champion_by_http"', '"champion"')],
        [INIT, "a member cannot be called champion"],
    ),
    # What else is declared
    "a name that is not that of the folder": (
        [(INIT, 'name="doctor_visits"', 'name="visits"')],
        ["is called visits, and has to be a UseCase called doctor_visits, like its folder"],
    ),
    "members that are names": (
        [(INIT, 'Member("straight_line", "registry")', '"straight_line"')],
        [INIT, "members has 'straight_line', which is not a Member"],
    ),
    "a setting that is not there": (
        [(INIT, "    members=[\n", '    own_settings={"gate_auc": 1},\n    members=[\n')],
        ["own_settings of doctor_visits has 'gate_auc', which is not a setting"],
    ),
    "a setting that all use cases share": (
        [(INIT, "    members=[\n", '    own_settings={"retries": 1},\n    members=[\n')],
        ["own_settings of doctor_visits has 'retries', which is the same for all use cases"],
    ),
    "a setting of a wrong value": (
        [(INIT, "    members=[\n", '    own_settings={"seed": "x"},\n    members=[\n')],
        ["seed in own_settings of doctor_visits=x is wrong: it must be a whole number"],
    ),
    "an import of a module that is gone": (
        [(INIT, "from include.usecase import", "from include.contract import")],
        [INIT, "ModuleNotFoundError: No module named 'include.contract'"],
    ),
}  # fmt: skip


@pytest.mark.exhaustive
@pytest.mark.parametrize("mistake", MISTAKES)
def test_an_honest_mistake_is_reported_with_its_file_and_what_is_right(
    mistake: str, attempt: Try
) -> None:
    changes, words = MISTAKES[mistake]
    code, said = attempt(*changes)
    assert [word for word in words if word not in said] == [], said
    assert code == 1
    assert "Traceback" not in said
    assert not re.search(r"INFO|/tmp/tmp|\.parquet", said), said
    assert len(said) < 4_000, said


@pytest.mark.exhaustive
def test_a_use_case_without_weekends_passes_all_steps(attempt: Try) -> None:
    code, said = attempt(
        (SCHEMA, "    belongs=", "    expected=lambda day: day.weekday() < 5,\n    belongs=")
    )
    assert code == 0, said
    assert "2021-03-05: 160 rows validated" in said
    assert "2021-03-06" not in said
    assert "Model server: 100 rows answered over HTTP" in said
