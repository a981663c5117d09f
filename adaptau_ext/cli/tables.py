"""Tables written in a stream, as CSV or Parquet."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from adaptau_ext import durable
from adaptau_ext.errors import InputError


def check_name(path: Path) -> None:
    """Before the work whose result goes there.

    Raises:
        InputError: for a name that is neither .csv, .tsv nor .parquet, or in no folder.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder; make it first")
    if path.suffix not in (".csv", ".tsv", ".parquet"):
        raise InputError(f"{path}: tables are written as .csv, .tsv or .parquet")


def write_batches(batches: Iterable[pa.RecordBatch], schema: pa.Schema, path: Path) -> int:
    """Writes a batch at a time; the file appears when it is complete. Returns the number of rows."""
    check_name(path)
    rows = 0
    with durable.beside(path) as part:
        if path.suffix == ".parquet":
            writer = pyarrow.parquet.ParquetWriter(part, schema)
        else:
            options = pyarrow.csv.WriteOptions(delimiter="," if path.suffix == ".csv" else "\t")
            writer = pyarrow.csv.CSVWriter(part, schema, write_options=options)
        with writer:
            for batch in batches:
                writer.write_batch(batch)
                rows += batch.num_rows
    return rows


def write_table(columns: dict[str, Any], path: Path) -> int:
    """All at once."""
    table = pa.table(columns)
    return write_batches(table.to_batches(), table.schema, path)
