"""The same bits every time, in a captured graph too, and never a wait for the GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from first_contact.calls import MEDIUM, TINY, Call, detached, every_call, same_bits
from first_contact.context import Context, virtual_gpu
from first_contact.outcome import ELSEWHERE, Check, Outcome, attempt, check

REPEATS = 100
SPIN_SECONDS = 0.5


def spoil_free_memory(device: torch.device) -> None:
    """Fills what the allocator will hand out next with NaN: no result may depend on it."""
    blocks = [torch.empty(2**26, dtype=torch.uint8, device=device).fill_(0xFF) for _ in range(4)]
    blocks += [torch.empty(2**19, dtype=torch.uint8, device=device).fill_(0xFF) for _ in range(64)]
    del blocks


class Disturbance:
    """Other work on the GPU beside every second run, so that blocks are scheduled differently."""

    def __init__(self, device: torch.device):
        self.stream = torch.cuda.Stream(device)
        self.a = torch.randn(2048, 2048, device=device)

    def start(self) -> None:
        with torch.cuda.stream(self.stream):
            for _ in range(4):
                torch.mm(self.a, self.a)


@contextmanager
def conditions(n: int, context: Context, disturbance: Disturbance | None) -> Iterator[None]:
    """Of the n-th run: on the virtual GPU the order of blocks and warps, on a GPU what else goes on."""
    if disturbance is not None and n > 0:
        spoil_free_memory(torch.device(context.device))
        if n % 2:
            disturbance.start()
    order = virtual_gpu().running(seed=n) if context.device == "virtual" else nullcontext()
    with order:
        yield


def repeat(call: Call, repeats: int, context: Context, disturbance: Disturbance | None) -> str:
    first: list[Tensor] = []
    for n in range(repeats):
        with conditions(n, context, disturbance):
            found = detached(call.run())
        first = first or found
        assert same_bits(found, first), f"run {n} differs from run 0"
    return f"{repeats} runs"


def determinism(context: Context) -> Outcome:
    device = torch.device(context.device)
    disturbance = Disturbance(device) if context.hardware else None
    size, repeats = (MEDIUM, REPEATS) if context.hardware else (TINY, 3)
    return Outcome(
        [
            attempt(call.name, lambda: repeat(call, repeats, context, disturbance))
            for call in every_call(device, size)
        ]
        + virtual_findings(context)
    )


def virtual_findings(context: Context) -> list[Check]:
    """What the virtual GPU's checks found since it was loaded; nothing elsewhere."""
    if context.device != "virtual":
        return []
    found = virtual_gpu().findings()
    return [check("the virtual GPU's checks", not found, str(found[:2])[:500] if found else "")]


def captured(call: Call) -> str:
    """A replay gives eager's bits, on the inputs of the capture and on others put in their place."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call.run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = call.run()
    for round_ in range(3):
        graph.replay()
        assert same_bits(detached(outputs), detached(call.run())), f"replay {round_} differs from eager"
        with torch.no_grad():
            for x in call.inputs:
                x.mul_(-1).add_(0.01)
    return "3 replays on changing inputs"


def graph_capture(context: Context) -> Outcome:
    if not context.hardware:
        return Outcome.only(ELSEWHERE + context.place, "")
    device = torch.device(context.device)
    with torch.cuda.device(device):
        return Outcome(
            [attempt(call.name, lambda: captured(call)) for call in every_call(device, MEDIUM)]
        )


@contextmanager
def forbidden_waits() -> Iterator[None]:
    """PyTorch's own waits for the GPU become errors."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def returns_at_once(call: Call, cycles: int) -> str:
    """With the stream kept busy, the call is back before the stream is free: it waited for nothing,
    through PyTorch or past it."""
    call.run()
    torch.cuda.synchronize()
    spun = torch.cuda.Event()
    torch.cuda._sleep(cycles)
    spun.record()
    with forbidden_waits():
        start = time.perf_counter()
        kept = call.run()
        seconds = time.perf_counter() - start
    waited = spun.query()
    torch.cuda.synchronize()
    del kept
    assert not waited, f"the call came back after {seconds:.2f} s, when the stream was free again"
    return f"back after {seconds * 1e3:.1f} ms"


def no_waiting(context: Context) -> Outcome:
    if not context.hardware:
        return Outcome.only(ELSEWHERE + context.place, "")
    device = torch.device(context.device)
    with torch.cuda.device(device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        torch.cuda._sleep(10_000_000)
        end.record()
        end.synchronize()
        cycles = int(SPIN_SECONDS / (start.elapsed_time(end) * 1e-3) * 10_000_000)
        return Outcome(
            [
                attempt(call.name, lambda: returns_at_once(call, cycles))
                for call in every_call(device, MEDIUM)
            ]
        )
