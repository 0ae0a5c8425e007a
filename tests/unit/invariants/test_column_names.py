"""No name of a column makes the library take a use case's own column for one of the library's."""

import ast
import random
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandera.polars as pa
import polars as pl
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from include.encoder import FeatureEncoder
from include.inference import ensemble, fallback, scoring
from include.lake.tables import Lake
from include.messages import CHAMPION
from include.monitoring import daily, measure, outcomes
from include.registry import registry
from include.training import snapshot, training
from include.usecase import (
    OWN_COLUMNS,
    OWN_PATTERN,
    REASONS,
    Input,
    Member,
    UsecaseInvalid,
    check_columns,
    check_pieces,
)
from include.usecases.flight_delays import features, models, schema
from local.in_process import batch_inference, model_retraining
from tests.case import CASE, SECOND, at

REPO = Path(__file__).resolve().parents[3]
WITH_ROWS = [
    "encoder", "inference/branching", "inference/ensemble", "inference/fallback",
    "inference/scoring", "monitoring/measure", "monitoring/outcomes", "statistics/drift",
    "statistics/profile", "statistics/profiles", "training/evaluation", "training/fitting",
    "training/gate", "training/plots", "training/snapshot", "training/training",
    "validation/contract", "validation/land", "validation/partition", "validation/rows",
]  # fmt: skip
"""Modules of the library that handle rows of the use case."""

DAYS = [(date(2026, 1, 1) + timedelta(days=n)).isoformat() for n in range(12)]
ROWS = 60
FEW, MANY = 24, 240
"""Columns of a day, beside the number of a row: an eighth are of the key, half are categories."""


Loop = Callable[[list[str]], tuple[list[Any], Lake]]


def batched(names: list[str], size: int) -> Iterator[list[str]]:
    return (names[start : start + size] for start in range(0, len(names) - size + 1, size))


def kinds(names: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Which names are those of the key, of numbers and of categories."""
    first, half = len(names) // 8, len(names) // 2
    return names[:first], names[first:half], names[half:]


def is_refused(name: str) -> bool:
    try:
        check_columns([], [name])
    except UsecaseInvalid:
        return True
    return False


def words() -> list[str]:
    """Every text and keyword in the library's code that could be the name of a column."""
    found = set()
    for module in WITH_ROWS:
        for node in ast.walk(ast.parse((REPO / "include" / f"{module}.py").read_text())):
            value = node.arg if isinstance(node, ast.keyword) else getattr(node, "value", None)
            if isinstance(value, str) and re.fullmatch(r"[A-Za-z]\w{0,30}", value):
                found.add(value)
    return sorted(found)


@pytest.mark.parametrize("name", [*OWN_COLUMNS, "score_band"])
@pytest.mark.parametrize("piece", ["KEY", "FEATURES"])
def test_a_column_of_the_librarys_own_is_refused_with_where_it_is_and_what_to_do(
    piece: str, name: str
) -> None:
    declared = {"KEY": (["date", name], ["age"]), "FEATURES": (["date"], ["age", name])}
    with pytest.raises(UsecaseInvalid) as error:
        check_columns(*declared[piece])
    file = {"KEY": "schema", "FEATURES": "features"}[piece]
    assert f"{piece} in {file}.py names the column {name!r}" in str(error.value)
    assert f"rename it, for instance to 'input_{name}'" in str(error.value)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("schema.py", '"person"]', '"day"]', "KEY in schema.py names the column 'day'"),
        ("features.py", '"diseases"]', '"label"]', "NUMERIC in features.py names the column"),
        ("features.py", '"health"]', '"score_x"]', "CATEGORICAL in features.py names the column"),
    ],
)
def test_what_is_written_down_is_refused_when_a_dag_is_parsed(
    file: str, old: str, new: str, said: str, tmp_path: Path
) -> None:
    for path in SECOND.glob("*.py"):
        text = path.read_text()
        (tmp_path / path.name).write_text(text.replace(old, new) if path.name == file else text)
    with pytest.raises(UsecaseInvalid, match=re.escape(said)):
        check_pieces(tmp_path)


