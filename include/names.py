"""The names that a use case gives to its parts."""

import re

LONGEST_NAME = 64
"""Ids made of two such names, as of pools, fit into the 250 characters of Airflow's ids."""


def check_name(what: str, name: str) -> None:
    """Refuse a name that cannot be part of a path, a task, a column and a metric.

    Raises:
        ValueError: it cannot.
    """
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or len(name) > LONGEST_NAME:
        raise ValueError(
            f"{what} {name!r}: its name becomes part of paths, tasks, columns and metrics, and "
            f"must be letters, digits and underscores, beginning with a letter, {LONGEST_NAME} at "
            "most"
        )
