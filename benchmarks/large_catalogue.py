"""Memory beyond inputs and outputs when the catalogue has ten million items.

python benchmarks/large_catalogue.py                 10,000,000 x 64 floats: 2.4 GiB, and as much of gradient
python benchmarks/large_catalogue.py --items 1000000 --output results
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from peak_memory import rise_mib
from throughput_report import heading, markdown_table, provenance

import adaptau_ext as ax

Row = tuple[str, float, float]  # what, MiB, seconds


def measured(name: str, run: Callable[[], object], output_mib: float = 0.0) -> Row:
    start = time.perf_counter()
    rise = rise_mib(run)
    row = name, rise - output_mib, time.perf_counter() - start
    print(f"{name:28s} {row[1]:6.1f} MiB  {row[2]:6.1f} s", flush=True)
    return row


def rows(n_items: int, n_users: int, dim: int) -> Iterator[Row]:
    """Each operator once."""
    generator = torch.Generator().manual_seed(0)
    items = torch.empty(n_items, dim).normal_(generator=generator)
    users = torch.empty(n_users, dim).normal_(generator=generator)
    target = torch.randint(n_items, (n_users,), generator=generator)
    k = 20
    best = ax.topk(users, items, k)[1]
    targets = (torch.arange(0, n_users * k + 1, k), best.sort(1)[0].flatten())
    yield measured("topk, k 20", lambda: ax.topk(users, items, k))
    yield measured("topk, k 1000", lambda: ax.topk(users, items, 1000))
    yield measured("ranks, 20 targets", lambda: ax.ranks(users, items, targets))
    assert ax.ranks(users, items, targets).view(-1, k).sort(1)[0].eq(torch.arange(1, k + 1)).all()

    def loss(precision: str) -> torch.Tensor:
        return ax.fused_adaptive_softmax(users, items, 0.1, target=target, precision=precision)

    def step(precision: str) -> None:
        loss(precision).backward()

    for precision in ("float32", "bfloat16"):
        with torch.no_grad():
            yield measured(f"loss, {precision}", lambda precision=precision: loss(precision))
    items.requires_grad_()
    for precision in ("float32", "bfloat16"):
        items.grad = None
        gradient_mib = items.numel() * 4 / 2**20
        name = f"loss and gradient, {precision}"
        yield measured(name, lambda precision=precision: step(precision), gradient_mib)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=256)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    about = provenance([]) | {
        "command": shlex.join(["python", "benchmarks/large_catalogue.py", *sys.argv[1:]]),
        "threads": given.threads, "items": given.items, "users": given.users, "dim": given.dim,
        "rows": [*rows(given.items, given.users, given.dim)],
    }  # fmt: skip
    table = [["", "MiB beyond inputs and outputs", "seconds"]]
    table += [[name, f"{mib:.1f}", f"{seconds:.1f}"] for name, mib, seconds in about["rows"]]
    text = (
        f"{heading(about)}{given.items:,} items and {given.users:,} users x {given.dim}, float32; each once.\n\n"
        f"{markdown_table(table)}"
    )
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "large_catalogue.json").write_text(json.dumps(about, indent=1) + "\n")
    (given.output / "large_catalogue.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
