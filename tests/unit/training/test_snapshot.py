"""A snapshot: the right rows, once, for good, and a training from it that is repeated exactly."""

import re
import shutil
from collections.abc import Callable
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from sklearn.pipeline import Pipeline

from include.errors import BadData, MissingData
from include.lake.tables import Lake
from include.registry import registry
from include.training import snapshot, training
from include.usecases.flight_delays import features
from include.usecases.flight_delays.features import FEATURES
from include.usecases.flight_delays.models import CANDIDATES
from include.usecases.flight_delays.schema import KEY
from local.in_process import validate_day
from tests.case import CASE, at
from tests.unit.conftest import FIRST_DAY, LAST_DAY, TRAINED, History
from tests.unit.helpers import refused, replace, republish

TABLES = ("validated", "actuals")


def days_of(rows: pl.DataFrame) -> list[date]:
    return rows["day"].unique(maintain_order=True).to_list()


def test_the_holdout_is_later_than_any_day_that_is_trained_on(lake: Lake) -> None:
    version = lake.version(snapshot.take(CASE, "2013-02-10", "2013-02-15", 2))
    days = [date(2013, 2, day) for day in range(10, 16)]
    assert days_of(version.read("training")) == days[:-2]
    assert days_of(version.read("holdout")) == days[-2:]
    assert lake.current("training", "2013-02-15").name == version.name


def test_every_flight_that_arrived_is_in_it_once(lake: Lake) -> None:
    version = lake.version(snapshot.take(CASE, "2013-02-08", "2013-02-10", 1))
    rows = pl.concat(version.read(part) for part in ("training", "holdout"))
    keys = [f"2013-02-{day:02}" for day in (8, 9, 10)]
    truth = pl.concat([lake.current("actuals", key).read("actuals") for key in keys])
    arrived = truth.drop_nulls("arr_delay").select(*KEY, label=pl.col("arr_delay") >= 15)
    found = rows.select(*KEY, label=pl.col("label") == 1)
    assert found.sort(KEY).equals(arrived.sort(KEY))
    assert set(rows.columns) == {*KEY, *FEATURES, "label", "day"}
    assert (rows["day"] == rows["date"]).all()


def test_a_row_that_would_not_be_scored_is_not_trained_on(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "REQUIRED", ["seats"])
    version = lake.version(snapshot.take(CASE, "2013-02-08", "2013-02-10", 1))
    for part in snapshot.PARTS:
        assert version.read(part)["seats"].null_count() == 0


def test_it_names_the_versions_it_was_made_from_and_their_content(lake: Lake) -> None:
    version = lake.version(snapshot.take(CASE, "2013-02-10", "2013-02-12", 1))
    sources = version.manifest().metadata["sources"]
    assert list(sources) == ["2013-02-10", "2013-02-11", "2013-02-12"]
    for key, found in sources.items():
        for table, source in zip(TABLES, found, strict=True):
            used = lake.version(source["version"])
            assert str(used) == str(lake.current(table, key))
            assert set(source["sha256"]) == set(used.manifest().parts)
            assert source["sha256"] == {
                name: used.describe(name).sha256 for name in source["sha256"]
            }


def test_it_says_what_its_window_is_and_how_many_rows_of_each_class(lake: Lake) -> None:
    version = lake.version(snapshot.take(CASE, "2013-02-10", "2013-02-15", 2))
    facts = version.manifest().metadata
    assert (facts["start"], facts["end"], facts["holdout_days"]) == ("2013-02-10", "2013-02-15", 2)
    for part in ("training", "holdout"):
        labels = version.read(part)["label"]
        counted = {str(label): int((labels == label).sum()) for label in (0, 1)}
        assert facts["labels"][part] == counted


def test_the_same_history_gives_the_same_snapshot(lake: Lake, history: History) -> None:
    again = lake.version(snapshot.take(CASE, *TRAINED, holdout_days=5))
    before = lake.version(history.snapshot)
    assert again.manifest().parts == before.manifest().parts
    assert snapshot.fingerprint(again) == snapshot.fingerprint(before)
    assert again.name != before.name


def test_the_window_is_by_default_all_whose_truth_is_known(
    lake: Lake, configure: Callable[..., None]
) -> None:
    validate_day(CASE, "validated", str(LAST_DAY + timedelta(1)))
    configure(train_start=date(2013, 2, 17))
    facts = lake.version(snapshot.take(CASE, None, None, 1)).manifest().metadata
    assert (facts["start"], facts["end"]) == ("2013-02-17", str(LAST_DAY))


