"""Files that start their day when they appear, without waiting for the schedule.

A use case declares them as `file_events`. `include.orchestration.watch` watches for them, and
`include.validation.arrived` decides which days they start.
"""

import json
import re
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote_plus

from include.wording import listed, quoted

PARTS = {"%Y": r"(?P<Y>\d{4})", "%m": r"(?P<m>\d\d)", "%d": r"(?P<d>\d\d)"}
"""How a path names its day."""


@dataclass(frozen=True)
class FileEvent:
    """Files that start the validation of their day's inputs when they arrive.

    Attributes:
        root: a folder, or a URI such as `s3://connection@bucket/prefix`.
        pattern: path under it, with the day as `%Y`, `%m` and `%d`, and `*`. If a day has several
            files, name the one that comes last: the marker.
        queue: URL of the SQS queue that the bucket notifies, and that nothing else reads; empty for
            a folder.
    """

    root: str
    pattern: str
    queue: str = ""

    def __post_init__(self) -> None:
        """Refuse what could never work."""
        if self.root.startswith("s3://") != bool(self.queue):
            raise ValueError(
                f"a file event at {quoted(self.root)} has the queue {quoted(self.queue)}: a bucket "
                "(s3://…) needs an SQS queue that it notifies, and a folder has none"
            )
        if "://" in self.root.removeprefix("file://").removeprefix("s3://"):
            raise ValueError(
                f"a file event at {quoted(self.root)} is neither in a folder nor on S3"
            )
        if lacking := [part for part in PARTS if part not in self.pattern]:
            raise ValueError(
                f"a file event's pattern {quoted(self.pattern)} lacks {listed(lacking)}, without "
                "which a path names no day"
            )
        if strange := re.findall(r"%(?![Ymd]).?|\*\*|[][?]", self.pattern):
            raise ValueError(
                f"a file event's pattern {quoted(self.pattern)} has {listed(strange)}; it may have "
                "%Y, %m, %d and *"
            )

    @property
    def connection(self) -> str | None:
        """The Airflow connection of the bucket and its queue; None: the machine's own rights."""
        name, found, _ = self.root.removeprefix("s3://").partition("@")
        return name if self.queue and found else None

    @property
    def place(self) -> str:
        """The root, as paths under it begin."""
        if not self.queue:
            return str(Path(self.root.removeprefix("file://")))
        bucket = self.root.removeprefix("s3://").rpartition("@")[2]
        return f"s3://{bucket.rstrip('/')}"

    def day_of(self, path: str) -> date | None:
        """The day of a path that matches the pattern; None if it does not.

        Names that begin with a dot or an underscore are matched only as they are written.
        """
        if (found := self._expression.fullmatch(path)) is None:
            return None
        try:
            return date(*(int(found[part]) for part in "Ymd"))
        except ValueError:  # the 31st of April
            return None

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        text = re.escape(f"{self.place}/")
        for piece in re.split(r"(%[Ymd]|[*])", self.pattern):
            if piece == "*":
                text += "(?![._])[^/]*" if text.endswith("/") else "[^/]*"
            elif (part := PARTS.get(piece)) is not None:
                text += f"(?P={piece[1]})" if part in text else part
            else:
                text += re.escape(piece)
        return re.compile(text, re.ASCII)


def created(notification: str) -> list[str]:
    """The objects that a notification of S3 says are new; empty if it says something else."""
    try:
        return [
            f"s3://{record['s3']['bucket']['name']}/{unquote_plus(record['s3']['object']['key'])}"
            for record in json.loads(notification)["Records"]
            if record["eventName"].startswith("ObjectCreated:")
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
