"""Which model scores which rows: a stable share, rows of a kind, and never at a day's cost."""

import shutil
from collections.abc import Callable
from dataclasses import replace as changed
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from include.inference import branching, scoring
from include.lake.tables import Lake
from include.messages import CHALLENGER, CHAMPION, Branches, ModelVersion
from include.monitoring import history as records
from include.monitoring import measure, outcomes
from include.registry import promotion, registry
from include.training import evaluation, training
from include.usecases.flight_delays import features, models
from include.usecases.flight_delays.schema import KEY
from include.usecases.flight_delays.source import WEATHER
from tests.case import CASE, at
from tests.unit.champions import challengers, client
from tests.unit.conftest import OLD_DAY, History
from tests.unit.helpers import infer

ROW = st.tuples(
    st.dates(date(2013, 1, 1), date(2030, 1, 1)),
    st.text(max_size=3),
    st.integers(1, 9999),
    st.sampled_from(["EWR", "JFK", "LGA"]),
)


def keys(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    schema = {"date": pl.Date, "carrier": pl.String, "flight": pl.Int32, "origin": pl.String}
    return pl.DataFrame(rows, schema, orient="row")


MANY = keys([(date(2013, 2, 1), "UA", flight, "EWR") for flight in range(1, 10_000)])


NOTHING = {n: pl.lit(None, pl.Float32) for group in features.GROUPS for n in group.features}
"""Columns of a row that lacks every group."""


# --- The hash -------------------------------------------------------------------------------------


@given(share=st.floats(0.01, 0.99), salt=st.text(max_size=20))
def test_as_many_rows_as_were_asked_for_are_drawn(share: float, salt: str) -> None:
    found = (branching.draw(CASE, MANY, salt) < share).mean()
    assert abs(found - share) < 5 * np.sqrt(share * (1 - share) / len(MANY))


@given(rows=st.lists(ROW, max_size=30), salt=st.text(max_size=5), random=st.randoms())
def test_a_row_draws_the_same_number_wherever_it_stands_and_whatever_else_there_is(
    rows: list[tuple[Any, ...]], salt: str, random: Any
) -> None:
    numbers = dict(zip(rows, branching.draw(CASE, keys(rows), salt), strict=True))
    random.shuffle(rows)
    others = keys(rows).with_columns(pl.col("carrier", "origin").cast(pl.Categorical))
    again = branching.draw(CASE, others.select(KEY[::-1]).with_columns(other=1), salt)
    assert dict(zip(rows, again, strict=True)) == numbers
    some = rows[: len(rows) // 2]
    assert branching.draw(CASE, keys(some), salt).tolist() == [numbers[row] for row in some]
    assert all(0 <= number < 1 for number in numbers.values())


def test_the_numbers_are_those_of_every_machine_and_year() -> None:
    found = branching.draw(
        CASE, keys([(date(2013, 2, 1), "UA", 15, "EWR")]), "flight-delays version 2"
    )
    assert found.tolist() == [0.5127553700557973]


def test_another_challenger_gets_other_rows() -> None:
    one, other = (branching.draw(CASE, MANY, f"model version {n}") < 0.2 for n in (2, 3))
    assert (one & other).mean() == pytest.approx(0.04, abs=0.01)


def test_a_greater_share_leaves_the_challenger_the_rows_that_it_has() -> None:
    numbers = branching.draw(CASE, MANY, "")
    assert not ((numbers < 0.1) & ~(numbers < 0.3)).any()


# --- A challenger ---------------------------------------------------------------------------------


def manifest(lake: Lake, key: str = OLD_DAY) -> dict[str, Any]:
    found = lake.manifest("predictions", key)
    assert found is not None
    return found.metadata


def alone(lake: Lake, model: ModelVersion) -> np.ndarray:
    """What a model gives all rows of the day."""
    rows = lake.current("features", OLD_DAY).read("features")
    return registry.load(CASE, model).predict_proba(rows)[:, 1].astype(np.float32)


def texts(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))


def test_in_an_ab_test_a_share_of_the_rows_has_the_challengers_score_and_says_so(
    challenger: ModelVersion, lake: Lake, history: History, configure: Callable[..., None]
) -> None:
    configure(experiment="ab", ab_share=0.3, chunk_rows=300, batch_rows=100)
    rows = texts(infer(lake, OLD_DAY, history.champion))
    assert rows.columns == [*KEY, "score", "model", "model_version", "path"]
    is_drawn = branching.draw(CASE, rows, str(challenger)) < 0.3
    assert rows["path"].to_list() == [CHALLENGER if drawn else CHAMPION for drawn in is_drawn]
    assert set(rows.select("path", "model_version").unique().rows()) == {
        (CHAMPION, history.champion.version),
        (CHALLENGER, challenger.version),
    }
    expected = np.where(is_drawn, alone(lake, challenger), alone(lake, history.champion))
    np.testing.assert_array_equal(rows["score"], expected)
    facts = manifest(lake)["branches"]
    assert facts["rows"] == {CHAMPION: int((~is_drawn).sum()), CHALLENGER: int(is_drawn.sum())}
    assert (facts["mode"], facts["share"], facts["absent"]) == ("ab", 0.3, {})


def test_chunks_and_batches_do_not_change_which_model_scores_a_row(
    challenger: ModelVersion, lake: Lake, history: History, configure: Callable[..., None]
) -> None:
    configure(experiment="ab", ab_share=0.3)
    expected = infer(lake, OLD_DAY, history.champion)
    configure(chunk_rows=200, batch_rows=70)
    assert_frame_equal(
        texts(infer(lake, OLD_DAY, history.champion)), texts(expected), check_exact=True
    )


def test_a_shadow_scores_beside_the_champion_and_is_never_published_as_the_score(
    challenger: ModelVersion, lake: Lake, history: History, configure: Callable[..., None]
) -> None:
    published = infer(lake, OLD_DAY, history.champion)
    configure(experiment="shadow", chunk_rows=300)
    rows = infer(lake, OLD_DAY, history.champion)
    assert_frame_equal(texts(rows.select(published.columns)), texts(published))
    np.testing.assert_array_equal(rows["score_challenger"], alone(lake, challenger))
    assert rows["path"].cast(pl.String).unique().to_list() == [CHAMPION]


@pytest.mark.parametrize("mode", ["ab", "shadow"])
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("no alias", "No version has the alias"),
        ("is champion", "has become champion"),
        ("no file", "There is no model.skops"),
    ],
)
def test_without_a_challenger_the_champion_scores_everything_and_the_run_says_why(
    what: str,
    words: str,
    mode: str,
    challenger: ModelVersion,
    lake: Lake,
    history: History,
    configure: Callable[..., None],
) -> None:
    published = infer(lake, OLD_DAY, history.champion)
    client().delete_registered_model_alias(challenger.name, CHALLENGER)
    if what == "is champion":
        client().set_registered_model_alias(challenger.name, CHALLENGER, history.champion.version)
    elif what == "no file":
        [lost] = challengers(1, files="file:///nowhere")
        client().set_registered_model_alias(lost.name, CHALLENGER, lost.version)
    configure(experiment=mode)
    rows = infer(lake, OLD_DAY, history.champion)
    assert_frame_equal(texts(rows.drop("path")), texts(published))
    assert words in manifest(lake)["branches"]["absent"][CHALLENGER]
    assert manifest(lake)["branches"]["rows"] == {CHAMPION: len(rows), CHALLENGER: 0}