def test_an_input_may_not_have_the_column_that_says_why_a_row_was_quarantined() -> None:
    columns = pa.DataFrameSchema({"id": pa.Column(int), REASONS: pa.Column(str)})
    with pytest.raises(ValueError, match="column 'reasons', which the library adds"):
        Input("visits", columns, ["id"], lambda _: pl.lit(value=True))


@pytest.mark.parametrize("name", ["champion", "challenger", "ensemble", "all", "without_x", "a b"])
def test_a_member_whose_figures_would_be_taken_for_anothers_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Member(name, "registry")


# --- the loop, whatever the columns are called ----------------------------------------------------


@pytest.fixture
def renamed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Puts a use case whose columns have other names in place of the flights, at every use."""
    shared = {id(one): (one, list(one)) for one in (schema.KEY, CASE.members)}

    def put(names: list[str]) -> None:
        key, numeric, categorical = kinds(names)
        judged = [*key[:4], *categorical[-8:]]  # each slice takes its time
        schema.KEY[:] = ["row_number", *key]
        CASE.members[:] = [Member("plain", "registry"), Member("plainer", "registry")]
        values = {
            "NUMERIC": numeric,
            "CATEGORICAL": categorical,
            "FEATURES": [*numeric, *categorical],
            "REQUIRED": [numeric[0], categorical[0]],
            "SLICES": judged,
            "SEGMENT": judged,
            "SEASONAL": [],
            "OFTEN_MISSING": [],
            "DRIFT_BOUNDS": {},
            "GROUPS": [],
            "build_features": lambda inputs: inputs["flights"],
            "build_labels": lambda truth: truth.rename({"answer": "label"}),
        }
        for name, value in values.items():
            monkeypatch.setattr(features, name, value)
        for name, strength in (("plain", 1.0), ("plainer", 0.1)):
            make = lambda _, strength=strength: Pipeline(  # noqa: E731
                [
                    ("encode", FeatureEncoder(numeric, categorical)),
                    ("fill", SimpleImputer()),
                    ("classify", LogisticRegression(C=strength)),
                ]
            )
            monkeypatch.setitem(models.CANDIDATES, name, make)

    yield put
    for one, before in shared.values():
        one[:] = before


def publish_days(lake: Lake, names: list[str]) -> None:
    """The same rows, whatever their columns are called."""
    draw = np.random.default_rng(1)
    key, numeric, categorical = kinds(names)
    for day in DAYS:
        numbers = draw.normal(size=(len(numeric), ROWS)).astype(np.float32)
        texts = np.array(["a", "b"])[draw.integers(0, 2, (len(key) + len(categorical), ROWS))]
        columns: dict[str, Any] = {"row_number": np.arange(ROWS)}
        columns |= dict(
            zip(
                [*key, *numeric, *categorical],
                [*texts[: len(key)], *numbers, *texts[len(key) :]],
                strict=True,
            )
        )
        rows = pl.DataFrame(columns)
        answer = (numbers[0] + draw.normal(size=ROWS) > 0).astype(np.int8)
        truth = rows.select(schema.KEY).with_columns(answer=pl.Series(answer))
        for table, part, frame in (("validated", "flights", rows), ("actuals", "actuals", truth)):
            version = lake.new_version(table, day)
            version.write_frame(part, frame)
            version.publish([part])


def whole_loop(lake: Lake, names: list[str]) -> list[Any]:
    """Train, judge, score, combine, look back. Returns all figures, without the columns' names."""
    publish_days(lake, names)
    end, day = DAYS[-2], DAYS[-1]
    verdict = model_retraining(at(lake), DAYS[0], end, "a test", "run", ["plain"], 5)
    champion = registry.champion(CASE)
    assert verdict.challenger is not None
    judged = lake.version(verdict.challenger.evaluation).manifest().metadata
    registry.register(
        CASE, training.train(at(lake), verdict.snapshot, "plainer", "a test")
    )  # a shadow
    batch_inference(at(lake), day, champion)
    rows = str(lake.current("features", day))
    chunks = scoring.plan_chunks(at(lake), rows, champion)
    answers = {one.name: ensemble.check(at(lake), rows, one, chunks) for one in CASE.members}
    roll = ensemble.call_roll(at(lake), rows, champion, answers, {})
    scored = ensemble.combine_day(at(lake), rows, roll)
    check = scoring.check_outputs(at(lake), scored.predictions, rows, None)
    ensemble.publish(at(lake), scored, check, rows, roll, None)
    joined, unknown = outcomes.join(at(lake), day)
    daily.observe(at(lake), day, datetime.now(UTC))
    decision = daily.decide(at(lake), day)
    daily.write_report(at(lake), day, decision)
    found = [
        *outcomes.figures(CASE, joined, ROWS, unknown, np.asarray(0.4), {}),
        *measure.figures(at(lake), day),
    ]
    return [
        list(judged["figures"].values()),
        [list(one.values()) for one in judged["slices"].values()],
        snapshot.input_shifts(CASE, lake.version(verdict.snapshot)).drop("feature").rows(),
        lake.current("predictions", day).read("predictions")["score"].to_list(),
        fallback.baselines(at(lake), rows).tolist(),
        [(one.metric, one.value, one.n) for one in found if one.metric != "published"],
        joined.width,
        [(reason.rule, reason.action) for reason in decision.reasons],
    ]


