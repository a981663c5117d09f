"""How far a call pushes the process's resident memory (Linux)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path


def _status_mib(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    return float("nan")


def _give_back() -> None:
    """What was freed and is still resident, which the call could use unseen."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)


def rise_mib(run: Callable[[], object]) -> float:
    """Runs once; the peak above what was resident before, nan where the system does not tell."""
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        run()
        return float("nan")
    _give_back()
    clear.write_text("5")  # forget the peak so far
    before = _status_mib("VmRSS")
    result = run()
    rise = _status_mib("VmHWM") - before
    del result
    return max(rise, 0.0)
