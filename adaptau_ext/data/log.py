"""Logs of interactions as people have them: ids of any kind, perhaps ratings and times."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse

from adaptau_ext.errors import DataError, reading


class Columns(NamedTuple):
    """Names of a table's columns; None: found by the names that such columns usually have."""

    user: str | None = None
    item: str | None = None
    rating: str | None = None
    time: str | None = None


ANY_COLUMNS = Columns()
OPTIONAL = ("rating", "time")
# Without case, spaces and underscores; what RecBole writes after a colon is no part of the name.
USUAL_NAMES = Columns(
    "user userid uid customer customerid visitor visitorid account accountid member memberid "
    "reviewer reviewerid",
    "item itemid iid movie movieid product productid article articleid track trackid song songid "
    "artist artistid book bookid isbn business businessid asin parentasin news newsid sku video "
    "videoid",
    "rating ratings stars overall score",
    "timestamp time datetime date ts unixtimestamp eventtime createdat",
)


_SHOWN = 20  # names in an error


@dataclass(frozen=True)
class Log:
    """Interactions, in no particular order.

    Attributes:
        users, items: `[n]` int64, rows of `user_ids` and `item_ids`.
        user_ids, item_ids: the distinct ids, ascending: int64 if all are integers, or strings.
        ratings: `[n]` float64. times: `[n]` int64 or float64, larger = later.
        notes: what has been done to the log, for people.
    """

    name: str
    users: np.ndarray
    items: np.ndarray
    user_ids: pa.Array
    item_ids: pa.Array
    ratings: np.ndarray | None = None
    times: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        columns: Columns | None = None,
        *,
        name: str = "data",
        look_for: Collection[str] = OPTIONAL,
    ) -> Log:
        """From a pandas, polars or pyarrow table, or whatever else has Arrow's interface.

        Args:
            look_for: which of "rating" and "time" are read where a column has a usual name for it;
                what `columns` names is read in any case.

        Raises:
            DataError: for columns that are not there, ids that are missing, ratings or times that
                are no numbers.
        """
        return cls.from_table(pa.table(frame), columns or ANY_COLUMNS, name=name, look_for=look_for)

    @classmethod
    def from_table(
        cls, table: pa.Table, columns: Columns, *, name: str, look_for: Collection[str] = OPTIONAL
    ) -> Log:
        """As `from_frame`."""
        user, item, rating, time = find_columns(table.column_names, columns, name, look_for)
        assert user is not None and item is not None
        way_out = "ids are integers or strings, ratings numbers, times numbers or dates"
        with reading(f"{name}: columns that hold something else", way_out, DataError):
            users, user_ids = _encode(table, user, name)
            items, item_ids = _encode(table, item, name)
            ratings = _numbers(table, rating, name) if rating else None
            times = _times(table, time, name) if time else None
        if users.size == 0:
            raise DataError(f"{name}: no interaction in it")
        return cls(name, users, items, user_ids, item_ids, ratings, times)

    @classmethod
    def from_csr(cls, csr: Any, *, name: str = "data") -> Log:
        """From a SciPy sparse matrix `[n_users, n_items]`: its places are ids, its values ratings."""
        coo = scipy.sparse.coo_array(scipy.sparse.csr_array(csr))  # sums what is there twice
        if coo.nnz == 0:
            raise DataError(f"{name}: no interaction in it")
        users, items = (part.astype(np.int64) for part in coo.coords)
        user_ids, item_ids = (pa.array(np.arange(n)) for n in coo.shape)
        return cls(name, users, items, user_ids, item_ids, coo.data.astype(np.float64))

    def __len__(self) -> int:
        return self.users.size

    def with_min_rating(self, least: float) -> Log:
        """Interactions rated at least so."""
        if self.ratings is None:
            raise DataError(f"{self.name}: min_rating needs a column of ratings: give rating_column")
        return self._kept(self.ratings >= least, f"rated {least:g} or more")

    def core(self, k: int) -> Log:
        """The k-core: users and items with fewer than k distinct partners go, until none is left."""
        pairs = self.merged()
        kept = np.ones(len(pairs), bool)
        while True:
            rare = [
                np.bincount(ids[kept], minlength=len(names)) < k
                for ids, names in ((pairs.users, pairs.user_ids), (pairs.items, pairs.item_ids))
            ]
            left = kept & ~rare[0][pairs.users] & ~rare[1][pairs.items]
            if left.sum() == kept.sum():
                return pairs._kept(kept, f"{k}-core")
            kept = left

    def merged(self) -> Log:
        """Repeated interactions as one, at the time of the last of them; without ratings."""
        pair = self.users * len(self.item_ids) + self.items
        order = np.argsort(pair)
        first = np.insert(np.diff(pair[order]) != 0, 0, True)
        times = self.times
        if times is not None:
            times = np.maximum.reduceat(times[order], first.nonzero()[0])
        merged = self._kept(order[first], "each pair once")
        return replace(merged, ratings=None, times=times)

    def _kept(self, which: np.ndarray, why: str) -> Log:
        """The rows of a mask, or at places; only their users and items have ids."""
        taken = replace(
            self,
            users=self.users[which],
            items=self.items[which],
            ratings=None if self.ratings is None else self.ratings[which],
            times=None if self.times is None else self.times[which],
        )
        if len(taken) == 0:
            raise DataError(f"{self.name}: nothing is left of {len(self):,} interactions ({why})")
        if len(taken) == len(self):
            return taken
        users, user_ids = _without_unused(taken.users, self.user_ids)
        items, item_ids = _without_unused(taken.items, self.item_ids)
        note = f"{why}: {len(taken):,} of {len(self):,} interactions"
        return replace(
            taken,
            users=users,
            items=items,
            user_ids=user_ids,
            item_ids=item_ids,
            notes=(*self.notes, note),
        )


