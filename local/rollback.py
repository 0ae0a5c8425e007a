"""Rolls the champion back by a run of `model_rollback`.

python -m local.rollback --reason "scores of version 3 are off since the new feed"
"""

import argparse
import sys

from include.errors import PipelineError
from include.registry import registry
from include.usecase import UsecaseInvalid
from local import embedded
from local.choose import add_option, chosen
from local.client import EmbeddedError


def main(arguments: list[str] | None = None) -> int:
    """Roll the champion back in the Airflow that runs here."""
    parser = argparse.ArgumentParser(prog="python -m local.rollback", description=main.__doc__)
    parser.add_argument("--reason", required=True, help="kept with the version that is rolled back")
    add_option(parser)
    options = parser.parse_args(arguments)
    if not options.reason.strip():
        parser.error(
            "give a reason in a few words: it is kept with the version that is rolled back"
        )
    try:
        case = chosen(options.usecase)
        rollback = case.dag_id("model_rollback")
        airflow = embedded.running()
        if airflow is None:
            raise EmbeddedError("Airflow is not running: `make start`, then run this again")
        airflow.unpause(rollback)
        champion = registry.find_champion(case)
        conf = {"reason": options.reason, "version": champion.version if champion else None}
        run_id = airflow.trigger(rollback, conf)
        page = f"{airflow.url}/dags/{rollback}/runs/{run_id}"
        if airflow.wait(rollback, run_id) != "success":
            why = airflow.why_failed(rollback, run_id)
            raise EmbeddedError(f"The champion was not rolled back. {why}\nThe run: {page}")
        versions = airflow.xcom(rollback, run_id, "find_previous")
    except (EmbeddedError, PipelineError, UsecaseInvalid) as error:
        print(error, file=sys.stderr)
        return 2
    left, back = versions["model"]["version"], versions["to"]["version"]
    print(f"Version {back} is champion again instead of version {left}: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
