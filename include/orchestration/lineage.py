"""Reports to OpenLineage which datasets a task has read and written, with columns and row counts.

Airflow's provider for OpenLineage has to be switched on (docs/deploy.md). Airflow logs what goes
wrong here; no task fails because of it, and none waits for it: a task has succeeded
before it reports.
"""

from typing import Any

from include import datasets
from include.datasets import CONNECTION, Dataset


def begin(_context: Any) -> None:
    """Note from now on what the task reads and writes, if lineage is switched on."""
    try:
        from airflow.providers.openlineage import conf
    except ImportError:
        return
    if not conf.is_disabled():
        datasets.begin()


def report(context: Any) -> None:
    """Add the datasets to the events that the provider emits of a task that succeeded."""
    inputs, outputs = datasets.end()
    if not inputs and not outputs:
        return
    from airflow.providers.openlineage.api import emit_dataset_lineage

    emit_dataset_lineage(
        inputs=[_input(one) for one in inputs],
        outputs=[_output(one) for one in outputs],
        task_instance=context["ti"],
    )


def _input(one: Dataset) -> Any:
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.generated.input_statistics_input_dataset import (
        InputStatisticsInputDatasetFacet as Statistics,
    )

    counted = _counted("inputStatistics", Statistics, one)
    return InputDataset(_namespace(one), one.name, facets=_facets(one), inputFacets=counted)


def _output(one: Dataset) -> Any:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.generated.output_statistics_output_dataset import (
        OutputStatisticsOutputDatasetFacet as Statistics,
    )

    counted = _counted("outputStatistics", Statistics, one)
    return OutputDataset(_namespace(one), one.name, facets=_facets(one), outputFacets=counted)


def _counted(facet: str, statistics: Any, one: Dataset) -> dict[str, Any]:
    """The facet with the rows and bytes of a dataset; none if it has no rows."""
    return (
        {} if one.rows is None else {facet: statistics(rowCount=one.rows, size=one.bytes or None)}
    )


def _facets(one: Dataset) -> dict[str, Any]:
    from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet
    from openlineage.client.generated.schema_dataset import (
        SchemaDatasetFacet,
        SchemaDatasetFacetFields,
    )

    facets: dict[str, Any] = {}
    if one.columns:
        fields = [SchemaDatasetFacetFields(name) for name in one.columns]
        facets["schema"] = SchemaDatasetFacet(fields)
    if one.version:
        facets["version"] = DatasetVersionDatasetFacet(one.version)
    return facets


def _namespace(one: Dataset) -> str:
    """The namespace; that of a database as Airflow's own operators name it."""
    if not one.namespace.startswith(CONNECTION):
        return one.namespace
    from airflow.providers.openlineage.sqlparser import SQLParser
    from airflow.sdk import BaseHook

    name = one.namespace.removeprefix(CONNECTION)
    hook: Any = BaseHook.get_hook(name)
    info = hook.get_openlineage_database_info(hook.get_connection(name))
    return SQLParser.create_namespace(info) if info else f"{hook.conn_type}://{name}"
