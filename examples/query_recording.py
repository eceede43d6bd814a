"""Asks a recording questions in SQL, with DuckDB, and with polars.

    python examples/record_and_replay.py run.parquet --seconds 60  # while `k2eg demo` runs
    python examples/query_recording.py run.parquet

Both read the Parquet files as they are, only the columns that a question needs, and also more than fits into memory. It
needs the extra ``examples``.
"""

from __future__ import annotations

import argparse

import duckdb
import polars as pl

ALARMS = """
    SELECT pv, count(*) AS updates, count(*) FILTER (severity > 0) AS in_alarm, round(max(value), 3) AS highest
    FROM read_parquet($files)
    WHERE kind = 'update'
    GROUP BY pv ORDER BY pv
"""


def seconds(files: str) -> pl.DataFrame:
    """Returns the mean of each PV in each second of EPICS time, a column for each PV, without INVALID values."""
    means = (
        pl.scan_parquet(files)
        .filter(pl.col("kind") == "update", pl.col("severity") < 3, pl.col("value").is_not_null())
        .group_by("pv", time=pl.col("time").dt.truncate("1s"))
        .agg(pl.col("value").mean().round(3))
        .collect()
    )
    return means.pivot("pv", index="time", sort_columns=True).sort("time")


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", help="the files of a recording, such as run.parquet or 'data/*.parquet'")
    options = parser.parse_args()
    print(duckdb.execute(ALARMS, {"files": options.files}).df().to_string(index=False))
    print(seconds(options.files).tail(5))


if __name__ == "__main__":
    main()
