"""Print every setting, with what it is now, and where that comes from.

make settings [USECASE=name]
"""

import os
import sys

from include import usecases
from include.errors import PipelineError
from include.orchestration.alerting import check_notifiers
from include.settings import PER_USECASE, Settings, settings, shown, variable
from include.usecase import UseCase, UsecaseInvalid


def source_of(name: str, case: UseCase | None) -> str:
    """Where the value of a setting comes from, in words."""
    if case is not None and name in PER_USECASE:
        if (own := variable(name, case.name)) in os.environ:
            return own
        if name in case.own_settings:
            return f"own_settings of {case.name}"
    return variable(name) if variable(name) in os.environ else "default"


def main() -> int:
    """Print the settings of the installation, or of the use case that the command names."""
    try:
        case = usecases.find(sys.argv[1]) if len(sys.argv) > 1 else None
        found = case.settings if case else settings()
        for name, field in Settings.model_fields.items():
            value = shown(getattr(found, name))
            print(f"{variable(name)}={value}  ({source_of(name, case)})\n    {field.description}")
        for one in [case] if case else usecases.enabled():
            check_notifiers(one)
    except (PipelineError, UsecaseInvalid) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
