"""What happens on a disk that is full or read-only, told on the last line of the output as JSON.

    unshare --map-root-user --mount python -m tests.unit.small_disk <mount point>

A disk of its own is mounted, which nobody outside sees and which ends with this process.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from include import registry, validation
from include.errors import DependencyDown
from include.lake import Lake, days_before
from tests.unit.helpers import infer, shown

KEY = "2013-02-20"
WAYS = ("land", "validate", "infer")


def attempt(lake: Lake, what: str) -> dict[str, Any]:
    """Try to publish, and tell what came of it and what readers see."""
    before = {table: lake.manifest(table, KEY) for table in ("validated", "predictions")}
    message = ""
    try:
        if what == "validate":
            validation.validate_day(lake, "validated", KEY)
        elif what == "land":
            new_day = max(path.stem for path in (lake.root / "landing" / "flights").iterdir())
            validation.land(lake, "validated", days_before(new_day, -1))
        else:
            infer(lake, KEY, registry.champion())
    except DependencyDown as error:
        message = str(error)
    for table in before:
        assert shown(lake, table, KEY)  # whole
    after = {table: lake.manifest(table, KEY) for table in before}
    return {"what": what, "message": message, "same": before == after}


def main(mount_point: Path, history: Path) -> None:
    """Mount a small disk with a lake on it, fill it to every degree, make it read-only."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(mount_point)], check=True)
    shutil.copytree(history / "lake", mount_point / "lake")
    lake = Lake(str(mount_point / "lake"))
    infer(lake, KEY, registry.champion())
    outcomes = []
    filler = mount_point / "filler"
    for what in WAYS:
        for free in (0, 12_000, 30_000, 50_000, 70_000):
            filler.write_bytes(b"")
            filler.write_bytes(bytes(max(0, shutil.disk_usage(mount_point).free - free)))
            outcomes.append({"free": free, **attempt(lake, what)})
    filler.unlink()
    outcomes.append({"free": None, **attempt(lake, "validate")})
    subprocess.run(["mount", "-o", "remount,ro", str(mount_point)], check=True)
    outcomes += [{"read-only": True, **attempt(lake, what)} for what in WAYS]
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
