"""The daily report shows what is known, says what is not, and is one file for any screen."""

import re
import xml.etree.ElementTree as ElementTree
from datetime import timedelta

import polars as pl
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from include.messages import Action, Decision, Reason
from include.monitoring import report
from include.training.plots import ALARM
from include.usecases.flight_delays import features
from tests.case import CASE
from tests.unit.histories import (
    LAST,
    NO_HISTORY,
    NO_OUTCOMES,
    NO_SCORES,
    PROMOTED,
    history_of,
    losses,
    row,
    sample_history,
    sample_outcomes,
    sample_scores,
)


def decision(action: Action = "page") -> Decision:
    reasons = [
        Reason("inputs of the day", action, "PSI of seats is 0.52", "at most 0.2"),
        Reason("skill over 14 days", "healthy", "8.1 % ± 1.9 %", "at least 3 %"),
        Reason("age of the model", "healthy", "20 days", "at most 60 days"),
    ]
    return Decision(LAST.isoformat(), action, reasons)


def sections(html: str) -> dict[str, bool]:
    """Whether there is a picture below each heading."""
    parts = html.split("<h2>")[2:]
    return {part.partition("</h2>")[0]: "<svg" in part for part in parts}


@pytest.fixture(scope="module")
def page() -> str:
    return report.render(
        CASE, decision(), history_of(sample_history()), sample_outcomes(), sample_scores()
    )


def test_every_picture_is_there(page: str) -> None:
    assert list(sections(page)) == [
        "Skill against the baseline", "Drift of features and predictions", "Failures by stage",
        "Predictions of the day", "Predictions by outcome", "Calibration",
    ]  # fmt: skip
    assert all(sections(page).values())


def test_the_action_and_its_reason_come_first(page: str) -> None:
    text = re.sub(r"<[^>]*>|\s", " ", page.partition("</header>")[0])
    assert "page flight_delays · 2013-06-30" in " ".join(text.split())
    assert "inputs of the day: PSI of seats is 0.52." in text


def test_the_title_names_the_use_case(page: str) -> None:
    assert "<title>flight_delays 2013-06-30: page</title>" in page


def test_the_page_needs_nothing_else_and_is_small(page: str) -> None:
    assert not re.findall(r"<script|<link|<img|@import|src=|url\((?!#)", page)
    assert not re.findall(r'href="(?!#|data:)', page)
    assert len(page.encode()) < 250_000
    assert "prefers-color-scheme: dark" in page


def test_the_pictures_follow_the_colours_of_the_page(page: str) -> None:
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) == 6
    for picture in pictures:
        ElementTree.fromstring(picture)
        assert "var(--ink)" in picture
        assert not re.search(r"#[0-9a-f]{6}", re.sub(r"#m[0-9a-f]+|#p[0-9a-f]+", "", picture))


def test_the_same_figures_give_the_same_page(page: str) -> None:
    again = report.render(
        CASE, decision(), history_of(sample_history()[::-1]), sample_outcomes(), sample_scores()
    )
    assert again == page


def test_a_sentence_replaces_a_plot_without_data() -> None:
    html = report.render(CASE, decision("healthy"), NO_HISTORY, NO_OUTCOMES, NO_SCORES)
    assert len(sections(html)) == 6
    assert not any(sections(html).values())
    assert html.count("No truth is known yet") == 3
    assert "All 3 rules pass." in html


def test_a_single_day_of_history_is_drawn_with_its_date_and_its_figures() -> None:
    history = history_of([row for row in sample_history(3) if row[0] == LAST])
    html = report.render(CASE, decision(), history, NO_OUTCOMES, NO_SCORES)
    [drift, stages] = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    seats = history.filter(pl.col("labels").str.contains("seats"))["value"].item()
    for picture, figure in ((drift, f"{seats:.2f}"), (stages, "50.0%")):
        shown = [text.text for text in ElementTree.fromstring(picture).iter() if text.text]
        assert figure in shown
        assert "last day" in shown
        assert "30 Jun" in shown
        assert "00:00" not in picture


def test_each_picture_says_which_question_it_answers(page: str) -> None:
    for question in (
        "Are the predicted probabilities right?",
        "Have inputs and predictions changed?",
    ):
        assert f"<p>{question}" in page or f">{question} " in page


def test_without_truth_the_rest_is_shown() -> None:
    history = history_of(sample_history()).filter(pl.col("pipeline") != "outcomes")
    html = report.render(CASE, decision(), history, NO_OUTCOMES, sample_scores())
    shown = [title for title, picture in sections(html).items() if picture]
    assert shown == [
        "Drift of features and predictions",
        "Failures by stage",
        "Predictions of the day",
    ]


@pytest.mark.parametrize(("label", "kind"), [(0, "negative"), (1, "positive")])
def test_nothing_is_compared_for_a_single_class(label: int, kind: str) -> None:
    outcomes = sample_outcomes().with_columns(label=pl.lit(label, pl.Int8))
    html = report.render(CASE, decision(), NO_HISTORY, outcomes, NO_SCORES)
    assert html.count(f"All 8,400 rows whose truth is known are {kind}") == 2