def test_a_window_does_not_end_with_truth_without_inputs(
    lake: Lake, configure: Callable[..., None]
) -> None:
    validate_day(CASE, "actuals", str(LAST_DAY + timedelta(1)))
    configure(train_start=date(2013, 2, 17))
    assert lake.version(snapshot.take(CASE, None, None, 1)).key == str(LAST_DAY)


def test_a_lake_without_one_day_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="no day with inputs and truth"):
        snapshot.take(at(Lake(str(tmp_path / "empty"))), None, None, 5)


def test_every_day_that_is_missing_is_named(lake: Lake) -> None:
    start, end = str(FIRST_DAY - timedelta(1)), str(LAST_DAY + timedelta(1))
    words = "validated 2013-01-31, actuals 2013-01-31, validated 2013-02-21, actuals 2013-02-21"
    with refused(lake, "training", end, "4 partitions", words, kind=MissingData):
        snapshot.take(CASE, start, end, 5)


def test_a_long_list_of_missing_days_is_cut(lake: Lake) -> None:
    with pytest.raises(MissingData, match="actuals 2013-04-05 and 50 more"):
        snapshot.take(CASE, "2013-04-01", "2013-04-30", 5)


def test_a_day_that_is_missing_among_many_is_left_out_and_named(lake: Lake) -> None:
    shutil.rmtree(lake.partition_path("validated", "2013-02-05"))
    version = lake.version(snapshot.take(CASE, str(FIRST_DAY), str(LAST_DAY), 5))
    days = version.read("training", ["day"])["day"]
    assert date(2013, 2, 5) not in days
    assert days.n_unique() == 14
    assert version.manifest().metadata["missing"] == ["2013-02-05"]


@pytest.mark.parametrize(
    ("start", "end", "holdout_days"),
    [
        ("2013-02-10", "2013-02-10", 1),
        ("2013-02-10", "2013-02-14", 5),
        ("2013-02-14", "2013-02-10", 1),
        ("2013-02-10", "2013-02-14", 0),
    ],
)
def test_a_window_without_a_day_to_train_on_is_refused(
    start: str, end: str, holdout_days: int, lake: Lake
) -> None:
    with refused(lake, "training", end, f"window is {start} to {end}"):
        snapshot.take(CASE, start, end, holdout_days)


@pytest.mark.parametrize(
    ("start", "end", "holdout_days", "words"),
    [
        ("2013-02-14", "2013-02-10", 5, "its end is before its start"),
        (None, "2012-12-31", 5, r"\(ML_TRAIN_START\) to 2012-12-31: its end is before its start"),
        ("2013-02-01", "9000-01-01", 5, r"it ends in the future \(today is 20"),
        ("1900-01-01", "2013-02-20", 5, "it has 41,324 days, more than 7,305"),
        ("2013-02-01", "2013-02-20", 10**400, "its holdout cannot have 10000000000000000000 days"),
        ("2013-02-01", "2013-02-20", -1, "its holdout cannot have -1 days"),
    ],
)
def test_a_window_that_can_never_be_trained_on_is_refused_before_a_day_is_looked_for(
    start: str | None, end: str, holdout_days: int, words: str, tmp_path: Path
) -> None:
    with pytest.raises(BadData, match=words) as failure:
        snapshot.take(at(Lake(str(tmp_path / "no lake"))), start, end, holdout_days)
    assert "Start a new run with" in str(failure.value)


@pytest.mark.parametrize("end", ["2013-2-14", "20130214", "../x", "2013-02-30"])
def test_a_window_that_ends_on_no_date_is_refused(end: str, lake: Lake) -> None:
    for window in (("2013-02-10", end), (end, "2013-02-14")):
        with pytest.raises(BadData, match="is not a partition"):
            snapshot.take(CASE, *window, 1)


@pytest.mark.parametrize("part", ["training", "holdout"])
@pytest.mark.parametrize(
    ("delays", "words"),
    [([0.0], "only one class"), ([90.0], "only one class"), ([None], "no labelled")],
)
def test_a_part_that_teaches_nothing_is_refused(
    delays: list[float | None], words: str, part: str, lake: Lake
) -> None:
    days = {"training": ["2013-02-17", "2013-02-18"], "holdout": ["2013-02-19"]}[part]
    for key in days:
        republish(lake, "actuals", key, arr_delay=pl.lit(delays[0], pl.Float64))
    with refused(lake, "training", "2013-02-19", words, f"the {part} ({days[0]} to {days[-1]})"):
        snapshot.take(CASE, "2013-02-17", "2013-02-19", 1)