def find_columns(
    names: list[str], columns: Columns, source: str, look_for: Collection[str] = OPTIONAL
) -> Columns:
    """The columns to read: those asked for, or those with the usual names; of ratings and times only
    if they are looked for.

    Raises:
        DataError: if one is not there, or users' or items' cannot be told.
    """
    found: dict[str, str | None] = {}
    listed = ", ".join(name[:40] for name in names[:_SHOWN])
    listed += f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    for role, wanted, usual in zip(Columns._fields, columns, USUAL_NAMES, strict=True):
        assert usual is not None
        if wanted is not None:
            same = [name for name in names if wanted in (name, name.partition(":")[0])]
            if not same:
                raise DataError(f"{source}: no column {wanted!r}; its columns are {listed}")
            found[role] = same[0]
            continue
        if role in OPTIONAL and role not in look_for:
            found[role] = None
            continue
        matches = [n for n in names if _plain(n) in usual.split() and n not in columns]
        if len(matches) > 1:  # the first of the list is the most usual
            matches.sort(key=lambda name: usual.split().index(_plain(name)))
            if role in ("user", "item"):
                several = ", ".join(matches[:_SHOWN])
                raise DataError(f"{source}: {role}s could be in any of {several}; give {role}_column")
        found[role] = matches[0] if matches else None
        if found[role] is None and role in ("user", "item"):
            raise DataError(
                f"{source}: no column looks like {role}s; its columns are {listed}: give {role}_column"
            )
    return Columns(**found)


def _plain(name: str) -> str:
    return name.partition(":")[0].lower().translate(str.maketrans("", "", " _-"))


def _column(table: pa.Table, name: str) -> pa.Array:
    column = table[name].combine_chunks()
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _encode(table: pa.Table, name: str, source: str) -> tuple[np.ndarray, pa.Array]:
    """(place of each id, distinct ids ascending)."""
    column = _column(table, name)
    if column.null_count:
        row = column.is_null().index(True).as_py()
        raise DataError(
            f"{source}: {column.null_count} ids missing in {name}, the first in row {row + 1}"
        )
    if pa.types.is_floating(column.type):
        whole = pc.all(pc.equal(column, pc.round(column))).as_py()
        if not whole:
            raise DataError(f"{source}: {name} holds fractions; ids must be integers or strings")
        column = column.cast(pa.int64())
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    ids = column.dictionary
    if not pa.types.is_integer(ids.type):
        ids = _as_integers(ids.cast(pa.string()))
    elif ids.type != pa.int64():
        ids = ids.cast(pa.int64())
    codes = column.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    order = pc.sort_indices(ids)
    place = np.empty(len(ids), np.int64)
    place[order.to_numpy()] = np.arange(len(ids))
    return _without_unused(place[codes], ids.take(order))  # a frame's categories need not all occur


def _as_integers(ids: pa.Array) -> pa.Array:
    """Strings that are integers as people write them ("7", not "007") become integers, if all are."""
    try:
        numbers = ids.cast(pa.int64())
    except pa.ArrowInvalid:
        return ids
    return numbers if numbers.cast(pa.string()).equals(ids) else ids


def _without_unused(codes: np.ndarray, ids: pa.Array) -> tuple[np.ndarray, pa.Array]:
    used = np.bincount(codes, minlength=len(ids)) > 0
    if used.all():
        return codes, ids
    return (used.cumsum() - 1)[codes], ids.filter(pa.array(used))


def _numbers(table: pa.Table, name: str, source: str) -> np.ndarray:
    column = _column(table, name)
    try:
        numbers = np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(f"{source}: {name} must hold numbers, got {column.type}") from None
    missing = np.isnan(numbers)
    if missing.any():
        raise DataError(f"{source}: {name} has no number in row {int(missing.argmax()) + 1}")
    return numbers


def _times(table: pa.Table, name: str, source: str) -> np.ndarray:
    column = _column(table, name)
    if _is_text(column.type):
        column = _parsed(column.cast(pa.string()), f"{source}: {name}")
    if pa.types.is_temporal(column.type):
        if column.null_count:
            row = column.is_null().index(True).as_py()
            raise DataError(f"{source}: {name} has no time in row {row + 1}")
        integers = pa.int32() if column.type.bit_width == 32 else pa.int64()
        return np.asarray(column.cast(integers).to_numpy(zero_copy_only=False), np.int64)
    if pa.types.is_integer(column.type) and column.null_count == 0:
        return np.asarray(column.cast(pa.int64()).to_numpy(zero_copy_only=False))
    return _numbers(table, name, source)


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _parsed(times: pa.Array, what: str) -> pa.Array:
    """Dates, or times, without a zone or all with one."""
    problem: pa.ArrowInvalid | None = None
    for zone in (None, "UTC"):
        try:
            return times.cast(pa.timestamp("us", zone))
        except pa.ArrowInvalid as found:
            problem = problem or found
    raise DataError(f"{what} must hold numbers or dates like 2026-11-28 14:00:00; {problem}")