@pytest.mark.parametrize("days", [1, 4, 7])
def test_a_history_of_few_days_is_shown(days: int) -> None:
    html = report.render(
        CASE,
        decision(),
        history_of(sample_history(days)),
        sample_outcomes(1, 50),
        sample_scores().tail(5),
    )
    shown = sections(html)
    assert shown.pop("Skill against the baseline") == (days > 2)  # truth comes two days late
    assert all(shown.values())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_figures_that_are_none_leave_a_gap(value: float) -> None:
    rows = [(*row[:5], value, *row[6:]) if row[0].day % 3 else row for row in sample_history()]
    scores = sample_scores().with_columns(
        pl.when(pl.col("score") > 0.5).then(value).otherwise("score").alias("score")
    )
    outcomes = sample_outcomes().with_columns(
        pl.when(pl.col("score") > 0.5).then(None).otherwise("label").alias("label")
    )
    assert all(
        sections(report.render(CASE, decision(), history_of(rows), outcomes, scores)).values()
    )


def test_long_names_and_many_of_them_have_room() -> None:
    rows = []
    for number in range(60):
        name = f"{number:02} {'long ' * 20}"
        labels = {"feature": name, "kind": "stable", "reference": "trailing", "days": "1"}
        rows += [row(LAST - timedelta(back), "drift", "psi", 0.1, **labels) for back in range(90)]
        rows += losses(LAST, 0.4, 0.5, version=name) + losses(PROMOTED, 0.4, 0.5)
    html = report.render(CASE, decision(), history_of(rows), NO_OUTCOMES, NO_SCORES)
    assert html.count("long long long long …") == 60
    assert len(html.encode()) < 400_000


@pytest.mark.parametrize("score", [0.0, 0.2, 1.0])
def test_scores_that_are_all_the_same_are_shown(score: float) -> None:
    same = pl.lit(score, pl.Float32)
    html = report.render(
        CASE,
        decision(),
        NO_HISTORY,
        sample_outcomes().with_columns(score=same, ensemble_score=same),
        sample_scores().with_columns(score=same),
    )
    assert sum(sections(html).values()) == 3


def test_text_from_the_data_is_neither_markup_nor_a_formula() -> None:
    hostile = "<script>1</script>$_{x}^"
    labels = {"feature": hostile, "kind": "stable", "reference": "trailing", "days": "1"}
    rows = [row(LAST, "drift", "psi", 0.1, **labels)]
    rows += losses(LAST - timedelta(1), 0.4, 0.5) + losses(LAST, 0.4, 0.5, version=hostile)
    rows.append(row(LAST, "stages", "failed_runs", 0, dag="d", stage=hostile))
    shown = Decision(LAST.isoformat(), "watch", [Reason(hostile, "watch", hostile, hostile)])
    html = report.render(CASE, shown, history_of(rows), NO_OUTCOMES, NO_SCORES)
    assert "<script" not in html
    for picture in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        texts = [text.text or "" for text in ElementTree.fromstring(picture).iter() if text.text]
        assert any(hostile in text for text in texts)


def drawn(figure: Figure | str) -> Axes:
    assert isinstance(figure, Figure)
    return figure.axes[0]


def test_failures_of_a_stage_are_those_of_all_dags() -> None:
    rows = [
        row(LAST, "stages", "failed_runs", 1.0, 1, dag="a", stage="infer"),
        row(LAST, "stages", "failed_runs", 0.0, 3, dag="b", stage="infer"),
        row(LAST, "stages", "failed_runs", 0.5, 2, dag="a", stage="validate"),
    ]
    axes = drawn(report._stages(CASE, history_of(rows), LAST))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["validate", "infer"]
    assert [text.get_text() for text in axes.texts][:2] == ["50.0%", "25.0%"]


def test_the_ensemble_is_calibrated_only_where_it_has_mostly_answered() -> None:
    outcomes = sample_outcomes()
    few = outcomes.with_columns(
        ensemble_score=pl.when(pl.int_range(pl.len()) < 100).then("ensemble_score")
    )
    for table, models in ((outcomes, ["champion", "ensemble"]), (few, ["champion"])):
        draw = CASE.target.outcome_plots()["Calibration"]
        names = drawn(report._of_outcomes(draw, table)).get_legend_handles_labels()[1]
        assert names == models


def test_what_the_policy_pages_for_is_outlined_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(features, "DRIFT_BOUNDS", {"tolerated": 0.5})
    rows = []
    for kind, feature, psi, chance in (
        ("stable", "loud", 0.4, 0.01), ("stable", "tolerated", 0.3, 0.01),
        ("stable", "few rows", 0.25, 0.28), ("stable", "quiet", 0.1, float("nan")),
        ("seasonal", "cold", 3.0, 0.01), ("score", "score", 0.5, 0.01),
    ):  # fmt: skip
        labels = {"feature": feature, "kind": kind, "reference": "trailing", "days": "1"}
        rows.append(row(LAST, "drift", "psi", psi, **labels))
        rows.append(row(LAST, "drift", "psi_by_chance", chance, **labels))
        rows.append(row(LAST, "drift", "psi", 9.0, **labels | {"days": "28"}))
        rows.append(row(LAST, "drift", "psi", 9.0, **labels | {"reference": "training"}))
    figure = report._drift(CASE, history_of(rows), LAST)
    assert isinstance(figure, Figure)
    names = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes]
    assert names == [["loud", "tolerated", "few rows", "quiet"], ["cold", "score"]]
    outlined = [
        [patch.get_y() for patch in axes.patches if patch.get_edgecolor() == to_rgba(ALARM)]
        for axes in figure.axes
    ]
    assert outlined == [[0], []]
