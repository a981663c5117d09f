"""What the distributed operators send, and the share of a step that goes into it.

    python benchmarks/distributed_traffic.py              1, 2 and 4 processes on this machine, over Gloo

Bytes that a rank sends to the others are counted at every collective and compared with the formulas of
docs/scale.md, which must hold to the byte: the exit code is 1 otherwise. All ranks together are also
seen on the loopback interface, protocol and all. Seconds are of a step, and within it of its
collectives, waiting for the others included.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from throughput_report import markdown_table, provenance

from adaptau_ext import distributed as axd

HERE = Path(__file__).parent
WORLDS = (1, 2, 4)
D, K, TARGETS = 64, 20, 10


class Traffic:
    """Counts what this rank sends to others through torch.distributed.

    Attributes:
        sent: bytes. seconds: within collectives.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.seconds = 0.0

    @contextmanager
    def counted(self) -> Iterator[None]:
        to_all, reduce = dist.all_to_all_single, dist.all_reduce

        def counted_to_all(
            out: Any, x: Any, receive: Any = None, send: Any = None, **more: Any
        ) -> None:
            rows = [len(x) // dist.get_world_size()] * dist.get_world_size() if send is None else send
            row = x[:1].nbytes if len(x) else 0
            self.sent += row * (sum(rows) - rows[dist.get_rank()])
            self._timed(lambda: to_all(out, x, receive, send, **more))

        def counted_reduce(x: Any, **more: Any) -> None:
            self.sent += x.nbytes * 2 * (dist.get_world_size() - 1) // dist.get_world_size()
            self._timed(lambda: reduce(x, **more))

        dist.all_to_all_single, dist.all_reduce = counted_to_all, counted_reduce
        try:
            yield
        finally:
            dist.all_to_all_single, dist.all_reduce = to_all, reduce

    def _timed(self, run: Callable[[], object]) -> None:
        start = time.perf_counter()
        run()
        self.seconds += time.perf_counter() - start


# Bytes that a rank sends to the others: b rows a rank, w ranks, D numbers a row, float32, int64 ids.
# Numbers of rows go ahead, 8 bytes each; a list of items (exclusions, targets; empty ones, too) has a
# size for each row. Sums over all ranks cost 2 (w - 1) / w of their size.
FORMULAS: dict[str, Callable[[int, int], int]] = {
    # items there, their gradients back
    "in-batch loss, gradients": lambda w, b: (w - 1) * (8 + 2 * 4 * b * D),
    # u there, its gradient back; target, exclusions, tau; lse and score, and their gradients
    "sharded loss, gradients": lambda w, b: (w - 1) * (16 + 2 * 4 * b * D + b * (8 + 8 + 4 + 8 + 8)),
    # u and exclusions there, scores and ids back
    "top-k": lambda w, b: (w - 1) * (16 + 4 * b * D + 8 * b + b * K * (4 + 8)),
    # u, targets and exclusions there; sums of a score and a count for every target
    "ranks": lambda w, b: (w - 1) * (24 + 4 * b * D + 16 * b + b * TARGETS * (8 + 2 * (4 + 8))),
}


def operations(b: int, n_items: int) -> dict[str, Callable[[], object]]:
    """Of this rank: every one with rows and items of its own."""
    world, rank = dist.get_world_size(), dist.get_rank()
    share = n_items // world
    generator = torch.Generator().manual_seed(rank)
    u, own = (torch.randn(n, D, generator=generator) for n in (b, share))
    spread = torch.arange(TARGETS) * (n_items // TARGETS)
    start = torch.randint(n_items, (b, 1), generator=generator)
    targets = ((start + spread) % n_items).sort(1)[0].flatten()
    held = torch.arange(0, b * TARGETS + 1, TARGETS), targets
    sharded = {"first_item": rank * share}

    def in_batch() -> None:
        a, i = (x.clone().requires_grad_() for x in (u, own[:b]))
        axd.in_batch_softmax(a, i, 0.1).backward()

    def loss() -> None:
        a, i = (x.clone().requires_grad_() for x in (u, own))
        axd.sharded_softmax(a, i, 0.1, targets[::TARGETS], **sharded).backward()

    return dict(
        zip(
            FORMULAS,
            (
                in_batch,
                loss,
                lambda: axd.topk(u, own, K, **sharded),
                lambda: axd.ranks(u, own, held, **sharded),
            ),
            strict=True,
        )
    )


def loopback_bytes() -> int:
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[9]) for line in lines if line.strip().startswith("lo:"))


def on_a_rank(b: int, n_items: int, repeats: int) -> None:
    """What every process does; the first prints a line of JSON for each operation."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for name, run in operations(b, n_items).items():
        run()  # connects
        seconds, traffic = [], Traffic()
        dist.barrier()
        before = loopback_bytes()
        for _ in range(repeats):
            start = time.perf_counter()
            with traffic.counted():
                run()
            seconds.append(time.perf_counter() - start)
        dist.barrier()
        row = {
            "operation": name,
            "world": dist.get_world_size(),
            "sent": traffic.sent // repeats,
            "formula": FORMULAS[name](dist.get_world_size(), b),
            "loopback": (loopback_bytes() - before) // repeats,
            "seconds": statistics.median(seconds),
            "collectives": traffic.seconds / sum(seconds),
        }
        if dist.get_rank() == 0:
            print(json.dumps(row), flush=True)
    dist.destroy_process_group()


def launch(world: int, words: list[str]) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]  # fmt: skip
    done = subprocess.run(
        [*command, str(Path(__file__)), "--rank", *words], stdout=subprocess.PIPE, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1024, help="users, or pairs, of each rank")
    parser.add_argument("--items", type=int, default=131_072, help="of all ranks")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=HERE / "results")
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.rank:
        on_a_rank(given.rows, given.items, given.repeats)
        return 0
    words = [f"--{name}={getattr(given, name)}" for name in ("rows", "items", "repeats")]
    rows = [row for world in WORLDS for row in launch(world, words)]
    shown = ["python", "benchmarks/distributed_traffic.py", *(sys.argv[1:] if argv is None else argv)]
    about = provenance([]) | {"command": shlex.join(shown), "rows": given.rows, "items": given.items}
    cells = [["operation", "processes", "sent by a rank, KiB", "formula", "loopback, all, KiB", "seconds", "in collectives"]]  # fmt: skip
    for row in rows:
        cells.append(
            [
                row["operation"],
                str(row["world"]),
                f"{row['sent'] / 1024:,.1f}",
                "the same" if row["sent"] == row["formula"] else f"{row['formula'] / 1024:,.1f}",
                f"{row['loopback'] / 1024:,.0f}",
                f"{row['seconds']:.3f}",
                f"{row['collectives']:.0%}",
            ]
        )
    text = (
        f"`{about['command']}`, commit {about['commit']}, {about['date']}: {about['cpu']}, {os.cpu_count()} "
        f"cores, a thread a process, Gloo, PyTorch {about['torch']}.\n\n{given.rows:,} rows of each rank, "
        f"{given.items:,} items in all, d = {D}, k = {K}, {TARGETS} targets a user; float32.\n\n"
        f"{markdown_table(cells)}\nSeconds: the median of {given.repeats} steps, the processes sharing "
        f"{os.cpu_count()} cores. In collectives: the share of a step, waiting for the others included.\n"
    )
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "distributed_traffic.json").write_text(
        json.dumps({"about": about, "rows": rows}, indent=1) + "\n"
    )
    (given.output / "distributed_traffic.md").write_text(text)
    print(text)
    return int(any(row["sent"] != row["formula"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
