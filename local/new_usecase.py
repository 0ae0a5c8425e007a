"""Write a small use case to begin with: `local/template`, under a name of its own.

    make new-usecase NAME=late_payments

It is whole: `make usecase USECASE=late_payments` passes at once, on data that it makes up.
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


def write(name: str, among: Path) -> Path:
    """Write the folder of a new use case, all of it or nothing.

    Args:
        name: of the use case.
        among: the folder that its own is made in.

    Returns:
        Its folder.

    Raises:
        ValueError: no use case can be called so.
        FileExistsError: there is something of that name.
    """
    check_usecase_name(name)
    folder, unfinished = among / name, among / f".{name}.unfinished"
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: nothing was written. Take another name.")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for file in sorted(TEMPLATE.glob("*.py")):
        text = file.read_text(encoding="utf-8").replace(PLACEHOLDER, name)
        (unfinished / file.name).write_text(text, encoding="utf-8")
    unfinished.rename(folder)
    return folder


def main(arguments: list[str] | None = None) -> int:
    """Write it into include/usecases, where it is enabled unless ML_USECASES names others."""
    parser = argparse.ArgumentParser(prog="python -m local.new_usecase", description=main.__doc__)
    parser.add_argument("name", help="such as late_payments")
    name = parser.parse_args(arguments).name
    try:
        folder = write(name, OWN)
    except (ValueError, FileExistsError) as error:
        given = f"NAME={name}: " if name else "Name it, like NAME=late_payments: "
        print(f"{given}{error}", file=sys.stderr)
        return 2
    print(
        f"Written: {folder.relative_to(REPO)}, a use case on made-up data. Next:\n"
        f"    make usecase USECASE={name}\n"
        "then replace its parts one after the other: docs/fork.md says what each of them is."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
