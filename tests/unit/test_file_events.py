"""What a use case may declare as a file event, and which paths name which day."""

import json
from datetime import date

import pytest

from include.file_events import FileEvent, created

DAY = date(2026, 11, 3)
QUEUE = "https://sqs.eu-central-1.amazonaws.com/1/drops"


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("%Y/%m/%d/_SUCCESS", "2026/11/03/_SUCCESS"),
        ("%Y/%m/%d/*.csv", "2026/11/03/orders.csv"),
        ("orders-%Y%m%d-*.parquet", "orders-20261103-7.parquet"),
        ("%Y/%m/%Y-%m-%d.csv", "2026/11/2026-11-03.csv"),
    ],
)
@pytest.mark.parametrize("root", ["/data/drop", "file:///data/drop/", "s3://shop@bucket/drop"])
def test_a_path_that_matches_names_its_day(root: str, pattern: str, path: str) -> None:
    event = FileEvent(root, pattern, QUEUE if root.startswith("s3") else "")
    place = "s3://bucket/drop" if event.queue else "/data/drop"
    assert event.day_of(f"{place}/{path}") == DAY


@pytest.mark.parametrize(
    "path",
    [
        "2026/11/03/notes.txt", "2026/11/03/.orders.csv", "2026/11/03/_orders.csv",
        "2026/11/03/more/orders.csv", "2026/02/30/orders.csv", "2026/11/orders.csv",
        "old/2026/11/03/orders.csv", "٢٠٢٦/11/03/orders.csv",
    ],
)  # fmt: skip
def test_a_foreign_path_names_none(path: str) -> None:
    assert FileEvent("drop", "%Y/%m/%d/*.csv").day_of(f"drop/{path}") is None


def test_two_days_in_one_path_are_none() -> None:
    assert FileEvent("drop", "%Y/%m/%Y-%m-%d.csv").day_of("drop/2026/11/2026-12-03.csv") is None


def test_the_connection_is_in_the_root() -> None:
    assert FileEvent("s3://shop@bucket/drop", "%Y%m%d", QUEUE).connection == "shop"
    assert FileEvent("s3://bucket/drop", "%Y%m%d", QUEUE).connection is None
    assert FileEvent("drop@night", "%Y%m%d").connection is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("s3://bucket", "%Y%m%d"), "needs an SQS queue"),
        (("drop", "%Y%m%d", QUEUE), "a folder has none"),
        (("gs://bucket", "%Y%m%d"), "neither in a folder nor on S3"),
        (("drop", "%Y/*.csv"), "lacks %m, %d"),
        (("drop", "%Y%m%d-%H.csv"), "has %H"),
        (("drop", "**/%Y%m%d.csv"), r"has \*\*"),
    ],
)
def test_what_could_never_work_is_refused(given: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FileEvent(*given)


def test_new_objects_are_read_from_a_notification() -> None:
    def record(event: str, key: str) -> dict[str, object]:
        return {"eventName": event, "s3": {"bucket": {"name": "b"}, "object": {"key": key}}}

    records = [record("ObjectCreated:Put", "a+b/%C3%A5.csv"), record("ObjectRemoved:Delete", "c")]
    assert created(json.dumps({"Records": records})) == ["s3://b/a b/å.csv"]


@pytest.mark.parametrize(
    "body", ["hello", "[]", "{}", '{"Event": "s3:TestEvent"}', '{"Records": [{"eventName": 1}]}']
)
def test_another_message_reports_none(body: str) -> None:
    assert created(body) == []
