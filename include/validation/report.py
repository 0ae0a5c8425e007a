"""The report of a validation, as JSON and as a page, and the message of one that failed."""

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from include.lake.files import put_text
from include.lake.tables import Version
from include.messages import RowCheck
from include.wording import counted


@dataclass(frozen=True)
class Report:
    """The outcome of validating one partition; kept as JSON and as a page."""

    table: str
    key: str
    state: str
    version: str
    checked_at: str
    breaches: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    inputs: list[RowCheck] = field(default_factory=list)


def write_report(
    version: Version, breaches: list[str], warnings: list[str], checks: list[RowCheck]
) -> str:
    """Keep the outcome beside the data, as JSON and as a page. Returns the page's path."""
    report = Report(
        table=version.table,
        key=version.key,
        state="failed" if breaches else "passed",
        version=version.name,
        checked_at=datetime.now(UTC).isoformat(timespec="seconds"),
        breaches=breaches,
        warnings=warnings,
        inputs=checks,
    )
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent.parent / "templates"), autoescape=True
    )
    page = templates.get_template("validation_report.html").render(report=report)
    put_text(version.path / "report.json", json.dumps(asdict(report), indent=1))
    put_text(version.path / "report.html", page)
    return str(version.path / "report.html")


def failure_message(version: Version, breaches: list[str], page: str) -> str:
    """Why a day is not published, what is safe and what to do."""
    listed = "".join(f"\n  - {breach}" for breach in breaches)
    return (
        f"Partition {version.key} of {version.table!r} is not published: "
        f"{counted(len(breaches), 'breach')}.{listed}\n"
        "What was published before is untouched. Replace the landed file; if `fetch` in source.py "
        "made it, correct that and delete the file: it is fetched again. Then clear this run.\n"
        f"Report: {page}"
    )
