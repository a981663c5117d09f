"""Which shapes are timed on the first GPU, the most telling ones first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from throughput_case import Case, embeddings
from throughput_graphs import propagation_cases, skewed_graph
from throughput_losses import loss_case, sampled_case
from throughput_retrieval import ranks_case, topk_case

# Multiples of 128, because the fastest path of one peer needs them.
ITEMS = (10_240, 102_400, 1_024_000, 10_240_000)


@dataclass(frozen=True)
class Planned:
    operation: str  # loss, top-k, sampled, ranks, hop, propagation
    n_users: int
    n_items: int
    d: int
    dtype: str = "bfloat16"
    k: int = 0  # top-k's, or the sampled loss's negatives

    @property
    def name(self) -> str:
        k = f", {self.k}" if self.k else ""
        return f"{self.operation} {self.n_users} x {self.n_items}, d {self.d}{k}, {self.dtype}"

    @property
    def bytes(self) -> float:
        """Inputs, gradients and our float32 gradients; what a peer needs beyond is its own affair."""
        size = 4 if self.dtype == "float32" else 2
        each = 2 * size + 4 if self.operation in ("loss", "sampled") else size
        return (self.n_users + self.n_items) * self.d * each + 2 * 2**30

    def make(self, device: torch.device) -> Case:
        dtype = getattr(torch, self.dtype)
        b, m, d = self.n_users, self.n_items, self.d
        if self.operation == "loss":
            return loss_case(b, m, d, device, dtype, check=True)
        if self.operation == "sampled":
            return sampled_case(b, self.k, 2 * b, m, d, device, dtype)
        if self.operation == "top-k":
            u = embeddings(b, d, "random", 0, device, dtype)
            i = embeddings(m, d, "random", 1, device, dtype)
            return topk_case(u, i, self.k, "random", check=True)
        if self.operation == "ranks":
            return ranks_case(b, m, d, device, dtype)
        graph = skewed_graph(b, m, max(1, 20 * b * m // (b + m)))
        hop, step = propagation_cases(iter([("made up", graph)]), device, d, min(2048, b))
        return hop if self.operation == "hop" else step


def full_plan() -> Iterator[Planned]:
    """Distinct, in the order in which they are worth having."""
    seen = set()
    for planned in _wishes():
        if planned not in seen:
            seen.add(planned)
            yield planned


def _wishes() -> Iterator[Planned]:
    for d in (64, 128, 256):
        yield Planned("loss", 8192, 1_024_000, d)
    for d in (64, 128):
        yield Planned("top-k", 2048, 1_024_000, d, "float32", 20)
        yield Planned("top-k", 2048, 1_024_000, d, "bfloat16", 20)
    yield Planned("sampled", 8192, 102_400, 64, "float32", 1024)
    yield Planned("propagation", 31_668, 38_048, 64, "float32")
    yield Planned("hop", 31_668, 38_048, 64, "float32")
    yield Planned("ranks", 2048, 102_400, 64, "float32")
    for dtype in ("float32", "float16"):
        for n_items in (10_240, 1_024_000):
            for d in (64, 128, 256):
                yield Planned("loss", 8192, n_items, d, dtype)
    for n_items in ITEMS:
        for n_users in (8192, 2048, 16_384, 4096):
            for d in (64, 128, 256, 32) if n_users != 4096 else (64, 256):
                yield Planned("loss", n_users, n_items, d)
    for n_items in (10_240, 102_400, 10_240_000):
        for k in (20, 100, 1000):
            yield Planned("top-k", 2048, n_items, 64, "float32", k)
    yield Planned("top-k", 8192, 1_024_000, 256, "bfloat16", 100)
    yield Planned("top-k", 64, 10_240_000, 64, "float32", 100)
    for n_negatives in (256, 4096):
        yield Planned("sampled", 2048, 1_024_000, 64, "float32", n_negatives)
        yield Planned("sampled", 8192, 1_024_000, 128, "bfloat16", n_negatives)


def dry_plan() -> Iterator[Planned]:
    """One of each, tiny."""
    yield Planned("loss", 32, 128, 16)
    yield Planned("top-k", 16, 128, 16, "float32", 5)
    yield Planned("sampled", 16, 64, 16, "float32", 8)
    yield Planned("ranks", 16, 128, 16, "float32")
    yield Planned("hop", 40, 50, 16, "float32")
    yield Planned("propagation", 40, 50, 16, "float32")