@pytest.fixture
def loop(
    renamed: Callable[[list[str]], None],
    own_registry: Path,
    configure: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Loop:
    """Runs the whole loop with columns of these names, each time in a lake of its own."""
    configure(
        experiment="shadow", gate_confidence=0, gate_max_skill=1, gate_max_skill_gain=1,
        gate_max_slice_skill_loss=10, gate_max_calibration_error=1, gate_max_shift_ratio=1000,
        refit=False,
    )  # fmt: skip
    client = MlflowClient(f"sqlite:///{own_registry}")

    def run(names: list[str]) -> tuple[list[Any], Lake]:
        client.delete_registered_model_alias(CASE.name, CHAMPION)
        renamed(names)
        lake = Lake(str(tmp_path_factory.mktemp("lake")))
        return whole_loop(lake, names), lake

    return run


NEUTRAL = [f"input_{n}" for n in range(MANY)]

ONCE_WRONG = ["window", "proportion", "count", "rate", "value", "feature", "version", "scores"]
"""Names that the library's frames once had, have, or nearly have."""


@pytest.mark.exhaustive
def test_figures_do_not_depend_on_what_columns_are_called_and_each_of_the_librarys_is_refused(
    loop: Loop,
) -> None:
    neutral, found = loop(NEUTRAL[:FEW])
    added = columns_beside_the_key(found)
    assert {name for name in added if not re.fullmatch(OWN_PATTERN, name)} == {
        *OWN_COLUMNS,
        "answer",
    }
    assert loop([*NEUTRAL[: FEW - len(ONCE_WRONG)], *ONCE_WRONG])[0] == neutral


@pytest.mark.exhaustive
def test_any_word_of_the_librarys_code_is_refused_or_may_be_a_columns_name(loop: Loop) -> None:
    allowed = [word for word in words() if not is_refused(word)]
    random.Random(1).shuffle(allowed)
    neutral = loop(NEUTRAL)[0]
    for some in batched([*allowed, *NEUTRAL], len(NEUTRAL)):
        assert loop(some)[0] == neutral, some


def columns_beside_the_key(lake: Lake) -> set[str]:
    """The columns that rows of the use case have anywhere in a lake, beside its own."""
    found: set[str] = set()
    for path in Path(str(lake.root)).rglob("*.parquet"):
        names = set(pq.read_schema(path).names)
        if names >= set(schema.KEY):
            found |= names
    return found - {*schema.KEY, *features.FEATURES}
