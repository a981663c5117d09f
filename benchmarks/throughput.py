"""Kernels beside every other way of doing the same, in one run.

    python benchmarks/throughput.py                  all operators, under ten minutes
    python benchmarks/throughput.py --quick          the smallest shapes, under one
    python benchmarks/throughput.py --only topk --threads 1 2 --output results
    python benchmarks/throughput.py --device cuda --dtypes float32 bfloat16

Contenders of a case take turns; every round also measures the machine's multiply-add peak (on a GPU,
what cuBLAS reaches for that dtype). A row gives the median time and its spread (the middle half),
GFLOP/s in the operation's nominal count (loss forward + backward 8 B M d, top-k and ranks 2 B M d,
sampled step 6 B N d, a hop over a graph 4 E d for E interactions, a training step's propagation six hops,
whatever is really done), the fraction of the peak of the threads used, memory beyond inputs and outputs,
and our speed over the best other. On a GPU also the time until the call returned (a contender that
waits for the GPU returns late) and the error: of the loss and its gradients, relative to float64, or the
share of wrong ids. A contender that fails is a row that says so; one whose single call takes a third of
the measuring time is timed once. Exits with 1 when a contender of ours failed.
"""

from __future__ import annotations

import os
import sys

# Set for old OpenBLAS builds in some environments; they slow NumPy, faiss and implicit down.
_SLOWING = [name for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE") if os.environ.pop(name, None)]
if _SLOWING:
    os.execv(sys.executable, [sys.executable, *sys.argv])

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from data_folder import DATA
from gpu_info import ClockLog, describe
from gpu_model import gpu_of, published_peak
from throughput_case import KINDS, OURS, Case, is_ours
from throughput_gpu import GpuMachine
from throughput_graphs import graphs, propagation_cases
from throughput_losses import loss_case, sampled_case
from throughput_measure import CpuMachine, Machine, measure
from throughput_report import Row, first_line, markdown, one_line, provenance, save
from throughput_retrieval import evaluation_cases, ranks_case, topk_cases, trained_cases

from adaptau_ext.cuda import why_no_gpu

OPERATIONS = ("loss", "sampled", "topk", "evaluation", "ranks", "propagation")


def cases_of(
    operation: str, quick: bool, folder: Path, device: torch.device, dtype: torch.dtype
) -> Iterator[Case]:
    """On a GPU, float32 is the dtype of cases that are about the data rather than the arithmetic."""
    check, plain = device.type != "cpu", dtype == torch.float32
    if operation == "loss":
        big = [(2048, 38_048, 64), (1024, 91_599, 64), (8192, 8192, 128)]
        for shape in [(2048, 2048, 64)] + ([] if quick else big):
            yield loss_case(*shape, device, dtype, check)
    elif operation == "sampled":
        n_rows, n_negatives = (256, 256) if quick else (2048, 1024)
        for softmax in (True, False):
            yield sampled_case(n_rows, n_negatives, 29_858, 40_981, 64, device, dtype, softmax=softmax)
    elif operation == "topk":
        ks = (20,) if quick else (20, 100)
        for shape in [(2048, 38_048, 64)] + (
            [] if quick else [(1024, 91_599, 64), (512, 1_000_000, 64)]
        ):
            yield from topk_cases([shape], ks, ("random",), device, dtype, check)
        if plain and not quick:
            yield from topk_cases([(2048, 38_048, 64)], (20,), KINDS[1:], device, dtype, check)
            yield from trained_cases(folder, device)
    elif operation == "evaluation" and plain and not quick:
        yield from evaluation_cases(folder, device)
    elif operation == "ranks":
        yield ranks_case(512 if quick else 2048, 38_048, 64, device, dtype)
    elif operation == "propagation" and plain:
        yield from propagation_cases(graphs(quick, folder), device)


def run(
    operations: list[str],
    dtypes: list[torch.dtype],
    machines: list[Callable[[], Machine]],
    make_cases: Callable[[str, torch.dtype], Iterator[Case]],
    seconds: float,
    device: torch.device,
) -> Iterator[Row]:
    for dtype in dtypes:
        for operation in operations:
            try:
                for case in make_cases(operation, dtype):
                    for machine in machines[:1] if case.one_thread else machines:
                        with ClockLog(device) as log:
                            rows = measure(case, machine(), seconds)
                        for row in rows:
                            row.clocks = log.summary if device.type != "cpu" else ""
                            yield row
            except Exception as problem:  # the case itself could not be made
                yield Row(operation, "", "", 0, OURS, str(dtype)[6:], failure=first_line(problem))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smallest shapes, under a minute")
    parser.add_argument("--only", nargs="+", default=list(OPERATIONS), choices=OPERATIONS)
    parser.add_argument(
        "--data", type=Path, default=DATA,
        help="folder with LightGCN-format data (yelp2018, gowalla, lastfm), default: %(default)s; cases of what is "
        "missing are left out",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument(
        "--dtypes", nargs="+", default=["float32", "bfloat16"], help="of the embeddings, on a GPU",
        choices=["float32", "bfloat16", "float16"],
    )  # fmt: skip
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="of the CPU")
    parser.add_argument("--seconds", type=float, help="measuring time of a case (default 3, quick 1)")
    parser.add_argument("--output", type=Path, help="folder for throughput.json, .md and .png")
    given = parser.parse_args()
    device = torch.device(given.device)
    seconds = given.seconds or (1.0 if given.quick else 3.0)
    about: dict[str, Any] = provenance(sys.argv[1:])
    dtypes = [torch.float32]
    machines: list[Callable[[], Machine]]
    if device.type == "cpu":
        threads = given.threads[:1] if given.quick else given.threads
        machines = [lambda n=n: CpuMachine(n) for n in threads]
    else:
        why = why_no_gpu() if device.type == "cuda" else "throughput.py measures cpu and cuda"
        if why is not None:
            sys.exit(f"--device {given.device}: {why}")
        dtypes = [getattr(torch, name) for name in given.dtypes]
        gpu = GpuMachine(device)
        machines = [lambda: gpu]
        settings = describe(device)
        about |= {"gpu": torch.cuda.get_device_name(device), "settings": settings}
        about |= {"driver": settings.get("driver_version", "unknown"), "peaks": peaks(gpu, dtypes)}

    rows: list[Row] = []
    make_cases = lambda operation, dtype: cases_of(operation, given.quick, given.data, device, dtype)
    for row in run(given.only, dtypes, machines, make_cases, seconds, device):
        rows.append(row)
        print(one_line(row), flush=True)
    if given.output:
        save(rows, about, given.output)
    else:
        print(markdown(rows, about))
    failed = [row for row in rows if row.failure and is_ours(row.contender)]
    if failed:
        sys.exit(f"{len(failed)} of our own rows failed")


def peaks(gpu: GpuMachine, dtypes: list[torch.dtype]) -> str:
    """Measured beside published."""
    known = gpu_of(torch.cuda.get_device_properties(gpu.device))
    parts = []
    for dtype in dtypes:
        published = published_peak(known, dtype)
        parts.append(
            f"{str(dtype)[6:]} matmul {gpu.peak(dtype) * 1e-3:.0f} TFLOP/s (published {published:.0f})"
        )
    return ", ".join(parts)


if __name__ == "__main__":
    main()
