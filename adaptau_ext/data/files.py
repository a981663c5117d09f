"""Files of interactions: CSV, TSV, RecBole's .inter, Parquet, SciPy's .npz."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import scipy.sparse

from adaptau_ext.data.log import Columns, Log, find_columns
from adaptau_ext.errors import DataError, reading

DELIMITERS = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".txt": "\t"}
COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
SUFFIXES = (*DELIMITERS, ".parquet", ".npz")


def read_log(path: str | Path, columns: Columns | None = None, *, delimiter: str | None = None) -> Log:
    """The interactions of one file.

    ::

        ratings.csv, .tsv, .inter, .txt    with a header; also compressed, as ratings.csv.gz
        ratings.parquet
        matrix.npz                         a SciPy sparse matrix, users as rows

    Args:
        columns: default: found by their usual names. In a file without a header, their places from
            0, as Columns("0", "1").
        delimiter: default: by the file's name; .txt is tab-separated.

    Raises:
        DataError: with the file's name, for whatever makes it unreadable.
    """
    path = Path(path)
    if file_kind(path) == ".npz":
        return Log.from_csr(_read_npz(path), name=path.name)
    table, found = read_table(path, columns or Columns(), delimiter=delimiter)
    return Log.from_table(table, found, name=path.name)


def read_table(
    path: Path, columns: Columns, *, delimiter: str | None = None
) -> tuple[pa.Table, Columns]:
    """The file as a table of the columns that are found in it."""
    kind = file_kind(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    with reading(f"{path}: not readable", "mend the file", DataError):
        if kind == ".npz":
            coo = scipy.sparse.coo_array(_read_npz(path))
            return pa.table({"user": coo.coords[0], "item": coo.coords[1]}), Columns("user", "item")
        if kind == ".parquet":
            found = find_columns(pyarrow.parquet.read_schema(path).names, columns, path.name)
            return pyarrow.parquet.read_table(path, columns=_names(found)), found
        return _read_text(path, columns, delimiter or DELIMITERS[kind])


def _read_npz(path: Path) -> scipy.sparse.csr_array:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    with reading(f"{path}: not a matrix written by scipy.sparse.save_npz", "write it again", DataError):
        return scipy.sparse.csr_array(scipy.sparse.load_npz(path))


def _names(columns: Columns) -> list[str]:
    return [name for name in columns if name is not None]


def file_kind(path: Path) -> str:
    """Its suffix, without that of a compressed file.

    Raises:
        DataError: for a suffix that no reader is for.
    """
    suffix = Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: interactions are read from {', '.join(SUFFIXES)}, got {path.name!r}")
    return suffix


def _read_text(path: Path, columns: Columns, delimiter: str) -> tuple[pa.Table, Columns]:
    with pa.input_stream(str(path)) as stream:
        head = stream.read(1 << 16).decode("utf-8-sig", errors="replace")
    first = next(csv.reader(io.StringIO(head), delimiter=delimiter), [])
    if not first:
        raise DataError(f"{path}: the file is empty")
    places = [c for c in _names(columns) if c.isdecimal() and c not in first]
    if places:  # there is no header: columns are called by their places
        names = [str(n) for n in range(len(first))]
    else:
        names = first
        if all(_is_number(field) for field in first):
            raise DataError(
                f"{path}: the first line should name the columns, got {delimiter.join(first)[:60]!r}; "
                "where it does not, give their places: user_column=0 item_column=1"
            )
        if len(first) == 1:
            raise DataError(
                f"{path}: one column only, {first[0][:60]!r}, where columns are separated by "
                f"{delimiter!r}: give delimiter"
            )
    found = find_columns(names, columns, path.name)
    types: dict[str | None, pa.DataType] = {
        found.user: pa.string(),
        found.item: pa.string(),
    }  # "007" is not 7
    if found.rating is not None:
        types[found.rating] = pa.float64()
    table = pyarrow.csv.read_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(column_names=names, skip_rows=0 if places else 1),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=False),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=_names(found),
            column_types=types,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        ),
    )
    return table, found


def _is_number(text: str) -> bool:
    try:
        return not np.isnan(float(text))
    except ValueError:
        return False
