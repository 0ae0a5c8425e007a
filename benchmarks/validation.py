"""Validating a landed file in the pipeline compared with pandera on a Polars DataFrame.

The file has 20 columns: the use case's flights, resampled from real ones, each with its weather.
The pipeline reads its footer for the contract, checks rows and key slice by slice, counts what the
partition is judged by, and judges it. The peer reads the file and validates it by one pandera
schema with the same checks, the day's date and the key's uniqueness included; it counts no nulls
and judges no day. Each run has a process of its own, sides in turns; imports are not timed.

Last, a small file that decodes to gigabytes of text is validated and written, to measure memory.
"""

from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import (
    REPEATS,
    Claim,
    Clock,
    alternate,
    at_most,
    best,
    child,
    peak_gigabytes,
    program,
    say,
    scratch_folder,
    usecase,
)

if TYPE_CHECKING:
    from include.usecase import Input, UseCase

ROWS = {"small": 500_000, "full": 5_000_000}
ROWS_OF_TEXTS = {"small": 100_000, "full": 400_000}
TEXT_BYTES = 9_000
MAX_RATIO = 1.3
MAX_GIGABYTES = 1.2
DAY = date(2013, 3, 1)
BAD_SHARE = 0.001
WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure"]


def main(size: str) -> list[Claim]:
    """Make a clean file and one with bad rows; validate each by both sides in turns."""
    rows = ROWS[size]
    claims: list[Claim] = []
    with scratch_folder() as folder:
        path = str(folder / "landed.parquet")

        def run(step: Callable[..., dict[str, Any]]) -> dict[str, Any]:
            found = child(step, {"ML_DATA_DIR": str(folder)}, path=path)
            say(
                f"  {step.__name__:9}{found['seconds']:7.2f} s ({found['cpu_seconds']:.2f} CPU-s) "
                f"{found['peak']:.3f} GB, {found['bad']:,} rows are bad"
            )
            return found

        sides = {step.__name__: partial(run, step) for step in (pipeline, pandera)}
        for kind, bad in {"clean": 0, "bad rows": round(rows * BAD_SHARE)}.items():
            say(f"Validating {rows:,} rows x 20 columns, {bad:,} of them bad, in turns")
            child(generate, {}, path=path, rows=rows, bad=bad)
            runs = alternate(sides, REPEATS[size])
            found = {one["bad"] for side in runs.values() for one in side}
            assert found == {bad}, f"{bad} rows are bad, the sides found {found}"
            claims += _claims(kind, rows, runs)
        texts = ROWS_OF_TEXTS[size]
        say(f"Validating and writing {texts:,} rows, each with a text of {TEXT_BYTES:,} bytes")
        child(generate, {}, path=path, rows=texts, bad=0)
        repeated = child(repeated_texts, {"ML_DATA_DIR": str(folder)}, path=path)
        say(f"  {repeated['bytes'] / 1e3:,.0f} KB of file, {repeated['peak']:.3f} GB")
        claims.append(
            at_most(
                "validation memory, repeated texts", repeated["peak"], "GB peak RSS", MAX_GIGABYTES,
                f"{texts * TEXT_BYTES / 1e9:.1f} GB of text, which take "
                f"{repeated['bytes'] / 1e6:.1f} MB in the landed file",
            )
        )  # fmt: skip
    return claims


def _claims(kind: str, rows: int, runs: dict[str, list[dict[str, Any]]]) -> list[Claim]:
    seconds = best(runs, "seconds")
    ours, theirs = seconds["pipeline"], seconds["pandera"]
    peaks = {side: max(one["peak"] for one in side_runs) for side, side_runs in runs.items()}
    against = (
        f"pandera on Polars: {theirs:.2f} s, pipeline {ours:.2f} s "
        f"(best of {len(runs['pandera'])}, {rows:,} rows)"
    )
    limit = MAX_RATIO if kind == "clean" else None
    return [
        at_most(f"validation time, {kind}", ours / theirs, "x peer's time", limit, against),
        at_most(
            f"validation memory, {kind}", peaks["pipeline"], "GB peak RSS", MAX_GIGABYTES,
            f"a fixed limit, imports included; peer: {peaks['pandera']:.3f} GB",
        ),
    ]  # fmt: skip


def _contract() -> "Input":
    """The flights' contract with the columns of the weather, and flight numbers for more rows."""
    from dataclasses import replace

    import pandera.polars as pa
    import polars as pl

    from include.usecases.flight_delays.schema import FLIGHTS
    from include.usecases.flight_delays.schema import WEATHER as WEATHER_INPUT

    columns = {
        **FLIGHTS.schema.columns,
        "flight": pa.Column(pl.Int32, pa.Check.in_range(1, 99_999_999, n_failure_cases=10)),
        **{name: WEATHER_INPUT.schema.columns[name] for name in WEATHER},
    }
    schema = pa.DataFrameSchema(columns, strict=True, ordered=True)
    # pandera imports a part of itself when it validates for the first time.
    schema.validate(pl.DataFrame(schema={name: one.dtype.type for name, one in columns.items()}))
    limits = {**FLIGHTS.max_null_rate, **dict.fromkeys(WEATHER, 0.5)}
    return replace(FLIGHTS, name="benchmark", schema=schema, max_null_rate=limits)


