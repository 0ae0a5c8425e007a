"""Is the use case whole, and do its first days come through? In seconds, without Airflow.

    make usecase [USECASE=folder]

Its pieces are looked at, then its first days are fetched, validated and turned into features and
labels in a folder that is thrown away, and every candidate is fitted on them, saved and loaded.
"""

import sys
import tempfile
import warnings
from collections.abc import Iterable
from datetime import date, timedelta
from importlib import import_module
from typing import Any, get_args, get_origin

import polars as pl
import skops.io
from skops.io.exceptions import UntrustedTypesFoundException

from include import USECASE, scoring, validation
from include.contract import PIECES
from include.errors import PipelineError
from include.lake import Lake
from include.settings import settings
from local.environment import forget_settings

DAYS = 5

NEVER_EMPTY = [
    ("__init__", "NAME"),
    ("schema", "KEY"),
    ("schema", "INPUTS"),
    ("features", "FEATURES"),
    ("models", "CANDIDATES"),
    ("members", "MEMBERS"),
]
"""Pieces without which there is nothing to do; all other lists may be empty."""


def wrong_pieces() -> list[str]:
    """What of the use case cannot be right, in sentences: wrong types, names that do not meet."""
    modules = {module: _module(module) for module in dict.fromkeys(piece[0] for piece in PIECES)}
    mistyped = [
        f"{name} in {module}.py is {getattr(modules[module], name)!r}, and not of the type {kind}"
        for module, name, kind in PIECES
        if not _is(getattr(modules[module], name), kind)
    ]
    empty = [
        f"{name} in {module}.py is empty"
        for module, name in NEVER_EMPTY
        if not getattr(modules[module], name)
    ]
    return mistyped or empty or _that_do_not_meet()


def _module(name: str) -> Any:
    return import_module("include.usecase" if name == "__init__" else f"include.usecase.{name}")


def _is(value: Any, kind: Any) -> bool:
    if not isinstance(value, get_origin(kind) or kind):
        return False
    if not isinstance(value, list | tuple | dict):
        return True
    inner = next(one for one in reversed(get_args(kind)) if one is not Ellipsis)
    return all(_is(one, inner) for one in (value.values() if isinstance(value, dict) else value))


def _that_do_not_meet() -> list[str]:
    from include.usecase import FIRST_WINDOW, features
    from include.usecase.members import MEMBERS
    from include.usecase.models import CANDIDATES, WITHOUT
    from include.usecase.schema import INPUTS, KEY, TRUTH

    found = []

    def within(what: str, names: Iterable[str], whose: str, known: Iterable[str]) -> None:
        known = list(known)
        if unknown := [name for name in names if name not in known]:
            found.append(
                f"{what} names {', '.join(unknown)}, and {whose} are {', '.join(known) or 'none'}"
            )

    main = INPUTS[0]
    within("KEY", KEY, f"the columns of {main.name}", main.schema.columns)
    within("KEY", KEY, f"the columns of {TRUTH.name}", TRUTH.schema.columns)
    for one in (main, TRUTH):
        if one.key != KEY:
            found.append(f"the key of {one.name} is {one.key}, and KEY is {KEY}")
    in_order = [*features.NUMERIC, *features.CATEGORICAL]
    if in_order != features.FEATURES:
        found.append("FEATURES is not NUMERIC and then CATEGORICAL")
    for name in ("REQUIRED", "SEASONAL", "OFTEN_MISSING", "DRIFT_BOUNDS"):
        within(name, getattr(features, name), "FEATURES", features.FEATURES)
    for name in ("SLICES", "SEGMENT"):
        known = dict.fromkeys([*KEY, *features.FEATURES])
        within(name, getattr(features, name), "KEY and FEATURES", known)
    for group in features.GROUPS:
        within(f"the group {group.name} of GROUPS", group.features, "FEATURES", features.FEATURES)
    lacking = [group.path for group in features.GROUPS]
    within("WITHOUT", WITHOUT, "the paths of GROUPS", lacking)
    within("GROUPS", lacking, "the candidates of WITHOUT", WITHOUT)
    trained = [member.name for member in MEMBERS if member.kind == "registry"]
    within("MEMBERS", trained, "CANDIDATES", CANDIDATES)
    try:
        first, last = map(date.fromisoformat, FIRST_WINDOW)
        shortest = 2 * settings().holdout_days
        if (last - first).days + 1 < shortest:
            found.append(f"FIRST_WINDOW has less than {shortest} days, two holdouts")
    except ValueError:
        found.append(f"FIRST_WINDOW is {FIRST_WINDOW}, and not two dates like 2026-01-31")
    return found


def try_days(lake: Lake) -> list[str]:
    """Pass the first days through, and say what each came to. Returns what went wrong."""
    from include.usecase import FIRST_WINDOW, features
    from include.usecase.schema import KEY, TRUTH

    wrong, labelled = [], []
    for number in range(DAYS):
        key = (date.fromisoformat(FIRST_WINDOW[0]) + timedelta(days=number)).isoformat()
        for table in validation.TABLES:
            validation.validate_day(lake, table, key)
        scoring.preprocess(lake, key)
        rows = lake.current("features", key).read("features")
        labels = features.build_labels(lake.current("actuals", key).read(TRUTH.name))
        known = rows.join(labels, on=KEY, how="inner")
        labelled.append(known)
        rate = round(float(known["label"].sum()) / len(known), 3) if len(known) else "unknown"
        print(f"{key}: {len(rows)} rows of features, {len(known)} with a label, its mean {rate}")
        wanted = {
            **dict.fromkeys(features.NUMERIC, pl.Float32),
            **dict.fromkeys(features.CATEGORICAL, pl.String),
        }
        for name, kind in wanted.items():
            if rows.schema.get(name) != kind:
                there = rows.schema.get(name, "missing")
                wrong.append(f"{name} of build_features is {there}, and has to be {kind}")
        if labels.schema.get("label") != pl.Int8 or labels["label"].null_count():
            wrong.append("label of build_labels has to be Int8, and never null")
        if wrong:
            return wrong
    return try_candidates(pl.concat(labelled))


def try_candidates(rows: pl.DataFrame) -> list[str]:
    """Fit each candidate on labelled rows, save it, load it. Returns what went wrong."""
    from include.usecase.models import CANDIDATES, TRUSTED_TYPES, WITHOUT

    if set(rows["label"]) != {0, 1}:
        return [
            f"the labels of the first {DAYS} days are {sorted(set(rows['label']))}, not 0 and 1"
        ]
    wrong = []
    for name, make in (CANDIDATES | WITHOUT).items():
        pipeline = make(settings().seed).fit(rows.to_arrow(), rows["label"].to_numpy())
        try:
            skops.io.loads(skops.io.dumps(pipeline), trusted=TRUSTED_TYPES)
        except UntrustedTypesFoundException as error:
            wrong.append(f"TRUSTED_TYPES in models.py lacks a type of {name}: {error}")
        else:
            print(f"{name}: fitted on {len(rows)} rows, saved and loaded")
    return wrong


def main() -> int:
    """Look at the use case; the exit code is 0 if nothing is wrong with it."""
    try:
        settings()
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 2
    forget_settings()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    print(f"The use case in {USECASE}")
    try:
        wrong = wrong_pieces()
        if not wrong:
            with tempfile.TemporaryDirectory() as folder:
                wrong = try_days(Lake(folder))
    except PipelineError as error:
        wrong = [str(error)]
    for line in wrong:
        print(f"Not as it should be: {line}.".replace("..", "."), file=sys.stderr)
    if not wrong:
        print("It has all its pieces, and its first days come through")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
