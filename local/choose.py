"""Chooses the use case of a command.

    python -m local.choose [--usecase NAME]

prints its name and the two days of its first window, for scripts.
"""

import argparse
import sys

from include import usecases
from include.errors import PipelineError
from include.usecase import UseCase, UsecaseInvalid
from include.wording import listed


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that chooses a use case."""
    parser.add_argument("--usecase", help="name of the use case, if several are enabled")


def chosen(name: str | None) -> UseCase:
    """The use case with a name, or the only enabled one.

    Args:
        name: the given name; None or empty if none was given.

    Raises:
        UsecaseInvalid: it does not exist, it cannot be loaded, or several are enabled.
        BadData: a setting is wrong, or is for a use case that does not exist.
    """
    usecases.check_variables()
    names = [name] if name else [folder.name for folder in usecases.folders()]
    if len(names) == 1:
        case = usecases.find(names[0])
        for folder, wrong in usecases.broken().items():
            if folder.name == case.name:  # it is sound alone, but not beside the others
                raise wrong
        return case
    if not names:
        raise UsecaseInvalid("No use case is enabled: include/usecases has no folder with one.")
    raise UsecaseInvalid(
        f"Several use cases are enabled: {listed(names)}. Choose one with --usecase NAME, or "
        "USECASE=NAME for make."
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the name of the use case, and its first window."""
    parser = argparse.ArgumentParser(prog="python -m local.choose", description=main.__doc__)
    add_option(parser)
    try:
        case = chosen(parser.parse_args(arguments).usecase)
    except (PipelineError, UsecaseInvalid) as error:
        print(error, file=sys.stderr)
        return 2
    print(case.name, *case.first_window)
    return 0


if __name__ == "__main__":
    sys.exit(main())
