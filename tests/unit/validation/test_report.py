"""A report says what was found, whatever the judgement; a failure says what to do."""

import polars as pl
import pytest

from include.errors import BadData, MissingData, PipelineError
from include.lake.tables import Lake
from include.validation.contract import check_contract
from include.validation.report import write_report
from local.in_process import validate_day
from tests.case import CASE
from tests.unit.conftest import NEW_DAY
from tests.unit.helpers import landed, replace
from tests.unit.validation.days import reports, with_share


def test_a_passed_day_keeps_its_report_beside_its_rows_and_in_its_manifest(lake: Lake) -> None:
    path = landed(lake, "flights", NEW_DAY)
    replace(path, with_share("carrier", "<b>", 0.01)(pl.read_parquet(path)))
    validate_day(CASE, "validated", NEW_DAY)
    manifest = lake.manifest("validated", NEW_DAY)
    ((report, page),) = reports(lake, NEW_DAY)
    assert manifest is not None
    assert manifest.metadata["report"] == report
    assert (report["state"], report["breaches"]) == ("passed", [])
    assert [check["input"] for check in report["inputs"]] == ["flights", "weather"]
    (reason,) = report["inputs"][0]["failures"]
    assert reason.replace("'", "&#39;") in page
    assert f"<title>{CASE} validated {NEW_DAY}: passed</title>" in page
    assert f"<h1>{CASE} · validated · {NEW_DAY} " in page


def test_a_failed_day_keeps_its_report_and_its_quarantine(lake: Lake) -> None:
    path = landed(lake, "flights", NEW_DAY)
    replace(path, with_share("dest", "<script>", 1)(pl.read_parquet(path)))
    with pytest.raises(BadData) as failure:
        validate_day(CASE, "validated", NEW_DAY)
    ((report, page),) = reports(lake, NEW_DAY)
    assert report["state"] == "failed"
    assert "dest: str_matches" in report["breaches"][0]
    assert all(breach in str(failure.value) for breach in report["breaches"])
    assert str(lake.partition_path("validated", NEW_DAY) / report["version"]) in str(failure.value)
    assert "Why it failed" in page
    quarantined = lake.current("quarantine/validated", NEW_DAY).read("flights")
    assert quarantined["dest"].unique().to_list() == ["<script>"]


def test_a_report_shows_what_it_quotes_as_text(lake: Lake) -> None:
    version = lake.new_version("validated", NEW_DAY)
    write_report(version, ["<script>alert(1)</script>"], [], [])
    ((report, page),) = reports(lake, NEW_DAY)
    assert report["breaches"] == ["<script>alert(1)</script>"]
    assert "<script>" not in page


@pytest.mark.parametrize(
    ("content", "kind", "advice"),
    [(b"no Parquet", BadData, "Replace the landed file"), (None, MissingData, "Land the file")],
)
def test_a_failure_says_what_is_wrong_then_what_is_safe_then_what_to_do(
    content: bytes | None, kind: type[PipelineError], advice: str, lake: Lake
) -> None:
    path = landed(lake, "flights", NEW_DAY)
    path.unlink() if content is None else replace(path, content)
    with pytest.raises(kind) as failure:
        check_contract(CASE, "validated", NEW_DAY)
    what, breach, then, _ = str(failure.value).splitlines()
    assert what == f"Partition {NEW_DAY} of 'validated' is not published: 1 breach."
    assert breach.count(str(path)) == 1
    assert then.startswith("What was published before stays published. " + advice)
    assert then.endswith("Then clear this run.")
