"""Write anew what is made from the settings and the table of metrics: `make reference`.

- `docs/settings.md`: every setting, for people.
- `docs/metrics.md`: every metric, for people.
- `prometheus/statsd_mapping.yml`: how statsd_exporter turns StatsD's dotted names into labels.
"""

import inspect
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from textwrap import fill
from typing import Any, get_args

from pydantic import SecretStr

from include.metrics import PREFIX, TABLE, USECASE, Metric
from include.settings import INSTALLATION, PROJECT, Settings, bounds, type_of, variable
from include.wording import listed

REPO = Path(__file__).resolve().parent.parent
SETTINGS, METRICS = REPO / "docs" / "settings.md", REPO / "docs" / "metrics.md"
MAPPING = REPO / "prometheus" / "statsd_mapping.yml"

BUCKETS = "0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200"  # noqa: E501

MAPPING_HEAD = f"""\
# Made by `make reference` from include/metrics.py and local/reference.py: change those.
#
# Our own metrics come as ml.<name>.<use case>.<value of each label>; Airflow's with labels already,
# in InfluxDB's style, and get the ending that says what they are. Gauges go when nobody has sent
# them for a while: ours after three days, as most are sent once a day.
defaults:
  observer_type: histogram  # can be added up over workers, which quantiles cannot
  histogram_options:
    buckets: [{BUCKETS}]
mappings:
  - match: airflow.dag_processing.processes
    name: airflow_dag_processing_processes
    action: drop  # a counter that goes down, which the exporter would refuse as an error
  - match: airflow\\.(.+)
    match_type: regex
    match_metric_type: counter
    name: airflow_${{1}}_total
  - match: airflow\\.(.+)
    match_type: regex
    match_metric_type: observer
    name: airflow_${{1}}_seconds
  - match: airflow\\.(.+)
    match_type: regex
    match_metric_type: gauge
    name: airflow_$1
    ttl: 1h
"""

METRICS_HEAD = """\
# Metrics

Made by `make reference` from the table in `include/metrics.py`, which also says when a gauge about
a day is sent. They are sent if `ML_STATSD_HOST` is set, and are in Prometheus under these names; a
timer is a histogram there (`…_bucket`, `…_sum`, `…_count`). The label `usecase` says which use case
it is about, and `dag` a pipeline without the name of its use case. A label's value has `_` for what
StatsD does not allow. Airflow's own metrics are `airflow_…`, with `dag_id="<use case>.<pipeline>"`.

| metric | type | unit | labels | meaning |
|---|---|---|---|---|
"""

SHARED = fill(
    listed([f"`{variable(name)}`" for name in Settings.model_fields if name in INSTALLATION], 99),
    100,
)
SETTINGS_HEAD = f"""\
# Settings

Made by `make reference` from `include/settings.py`. Each is an environment variable, read when a
process starts. A wrong value or a misspelt name stops every command, DAG and model server with one
line that names the variable, its value and what is allowed. `make settings` prints the current
values, with secrets masked.

A value for one use case alone has the use case's name in its variable, before two underscores:
`ML_LATE_PAYMENTS__GATE_MAX_AUC`. It comes before what the use case's own folder says
(`own_settings`), which comes before `ML_GATE_MAX_AUC`. What all use cases share cannot be set for
one:
{SHARED}.

`make start` and the other local commands read them from the shell, the stack from `settings.env`,
MWAA and Astro as [Deploy](deploy.md) says. `make demo` and `make usecase` read only `ML_DATA_DIR`
and `ML_USECASES`, so that they never meet your lake or registry.
"""

SETTINGS_COLUMNS = """
| setting | type | default | bounds | meaning |
|---|---|---|---|---|
"""

TYPES = {
    bool: "true or false", int: "whole number", float: "number", str: "text", date: "date",
    Path: "folder", SecretStr: "secret",
}  # fmt: skip


def mapping() -> str:
    """The mapping file's text."""
    return MAPPING_HEAD + "".join(_rule(metric) for metric in TABLE)


def _rule(metric: Metric) -> str:
    labels = (USECASE, *metric.labels)
    lines = [
        f"  - match: {'.'.join([PREFIX, metric.name, *('*' for _ in labels)])}",
        f"    name: {PREFIX}_{metric.name}",
    ]
    if metric.kind == "gauge":
        lines.append("    ttl: 72h")
    parts = (f'{name}: "${n}"' for n, name in enumerate(labels, start=1))
    lines.append(f"    labels: {{{', '.join(parts)}}}")
    return "\n".join(lines) + "\n"


def metrics_page() -> str:
    """The text of the page of metrics."""
    rows = (
        f"| `{PREFIX}_{metric.name}` | {metric.kind} | {metric.unit} "
        f"| {', '.join(f'`{name}`' for name in (USECASE, *metric.labels))} | {metric.meaning} |\n"
        for metric in TABLE
    )
    return METRICS_HEAD + "".join(rows)


def settings_page() -> str:
    """The text of the page of settings, in the groups of their file."""
    headings, page = dict(_headings()), SETTINGS_HEAD
    for name in Settings.model_fields:
        if name in headings:
            title, _, more = headings[name].partition(". ")
            page += f"\n## {title}\n" + (f"\n{more}\n" if more else "") + SETTINGS_COLUMNS
        page += _row(name)
    return page


def _headings() -> Iterator[tuple[str, str]]:
    """The comments that head groups of settings, each with the name of the first of its group."""
    comment = ""
    for line in inspect.getsource(Settings).splitlines():
        if found := re.match(r"    # (.+)", line):
            comment = f"{comment} {found[1]}".strip()
        elif comment and (found := re.match(r"    (\w+):", line)):
            yield found[1], comment
            comment = ""


def _row(name: str) -> str:
    field = Settings.model_fields[name]
    kind = type_of(name)
    cells = [
        f"`{variable(name)}`",
        TYPES.get(kind) or ", ".join(f"`{one}`" for one in get_args(kind)),  # of a Literal
        _default(field.default),
        ", ".join(bounds(name)),
        str(field.description).replace("|", "\\|"),
    ]
    return f"| {' | '.join(cells)} |\n"


def _default(value: Any) -> str:
    """A default as it would be set, or where machine and use case have it from."""
    if isinstance(value, Path):
        return f"`{value.relative_to(PROJECT)}` in the project's folder"
    shown = str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
    return f"`{shown}`" if shown else "empty"


def main() -> None:
    """Write the files."""
    SETTINGS.write_text(settings_page())
    METRICS.write_text(metrics_page())
    MAPPING.write_text(mapping())


if __name__ == "__main__":
    main()
