"""How fast a main loop could run, from its instructions. Predictions, not measurements.

A multiprocessor has four quarters, each with a scheduler that issues one instruction a cycle, tensor cores
and execution units of its own; shared memory is one for all four. The model follows one warp on each quarter
through one round and counts the cycles for which each resource is busy:

* tensor: an HMMA at the documented rate, on an H100 at 62.9 % of it, which is what `mma.sync` reaches there
  (Luo et al., arXiv:2402.13499);
* special functions (MUFU), float32 and integer multiplication (FFMA, FMUL, FADD, IMAD), the other arithmetic
  (integer, comparisons, conversions): by the CUDA programming guide's table "Throughput of native arithmetic
  instructions";
* shared memory: 128 bytes a cycle, for what arrives in registers and for what asynchronous copies bring;
* issue: one cycle an instruction.

Instructions between tensor-core instructions that follow closely (fewer than GAP others in between) can run
beside them: these are the products. The rest is what stands alone: soft-max, comparisons, addresses.

* overlapped: everything at once, the busiest resource counts. No kernel reaches it.
* serial: products, then the rest, each as long as its busiest resource; shared memory, which serves all
  quarters and works ahead, beside both. That is the prediction.

Left out: latencies that two warps a quarter do not hide (one warp a quarter hides less), barriers, the
second-level cache and memory (benchmarks/gpu_model.py has those), clocks below the published boost, and
everything but the loop.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

from gpu_model import A100, H100, SPECIAL_PER_CYCLE, Gpu

GPUS = {"A100": ("80", A100), "H100": ("90", H100)}  # with the architecture of their machine code
GAP = 24
HMMA_OPERATIONS = 2 * 16 * 8 * 16  # of m16n8k16 on 16-bit factors; m16n8k8 on TF32 takes as long

# What an instruction is, by its name: the first that matches. All others are integer instructions.
CLASSES = {
    "HMMA": r"HMMA",
    "MUFU": r"MUFU",
    "FP32": r"F(FMA|MUL|ADD)",
    "compare, convert": r"F(MNMX|SETP|SEL|SET|2FP)|FMNMX3",
    "LDSM": r"LDSM",
    "LDS, STS": r"LDS|STS|ATOMS",
    "LDGSTS": r"LDGSTS",
    "exchange": r"SHFL|VOTE|VOTEU|REDUX|MATCH",
    "IMAD": r"IMAD",
    "uniform, control": r"U\w+|BAR|BRA|BSSY|BSYNC|BREAK|EXIT|CALL|RET|NOP|DEPBAR|LDGDEPBAR|WARPSYNC|YIELD"
    r"|R2UR|S2R|CS2R|LDC|LDCU|ERRBAR|MEMBAR|BMOV|LD|ST|LDG|STG|LDL|STL|ATOMG|RED",
    "integer": r"\w+",
}
_CLASSES = {name: re.compile(rf"(?:{pattern})$") for name, pattern in CLASSES.items()}


@cache
def class_of(op: str) -> str:
    name = op.split(".")[0]
    return next(kind for kind, pattern in _CLASSES.items() if pattern.match(name))


def shared_words(op: str) -> int:
    """How many words of 4 bytes a lane's instruction moves from or to shared memory."""
    if class_of(op) == "LDSM":
        return 4 if ".4" in op else 2 if ".2" in op else 1
    if class_of(op) in ("LDS, STS", "LDGSTS"):
        size = re.search(r"\.(64|128)\b", op)
        return int(size[1]) // 32 if size else 1
    return 1 if op.startswith("SHFL") else 0


def phases(ops: list[str]) -> dict[str, dict[str, int]]:
    """Instructions of a round by class, and words of shared memory: the products, and the rest."""
    at = [n for n, op in enumerate(ops) if class_of(op) == "HMMA"]
    beside: set[int] = set(at)
    for before, after in pairwise(at):
        if after - before <= GAP:
            beside.update(range(before, after))
    split: dict[str, Counter[str]] = {"products": Counter(), "rest": Counter()}
    for n, op in enumerate(ops):
        counts = split["products" if n in beside else "rest"]
        counts[class_of(op)] += 1
        counts["words"] += shared_words(op)
    return {name: dict(sorted(counts.items())) for name, counts in split.items()}


