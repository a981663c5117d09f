"""A step of Adam of which a table's few rows have a gradient: gradient and step, by table size.

    python benchmarks/adam_rows.py                    2,048 of 10^5, 10^6, 4 10^6 rows of 64
    python benchmarks/adam_rows.py --rows 1000000 --batch 512

`DeferredAdam` gives the values of `torch.optim.Adam`. `torch.optim.SparseAdam` does not: moments of rows
without a gradient stand still there, and so do the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from throughput_report import heading, markdown_table, provenance
from torch.nn.functional import embedding

from adaptau_ext.training import DeferredAdam

HERE = Path(__file__).parent
CONTENDERS: dict[str, Any] = {
    "DeferredAdam": DeferredAdam,
    "Adam(fused=True)": partial(torch.optim.Adam, fused=True),
    "Adam()": torch.optim.Adam,
    "SparseAdam()": torch.optim.SparseAdam,
}


def milliseconds(name: str, n_rows: int, batch: int, dim: int, seconds: float) -> float:
    """Median of steps that last `seconds` in all, at least five, after three; of DeferredAdam after as many as use
    each row twice on average: rows have waited by then as long as they will."""
    torch.manual_seed(0)
    table = torch.nn.Parameter(torch.randn(n_rows, dim))
    optimizer = CONTENDERS[name]([table], lr=1e-3)
    sparse = name in ("DeferredAdam", "SparseAdam()")
    first = 2 * n_rows // batch if name == "DeferredAdam" else 3
    taken: list[float] = []
    while len(taken) < first + 5 or sum(taken[first:]) < seconds:
        rows = torch.randint(0, n_rows, (batch,))
        start = time.perf_counter()
        optimizer.zero_grad()
        if name == "DeferredAdam":
            optimizer.catch_up(table, rows)
        embedding(rows, table, sparse=sparse).square().sum().backward()
        optimizer.step()
        taken.append(time.perf_counter() - start)
    return 1e3 * statistics.median(taken[first:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 4_000_000])
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0, help="of steps, each contender and size")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=HERE / "results")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    about = provenance([]) | {
        "command": shlex.join(["python", "benchmarks/adam_rows.py", *sys.argv[1:]]),
        "threads": given.threads, "batch": given.batch, "dim": given.dim,
        "milliseconds": {
            name: {n: milliseconds(name, n, given.batch, given.dim, given.seconds) for n in given.rows}
            for name in CONTENDERS
        },
    }  # fmt: skip
    table = [["milliseconds a step", *(f"{n:,} rows" for n in given.rows)]]
    table += [
        [f"`{name}`", *(f"{x:,.2f}" for x in row.values())]
        for name, row in about["milliseconds"].items()
    ]
    text = (
        f"{heading(about)}A gradient of "
        f"{given.batch:,} rows of {given.dim} and a step; medians. `SparseAdam()` is another method: rows and "
        f"moments without a gradient stand still.\n\n{markdown_table(table)}"
    )
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "adam_rows.json").write_text(json.dumps(about, indent=1) + "\n")
    (given.output / "adam_rows.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
