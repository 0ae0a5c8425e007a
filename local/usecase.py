"""Checks that a use case is complete and works, in a minute, without Airflow.

    make usecase [USECASE=name or folder]

First its pieces are checked. Then its first days go through validation, training, the gate, the
registry, scoring, a model server and monitoring, in a temporary folder.
"""

import argparse
import logging
import re
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from include import usecases
from include.errors import PipelineError
from include.lake.files import first_line
from include.names import check_name
from include.settings import settings
from include.usecase import MODULES, UseCase, UsecaseInvalid, check_columns
from include.wording import cut, few
from local.choose import add_option, chosen
from local.environment import forget_settings
from local.wrong import Wrong

NEVER_EMPTY = [
    ("schema", "KEY"),
    ("schema", "INPUTS"),
    ("features", "FEATURES"),
    ("models", "CANDIDATES"),
]
"""Pieces that must not be empty; all other lists may be."""


def wrong_pieces(case: UseCase) -> list[str]:
    """Mistakes of the use case, as sentences: wrong types, names that do not match."""
    mistyped = [
        f"{name} in {module}.py is {getattr(getattr(case, module), name)!r}, which is not of type "
        f"{kind}"
        for module, kinds in pieces().items()
        for name, kind in kinds.items()
        if not _is(getattr(getattr(case, module), name), kind)
    ]
    empty = [
        f"{name} in {module}.py is empty"
        for module, name in NEVER_EMPTY
        if not getattr(getattr(case, module), name)
    ]
    return mistyped or empty or _that_do_not_meet(case)


def pieces() -> dict[str, dict[str, Any]]:
    """Module → its pieces, each with its type."""
    import polars as pl
    from sklearn.pipeline import Pipeline

    from include.targets import Target

    # The library imports these for type checkers only.
    known = {"pl": pl, "Pipeline": Pipeline, "Target": Target}
    return {module: get_type_hints(protocol, localns=known) for module, protocol in MODULES.items()}


def _is(value: Any, kind: Any) -> bool:
    if not isinstance(value, get_origin(kind) or kind):
        return False
    if not isinstance(value, list | tuple | dict):
        return True
    inner = next(one for one in reversed(get_args(kind)) if one is not Ellipsis)
    return all(_is(one, inner) for one in (value.values() if isinstance(value, dict) else value))


def _that_do_not_meet(case: UseCase) -> list[str]:
    found = []

    def within(what: str, names: Iterable[str], whose: str, known: Iterable[str]) -> None:
        known = list(known)
        if unknown := [name for name in names if name not in known]:
            found.append(
                f"{what} names {', '.join(unknown)}, and {whose} are {', '.join(known) or 'none'}"
            )

    main = case.inputs[0]
    within("KEY", case.key, f"the columns of {main.name}", main.schema.columns)
    within("KEY", case.key, f"the columns of {case.truth.name}", case.truth.schema.columns)
    found += [
        f"the key of {one.name} is {one.key}, and KEY is {case.key}"
        for one in (main, case.truth)
        if one.key != case.key
    ]
    in_order = [*case.features.NUMERIC, *case.features.CATEGORICAL]
    if in_order != case.features.FEATURES:
        found.append("FEATURES is not NUMERIC and then CATEGORICAL")
    for name in ("REQUIRED", "SEASONAL", "OFTEN_MISSING", "DRIFT_BOUNDS"):
        within(name, getattr(case.features, name), "FEATURES", case.features.FEATURES)
    for name in ("SLICES", "SEGMENT"):
        known = dict.fromkeys([*case.key, *case.features.FEATURES])
        within(name, getattr(case.features, name), "KEY and FEATURES", known)
    for group in case.features.GROUPS:
        within(
            f"the group {group.name} of GROUPS", group.features, "FEATURES", case.features.FEATURES
        )
    lacking = [group.path for group in case.features.GROUPS]
    within("WITHOUT", case.models.WITHOUT, "the paths of GROUPS", lacking)
    names = [one.name for one in (*case.inputs, case.truth)]
    found += [f"{n} inputs are called {name}" for name, n in Counter(names).items() if n > 1]
    for what, columns in (("KEY", case.key), ("FEATURES", case.features.FEATURES)):
        twice = [name for name, n in Counter(columns).items() if n > 1]
        found += [f"{what} names {name} twice" for name in twice]
    try:
        check_columns(case.key, case.features.FEATURES)
        for name in (*case.models.CANDIDATES, *case.models.WITHOUT):
            check_name("candidate", name)
    except (UsecaseInvalid, ValueError) as error:
        found.append(str(error))
    within("GROUPS", lacking, "the candidates of WITHOUT", case.models.WITHOUT)
    trained = [member.name for member in case.members if member.kind == "registry"]
    within("members", trained, "CANDIDATES", case.models.CANDIDATES)
    first, last = map(date.fromisoformat, case.first_window)
    shortest = 2 * case.settings.holdout_days
    if (last - first).days + 1 < shortest:
        found.append(f"first_window has less than {shortest} days, two holdouts")
    return found


