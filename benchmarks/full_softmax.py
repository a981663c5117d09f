"""Training with the full softmax over a large catalogue: every item is a negative of every pair.

    python benchmarks/full_softmax.py                    2,000,000 items and 200,000 users x 64
    python benchmarks/full_softmax.py --items 500000 --steps 5

Users take 20 of the 40 items of one of 2,000 tastes; nobody takes the rest of the catalogue. Each step is the trainer's own, Adam included. The loss of pairs
that are held out is measured before and after; log(items) is what knowing nothing costs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shlex
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from throughput_report import heading, markdown_table, provenance

import adaptau_ext as ax
from adaptau_ext.data import Interactions
from adaptau_ext.training import TrainConfig, Trainer

HERE = Path(__file__).parent
TASTES, OF_A_TASTE, EACH = 2000, 40, 20
TAU = 0.1


def interactions(n_users: int, n_items: int) -> Interactions:
    """EACH items a user of those of a taste; one more is held out."""
    rng = np.random.default_rng(0)
    taste = rng.integers(TASTES, size=n_users)
    place = np.argsort(rng.random((n_users, OF_A_TASTE)), axis=1)[:, : EACH + 1]
    items = place * TASTES + taste[:, None]
    users = np.repeat(np.arange(n_users), EACH)
    return Interactions.from_pairs(
        "tastes", (users, items[:, :EACH].ravel()), (np.arange(n_users), items[:, EACH]),
        n_users=n_users, n_items=n_items,
    )  # fmt: skip


@torch.no_grad()
def held_out_loss(trainer: Trainer, data: Interactions) -> float:
    u, i = trainer.embeddings()
    users = np.arange(0, data.n_users, data.n_users // 1024)[:1024]
    wanted = torch.from_numpy(data.test[users].indices.astype(np.int64))
    return float(ax.fused_adaptive_softmax(u[torch.from_numpy(users)], i, TAU, target=wanted))


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=2_000_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=HERE / "results")
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    data = interactions(given.users, given.items)
    config = TrainConfig(
        tau=TAU, negatives="full", precision=given.precision, batch_size=given.batch, lr=0.05, l2=0.0,
        protocol="paper",
    )  # fmt: skip
    trainer = Trainer(config, data)
    tables = peak_gib()
    before = held_out_loss(trainer, data)
    users, items = data.pairs()
    order = torch.randperm(len(users), generator=torch.Generator().manual_seed(0))
    seconds, losses = [], []
    for step, chosen in enumerate(order.split(given.batch)[: given.steps]):
        start = time.perf_counter()
        losses.append(float(trainer.step(users[chosen], items[chosen])))
        seconds.append(time.perf_counter() - start)
        print(f"step {step}: loss {losses[-1]:.4f}, {seconds[-1]:.2f} s", file=sys.stderr, flush=True)
    after = held_out_loss(trainer, data)
    shown = ["python", "benchmarks/full_softmax.py", *(sys.argv[1:] if argv is None else argv)]
    operations = 8 * given.batch * given.items * config.dim
    median = statistics.median(seconds)
    about = provenance([]) | {
        "command": shlex.join(shown), "threads": given.threads, "items": given.items, "users": given.users,
        "batch": given.batch, "precision": given.precision, "steps": len(seconds), "seconds": median,
        "gflops": operations / median * 1e-9, "peak_gib": peak_gib(), "before_steps_gib": tables,
        "logits_gib": given.batch * given.items * 4 / 2**30,
        "loss_first": losses[0], "loss_last": losses[-1], "held_out_before": before, "held_out_after": after,
    }  # fmt: skip
    table = [
        ["seconds a step", "GFLOP/s", "peak GiB", "of it before the first step", "logits of a batch, GiB",
         "loss, held out, before", "after"],
        [f"{median:.2f}", f"{about['gflops']:,.0f}", f"{about['peak_gib']:.2f}", f"{tables:.2f}",
         f"{about['logits_gib']:.1f}, never stored", f"{before:.3f} (log items: {math.log(given.items):.3f})", f"{after:.3f}"],
    ]  # fmt: skip
    text = (
        f"{heading(about)}{given.items:,} items, "
        f"{given.users:,} users x {config.dim}, {given.batch:,} pairs a step, {len(seconds)} steps, products in "
        f"{given.precision}; medians.\n\n{markdown_table(table)}"
    )
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "full_softmax.json").write_text(json.dumps(about, indent=1) + "\n")
    (given.output / "full_softmax.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
