"""Kernels beside every other way of doing the same, in one run.

    python benchmarks/throughput.py                  all operators, under ten minutes
    python benchmarks/throughput.py --quick          the smallest shapes, under one
    python benchmarks/throughput.py --only topk --threads 1 2 --output results

Contenders of a case take turns; every round also measures the machine's multiply-add peak. A row gives
the median time and its spread (the middle half), GFLOP/s in the operation's nominal count (loss forward +
backward 8 B M d, top-k and ranks 2 B M d, sampled step 6 B N d, a hop over a graph 4 E d for E
interactions, a training step's propagation six hops, whatever is really done), the fraction of the peak
of the threads used, memory beyond inputs and outputs on the first call, and our speed over the best
other. A contender that fails is a row that says so; one whose single call takes a third of the measuring
time is timed once.
"""

from __future__ import annotations

import os
import sys

# Set for old OpenBLAS builds in some environments; they slow NumPy, faiss and implicit down.
_SLOWING = [name for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE") if os.environ.pop(name, None)]
if _SLOWING:
    os.execv(sys.executable, [sys.executable, *sys.argv])

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from peak_memory import rise_mib
from throughput_cases import (
    KINDS,
    Case,
    evaluation_cases,
    loss_cases,
    ranks_cases,
    sampled_cases,
    topk_cases,
    trained_cases,
)
from throughput_graphs import graphs, propagation_cases
from throughput_report import Row, is_ours, markdown, plot, provenance

OPERATIONS = ("loss", "sampled", "topk", "evaluation", "ranks", "propagation")


def all_cases(quick: bool, only: set[str], folder: Path) -> Iterator[Case]:
    if "loss" in only:
        big = [(2048, 38_048, 64), (1024, 91_599, 64), (8192, 8192, 128)]
        yield from loss_cases([(2048, 2048, 64)] + ([] if quick else big))
    if "sampled" in only:
        shape = (256, 256, 29_858, 40_981, 64) if quick else (2048, 1024, 29_858, 40_981, 64)
        yield from sampled_cases([shape])
    if "topk" in only:
        yield from topk_cases([(2048, 38_048, 64)], (20,) if quick else (20, 100), ("random",))
        if not quick:
            yield from topk_cases([(1024, 91_599, 64)], (20, 100), ("random",))
            yield from topk_cases([(512, 1_000_000, 64)], (20, 100), ("random",))
            yield from topk_cases([(2048, 38_048, 64)], (20,), KINDS[1:])
            yield from trained_cases(folder)
    if "evaluation" in only and not quick:
        yield from evaluation_cases(folder)
    if "ranks" in only:
        yield from ranks_cases([(512 if quick else 2048, 38_048, 64)])
    if "propagation" in only:
        yield from propagation_cases(graphs(quick, folder))


def limit_blas(threads: int) -> None:
    """NumPy's and implicit's matrix products: their libraries know no argument for it."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        print("threadpoolctl is not installed: NumPy's BLAS uses as many threads as it likes")
    else:
        threadpool_limits(limits=threads, user_api="blas")


def measure(case: Case, threads: int, seconds: float) -> list[Row]:
    torch.set_num_threads(threads)
    limit_blas(threads)
    contenders = case.contenders(threads)
    rows = {name: Row(case.operation, case.shape, case.data, threads, name) for name in contenders}
    slow: set[str] = set()
    for name, run in list(contenders.items()):
        try:
            start = time.perf_counter()
            rows[name].extra_mib = rise_mib(run)
            if time.perf_counter() - start > seconds / 3:
                slow.add(name)
            else:
                run()
        except Exception as problem:  # a contender that cannot run is a result too
            rows[name].failure = f"{type(problem).__name__}: {problem}".splitlines()[0][:200]
            del contenders[name]
    peaks: list[float] = []
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(peaks) < 3:
        peaks.append(torch.ops.adaptau.fma_peak(0.01))
        for name, run in contenders.items():
            if name in slow and rows[name].samples:
                continue  # once is what there is time for
            # the last contender's threads may still be spinning in wait of more
            time.sleep(0.2 if threads > 1 else 0)
            start = time.perf_counter()
            run()
            rows[name].samples.append(time.perf_counter() - start)
    peak = statistics.median(peaks) * threads
    for row in rows.values():
        if not row.samples:
            continue
        low, middle, high = np.quantile(row.samples, [0.25, 0.5, 0.75])
        row.milliseconds = middle * 1e3
        row.spread = (low * 1e3, high * 1e3)
        row.gflops = case.flops / middle * 1e-9
        row.peak_gflops = peak
        row.of_peak = row.gflops / peak
    peers = [r.milliseconds for r in rows.values() if r.samples and not is_ours(r)]
    for row in rows.values():
        if is_ours(row) and row.samples and peers:
            row.over_best_peer = min(peers) / row.milliseconds
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smallest shapes, under a minute")
    parser.add_argument(
        "--only", nargs="+", default=list(OPERATIONS), choices=OPERATIONS
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data",
        help="folder with LightGCN-format data (yelp2018, gowalla, lastfm); cases of what is missing are left out",
    )  # fmt: skip
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, help="measuring time of a case (default 3, quick 1)")
    parser.add_argument("--output", type=Path, help="folder for throughput.json, .md and .png")
    arguments = parser.parse_args()
    threads = arguments.threads[:1] if arguments.quick else arguments.threads
    seconds = arguments.seconds or (1.0 if arguments.quick else 3.0)

    rows: list[Row] = []
    for case in all_cases(arguments.quick, set(arguments.only), arguments.data):
        for n in threads[:1] if case.one_thread else threads:
            for row in measure(case, n, seconds):
                rows.append(row)
                print(
                    f"{row.operation:13s} {row.shape:45s} {row.data:16s} {n} th  {row.contender:30s} "
                    + (
                        row.failure
                        or f"{row.milliseconds:9.1f} ms {row.gflops:7.1f} GF/s {row.of_peak:5.2f} of peak "
                        f"{row.extra_mib:7.0f} MiB"
                        + (f"  {row.over_best_peer:.2f} x best peer" if is_ours(row) else "")
                    ),
                    flush=True,
                )
    about = provenance(sys.argv[1:])
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        measured = [{k: v for k, v in asdict(r).items() if k != "samples"} for r in rows]
        (arguments.output / "throughput.json").write_text(
            json.dumps({"about": about, "rows": measured}, indent=1) + "\n"
        )
        (arguments.output / "throughput.md").write_text(markdown(rows, about))
        plot(rows, arguments.output / "throughput.png")
    else:
        print(markdown(rows, about))


if __name__ == "__main__":
    main()
