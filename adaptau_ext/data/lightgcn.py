"""The text format of LightGCN's data sets: one line a user, `user item item ...`, ids from zero."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adaptau_ext.data.interactions import ColdUsers, Duplicates, Interactions
from adaptau_ext.data.room import refuse_beyond
from adaptau_ext.errors import DataError

_MAX_ID = 2**31 - 1


def read_lightgcn(
    folder: str | Path, *, cold_users: ColdUsers = "error", duplicates: Duplicates = "error"
) -> Interactions:
    """Reads `train.txt`, `test.txt` and, if there is one, `valid.txt` (a part of train) of a folder.

    Raises:
        DataError: with file name and line number for a line that is not integers, a negative id or one
            beyond int32; and as `Interactions.from_pairs`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder; data must name a folder with train.txt and test.txt")
    return Interactions.from_pairs(
        folder.resolve().name,
        read_pairs(folder / "train.txt"),
        read_pairs(folder / "test.txt"),
        valid=read_pairs(folder / "valid.txt") if (folder / "valid.txt").exists() else None,
        cold_users=cold_users,
        duplicates=duplicates,
    )


def read_pairs(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(users, items) of one file, int64."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; LightGCN data has train.txt and test.txt")
    refuse_beyond(path, path.stat().st_size, "its lines")
    users: list[int] = []
    lengths: list[int] = []
    items: list[int] = []
    with path.open(encoding="utf-8", errors="backslashreplace") as lines:  # for the message
        for number, line in enumerate(lines, start=1):
            try:
                ids = [int(field) for field in line.split()]
            except ValueError:
                raise DataError(
                    f"{path}:{number}: expected integers `user item item ...`, "
                    f"got {line.strip()[:60]!r}"
                ) from None
            if not ids:
                continue
            if min(ids) < 0 or max(ids) > _MAX_ID:
                bad = min(ids) if min(ids) < 0 else max(ids)
                raise DataError(
                    f"{path}:{number}: ids must lie in [0, 2^31), got {bad}; renumber them from zero"
                )
            users.append(ids[0])
            lengths.append(len(ids) - 1)
            items.extend(ids[1:])
    return np.repeat(np.array(users, np.int64), lengths), np.array(items, np.int64)