def _with_contract() -> "UseCase":
    """The use case, of which one more input is known."""
    from dataclasses import replace
    from types import SimpleNamespace

    case = replace(usecase())
    more = SimpleNamespace(KEY=case.key, INPUTS=[*case.inputs, _contract()], TRUTH=case.truth)
    vars(case)["schema"] = more
    return case


def generate(path: str, rows: int, bad: int) -> dict[str, Any]:
    """Write real rows drawn at random, with a key of their own each; some of them are bad."""
    case = usecase()
    from datetime import timedelta

    import numpy as np
    import polars as pl

    from include.lake.files import to_arrow, write_parquet
    from include.usecases.flight_delays.source import WEATHER_AGE

    days = []
    for number in range(0, 360, 6):
        day = date(2013, 1, 1) + timedelta(days=number)
        flights, weather = case.source.fetch("flights", day), case.source.fetch("weather", day)
        assert flights is not None
        assert weather is not None
        weather = weather.with_columns(pl.col("time_hour") + WEATHER_AGE)
        joined = flights.join(weather, on=["origin", "time_hour"], how="left")
        days.append(joined.with_columns(pl.col("time_hour") + (DAY - day)))
    real = pl.concat(days).select(list(_contract().schema.columns))
    real = real.filter(
        pl.col("wind_speed").fill_null(0) <= 150
    )  # there is one such storm in the year
    real = real.with_columns(pl.lit(DAY).alias("date"))
    rng = np.random.default_rng(1)
    numbers = rng.permutation(2 * rows)[:rows].astype(np.int32) + 1
    broken = np.zeros(rows, bool)
    broken[rng.choice(rows, bad, replace=False)] = True
    batch_rows = 1 << 20  # a row group as pyarrow writes it by default
    with write_parquet(Path(path), to_arrow(real).schema) as writer:
        for start in range(0, rows, batch_rows):
            batch = slice(start, start + batch_rows)
            drawn = real[rng.integers(0, len(real), len(numbers[batch]))]
            is_bad = pl.Series(broken[batch])
            drawn = drawn.with_columns(
                pl.Series("flight", numbers[batch]),
                pl.when(~is_bad).then("distance").otherwise(-1).cast(pl.Int32).alias("distance"),
                pl.when(~is_bad).then("carrier").otherwise(pl.lit("??")).alias("carrier"),
            )
            writer.write_table(to_arrow(drawn), batch_rows)
    return {}


def pipeline(path: str) -> dict[str, Any]:
    """Contract, rows, key and partition, as the tasks of `data_validation` call them."""
    case = _with_contract()
    from include.lake.files import open_parquet
    from include.validation import contract, partition, rows

    table_input = case.input("benchmark")

    clock = Clock()
    with open_parquet(Path(path)) as file:
        breaches = contract.contract_breaches(table_input, file.schema_arrow)
    tally = rows.RowTally(table_input)
    for _valid, _rejected in rows.checked_slices(case, Path(path), table_input, DAY, tally):
        pass
    check = tally.result("validated/2013-03-01/benchmark", {})
    recent = [round(check.rows * share) for share in (0.9, 1.0, 1.1, 1.0)]
    breaches += partition.partition_breaches(case, check, DAY.isoformat(), recent)
    spent = clock.read()
    assert not breaches, breaches
    return {**spent, "peak": peak_gigabytes(), "bad": check.quarantined}


def repeated_texts(path: str) -> dict[str, Any]:
    """Give every row one of two long texts, then validate and write the rows as a task does."""
    case = _with_contract()
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from include.messages import LandedFile
    from include.validation.rows import check_rows

    lake, key = case.lake, DAY.isoformat()
    landed = Path(str(lake.landing_path("benchmark", key)))
    landed.parent.mkdir(parents=True)
    rows = pq.read_table(path)
    texts = pa.array([letter * TEXT_BYTES for letter in "xy"])
    codes = pa.array(np.arange(len(rows), dtype=np.int32) % 2)
    place = rows.schema.get_field_index("tailnum")
    coded = pa.DictionaryArray.from_arrays(codes, texts)
    pq.write_table(
        rows.set_column(place, pa.field("tailnum", coded.type), coded), landed, store_schema=False
    )
    del rows
    version = str(lake.new_version("validated", key))
    check = check_rows(case, LandedFile("benchmark", version))
    assert check.quarantined == 0, check
    return {"peak": peak_gigabytes(), "bytes": landed.stat().st_size}


def pandera(path: str) -> dict[str, Any]:
    """Read the file, validate it by one schema, find the rows that broke a rule."""
    import pandera.errors
    import pandera.polars as pa
    import polars as pl

    table_input = _contract()
    of_the_day = pa.Column(pl.Date, pa.Check.equal_to(DAY, n_failure_cases=10))
    schema = pa.DataFrameSchema(
        {**table_input.schema.columns, "date": of_the_day},
        strict=True,
        ordered=True,
        unique=table_input.key,
    )

    clock = Clock()
    rows = pl.read_parquet(path)
    bad = 0
    try:
        schema.validate(rows, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        passed = {str(n): one.check_output["check_output"]
                  for n, one in enumerate(errors.schema_errors)}  # fmt: skip
        bad = int(pl.DataFrame(passed).select(~pl.all_horizontal(pl.all())).sum().item())
    spent = clock.read()
    return {**spent, "peak": peak_gigabytes(), "bad": bad}


if __name__ == "__main__":
    raise SystemExit(program(main, generate, pipeline, repeated_texts, pandera))