@pytest.mark.parametrize("batch_rows", [100, 100_000])
def test_rows_are_in_the_order_of_the_days_however_they_are_written(
    batch_rows: int, lake: Lake, configure: Callable[..., None]
) -> None:
    configure(batch_rows=batch_rows)
    version = lake.version(snapshot.take(CASE, "2013-02-10", "2013-02-15", 2))
    for part in snapshot.PARTS:
        with version.parquet(part) as file:
            groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        rows = version.read(part)
        assert rows["day"].is_sorted()
        assert max(groups) <= batch_rows
        assert len(groups) >= len(days_of(rows)), "a day is never joined with another in memory"


# --- An old snapshot ----------------------------------------------------------------------------


def test_an_untouched_snapshot_is_verified(lake: Lake, history: History) -> None:
    assert snapshot.verify(CASE, history.snapshot) == history.snapshot


@pytest.mark.parametrize("part", ["training", "holdout"])
@pytest.mark.parametrize("damage", ["another row", "cut off", "one byte"])
def test_a_damaged_part_is_named(damage: str, part: str, lake: Lake, history: History) -> None:
    path = lake.version(history.snapshot).part_path(part)
    assert isinstance(path, Path)
    content = path.read_bytes()
    middle = len(content) // 2
    replace(
        path,
        {
            "another row": pl.read_parquet(path)[1:],
            "cut off": content[:middle],
            "one byte": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        }[damage],
    )
    with pytest.raises(BadData, match=re.escape(str(path))):
        snapshot.verify(CASE, history.snapshot)


@pytest.mark.parametrize(
    "reference",
    [
        "", "/", "../x", "training", "training/", "training/2013-02-01", "training/../x",
        "validated/2013-02-01/x", "training/2013-02-01/x/y", "training/2013-2-1/x", "training//x",
        "/training/2013-02-01/x", "/etc/passwd/x", "training/2013-02-16/..",
        "s3://bucket/training/2013-02-16/x",
    ],
)  # fmt: skip
def test_a_reference_that_is_not_a_snapshot_is_refused(reference: str, lake: Lake) -> None:
    with pytest.raises(BadData, match=r"is not a (snapshot|partition)"):
        snapshot.verify(CASE, reference)


@pytest.mark.parametrize(
    "reference", ["training/2013-02-16/x", "training/2013-02-01/x", "training/2013-02-16/"]
)
def test_an_unknown_snapshot_is_refused(reference: str, lake: Lake) -> None:
    with pytest.raises(BadData, match=f"There is no snapshot {reference} under"):
        snapshot.verify(CASE, reference)


def internals(pipeline: Pipeline) -> Any:
    """What a fitted classifier has learned, exactly."""
    classifier = pipeline["classify"]
    if hasattr(classifier, "get_booster"):
        return bytes(classifier.get_booster().save_raw())
    if hasattr(classifier, "coef_"):
        return classifier.coef_.tobytes() + classifier.intercept_.tobytes()
    trees = [tree.nodes.tobytes() for (tree,) in classifier._predictors]
    return b"".join(trees) + np.asarray(classifier._baseline_prediction).tobytes()


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_a_training_is_repeated_bit_for_bit_though_its_days_were_published_again(
    candidate: str, lake: Lake, own_registry: Path
) -> None:
    window = ("2013-02-08", "2013-02-12", 1)
    reference = snapshot.take(CASE, *window)
    first = train(lake, reference, candidate)
    republish(lake, "validated", "2013-02-09", seats=pl.col("seats") + 1)
    republish(lake, "actuals", "2013-02-10", arr_delay=pl.col("arr_delay") + 5)
    again = train(lake, snapshot.verify(CASE, reference), candidate)
    holdout = lake.version(reference).read("holdout")
    np.testing.assert_array_equal(again.predict_proba(holdout), first.predict_proba(holdout))
    assert internals(again) == internals(first)

    newer = snapshot.take(CASE, *window)
    assert snapshot.fingerprint(lake.version(newer)) != snapshot.fingerprint(
        lake.version(reference)
    )
    assert internals(train(lake, newer, candidate)) != internals(first)


