"""What a validation says: its report, as JSON and as a page, and the message of a failure."""

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader

from include.lake.files import put_text
from include.lake.tables import Version
from include.messages import RowCheck
from include.wording import counted

if TYPE_CHECKING:
    from include.lake.files import AnyPath

REPLACE = (
    "Replace the landed file; or correct `fetch` in source.py and delete the file, so that it is "
    "fetched again."
)
LAND = "Land the file, or wait until the source has it."


@dataclass(frozen=True)
class Report:
    """The outcome of validating one partition."""

    table: str
    key: str
    state: str
    version: str
    checked_at: str
    usecase: str = ""  # release 0.1 wrote none
    breaches: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    inputs: list[RowCheck] = field(default_factory=list)


def write_report(
    version: Version, breaches: list[str], warnings: list[str], checks: list[RowCheck]
) -> str:
    """Write the outcome beside the data, as JSON and as a page. Returns the page's path."""
    report = Report(
        usecase=version.lake.usecase,
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


def in_file(breach: str, path: "AnyPath") -> str:
    """A breach with the file that it was found in, unless it already names it."""
    return breach if str(path) in breach else f"{breach}, in {path}"


def failure_message(version: Version, breaches: list[str], page: str, advice: str = REPLACE) -> str:
    """The message of a failed validation: what is wrong, what is safe, what to do."""
    listed = "".join(f"\n  - {breach}" for breach in breaches)
    return (
        f"Partition {version.key} of {version.table!r} is not published: "
        f"{counted(len(breaches), 'breach')}.{listed}\n"
        f"What was published before stays published. {advice} Then clear this run.\n"
        f"Report: {page}"
    )
