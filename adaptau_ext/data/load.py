"""Data from wherever it is, made ready for training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from adaptau_ext.data.files import COMPRESSED, SUFFIXES, read_log, read_table, refuse_columns
from adaptau_ext.data.interactions import ColdUsers, Duplicates, Interactions
from adaptau_ext.data.lightgcn import read_lightgcn
from adaptau_ext.data.log import ANY_COLUMNS, Columns, Log
from adaptau_ext.data.splits import Split, split_log
from adaptau_ext.errors import DataError, reading


@dataclass(frozen=True)
class Preparation:
    """What is done to a log before training; a prepared data set is taken as it is.

    Attributes:
        min_rating: interactions rated lower are left out; None: ratings do not matter.
        k_core: users and items with fewer partners are left out, again and again; 0: nobody.
        others: of `read_log` and `split_log`.
    """

    columns: Columns = ANY_COLUMNS
    delimiter: str | None = None
    min_rating: float | None = None
    k_core: int = 0
    split: Split = "random"
    test_fraction: float = 0.2
    valid_fraction: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.k_core < 0:
            raise ValueError(f"k_core must be >= 0, got {self.k_core}")

    @property
    def look_for(self) -> tuple[str, ...]:
        """Columns that are read if they are there; `columns` may name others."""
        wanted = {"rating": self.min_rating is not None, "time": self.split != "random"}
        return tuple(role for role, needed in wanted.items() if needed)

    def refuse_split(self, source: str | Path) -> None:
        """Nothing of `source`, which is split already, is filtered or split again.

        Raises:
            DataError: if that was asked for.
        """
        names = ("min_rating", "k_core", "split", "test_fraction")
        asked = [name for name in names if getattr(self, name) != getattr(Preparation, name)]
        if asked:
            raise DataError(
                f"{source} is split already: {', '.join(asked)} would have no effect; filter and split "
                "one file, or leave that out"
            )

    def filtered(self, log: Log) -> Log:
        """What is left of a log."""
        if self.min_rating is not None:
            log = log.with_min_rating(self.min_rating)
        return log.core(self.k_core) if self.k_core > 0 else log

    def interactions(self, log: Log) -> Interactions:
        """A log, filtered and split."""
        return split_log(
            self.filtered(log),
            self.split,
            test_fraction=self.test_fraction,
            valid_fraction=self.valid_fraction,
            seed=self.seed,
        )


def load(
    source: str | Path,
    preparation: Preparation | None = None,
    *,
    cold_users: ColdUsers = "error",
    duplicates: Duplicates = "error",
) -> Interactions:
    """Interactions of a file or a folder.

    ::

        ratings.csv, .tsv, .inter, .parquet, .npz    a log: filtered and split as `preparation` says
        folder with train.* and test.*, perhaps valid.*, each such a log: split already
        folder with train.txt and test.txt           LightGCN's format, one line a user

    Args:
        preparation: of what is split already only columns and delimiter.
        cold_users, duplicates: of data that is split already, see `Interactions.from_pairs`.

    Raises:
        DataError: with the file, for whatever is wrong with it.
    """
    source, preparation = Path(source), preparation or Preparation()
    if source.is_file():
        return preparation.interactions(
            read_log(
                source,
                preparation.columns,
                delimiter=preparation.delimiter,
                look_for=preparation.look_for,
            )
        )
    if not source.is_dir():
        raise DataError(
            f"{source}: no such file or folder; data names a file or a folder of interactions"
        )
    preparation.refuse_split(source)
    parts = {name: _part(source, name) for name in ("train", "test", "valid")}
    if parts["train"] is None:
        raise DataError(f"{source}: a folder of data has train.* and test.* files, no train.* is there")
    if parts["train"].suffix == ".txt":
        refuse_columns(parts["train"], preparation.columns, preparation.delimiter)
        return read_lightgcn(source, cold_users=cold_users, duplicates=duplicates)
    if parts["test"] is None:
        raise DataError(f"{source}: a folder of data has train.* and test.* files, no test.* is there")
    tables = {
        name: read_table(path, preparation.columns, delimiter=preparation.delimiter, look_for=())
        for name, path in parts.items()
        if path is not None
    }
    return _joined(source.resolve().name, tables, cold_users, duplicates)


def _part(folder: Path, name: str) -> Path | None:
    """The file of that name, whatever its kind."""
    suffixes = [*SUFFIXES, *(kind + packed for kind in SUFFIXES for packed in COMPRESSED)]
    found = [folder / (name + s) for s in suffixes if (folder / (name + s)).is_file()]
    if len(found) > 1:
        raise DataError(f"{folder}: {found[0].name} and {found[1].name} are both there; keep one")
    return found[0] if found else None


def _joined(
    name: str,
    tables: dict[str, tuple[pa.Table, Columns]],
    cold_users: ColdUsers,
    duplicates: Duplicates,
) -> Interactions:
    """Tables of train, test and perhaps valid as one data set; valid becomes a part of train."""
    parts = [
        table.select([found.user, found.item]).rename_columns(["user", "item"])
        for table, found in tables.values()
    ]
    if len({part.schema for part in parts}) > 1:  # strings here, integers there
        strings = pa.schema([("user", pa.string()), ("item", pa.string())])
        with reading(f"{name}: ids that are text in one file only", "mend the other", DataError):
            parts = [part.cast(strings) for part in parts]
    log = Log.from_table(pa.concat_tables(parts), Columns("user", "item"), name=name)
    ends = np.cumsum([len(part) for part in parts])[:-1]
    users, items = np.split(log.users, ends), np.split(log.items, ends)
    pairs = dict(zip(tables, zip(users, items, strict=True), strict=True))
    train, valid = pairs["train"], pairs.get("valid")
    if valid is not None:
        n = len(log.item_ids)
        outside = ~np.isin(valid[0] * n + valid[1], train[0] * n + train[1])
        train = (np.append(train[0], valid[0][outside]), np.append(train[1], valid[1][outside]))
    return Interactions.from_pairs(
        name,
        train,
        pairs["test"],
        valid=valid,
        n_users=len(log.user_ids),
        n_items=len(log.item_ids),
        user_ids=log.user_ids,
        item_ids=log.item_ids,
        cold_users=cold_users,
        duplicates=duplicates,
    )
