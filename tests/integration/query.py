"""Read a delivered day from the stack's Postgres, as a source does; print what came as JSON."""

import json
import sys

import pandera.polars as pa
import polars as pl

from include.sources import sql
from include.usecase import Input

[day] = sys.argv[1:]
visits = Input(
    name="visits",
    schema=pa.DataFrameSchema(
        {
            "day": pa.Column(pl.Date),
            "person": pa.Column(pl.Int32),
            "chance_of_a_visit": pa.Column(pl.Float64),
        }
    ),
    key=["day", "person"],
    belongs=lambda day: pl.col("day") == day,
)
query = "SELECT day, person, chance_of_a_visit FROM expected_visits WHERE day = :day"
fetched = sql.query("warehouse", query, {"day": day}, visits)
rows = pl.concat(fetched.frames)
days = rows["day"].unique().cast(pl.String).to_list()
print(
    json.dumps({"rows": len(rows), "days": days, "parameters": dict(fetched.origin["parameters"])})
)
