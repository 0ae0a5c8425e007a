"""Prints every setting, its current value, and where the value comes from.

make settings [USECASE=name]
"""

import argparse
import os
import sys

from include import usecases
from include.errors import PipelineError
from include.orchestration.alerting import check_notifiers
from include.settings import PER_USECASE, Settings, settings, shown, variable
from include.usecase import UseCase, UsecaseInvalid
from local.choose import add_option


def source_of(name: str, case: UseCase | None) -> str:
    """The source of a setting's value, in words."""
    there = {each.upper() for each in os.environ}
    if case is not None and name in PER_USECASE:
        if (own := variable(name, case.name)) in there:
            return own
        if name in case.own_settings:
            return f"own_settings of {case.name}"
    return variable(name) if variable(name) in there else "default"


def main(arguments: list[str] | None = None) -> int:
    """Print the settings of the installation or of one use case."""
    parser = argparse.ArgumentParser(prog="python -m local.settings", description=main.__doc__)
    add_option(parser)
    options = parser.parse_args(arguments)
    try:
        case = usecases.find(options.usecase) if options.usecase else None
        others = [] if case else usecases.enabled()
        found = case.settings if case else settings()
        for name, field in Settings.model_fields.items():
            value = getattr(found, name)
            print(f"{variable(name)}={shown(value)}  ({source_of(name, case)})")
            for one in others:
                if (its := getattr(one.settings, name)) != value:
                    print(f"    for {one.name}: {shown(its)}  ({source_of(name, one)})")
            print(f"    {field.description}")
        for one in [case] if case else others:
            check_notifiers(one)
        for wrong in () if case else usecases.broken().values():
            raise wrong
    except (PipelineError, UsecaseInvalid) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
