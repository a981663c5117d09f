"""Memory beyond inputs and outputs when the catalogue has ten million items.

python benchmarks/large_catalogue.py                 10,000,000 x 64 floats: 2.4 GiB, and as much of gradient
python benchmarks/large_catalogue.py --items 1000000
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from peak_memory import rise_mib

import adaptau_ext as ax


def report(name: str, run: Callable[[], object], output_mib: float = 0.0) -> None:
    start = time.perf_counter()
    rise = rise_mib(run)
    print(f"{name:28s} {rise - output_mib:6.1f} MiB  {time.perf_counter() - start:6.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=256)
    parser.add_argument("--dim", type=int, default=64)
    given = parser.parse_args()

    generator = torch.Generator().manual_seed(0)
    items = torch.empty(given.items, given.dim).normal_(generator=generator)
    users = torch.empty(given.users, given.dim).normal_(generator=generator)
    target = torch.randint(given.items, (given.users,), generator=generator)
    k = 20
    best = ax.topk(users, items, k)[1]
    targets = (torch.arange(0, given.users * k + 1, k), best.sort(1)[0].flatten())
    report("topk, k 20", lambda: ax.topk(users, items, k))
    report("topk, k 1000", lambda: ax.topk(users, items, 1000))
    report("ranks, 20 targets", lambda: ax.ranks(users, items, targets))
    assert ax.ranks(users, items, targets).view(-1, k).sort(1)[0].eq(torch.arange(1, k + 1)).all()

    for precision in ("float32", "bfloat16"):
        options = {"target": target, "precision": precision}
        with torch.no_grad():
            report(
                f"loss {precision}",
                lambda options=options: ax.fused_adaptive_softmax(users, items, 0.1, **options),
            )
    items.requires_grad_()
    for precision in ("float32", "bfloat16"):

        def step(precision: str = precision) -> None:
            ax.fused_adaptive_softmax(users, items, 0.1, target=target, precision=precision).backward()

        items.grad = None
        report(f"loss and gradients {precision}", step, items.numel() * 4 / 2**20)


if __name__ == "__main__":
    main()
