"""Full-ranking evaluation of millions of users over a catalogue that lies on disk.

    python benchmarks/on_disk.py --work FOLDER           10,000,000 items and 5,000,000 users x 64
    python benchmarks/on_disk.py --work FOLDER --users 100000

Everything is in files that are mapped into memory: users, items and their index (`ItemIndex(folder=)`,
cosine). Each user has one held-out item, of which the embedding is a noisy copy, among neighbours that
are alike: items come in 20,000 groups. 20 random items a user are excluded. Recall@20, NDCG@20 and
MRR@20 come out, with seconds and the peak of resident memory, mapped pages included.

Goes on where it was stopped: the folder keeps what is made and measured of every 65,536 users.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse
import torch
from throughput_report import heading, markdown_table, provenance
from torch import Tensor

from adaptau_ext import ItemIndex, durable, mapped
from adaptau_ext.evaluation import UserMetrics, evaluate_users

HERE = Path(__file__).parent
GROUPS, EXCLUDED, K = 20_000, 20, 20
PART = 65_536  # users measured at a time, and rows made at a time
NOISE = 1.4  # of a user: as far from the held-out item as recall is neither 0 nor 1


def make_items(path: Path, n: int, d: int) -> None:
    """A group's centre and as much of an item's own."""
    centres = torch.randn(GROUPS, d, generator=torch.Generator().manual_seed(0))
    rows = mapped.create(path, (n, d), torch.float32)
    for part, out in enumerate(rows.split(PART)):
        generator = torch.Generator().manual_seed(1 + part)
        group = torch.randint(GROUPS, (len(out),), generator=generator)
        out.copy_(centres[group] + torch.randn(out.shape, generator=generator))


def make_users(path: Path, items: Tensor, held_out: np.ndarray) -> None:
    rows = mapped.create(path, (held_out.size, items.shape[1]), torch.float32)
    wanted = torch.from_numpy(held_out).split(PART)
    for part, (out, chosen) in enumerate(zip(rows.split(PART), wanted, strict=True)):
        generator = torch.Generator().manual_seed(-1 - part)
        out.copy_(items[chosen] + NOISE * torch.randn(out.shape, generator=generator))


def once(path: Path, make: Callable[[Path], None]) -> None:
    """Makes what is not there yet, whole or not at all."""
    if not path.exists():
        with durable.beside(path) as part:
            make(part)


def csr(indices: np.ndarray, n_items: int) -> scipy.sparse.csr_array:
    """`[n, each]` -> `[n, n_items]`."""
    n, each = indices.shape
    indptr = np.arange(n + 1) * each
    return scipy.sparse.csr_array(
        (np.ones(indices.size, np.bool_), indices.ravel(), indptr), shape=(n, n_items)
    )


def excluded(start: int, n: int, n_items: int, held_out: np.ndarray) -> scipy.sparse.csr_array:
    """Random items of users start .. start + n, in order; none is held out."""
    rng = np.random.default_rng(start)
    found = rng.integers(n_items - 1, size=(n, EXCLUDED), dtype=np.int64)
    found += found >= held_out[:, None]
    found.sort(axis=1)
    result = csr(found, n_items)
    result.sum_duplicates()
    return result


def evaluate_part(u: Tensor, index: ItemIndex, held_out: np.ndarray, start: int) -> UserMetrics:
    wanted = held_out[start : start + PART]
    return evaluate_users(
        u[start : start + PART],
        index,
        csr(wanted[:, None], len(index)),
        exclude=excluded(start, wanted.size, len(index), wanted),
        ks=(K,),
    )


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="a folder on a disk: 7 GiB")
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=5_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=HERE / "results")
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    work: Path = given.work
    (work / "parts").mkdir(parents=True, exist_ok=True)
    held_out = np.random.default_rng(0).integers(given.items, size=given.users)

    once(work / "items.npy", lambda path: make_items(path, given.items, given.dim))
    items = mapped.read(work / "items.npy", torch.float32)
    once(work / "users.npy", lambda path: make_users(path, items, held_out))
    u = mapped.read(work / "users.npy", torch.float32)
    if u.shape != (given.users, given.dim) or items.shape != (given.items, given.dim):
        print(f"{work} holds other tables: choose another folder", file=sys.stderr)
        return 2
    started = time.perf_counter()
    if not (work / "index").exists():
        ItemIndex(items, normalize="both", folder=work / "index")
        made = {"seconds": time.perf_counter() - started, "peak_gib": peak_gib()}
        (work / "index.json").write_text(json.dumps(made))
    index = ItemIndex.open(work / "index")

    for start in range(0, given.users, PART):
        path = work / "parts" / f"{start}.json"
        if path.exists():
            continue
        begin = time.perf_counter()
        metrics = evaluate_part(u, index, held_out, start)
        row = {"seconds": time.perf_counter() - begin, "peak_gib": peak_gib(),
               "users": len(metrics.users), **metrics.means()}  # fmt: skip
        path.write_text(json.dumps(row))
        print(json.dumps({"start": start, **row}), flush=True)

    parts = [json.loads(path.read_text()) for path in (work / "parts").iterdir()]
    made = json.loads((work / "index.json").read_text())
    n_users, seconds = (sum(part[name] for part in parts) for name in ("users", "seconds"))
    words = sys.argv[1:] if argv is None else argv
    shown = ["python", "benchmarks/on_disk.py", *("FOLDER" if w == str(work) else w for w in words)]
    about = provenance([]) | {
        "command": shlex.join(shown), "threads": given.threads, "items": given.items, "dim": given.dim,
        "users": n_users, "seconds": seconds, "index_seconds": made["seconds"],
        "peak_gib": max(part["peak_gib"] for part in [*parts, made]),
        "metrics": {
            f"{name}@{K}": sum(part["users"] * part[f"{name}@{K}"] for part in parts) / n_users
            for name in ("recall", "ndcg", "mrr")
        },
    }  # fmt: skip
    table = [["", "seconds", "users/s", "peak GiB"],
             ["index", f"{made['seconds']:.0f}", "", f"{made['peak_gib']:.2f}"],
             ["evaluation", f"{seconds:,.0f}", f"{n_users / seconds:,.0f}", f"{about['peak_gib']:.2f}"]]  # fmt: skip
    text = (
        f"{heading(about)}{given.items:,} items and {n_users:,} users x "
        f"{given.dim}, in files; float32, cosine; {EXCLUDED} items excluded a user.\n\n{markdown_table(table)}\n"
        + ", ".join(f"{name} {value:.4f}" for name, value in about["metrics"].items()) + ".\n"
    )  # fmt: skip
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "on_disk.json").write_text(json.dumps(about, indent=1) + "\n")
    (given.output / "on_disk.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
