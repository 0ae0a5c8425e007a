"""Prints every setting, its current value, and where the value comes from.

make settings [USECASE=name]
"""

import argparse
import sys

from include import usecases
from include.errors import PipelineError
from include.orchestration.alerting import check_notifiers
from include.settings import Settings, settings, shown, variable
from include.usecase import UsecaseInvalid
from local.choose import add_option


def source_of(name: str, found: Settings) -> str:
    """The source of a setting's value, in words."""
    return found.where_set(name) if name in found.model_fields_set else "default"


def main(arguments: list[str] | None = None) -> int:
    """Print the settings of the installation or of one use case."""
    parser = argparse.ArgumentParser(prog="python -m local.settings", description=main.__doc__)
    add_option(parser)
    options = parser.parse_args(arguments)
    try:
        usecases.check_variables()
        case = usecases.find(options.usecase) if options.usecase else None
        others = [] if case else usecases.enabled()
        found = case.settings if case else settings()
        for name, field in Settings.model_fields.items():
            value = getattr(found, name)
            print(f"{variable(name)}={shown(value)}  ({source_of(name, found)})")
            for one in others:
                if (its := getattr(one.settings, name)) != value:
                    print(f"    for {one.name}: {shown(its)}  ({source_of(name, one.settings)})")
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