def train(lake: Lake, reference: str, candidate: str) -> Pipeline:
    return registry.load_run(CASE, training.train(at(lake), reference, candidate, "a test"))


# --- Shifts of its inputs -----------------------------------------------------------------------


def test_each_feature_has_its_shift(lake: Lake, history: History) -> None:
    found = snapshot.input_shifts(CASE, lake.version(history.snapshot))
    assert found["feature"].to_list() == FEATURES
    assert found["shift"].is_between(0, 1).all()
    assert found["usual"].null_count() == len(FEATURES), "16 days have two shifts before the last"


def test_shifts_are_those_between_windows_of_the_length_of_the_holdout(lake: Lake) -> None:
    version = lake.version(snapshot.take(CASE, str(FIRST_DAY), str(LAST_DAY), 4))
    rows = pl.concat([version.read(part) for part in snapshot.PARTS])
    starts = [FIRST_DAY + timedelta(number) for number in range(0, 20, 4)]
    windows = [rows.filter(pl.col("day").is_between(s, s + timedelta(3))) for s in starts]
    assert len(windows[-1]) == len(version.read("holdout"))
    for name, apart in (("temp", kolmogorov_smirnov), ("carrier", total_variation)):
        *earlier, last = (apart(one[name], other[name]) for one, other in pairwise(windows))
        found = snapshot.input_shifts(CASE, version).row(by_predicate=pl.col("feature") == name)
        assert found[1:] == pytest.approx((last, max(earlier)), abs=1e-12)


def kolmogorov_smirnov(one: pl.Series, other: pl.Series) -> float:
    return float(ks_2samp(one.drop_nulls().to_numpy(), other.drop_nulls().to_numpy()).statistic)


def total_variation(one: pl.Series, other: pl.Series) -> float:
    values = {*one, *other}
    return sum(abs((one == v).mean() - (other == v).mean()) for v in values) / 2


@pytest.mark.parametrize(("days", "known"), [(19, False), (20, True)])
def test_nothing_is_usual_before_three_shifts_of_whole_windows(
    days: int, known: bool, lake: Lake
) -> None:
    first = LAST_DAY - timedelta(days - 1)
    version = lake.version(snapshot.take(CASE, str(first), str(LAST_DAY), 4))
    usual = snapshot.input_shifts(CASE, version)["usual"]
    assert usual.is_not_null().all() if known else usual.is_null().all()


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], 0),
        ([1.0, 2.0], [3.0, 4.0], 1),
        ([1.0, 2.0, 3.0, 4.0], [3.0, 4.0, 5.0, 6.0], 0.5),
        ([1.0, None], [1.0, 1.0], 0.5),
        ([None, None], [1.0, 2.0], 1),
        ([None, None], [None, None], 0),
        (["a", "b"], ["a", "b"], 0),
        (["a", "a"], ["b", "b"], 1),
        (["a", "a", "a", "b"], ["a", "b", "b", "b"], 0.5),
        (["a", None, None, None], ["a", "a", "a", "a"], 0.75),
    ],
)
def test_a_shift_known_by_hand(one: list[Any], other: list[Any], expected: float) -> None:
    dtype = pl.String if "a" in [*one, *other] else pl.Float32
    pair = pl.Series("x", one, dtype), pl.Series("x", other, dtype)
    assert snapshot._distance(*pair) == pytest.approx(expected)


numbers = st.lists(st.none() | st.integers(-5, 5).map(float), min_size=1, max_size=30)
words = st.lists(st.none() | st.sampled_from("abcd"), min_size=1, max_size=30)


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning:scipy")
@given(st.tuples(numbers, numbers) | st.tuples(words, words))
def test_a_shift_is_the_same_both_ways_and_from_0_to_1(pair: tuple[list[Any], list[Any]]) -> None:
    text = any(isinstance(value, str) for values in pair for value in values)
    one, other = (pl.Series("x", values, pl.String if text else pl.Float32) for values in pair)
    found = snapshot._distance(one, other)
    assert 0 <= found <= 1 + 1e-9
    assert found == pytest.approx(snapshot._distance(other, one))
    assert snapshot._distance(one, one) == 0
    assert found >= abs(one.is_null().mean() - other.is_null().mean()) - 1e-9
