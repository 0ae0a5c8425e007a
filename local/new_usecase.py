"""Writes a small use case to start from: a copy of `local/template` with a new name.

    make new-usecase NAME=late_payments [TARGET=binary|multiclass|regression]

It is complete: `make usecase USECASE=late_payments` passes at once, with made-up data.
"""

import argparse
import shutil
import sys
from pathlib import Path

from include.usecase import check_usecase_name
from include.usecases import OWN
from local.environment import REPO

TEMPLATE = Path(__file__).parent / "template"
PLACEHOLDER = "my_usecase"
TARGETS = ["binary", "multiclass", "regression"]
"""The folders of the template. The files of one are copied over those beside the folders."""


def write(name: str, among: Path, target: str = TARGETS[0]) -> Path:
    """Write the folder of a new use case, all or nothing.

    Args:
        name: name of the use case.
        among: the parent folder.
        target: what it asks, one of `TARGETS`.

    Returns:
        Its folder.

    Raises:
        ValueError: a use case cannot have this name, or there is no such target.
        FileExistsError: the name is taken.
    """
    check_usecase_name(name)
    if target not in TARGETS:
        raise ValueError(f"TARGET={target}: there is {', '.join(TARGETS)}. Nothing was written.")
    folder, unfinished = among / name, among / f".{name}.unfinished"
    if folder.exists():
        raise FileExistsError(f"{folder} already exists: nothing was written. Choose another name.")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for file in [*TEMPLATE.glob("*.py"), *(TEMPLATE / target).glob("*.py")]:
        text = file.read_text(encoding="utf-8").replace(PLACEHOLDER, name)
        (unfinished / file.name).write_text(text, encoding="utf-8")
    unfinished.rename(folder)
    return folder


def main(arguments: list[str] | None = None) -> int:
    """Write it to include/usecases, where it is enabled unless ML_USECASES names only others."""
    parser = argparse.ArgumentParser(prog="python -m local.new_usecase", description=main.__doc__)
    parser.add_argument("name", help="such as late_payments")
    parser.add_argument("--target", default=TARGETS[0], help=" or ".join(TARGETS))
    options = parser.parse_args(arguments)
    name = options.name
    try:
        folder = write(name, OWN, options.target)
    except (ValueError, FileExistsError) as error:
        given = f"NAME={name}: " if name else "Give it a name, like NAME=late_payments: "
        print(f"{given}{error}", file=sys.stderr)
        return 2
    print(
        f"Written: {folder.relative_to(REPO)}, a use case on made-up data. Next:\n"
        f"    make usecase USECASE={name}\n"
        "then replace its parts one by one: docs/fork.md explains each of them."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