def explained(error: Exception, case: UseCase, lake_root: str) -> list[str]:
    """An error explained in sentences: what it is, where in the use case, and what to do.

    Raises:
        Exception: the error itself, if it does not come from the use case.
    """
    if isinstance(error, Wrong):
        return [*error.sentences]
    if isinstance(error, UsecaseInvalid):
        return [str(error)]
    if isinstance(error, PipelineError):
        return _of_the_pipelines(str(error), lake_root)
    frames = traceback.extract_tb(error.__traceback__)
    folder = _folder(case).resolve()
    own = [frame for frame in frames if Path(frame.filename).resolve().is_relative_to(folder)]
    notes = "".join(f", {note}" for note in getattr(error, "__notes__", []))
    what = f"{type(error).__name__}: {cut(first_line(error), 300)}"
    if own:
        where = f"line {own[-1].lineno} of {Path(own[-1].filename).name}"
        return [f"{where}, in {own[-1].name}{notes}: {what}{_advice(error)}"]
    raise error


def _of_the_pipelines(message: str, lake_root: str) -> list[str]:
    """A message of the pipelines, without the names of this command's temporary files."""
    landed = re.compile(rf"{re.escape(lake_root)}/landing/(\w+)/([\d-]+)\.parquet")
    told = landed.sub(r"\1 of \2, as fetch in source.py gives it", message)
    breaches = [line.removeprefix("  - ") for line in told.splitlines() if line.startswith("  - ")]
    if breaches:
        return [*few(breaches), "If these rows are right, change schema.py, else source.py"]
    return [told.splitlines()[0].replace(lake_root, "the lake of this try")]


def _advice(error: Exception) -> str:
    names = {cls.__name__ for cls in type(error).__mro__}
    if "AirflowNotFoundException" in names:
        return (
            ". Define the connection in Airflow, or for this command as the variable "
            "AIRFLOW_CONN_… (docs/fork.md, Connections)"
        )
    if names & {"ColumnNotFoundError", "SchemaFieldNotFoundError"}:
        return ". An input has the columns of its schema in schema.py, and no others"
    return ""


def _folder(case: UseCase) -> Path:
    return Path(str(sys.modules[case.package].__file__)).parent


def main(arguments: list[str] | None = None) -> int:
    """Check the use case; the exit code is 0 if nothing is wrong with it."""
    parser = argparse.ArgumentParser(prog="python -m local.usecase", description=main.__doc__)
    add_option(parser)
    options = parser.parse_args(arguments)
    try:
        settings()
        forget_settings()
        case = chosen(options.usecase)
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 2
    except UsecaseInvalid as error:
        is_broken = str(error) in map(str, usecases.broken().values())
        print(f"Not as it should be: {error}" if is_broken else error, file=sys.stderr)
        return 1 if is_broken else 2
    warnings.filterwarnings("ignore")
    place = _folder(case)
    print(f"The use case in {place}. Its tries are in a temporary folder; nothing else changes")
    began = time.monotonic()
    root = ""
    try:
        wrong = wrong_pieces(case)
        if not wrong:
            from local.rehearsal import rehearse, scratch

            logging.disable(
                logging.WARNING
            )  # also of Airflow and MLflow: the checks print their own lines
            with tempfile.TemporaryDirectory() as folder, scratch(case, folder):
                root = str(case.lake.root)
                rehearse(case, lambda line: print(line, flush=True))
    except Exception as error:
        wrong = explained(error, case, root)
    for line in wrong:
        print(f"Not as it should be: {line}.".replace("..", "."), file=sys.stderr)
    if not wrong:
        seconds = time.monotonic() - began
        print(f"It has all its pieces, and its first days pass all steps ({seconds:.0f} s)")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
