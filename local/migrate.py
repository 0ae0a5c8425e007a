"""Moves the data of release 0.1, which had only one use case, to the use case's current place.

    make migrate USECASE=late_payments [FROM=late-payments]

Tables move from the lake's root into the folder of the use case, unless it has its own `lake_root`
or the lake is not a folder on this machine. Registered models and their experiment get the use
case's name in any case. Each step is one rename, so the command can be repeated if it is killed.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from include import usecases
from include.errors import BadData, PipelineError
from include.lake.tables import Lake
from include.registry import registry
from include.settings import settings, variable
from include.usecase import UseCase, UsecaseInvalid
from include.wording import listed
from local import embedded
from local.choose import add_option, chosen

LANDING = "landing"


def old_tables(root: Path) -> list[Path]:
    """Folders of tables directly in a lake's root, as in release 0.1."""
    found = [*root.glob("*/date=*"), *root.glob("*/*/date=*"), *root.glob(f"{LANDING}/*/*.parquet")]
    tables = {root / path.relative_to(root).parts[0] for path in found}
    lakes = {folder.name for folder in usecases.folders()}
    return sorted(path for path in tables if path.name not in lakes)


def move_tables(root: Path, case: UseCase) -> list[str]:
    """Move a lake's old tables into the folder of a use case.

    Returns:
        Names of the tables that were moved.

    Raises:
        BadData: a table is in both places. Nothing was moved.
    """
    tables, target = old_tables(root), root / case.name
    if both := [table.name for table in tables if (target / table.name).exists()]:
        raise BadData(
            f"{listed(both)} of {root} are in {target}, too: days of both would be mixed. Nothing "
            "was moved. Find out which is right, and move the other away."
        )
    target.mkdir(parents=True, exist_ok=True)
    for table in tables:
        table.rename(target / table.name)
    return [table.name for table in tables]


def bring_tables(case: UseCase) -> str:
    """Move the tables to where the use case looks for them, if that is elsewhere.

    Returns:
        What was done, as a message.

    Raises:
        BadData: a table is in both places. Nothing was moved.
    """
    if case.settings.lake_of(case.name) != settings().lake_of(case.name):
        return f"No table was moved: the lake_root of {case.name} is {case.lake.root}"
    root = Lake(settings().lake).root
    if not isinstance(root, Path):
        return (
            f"No table was moved: {root} is not a folder on this machine. If it has tables of "
            f"release 0.1, use them where they are: {variable('lake_root', case.name)}={root}"
        )
    moved = move_tables(root, case)
    return f"Moved into {root / case.name}: {listed(moved) or 'nothing, all is there'}"


def rename_models(case: UseCase, before: str) -> list[str]:
    """Give registered models, their members' versions and the experiment the name of a use case.

    Returns:
        Their old names.
    """
    with registry.connection(case) as client:
        there = {model.name for model in _all_pages(client.search_registered_models)}
        old = sorted(name for name in there if name == before or name.startswith(f"{before}."))
        for name in old:
            client.rename_registered_model(name, case.name + name.removeprefix(before))
        for version in client.search_model_versions(f"name = '{case.name}'"):
            if (known := version.tags.get(registry.MEMBERS)) and before in known:
                members = json.loads(known)
                for member in members.values():
                    if member["name"].startswith(f"{before}."):
                        member["name"] = case.name + member["name"].removeprefix(before)
                number = str(version.version)
                client.set_model_version_tag(
                    case.name, number, registry.MEMBERS, json.dumps(members)
                )
        if experiment := client.get_experiment_by_name(before):
            client.rename_experiment(experiment.experiment_id, case.name)
    return old


def _all_pages(search: Callable[..., Any]) -> Iterator[Any]:
    """All results of one of MLflow's searches, which return a page at a time."""
    page = search()
    yield from page
    while page.token:
        page = search(page_token=page.token)
        yield from page


def main(arguments: list[str] | None = None) -> int:
    """Move a lake and a registry of release 0.1."""
    parser = argparse.ArgumentParser(prog="python -m local.migrate", description=main.__doc__)
    add_option(parser)
    parser.add_argument(
        "--from", dest="before", help="its NAME in release 0.1, such as late-payments"
    )
    options = parser.parse_args(arguments)
    try:
        case = chosen(options.usecase)
        if embedded.running() is not None:
            raise BadData(
                "Airflow is running: `make stop`, then run this again. Nothing was moved."
            )
        print(bring_tables(case))
        models = rename_models(case, options.before or case.name.replace("_", "-"))
    except (PipelineError, UsecaseInvalid) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"Renamed in MLflow: {listed(models) or 'nothing, all is there'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