def test_a_version_that_was_rolled_back_is_shadowed_at_most(
    challenger: ModelVersion, lake: Lake, history: History, configure: Callable[..., None]
) -> None:
    promotion.promote(CASE, challenger, history.champion, "the tests")
    promotion.roll_back(CASE, challenger, history.champion, "the tests")
    configure(experiment="ab")
    assert "was rolled back" in branching.resolve(CASE, history.champion).absent[CHALLENGER]
    configure(experiment="shadow")
    assert branching.resolve(CASE, history.champion).models == {CHALLENGER: challenger}


def gathered(lake: Lake, history: History, spoil: Callable[[Path], object]) -> pl.DataFrame:
    """A day in an A/B test whose challenger's only file of scores is spoiled."""
    reference = scoring.preprocess(at(lake), OLD_DAY)
    [planned] = scoring.plan_chunks(at(lake), reference, history.champion)
    chunks = [planned]
    branches = branching.resolve(CASE, history.champion)
    [theirs] = branching.plan(at(lake), chunks, branches)[CHALLENGER]
    scoring.score_chunk(at(lake), chunks[0])
    spoil(Path(scoring.score_chunk(at(lake), theirs)))
    found = branching.gather(at(lake), chunks, branches, "the machine was lost")
    predictions = branching.assemble(at(lake), reference, chunks, found)
    check = scoring.check_outputs(at(lake), predictions, reference, history.champion)
    lineage = {"features": reference, "model": vars(history.champion)}
    branching.publish(at(lake), predictions, check, lineage, found)
    return texts(lake.current("predictions", OLD_DAY).read("predictions"))


