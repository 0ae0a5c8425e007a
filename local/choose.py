"""Which use case a command is about."""

import argparse

from include import usecases
from include.usecase import UseCase, UsecaseInvalid
from include.wording import listed


def add_option(parser: argparse.ArgumentParser) -> None:
    """Let a command be told which use case it is about."""
    parser.add_argument("--usecase", help="name of the use case, if several are enabled")


def chosen(name: str | None) -> UseCase:
    """The use case of a name, or the only one that is enabled.

    Raises:
        UsecaseInvalid: there is none of that name, it cannot be loaded, or several are enabled.
    """
    if name:
        return usecases.find(name)
    found = usecases.enabled()
    if len(found) == 1:
        return found[0]
    for wrong in () if found else usecases.broken().values():
        raise wrong
    raise UsecaseInvalid(
        f"{listed([case.name for case in found]) or 'No use case'} are enabled: say which one is "
        "meant, with --usecase NAME, or USECASE=NAME for make."
    )
