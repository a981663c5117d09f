"""How the contenders of a case are timed: in turns, beside the machine's peak, on CPU or GPU alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection
from typing import Protocol

import numpy as np
import torch
from peak_memory import rise_mib
from throughput_case import Case, Contenders, is_ours
from throughput_report import Row, first_line


class Machine(Protocol):
    threads: int  # of the CPU; 0 for a GPU

    def contenders(self, case: Case) -> Contenders: ...

    def peak(self, dtype: torch.dtype) -> float:
        """GFLOP/s of multiply-adds, measured now."""

    def first_calls(self, run: Callable[[], object], enough: float) -> tuple[object, float, float]:
        """Warms up. A call's result, its memory beyond inputs and outputs (MiB), its seconds."""

    def time(self, run: Callable[[], object]) -> tuple[float, float]:
        """Seconds of a call, and seconds until it returned."""

    def recover(self) -> None:
        """After a contender's failure; raises when nothing more can be run."""


class CpuMachine:
    def __init__(self, threads: int):
        self.threads = threads
        torch.set_num_threads(threads)
        try:  # NumPy's and implicit's matrix products: their libraries know no argument for it
            from threadpoolctl import threadpool_limits
        except ImportError:
            print("threadpoolctl is not installed: NumPy's BLAS uses as many threads as it likes")
        else:
            threadpool_limits(limits=threads, user_api="blas")

    def contenders(self, case: Case) -> Contenders:
        return case.contenders(self.threads)

    def peak(self, dtype: torch.dtype) -> float:
        return float(torch.ops.adaptau.fma_peak(0.01)) * self.threads

    def first_calls(self, run: Callable[[], object], enough: float) -> tuple[object, float, float]:
        kept: list[object] = []
        start = time.perf_counter()
        extra_mib = rise_mib(lambda: kept.append(run()))
        seconds = time.perf_counter() - start
        if seconds <= enough:
            run()
        return kept.pop(), extra_mib, seconds

    def time(self, run: Callable[[], object]) -> tuple[float, float]:
        # the last contender's threads may still be spinning in wait of more
        time.sleep(0.2 if self.threads > 1 else 0)
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        return seconds, seconds

    def recover(self) -> None:
        pass


def measure(
    case: Case,
    machine: Machine,
    seconds: float,
    without: Collection[str] = (),
    progress: Callable[[str], None] = lambda name: None,
) -> list[Row]:
    """A row a contender; one whose call takes a third of the measuring time is timed once."""
    progress("the contenders' preparation")
    contenders = machine.contenders(case)
    rows = {
        name: Row(case.operation, case.shape, case.data, machine.threads, name, str(case.dtype)[6:])
        for name in contenders
        if name not in without
    }
    slow: set[str] = set()

    def guarded(name: str, action: Callable[[], None]) -> None:
        """A contender that cannot run is a result too."""
        progress(name)
        try:
            action()
        except Exception as problem:
            rows[name].failure = first_line(problem)
        if rows[name].failure:  # after the handler, whose traceback keeps tensors alive
            rows[name].samples.clear()
            machine.recover()

    def warm_up(name: str) -> None:
        result, rows[name].extra_mib, took = machine.first_calls(contenders[name], seconds / 3)
        if case.error is not None:
            rows[name].error = case.error(result)
        if took > seconds / 3:
            slow.add(name)

    def sample(name: str) -> None:
        taken, host = machine.time(contenders[name])
        rows[name].samples.append(taken)
        rows[name].host_samples.append(host)

    for name in rows:
        guarded(name, lambda name=name: warm_up(name))
    peaks: list[float] = []
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(peaks) < 3:
        peaks.append(machine.peak(case.dtype))
        for name, row in rows.items():
            if not row.failure and not (name in slow and row.samples):
                guarded(name, lambda name=name: sample(name))
    for row in rows.values():
        if row.samples:
            summarise(row, case, statistics.median(peaks))
    peers = [r.milliseconds for r in rows.values() if r.samples and not is_ours(r.contender)]
    for row in rows.values():
        if is_ours(row.contender) and row.samples and peers:
            row.over_best_peer = min(peers) / row.milliseconds
    return list(rows.values())


def summarise(row: Row, case: Case, peak: float) -> None:
    low, middle, high = np.quantile(row.samples, [0.25, 0.5, 0.75])
    row.milliseconds = middle * 1e3
    row.spread = (low * 1e3, high * 1e3)
    row.host_milliseconds = statistics.median(row.host_samples) * 1e3
    row.gflops = case.flops / middle * 1e-9
    row.peak_gflops = peak
    row.of_peak = row.gflops / peak
