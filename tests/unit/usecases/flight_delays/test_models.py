"""Every candidate scores any row, the same each time, and its file holds only trusted types."""

from datetime import date

import numpy as np
import polars as pl
import pytest
import skops.io
from sklearn.pipeline import Pipeline

from include.usecase import Group
from include.usecases.flight_delays import features, source
from include.usecases.flight_delays.models import CANDIDATES, TRUSTED_TYPES, WITHOUT

Day = tuple[pl.DataFrame, np.ndarray]
MAKERS = CANDIDATES | WITHOUT


@pytest.fixture(scope="module")
def day() -> Day:
    """Features of a real day, and whether a flight is long: something that can be learned."""
    inputs = {name: source.fetch(name, date(2013, 2, 20)) for name in ("flights", "weather")}
    rows = features.build_features({n: found for n, found in inputs.items() if found is not None})
    return rows, (rows["distance"] > 1000).cast(pl.Int8).to_numpy()


@pytest.fixture(scope="module", params=MAKERS)
def fitted(request: pytest.FixtureRequest, day: Day) -> tuple[str, Pipeline]:
    return request.param, MAKERS[request.param](7).fit(*day)


def scores(pipeline: Pipeline, rows: pl.DataFrame) -> np.ndarray:
    found: np.ndarray = pipeline.predict_proba(rows)[:, 1]
    return found


def test_the_same_seed_gives_the_same_scores(fitted: tuple[str, Pipeline], day: Day) -> None:
    name, pipeline = fitted
    again = MAKERS[name](7).fit(*day)
    np.testing.assert_array_equal(scores(again, day[0]), scores(pipeline, day[0]))


def test_nothing_known_and_a_category_never_seen_have_a_score(
    fitted: tuple[str, Pipeline], day: Day
) -> None:
    unknown = day[0][:2].with_columns(
        *(pl.lit(None, pl.Float32).alias(name) for name in features.NUMERIC),
        *(pl.Series(name, [None, "never seen"]) for name in features.CATEGORICAL),
    )
    found = scores(fitted[1], unknown)
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize("group", features.GROUPS, ids=lambda group: group.path)
def test_a_model_for_rows_that_lack_a_group_does_not_read_it(group: Group, day: Day) -> None:
    rows, labels = day
    pipeline = WITHOUT[group.path](7).fit(rows, labels)
    lacking = rows.with_columns(pl.lit(None, rows.schema[n]).alias(n) for n in group.features)
    np.testing.assert_array_equal(scores(pipeline, lacking), scores(pipeline, rows))


def test_a_file_holds_no_type_that_is_not_trusted(fitted: tuple[str, Pipeline]) -> None:
    unknown = skops.io.get_untrusted_types(data=skops.io.dumps(fitted[1]))
    assert set(unknown) <= set(TRUSTED_TYPES)