def constant(path: Path) -> None:
    rows = pl.read_parquet(path).with_columns(score=pl.lit(0.2, pl.Float32))
    path.unlink()
    rows.write_parquet(path)


def put_in_the_way(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.write_text("a file where the folder was")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (put_in_the_way, "the machine was lost"),
        (Path.unlink, "the machine was lost"),
        (constant, "every score is 0.2000"),
        (lambda path: path.write_bytes(b"x"), "cannot be read as Parquet"),
    ],
)
def test_a_challenger_that_fails_while_it_scores_costs_no_row(
    spoil: Callable[[Path], object],
    words: str,
    challenger: ModelVersion,
    lake: Lake,
    history: History,
    configure: Callable[..., None],
) -> None:
    expected = texts(infer(lake, OLD_DAY, history.champion))
    configure(experiment="ab", ab_share=0.5)
    rows = gathered(lake, history, spoil)
    assert_frame_equal(rows.drop("path"), expected)
    assert words in manifest(lake)["branches"]["absent"][CHALLENGER]


def test_if_the_rows_of_others_cannot_be_found_the_champion_scores_them(
    challenger: ModelVersion,
    lake: Lake,
    history: History,
    configure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = texts(infer(lake, OLD_DAY, history.champion))
    configure(experiment="ab", ab_share=0.5)

    def after_scoring(_: Path) -> None:
        monkeypatch.setattr(branching, "draw", lambda *_: 1 / 0)

    assert_frame_equal(gathered(lake, history, after_scoring).drop("path"), expected)
    assert manifest(lake)["branches"]["absent"] == {CHALLENGER: "the machine was lost"}


def test_if_no_version_could_be_resolved_the_run_still_says_which_models_are_absent(
    lake: Lake, configure: Callable[..., None]
) -> None:
    configure(experiment="ab", group_models=True)
    found = branching.gather(CASE, [], None, "")
    assert found.absent.keys() == {"without_weather", "without_plane", CHALLENGER}
    assert all("ended without a message" in why for why in found.absent.values())


# --- Rows that lack a group of inputs -------------------------------------------------------------


def group_model(history: History, name: str) -> ModelVersion:
    """A model made for rows that lack a group, a member of the champion's."""
    lake = history.lake
    run = training.train(at(lake), history.snapshot, name, "the tests")
    judged = lake.version(evaluation.evaluate_run(at(lake), history.snapshot, run, name))
    registry.log_reference(CASE, run, scoring.score_reference(CASE, evaluation.read_scores(judged)))
    return registry.register_member(CASE, name, run, {})


@pytest.fixture
def made(lake: Lake, history: History, own_registry: Path) -> ModelVersion:
    """The model for rows without weather."""
    found = group_model(history, "without_weather")
    members = {**registry.members(CASE, history.champion), "without_weather": found}
    registry.register(CASE, history.champion.run_id, members=members)
    return found


def without_weather(lake: Lake, origin: str) -> None:
    """Publish the day as validated without the weather of an airport."""
    was = lake.current("validated", OLD_DAY)
    version = lake.new_version("validated", OLD_DAY)
    version.write_frame("flights", was.read("flights"))
    version.write_frame("weather", was.read("weather").filter(pl.col("origin") != origin))
    version.publish(["flights", "weather"])


def test_rows_without_weather_are_scored_by_the_model_made_for_that(
    made: ModelVersion, lake: Lake, history: History, configure: Callable[..., None]
) -> None:
    without_weather(lake, "LGA")
    configure(group_models=True)
    rows = texts(infer(lake, OLD_DAY, history.champion))
    given = lake.current("features", OLD_DAY).read("features", [*WEATHER, "origin"])
    lacks = given.select(pl.all_horizontal(pl.col(WEATHER).is_null())).to_series().to_numpy()
    assert lacks[(given["origin"] == "LGA").to_numpy()].all()
    assert 0 < lacks.sum() < len(rows)
    assert set(rows.filter(lacks)["path"]) == {"without_weather"}
    assert set(rows.filter(lacks)["model"]) == {made.name}
    assert set(rows.filter(~lacks)["path"]) == {CHAMPION}
    expected = np.where(lacks, alone(lake, made), alone(lake, history.champion))
    np.testing.assert_array_equal(rows["score"], expected)
    facts = manifest(lake)["branches"]
    assert facts["rows"] == {
        CHAMPION: int((~lacks).sum()), "without_weather": int(lacks.sum()), "without_plane": 0
    }  # fmt: skip
    assert "No model without_plane was trained" in facts["absent"]["without_plane"]


def test_a_day_that_lacks_the_whole_input_takes_the_path_and_is_monitored_as_usual(
    made: ModelVersion, lake: Lake, history: History, configure: Callable[..., None]
) -> None:
    version = lake.new_version("validated", OLD_DAY)
    version.write_frame("flights", lake.current("validated", OLD_DAY).read("flights"))
    version.publish(["flights"])
    configure(group_models=True)
    rows = texts(infer(lake, OLD_DAY, history.champion))
    assert set(rows["path"]) == {"without_weather"}
    assert manifest(lake)["check"]["psi"] is None, "not one score is the champion's"
    outcomes.update(CASE, OLD_DAY)
    found = measure.figures(CASE, OLD_DAY)
    assert {f.labels["path"]: f.value for f in found if f.metric == "path_available"} == {
        CHAMPION: 1, "without_weather": 1, "without_plane": 0
    }  # fmt: skip
    known = records.read(CASE, OLD_DAY, 28)
    assert len(records.select(known, "log_loss", model="without_weather", slice="all")) == 1
    assert records.select(known, "log_loss", model=CHAMPION).is_empty()


def test_a_row_that_lacks_several_groups_takes_the_path_of_the_first() -> None:
    rows = MANY.head(2).with_columns(**NOTHING).with_columns(temp=pl.Series([None, 30.0]))
    model = ModelVersion("m", "1", "r")
    both = Branches("off", 0.1, {group.path: model for group in features.GROUPS}, {})
    assert branching.paths(CASE, rows, both).to_list() == ["without_weather", "without_plane"]
    one = changed(both, models={"without_plane": model})
    assert branching.paths(CASE, rows, one).to_list() == ["without_plane", "without_plane"]
    assert branching.paths(CASE, rows, changed(both, models={})).to_list() == [CHAMPION, CHAMPION]


def test_an_experiment_leaves_rows_of_a_kind_alone() -> None:
    model = ModelVersion("m", "1", "r")
    branches = Branches("ab", 0.99, {"without_weather": model, CHALLENGER: model}, {})
    rows = MANY.with_columns(**NOTHING)
    assert set(branching.paths(CASE, rows, branches)) == {"without_weather"}


def test_models_for_groups_are_trained_if_wanted_and_read_all_but_their_group(
    configure: Callable[..., None],
) -> None:
    assert training.candidates(CASE) == list(models.CANDIDATES)
    configure(group_models=True)
    assert training.candidates(CASE) == [*models.CANDIDATES, "without_weather", "without_plane"]
    for group in features.GROUPS:
        encoder = models.WITHOUT[group.path](7)[0]
        read = {*encoder.numeric, *encoder.categorical}
        assert read == set(features.FEATURES) - set(group.features)
