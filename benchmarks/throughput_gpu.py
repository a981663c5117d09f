"""Timing on a GPU: CUDA events, a cold second-level cache, memory as PyTorch's allocator counts it."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from throughput_case import Case, Contenders

HEAD_START = 0.5e-3  # seconds of idling on the GPU, in which the host gets ahead of it


class GpuMachine:
    """Times are between two events on the stream, after the second-level cache was overwritten.

    The GPU idles half a millisecond before the first event, so that launches of a contender that does
    not wait for the GPU are not what is timed; the time until its call returned is kept beside it.
    """

    threads = 0

    def __init__(self, device: torch.device):
        if device.index is not None:  # events, streams and Triton's kernels go by the current GPU
            torch.cuda.set_device(device)
        self.device = device
        properties = torch.cuda.get_device_properties(device)
        self._flush = torch.empty(4 * properties.L2_cache_size, dtype=torch.int8, device=device)
        self._head_start_cycles = int(HEAD_START * self._cycles_per_second())

    def _cycles_per_second(self) -> float:
        start, end = self._events()
        torch.cuda._sleep(10_000_000)  # the clock rises
        start.record()
        torch.cuda._sleep(10_000_000)
        end.record()
        end.synchronize()
        return 10_000_000 / (start.elapsed_time(end) * 1e-3)

    def _events(self) -> tuple[torch.cuda.Event, torch.cuda.Event]:
        return torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def contenders(self, case: Case) -> Contenders:
        return case.contenders(torch.get_num_threads())

    def peak(self, dtype: torch.dtype) -> float:
        """cuBLAS on 8192 x 8192 x 8192; float32 without TF32, PyTorch's default."""
        n = 8192  # random numbers: products of equal ones draw less power, and run faster
        a, b = (torch.randn(n, n, dtype=dtype, device=self.device) for _ in range(2))
        out = torch.empty(n, n, dtype=dtype, device=self.device)
        torch.mm(a, b, out=out)
        start, end = self._events()
        start.record()
        torch.mm(a, b, out=out)
        end.record()
        end.synchronize()
        return 2.0 * n**3 / (start.elapsed_time(end) * 1e-3) * 1e-9

    def first_calls(self, run: Callable[[], object], enough: float) -> tuple[object, float, float]:
        run()  # compiles, tunes; leaves its gradients behind, which the next call replaces
        torch.cuda.synchronize(self.device)
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        start = time.perf_counter()
        result = run()
        torch.cuda.synchronize(self.device)
        seconds = time.perf_counter() - start
        rise = torch.cuda.max_memory_allocated(self.device) - before
        return result, rise / 2**20, seconds

    def time(self, run: Callable[[], object]) -> tuple[float, float]:
        start, end = self._events()
        self._flush.zero_()
        torch.cuda._sleep(self._head_start_cycles)
        start.record()
        called = time.perf_counter()
        result = run()
        returned = time.perf_counter()
        end.record()
        end.synchronize()
        del result
        return start.elapsed_time(end) * 1e-3, returned - called

    def recover(self) -> None:
        torch.cuda.synchronize(self.device)  # raises where the failure took the context with it
        torch.cuda.empty_cache()
