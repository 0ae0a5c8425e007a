"""Write anew what is made from the table of metrics: `make reference`.

- `docs/metrics.md`: every metric, for people.
- `prometheus/statsd_mapping.yml`: how statsd_exporter turns StatsD's dotted names into labels.
"""

from pathlib import Path

from include.metrics import PREFIX, TABLE, Metric

REPO = Path(__file__).resolve().parent.parent
DOCS, MAPPING = REPO / "docs" / "metrics.md", REPO / "prometheus" / "statsd_mapping.yml"

BUCKETS = "0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200"  # noqa: E501

MAPPING_HEAD = f"""\
# Made by `make reference` from include/metrics.py and local/reference.py: change those.
#
# Our own metrics come as ml.<name>.<value of each label>; Airflow's with labels already, in
# InfluxDB's style, and get the ending that says what they are. Gauges go when nobody has sent them
# for a while: ours after three days, as most are sent once a day.
defaults:
  observer_type: histogram  # can be added up over workers, which quantiles cannot
  histogram_options:
    buckets: [{BUCKETS}]
mappings:
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

DOCS_HEAD = """\
# Metrics

Made by `make reference` from the table in `include/metrics.py`, which also says when a gauge about
a day is sent. They are sent if `ML_STATSD_HOST` is set, and are in Prometheus under these names; a
timer is a histogram there (`…_bucket`, `…_sum`, `…_count`). A label's value has `_` for what StatsD
does not allow. Airflow's own metrics are `airflow_…`.

| metric | type | unit | labels | meaning |
|---|---|---|---|---|
"""


def mapping() -> str:
    """The mapping file's text."""
    return MAPPING_HEAD + "".join(_rule(metric) for metric in TABLE)


def _rule(metric: Metric) -> str:
    lines = [
        f"  - match: {'.'.join([PREFIX, metric.name, *('*' for _ in metric.labels)])}",
        f"    name: {PREFIX}_{metric.name}",
    ]
    if metric.kind == "gauge":
        lines.append("    ttl: 72h")
    if metric.labels:
        labels = (f'{name}: "${n}"' for n, name in enumerate(metric.labels, start=1))
        lines.append(f"    labels: {{{', '.join(labels)}}}")
    return "\n".join(lines) + "\n"


def docs() -> str:
    """The page's text."""
    rows = (
        f"| `{PREFIX}_{metric.name}` | {metric.kind} | {metric.unit} "
        f"| {', '.join(f'`{name}`' for name in metric.labels)} | {metric.meaning} |\n"
        for metric in TABLE
    )
    return DOCS_HEAD + "".join(rows)


def main() -> None:
    """Write both files."""
    for path, text in ((DOCS, docs()), (MAPPING, mapping())):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