def both(loop: dict[str, Any]) -> Counter[str]:
    return Counter(loop["products"]) + Counter(loop["rest"])


def cycles(counts: dict[str, int], gpu: Gpu) -> dict[str, float]:
    """For which each resource is busy with one warp on each quarter of a multiprocessor."""
    n = Counter(counts)
    quarter = gpu.matrix_per_cycle * gpu.mma_sync_share / 4
    return {
        "tensor": n["HMMA"] * HMMA_OPERATIONS / quarter,
        "exp": n["MUFU"] * 32 * 4 / SPECIAL_PER_CYCLE,
        # integer multiplication is on the float32 units, 64 a cycle and multiprocessor
        "float32": n["FP32"] * 32 * 4 * 2 / gpu.float32_per_cycle + n["IMAD"] * 2,
        "other arithmetic": (n["compare, convert"] + n["integer"]) * 2.0,
        "shared memory": n["words"] * 4.0,  # of all four quarters
        "issue": float(sum(n.values()) - n["words"]),
    }


def overlapped(loop: dict[str, Any], gpu: Gpu) -> float:
    return max(cycles(both(loop), gpu).values())


def serial(loop: dict[str, Any], gpu: Gpu) -> float:
    return max(sum(longest for _, longest in steps(loop, gpu)), shared(loop, gpu))


def shared(loop: dict[str, Any], gpu: Gpu) -> float:
    return cycles(both(loop), gpu)["shared memory"]


def steps(loop: dict[str, Any], gpu: Gpu) -> list[tuple[str, float]]:
    """Of the products and of the rest: the busiest resource, besides shared memory, and its cycles."""
    found = []
    for phase in ("products", "rest"):
        busy = cycles(loop[phase], gpu)
        del busy["shared memory"]
        name = max(busy, key=lambda name: busy[name])
        found.append((name, busy[name]))
    return found


def bound(loop: dict[str, Any], gpu: Gpu) -> str:
    """What the serial time consists of."""
    found = steps(loop, gpu)
    if shared(loop, gpu) > sum(longest for _, longest in found):
        return "shared memory"
    return " + ".join(name for name, _ in found)


# operation -> kernels of one call, and operations of the matrix units for each logit and element
OPERATIONS = {
    "loss": (("weighted_sums_kernel<{}, true>", "weighted_sums_kernel<{}, false>"), 8),
    "top-k": (("topk_lists_kernel<{}>",), 2),
    "ranks": (("count_before_kernel<{}>",), 2),
}
TYPES = ("Bf16", "F16", "Tf32", "F32")


@dataclass(frozen=True)
class Prediction:
    """TFLOP/s of all passes of an operation together."""

    gpu: str
    operation: str
    type: str
    d: int
    overlapped: float
    serial: float
    peak: float  # of the matrix units for the type's factors, without the limit of mma.sync


def loop_of(table: dict[str, Any], architecture: str, kernel: str) -> dict[str, Any] | None:
    for one in table["kernels"]:
        if (one["architecture"], one["kernel"]) == (architecture, kernel):
            loop: dict[str, Any] = one["loop"]
            return loop
    return None


def predictions(table: dict[str, Any]) -> Iterator[Prediction]:
    for name, (architecture, gpu) in GPUS.items():
        for operation, (kernels, operations) in OPERATIONS.items():
            for kind in TYPES:
                for d in (64, 128, 256, 512):
                    shape = f"Shape<{kind}, {d}>"
                    passes = [loop_of(table, architecture, one.format(shape)) for one in kernels]
                    if None in passes:
                        continue
                    seconds = []
                    for model in (overlapped, serial):
                        # one warp on each quarter: four times a warp's logits at once
                        of_logit = sum(
                            model(one, gpu) * one["passes"] / one["logits"] / 4
                            for one in passes
                            if one is not None
                        )
                        seconds.append(of_logit / gpu.rate(1))
                    half_rate = 1 if kind in ("Bf16", "F16") else 2
                    yield Prediction(
                        name, operation, kind, d,
                        operations * d / seconds[0] * 1e-12,
                        operations * d / seconds[1] * 1e-12,
                        gpu.rate(gpu.matrix_per_cycle / half_rate) * 1e-12,
                    )  # fmt: skip
