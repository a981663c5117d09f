"""Time and memory of a training step with a sharded catalogue, for GPUs and catalogues that nobody had.

    python benchmarks/scale_model.py          writes the tables of docs/scale.md

A MODEL. Its pieces: what the loss's kernels take is predicted from their counted machine code and
published figures of an H100 (gpu_model.py), never measured; bytes are those of distributed_traffic.py,
which are measured; what a network does is assumed, below. One after the other, nothing overlaps.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from distributed_traffic import FORMULAS, D
from gpu_model import H100, loss_limits, topk_limits
from throughput_report import markdown_table

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
BATCH, K = 8192, 20
WORLDS, ITEMS = (1, 8, 64, 512), (10**6, 10**7, 10**8, 10**9)
MEMORY_GIB = 80.0
OPTIMISER_BYTES = 16 + 24  # Adam, an element: four tables kept, read and three of them written
# bytes a second of a GPU one way, within a machine of eight and between machines
NVLINK, NETWORK = 450e9 * 0.8, 50e9 * 0.8
LAUNCH, MESSAGE = 20e-6, 1e-6  # seconds of a collective, and of each message in it
COLLECTIVES = {"loss": 11, "top-k": 6}  # of an operation; each sends a message to every other rank


def transfer(world: int, sent: float, collectives: int) -> float:
    """Seconds: what stays within a machine of eight goes over NVLink, the rest over the network."""
    if world == 1:
        return 0.0
    others = world - 1
    near = min(others, 7)
    moving = sent / others * (near / NVLINK + (others - near) / NETWORK)
    return moving + collectives * (LAUNCH + others * MESSAGE)


def kept_gib(world: int, items: int) -> float:
    """Of a rank: embeddings, gradients and Adam's two moments of items, and scratch for the batch."""
    return (items / world * D * 16 + 3 * BATCH * D * 4) / 2**30


def step(world: int, items: int) -> tuple[float, float]:
    """Seconds of computing and of moving."""
    share = -(-items // world)
    limits = loss_limits(H100, BATCH, share, D, torch.bfloat16)
    optimiser = share * D * OPTIMISER_BYTES / (H100.memory_tb * 1e12)
    computing = limits.operations / (limits.predicted * 1e12) + optimiser
    sent = FORMULAS["sharded loss, gradients"](world, BATCH // world)
    return computing, transfer(world, sent, COLLECTIVES["loss"])


def search(world: int, items: int) -> tuple[float, float]:
    """Seconds for a batch of users, top-k."""
    limits = topk_limits(H100, BATCH, -(-items // world), D, torch.bfloat16)
    sent = FORMULAS["top-k"](world, BATCH // world)
    return limits.operations / (limits.predicted * 1e12), transfer(world, sent, COLLECTIVES["top-k"])


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.2f} ms" if value < 0.1 else f"{value * 1e3:.0f} ms"  # fmt: skip


def table(model: Callable[[int, int], tuple[float, float]], with_memory: bool) -> str:
    rows = [["items", *(f"{world} GPU" + "s" * (world > 1) for world in WORLDS)]]
    for items in ITEMS:
        cells = [f"{items:,}"]
        for world in WORLDS:
            computing, moving = model(world, items)
            gib = kept_gib(world, items)
            if with_memory and gib > MEMORY_GIB:
                cells.append(f"{gib:,.0f} GiB: does not fit")
                continue
            share = moving / (computing + moving)
            memory = f", {gib:.1f} GiB" if with_memory else ""
            cells.append(f"{seconds(computing + moving)} ({share:.0%}){memory}")
        rows.append(cells)
    return markdown_table(rows)


def block() -> str:
    return (
        f"Training, {BATCH:,} pairs a step over all GPUs, full softmax, bfloat16 products, d = {D}, Adam: time of a "
        "step, share of it that moves data, memory of a GPU.\n\n"
        f"{table(step, True)}\n"
        f"Top-k (k = {K}) of {BATCH:,} users in bfloat16: time, share of it that moves data.\n\n"
        f"{table(search, False)}"
    )


def main() -> None:
    head, begin, rest = PAGE.read_text().partition("<!-- model -->\n")
    _, end, tail = rest.partition("<!-- end of model -->")
    if not end:
        sys.exit(f"{PAGE} has no place for the model's tables")
    PAGE.write_text(f"{head}{begin}\n{block()}\n{end}{tail}")
    print(block())


if __name__ == "__main__":
    main()
