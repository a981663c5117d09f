"""Memory that there is, and data that promises more: a few kilobytes can stand for terabytes."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from adaptau_ext.errors import DataError

_GIB = 1 << 30


def room() -> int:
    """Bytes that this process can still take: what the machine has left, its own limit, its group's."""
    page = os.sysconf("SC_PAGE_SIZE")
    found = [page * os.sysconf("SC_PHYS_PAGES")]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        used = _number(Path("/proc/self/statm"))
        found.append(limit if used is None else limit - page * used)
    available = [line for line in _lines(Path("/proc/meminfo")) if line.startswith("MemAvailable:")]
    found += [1024 * int(line.split()[1]) for line in available]
    group = [_number(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current")]
    if group[0] is not None and group[1] is not None:
        found.append(group[0] - group[1])
    return max(0, min(found))


def refuse_beyond(path: Path | str, n_bytes: int, what: str) -> None:
    """Of data, before it is read.

    Raises:
        DataError: if it takes more than there is room for.
    """
    if n_bytes > room():
        raise too_much(path, n_bytes, what)


def too_much(path: Path | str, n_bytes: int, what: str) -> DataError:
    """The error of `refuse_beyond`."""
    return DataError(
        f"{path}: {what} take {n_bytes / _GIB:,.1f} GiB, and {room() / _GIB:,.1f} GiB are left; if "
        "the file is what it should be, take a part of it, or a machine with more"
    )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # not Linux, or another version of it
        return []


def _number(path: Path) -> int | None:
    """The first of a file, if it begins with one: "max" is none."""
    words = " ".join(_lines(path)).split()
    return int(words[0]) if words and words[0].isdecimal() else None
