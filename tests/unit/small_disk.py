"""What happens on a disk that is full or read-only, told on the last line of the output as JSON.

    unshare --map-root-user --mount python -m tests.unit.small_disk <folder> <history> <snapshot>

Disks of its own are mounted, which nobody outside sees and which end with this process.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from include.errors import DependencyDown
from include.lake.tables import Lake
from include.partitions import days_before
from include.registry import promotion, registry
from include.settings import settings
from include.training import training
from include.validation import land
from local.in_process import validate_day
from tests.case import CASE, at
from tests.unit.conftest import FREE_ALIASES
from tests.unit.helpers import infer, shown

KEY = "2013-02-20"
WAYS = ("land", "validate", "infer")


def attempt(lake: Lake, what: str) -> dict[str, Any]:
    """Try to publish, and tell what came of it and what readers see."""
    before = {table: lake.manifest(table, KEY) for table in ("validated", "predictions")}
    message = ""
    try:
        if what == "validate":
            validate_day(at(lake), "validated", KEY)
        elif what == "land":
            new_day = max(path.stem for path in (lake.root / "landing" / "flights").iterdir())
            land.land(at(lake), "validated", days_before(new_day, -1))
        else:
            infer(lake, KEY, registry.champion(CASE))
    except DependencyDown as error:
        message = str(error)
    for table in before:
        assert shown(lake, table, KEY)  # whole
    after = {table: lake.manifest(table, KEY) for table in before}
    return {"what": what, "message": message, "same": before == after}


def attempt_training(lake: Lake, snapshot: str) -> dict[str, Any]:
    """Try to train, and tell what came of it and whether the champion is as it was."""
    champion, message = registry.champion(CASE), ""
    try:
        training.train(at(lake), snapshot, "logistic_regression", "a test")
    except DependencyDown as error:
        message = str(error)
    assert registry.load(CASE, champion)
    return {"message": message, "same": registry.champion(CASE) == champion}


def fill(disk: Path, free: int) -> None:
    """Leave so many bytes on a disk."""
    filler = disk / "filler"
    filler.write_bytes(b"")
    filler.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - free)))


def train_on_full_disk(disk: Path, database: Path, history: Path, snapshot: str) -> Any:
    """Mount a small disk for the artifacts, the champion's too, and train while it is full."""
    mount(disk)
    shutil.copy(history / "mlflow" / "mlflow.db", database)
    with sqlite3.connect(database) as connection:
        connection.executescript(FREE_ALIASES)
        connection.execute("UPDATE experiments SET artifact_location = ?", [disk.as_uri()])
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{database}"
    settings.cache_clear()
    first = registry.champion(CASE)
    second = registry.register(
        CASE, registry.log_training(CASE, registry.load(CASE, first), {}, {})
    )
    promotion.promote(CASE, second, first, "its files are on the small disk")
    outcomes = []
    for room in (0, 100_000, None):
        if room is None:
            (disk / "filler").unlink()
        else:
            fill(disk, room)
        tried = attempt_training(Lake(str(history / "lake" / CASE.name)), snapshot)
        outcomes.append({"database": database.parent == disk, "room": room, **tried})
    return outcomes


def mount(disk: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], check=True)


def main(folder: Path, history: Path, snapshot: str) -> None:
    """Mount small disks for a lake and for MLflow, fill them, make the lake read-only."""
    lake_disk, disk, full_disk = (folder / name for name in ("lake", "artifacts", "mlflow"))
    for place in (lake_disk, disk, full_disk):
        place.mkdir()
    mount(lake_disk)
    shutil.copytree(history / "lake", lake_disk / "lake")
    lake = Lake(str(lake_disk / "lake" / CASE.name))
    infer(lake, KEY, registry.champion(CASE))
    outcomes = []
    for what in WAYS:
        for free in (0, 12_000, 30_000, 50_000, 70_000):
            fill(lake_disk, free)
            outcomes.append({"free": free, **attempt(lake, what)})
    (lake_disk / "filler").unlink()
    outcomes.append({"free": None, **attempt(lake, "validate")})
    subprocess.run(["mount", "-o", "remount,ro", str(lake_disk)], check=True)
    outcomes += [{"read-only": True, **attempt(lake, what)} for what in WAYS]
    outcomes += train_on_full_disk(disk, folder / "mlflow.db", history, snapshot)
    outcomes += train_on_full_disk(full_disk, full_disk / "mlflow.db", history, snapshot)
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
