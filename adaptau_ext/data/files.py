"""Files of interactions: CSV, TSV, RecBole's .inter, Parquet, SciPy's .npz."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import scipy.sparse

from adaptau_ext.data.log import OPTIONAL, Columns, Log, find_columns
from adaptau_ext.data.room import refuse_beyond, room, too_much
from adaptau_ext.errors import DataError, reading

DELIMITERS = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".txt": "\t"}
COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
SUFFIXES = (*DELIMITERS, ".parquet", ".npz")


def read_log(
    path: str | Path,
    columns: Columns | None = None,
    *,
    delimiter: str | None = None,
    look_for: Collection[str] = OPTIONAL,
) -> Log:
    """The interactions of one file.

    ::

        ratings.csv, .tsv, .inter, .txt    with a header; also compressed, as ratings.csv.gz
        ratings.parquet
        matrix.npz                         a SciPy sparse matrix, users as rows

    Args:
        columns: default: found by their usual names. In a file without a header, their places from
            0, as Columns("0", "1").
        delimiter: default: by the file's name; .txt is tab-separated.
        look_for: see `Log.from_frame`.

    Raises:
        DataError: with the file's name, for whatever makes it unreadable.
    """
    path = Path(path)
    if file_kind(path) == ".npz":
        return Log.from_csr(_read_npz(path, columns, delimiter), name=path.name)
    table, found = read_table(path, columns or Columns(), delimiter=delimiter, look_for=look_for)
    return Log.from_table(table, found, name=path.name)


def refuse_columns(path: Path, columns: Columns | None, delimiter: str | None) -> None:
    """Of a file that has none.

    Raises:
        DataError: if any were asked for.
    """
    if any(_names(columns or Columns())) or delimiter is not None:
        raise DataError(f"{path} has no columns: leave their names and the delimiter out")


def read_table(
    path: Path,
    columns: Columns,
    *,
    delimiter: str | None = None,
    look_for: Collection[str] = OPTIONAL,
) -> tuple[pa.Table, Columns]:
    """The file as a table of the columns that are found in it."""
    kind = file_kind(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    with _within_memory(path), reading(f"{path}: not readable", "mend the file", DataError):
        if kind == ".npz":
            coo = scipy.sparse.coo_array(_read_npz(path, columns, delimiter))
            return pa.table({"user": coo.coords[0], "item": coo.coords[1]}), Columns("user", "item")
        if kind == ".parquet":
            return _read_parquet(path, columns, look_for)
        return _read_text(path, columns, look_for, delimiter or DELIMITERS[kind])


@contextmanager
def _within_memory(path: Path) -> Iterator[None]:
    try:
        yield
    except MemoryError as problem:  # of Arrow, too
        why = str(problem).partition("\n")[0]
        raise DataError(f"{path}: not enough memory for it ({why})") from None


def _read_parquet(path: Path, columns: Columns, look_for: Collection[str]) -> tuple[pa.Table, Columns]:
    header = pyarrow.parquet.read_metadata(path)
    found = find_columns(header.schema.to_arrow_schema().names, columns, path.name, look_for)
    refuse_beyond(path, 8 * header.num_rows * len(_names(found)), f"{header.num_rows:,} rows")
    return pyarrow.parquet.read_table(path, columns=_names(found)), found


def _read_npz(path: Path, columns: Columns | None, delimiter: str | None) -> scipy.sparse.csr_array:
    refuse_columns(path, columns, delimiter)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    not_one = f"{path}: not a matrix written by scipy.sparse.save_npz"
    with _within_memory(path), reading(not_one, "write it again", DataError):
        with zipfile.ZipFile(path) as archive:
            refuse_beyond(path, sum(part.file_size for part in archive.infolist()), "its arrays")
        coo = scipy.sparse.coo_array(scipy.sparse.load_npz(path))
        refuse_beyond(
            path, 8 * sum(coo.shape), f"ids of {coo.shape[0]:,} users, {coo.shape[1]:,} items"
        )
        return scipy.sparse.csr_array(coo)


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


def _read_text(
    path: Path, columns: Columns, look_for: Collection[str], delimiter: str
) -> tuple[pa.Table, Columns]:
    with pa.input_stream(str(path)) as stream:
        head = stream.read(1 << 16).decode("utf-8-sig", errors="replace")
    first = next(csv.reader(io.StringIO(head), delimiter=delimiter), [])
    if not first:
        what = "first line" if head.strip() else "file"
        raise DataError(f"{path}: the {what} is empty")
    by_place = _by_place(path, first, _names(columns))
    if by_place:
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
    found = find_columns(names, columns, path.name, look_for)
    types: dict[str | None, pa.DataType] = {
        found.user: pa.string(),
        found.item: pa.string(),
    }  # "007" is not 7
    if found.rating is not None:
        types[found.rating] = pa.float64()
    lines = pyarrow.csv.ReadOptions(column_names=names, skip_rows=0 if by_place else 1)
    fields = pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=False)
    if path.suffix in COMPRESSED:
        _refuse_bomb(path, lines, fields, _names(found))
    table = pyarrow.csv.read_csv(
        path,
        read_options=lines,
        parse_options=fields,
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=_names(found),
            column_types=types,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        ),
    )
    return table, found


def _by_place(path: Path, first: list[str], asked: list[str]) -> bool:
    """Whether there is no header, and columns are called by their places.

    Raises:
        DataError: if the first line could be names as well as an interaction.
    """
    decimal = [name for name in asked if name.isdecimal()]
    if any(name not in first for name in decimal):
        return True
    if len(decimal) < len(asked) or not decimal or any(int(name) >= len(first) for name in decimal):
        return False  # a name that can be no place
    if all(map(_is_number, first)) and first != [str(n) for n in range(len(first))]:
        return True
    raise DataError(
        f"{path}: the first line, {','.join(first)[:60]!r}, could be the columns' names or an "
        "interaction; put a line of names like user,item above the first interaction, or in its place"
    )


def _refuse_bomb(
    path: Path, lines: pyarrow.csv.ReadOptions, fields: pyarrow.csv.ParseOptions, names: list[str]
) -> None:
    """Of what unpacks to more than half of the memory; the rest is for what comes after reading."""
    most, taken = room() // 2, 0
    strings = pyarrow.csv.ConvertOptions(
        include_columns=names, column_types=dict.fromkeys(names, pa.string())
    )
    with pyarrow.csv.open_csv(path, lines, fields, strings) as batches:
        for batch in batches:
            taken += batch.nbytes
            if taken > most:
                raise too_much(path, 2 * taken, "its first rows and what follows")


def _is_number(text: str) -> bool:
    try:
        return not np.isnan(float(text))
    except ValueError:
        return False
