"""Print what the lake of a use case says in the stack, as JSON: of all days, or of one."""

import json
import sys

from include import metrics, usecases
from include.inference import ensemble
from include.lake.files import list_folder
from include.lake.tables import Manifest
from include.monitoring import history
from include.partitions import parse_key
from include.registry import registry

name, what, *keys = sys.argv[1:]
case = usecases.find(name)
lake = case.lake


def manifests(table: str) -> list[Manifest]:
    """Of all versions of a table that were ever published: some days were so more than once."""
    return [
        version.manifest()
        for key in lake.published_keys(table)
        for folder in list_folder(lake.partition_path(table, key))
        if folder.is_dir() and (folder / "manifest.json").exists()
        for version in [lake.version(f"{table}/{key}/{folder.name}")]
    ]


def counts() -> dict:
    """What the counters should have come to."""
    rows, validated, chunks, scored, paths = {}, {}, {}, {}, {}
    for table in ("validated", "actuals", "features", "predictions", ensemble.TABLE, "outcomes"):
        rows[table] = 0
        for manifest in manifests(table):
            rows[table] += max(part.rows for part in manifest.parts.values())
            for check in manifest.metadata.get("report", {}).get("inputs", []):
                found = validated.setdefault(check["input"], {"valid": 0, "quarantined": 0})
                found["valid"] += check["valid"]
                found["quarantined"] += check["quarantined"]
    for key in lake.published_keys("predictions"):
        for folder in list_folder(lake.partition_path("scores", key)):
            model = metrics._clean(folder.name.split("-", 1)[1].rsplit("-", 4)[0])
            files = list_folder(folder)
            chunks[model] = chunks.get(model, 0) + len(files)
            found = sum(int(path.stem.split("-")[1]) for path in files)  # of its name
            scored[model] = scored.get(model, 0) + found
        branches = lake.manifest("predictions", key).metadata.get("branches", {"rows": {}})
        for path, taken in branches["rows"].items():
            paths[path] = paths.get(path, 0) + taken
    champion = registry.find_champion(case)
    return {
        "published": rows,
        "validated": validated,
        "chunks": chunks,
        "scored": scored,
        "paths": paths,
        "champion": champion.version,
        "model": champion.name,
    }


def figures(key: str) -> list[dict]:
    """The figures of a day, and of the newest day with outcomes, that are metrics."""
    rows = history.read(case, key, 14).sort("recorded_at")
    judged = history.newest(rows.filter(rows["pipeline"] == "outcomes"))
    found = {}
    for row in rows.iter_rows(named=True):
        metric, given = metrics.METRICS.get(f"{row['pipeline']}_{row['metric']}"), {}
        shown, named = case.target.measures, row["metric"]
        if row["pipeline"] == "estimate":
            named = case.target.loss
        elif row["pipeline"] == "outcomes" and named in shown:
            metric = metrics.METRICS["outcomes_figure"]
        if named in shown:
            given = {"figure": named, "unit": shown[named].unit}
        day = judged if row["pipeline"] == "outcomes" else parse_key(key)
        if metric is not None and row["time"] == day:
            labels = json.loads(row["labels"]) | given
            about = {name: metrics._clean(labels[name]) for name in metric.labels}
            found[metric.name, *about.values()] = {
                "name": metric.name, "labels": about, "value": row["value"]
            }  # fmt: skip
    return list(found.values())


def day(key: str) -> dict:
    """How many rows of a day came in and went out, and what of them is there twice."""
    validated = lake.current("validated", key).read(case.inputs[0].name)
    rejected = lake.current("features", key).read("rejected")
    found = {"validated": len(validated), "rejected": len(rejected)}
    for table in ("predictions", ensemble.TABLE):
        scored = lake.current(table, key).read("predictions")
        found[table] = len(scored)
        found[f"{table} twice"] = int(scored.select(case.key).is_duplicated().sum())
    facts = lake.manifest(ensemble.TABLE, key).metadata
    return found | {"fallback": facts["fallback"], "absent": facts["absent"]}


print(json.dumps({"counts": counts, "figures": figures, "day": day}[what](*keys)))
