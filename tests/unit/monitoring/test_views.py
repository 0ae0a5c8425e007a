"""What pages and reports show is computed from the history: skill, promotions, drift."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from include.monitoring import views
from tests.case import CASE
from tests.unit.histories import LAST, history_of, losses, row


def test_a_day_judged_for_two_versions_counts_once_for_the_one_judged_last() -> None:
    rows = losses(LAST, 0.4, 0.5, version="1")
    later = [(*row[:7], row[7] + timedelta(hours=1)) for row in losses(LAST, 0.3, 0.5, version="2")]
    found = views.losses(CASE, history_of(later + rows), "champion")
    assert found.select("model_version", "loss").rows() == [("2", 0.3)]


def test_skill_over_a_window_weighs_days_by_their_rows_and_knows_its_uncertainty() -> None:
    random = np.random.default_rng(7)
    count = 10
    base, n = random.uniform(0.4, 0.6, count), random.integers(100, 1000, count)
    loss = base * random.uniform(0.8, 1, count)
    days = pl.DataFrame(
        {"day": [LAST - timedelta(2 * back) for back in range(count)], "n": n,
         "loss": loss, "base_loss": base}
    )  # fmt: skip
    rolled = views.rolling_skill(days, 14)
    assert rolled["day"].to_list() == [LAST - timedelta(2 * back) for back in reversed(range(6))]
    last = rolled.row(-1, named=True)
    window = slice(0, 7)  # two weeks, every other day
    assert last["skill"] == pytest.approx(
        1 - (n * loss)[window].sum() / (n * base)[window].sum(), abs=1e-12
    )
    drawn_again = [random.integers(0, 7, 7) for _ in range(4000)]
    spread = np.std([1 - (n * loss)[d].sum() / (n * base)[d].sum() for d in drawn_again])
    # Student's 97.5 % quantile for six degrees of freedom, and the bootstrap's bias of 6/7.
    expected = 2.447 * spread * np.sqrt(7 / 6)
    assert last["high"] - last["skill"] == pytest.approx(expected, rel=0.1)
    assert last["skill"] - last["low"] == pytest.approx(last["high"] - last["skill"])


def test_a_promotion_is_the_first_day_of_another_version() -> None:
    versions = {3: "1", 2: "1", 1: "2", 0: "1"}
    days = [{"day": LAST - timedelta(back), "model_version": v} for back, v in versions.items()]
    assert views.promotions(pl.DataFrame(days[::-1])) == [
        (LAST - timedelta(1), "2"), (LAST, "1"),
    ]  # fmt: skip


def test_a_matrix_has_a_row_for_each_name_and_nan_where_nothing_is_known() -> None:
    days = [LAST - timedelta(1), LAST]
    rows = pl.DataFrame(
        {
            "time": [days[0], days[1], days[1]],
            "name": ["low", "low", "high"],
            "value": [1.0, 3.0, 9.0],
        }
    )
    assert views.days_of(rows, LAST) == days
    names, values = views.matrix(rows, days)
    assert names == ["high", "low"]
    np.testing.assert_array_equal(values, [[np.nan, 9], [1, 3]])
    assert views.matrix(rows, days, order=["low"])[0] == ["low", "high"]


def test_only_a_stable_feature_above_its_bound_is_outlined() -> None:
    rows = []
    for kind, name, psi, chance in (
        ("stable", "loud", 0.4, 0.01), ("stable", "few rows", 0.25, 0.28),
        ("stable", "quiet", 0.1, float("nan")), ("seasonal", "cold", 3.0, 0.01),
    ):  # fmt: skip
        labels = {"feature": name, "kind": kind, "reference": "trailing", "days": "1"}
        rows.append(row(LAST, "drift", "psi", psi, **labels))
        rows.append(row(LAST, "drift", "psi_by_chance", chance, **labels))
        rows.append(row(LAST, "drift", "psi", 9.0, **labels | {"reference": "training"}))
    found = views.drift(CASE, history_of(rows))
    assert dict(found.select("name", "outlined").iter_rows()) == {
        "loud": 1, "few rows": 0, "quiet": 0, "cold": 0,
    }  # fmt: skip
