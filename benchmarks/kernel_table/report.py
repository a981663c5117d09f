"""The table as Markdown: docs/gpu_kernels.md."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from gpu_model import AIM_A100, AIM_H100, loss_limits, topk_limits

from . import model
from .table import INSTRUCTIONS, REGISTERS, WIDE

AIMS = {"A100": AIM_A100, "H100": AIM_H100}
SPELLED = {"Bf16": "bf16", "F16": "f16", "Tf32": "tf32", "F32": "f32"}
PASSES = {
    "weighted_sums_kernel<{}, true>": "loss, users",
    "weighted_sums_kernel<{}, false>": "loss, items",
    "topk_lists_kernel<{}>": "top-k",
    "count_before_kernel<{}>": "ranks",
}
# how a source's name begins -> what its kernels are for
FAMILIES = {
    "weighted_sums": "Dense loss: both passes",
    "topk": "Top-k",
    "ranks": "Ranks",
    "sampled": "Sampled loss and scores of listed items",
    "propagate": "Propagation",
    "": "Before and after",
}

INTRODUCTION = f"""\
# Machine code of the CUDA kernels

Written by `python benchmarks/gpu_kernels.py` from the machine code in the built library (nvcc {{compiler}}), read with NVIDIA's
cuobjdump and nvdisasm, and from runs on the virtual GPU. **No GPU took part.** What is counted here is exact; what it means for
speed is a prediction, and in a section that says so.

`tests/test_gpu_gates.py` compares each build with the same table (`benchmarks/results/gpu_kernels.json`). No kernel may spill a register or
need more shared memory than the 99 KiB that sm_86 and sm_89 give a block, whatever the compiler's version. For the version above,
a kernel may take {REGISTERS} registers and {INSTRUCTIONS:.0%} of its instructions more, no shared memory more, run no fewer blocks at once,
and has exactly as many tensor-core (HMMA), ldmatrix (LDSM) and cp.async (LDGSTS) instructions in its main loop, and no fewer 16-byte
accesses. Whoever changes that on purpose runs the command and commits what it writes.

In all: {{kernels}} kernels for each of {{architectures}}; spills: {{spills}} bytes; shared memory of a block: {{shared:.1f}} KiB at most.
"""

RESOURCES = """
## Resources

Registers of a thread / warps that a multiprocessor holds at once, by the documented limits. Shared memory is a block's, static and
dynamic. 16-byte accesses: loads and stores of global memory, loads and stores of shared memory, in the code for sm_90 (those of LDSM
and LDGSTS, 16 bytes each, are in the next table). Instances of a kernel that has no tiles are one row with the largest numbers; one
for float16 that needs what the one for bfloat16 needs is left out.
"""

LOGITS = """
## Main loops: instructions for each logit

The walk over tiles. Counted is its usual round: all products and copies, none of what hardly ever happens (masked pairs, a maximum
that moves, a candidate that is taken, a negative gradient). The unit is a warp's instructions for 32 logits, that is a lane's for
each logit. f16 is as bf16, and not shown.

The last three columns set that against the limits: for how many cycles 32 logits keep a quarter of a multiprocessor's tensor cores
and its special functions (exp) busy, and its scheduler, which issues one instruction a cycle. What a loop cannot be faster than is the largest of
the three: where that is the tensor column, the loop is made of the right things.
"""

PREDICTIONS = """
## Predictions

**Predictions, not measurements.** The model (`benchmarks/kernel_table/model.py` has the rates and their sources) counts for how many
cycles one round of a warp keeps each resource of a quarter of a multiprocessor busy: tensor cores (on the H100 at the 62.9 % of their
rate that `mma.sync` reaches), special functions, float32, other arithmetic, shared memory, instruction issue.

* *limit*: tensor cores and, for the loss, exponentials only, one after the other, caches and memory beside them
  (`benchmarks/gpu_model.py`; 8192 users, a million items). Nothing that a kernel does besides counts.
* *overlapped*: all instructions of the loop, everything at once; the busiest resource counts. No kernel reaches it.
* *serial*, **the prediction**: products of tiles, then what stands between them, each as long as its busiest resource, with shared
  memory beside both. *bound* names them, a pass of the loss each.

Assumed: latencies are hidden, which one or two warps a quarter will not do fully; the published boost clock; caches and memory keep
up; masks, splits and what goes before and after the loop cost nothing. Measured times should be expected to be longer.

TFLOP/s of both passes of the loss count 8 d operations a logit, of top-k and ranks 2 d. The share is of the matrix units' published
peak for the type's factors (TF32's for f32, which makes three products of one), `wgmma`'s on the H100. The aims are those
of the design; on the H100 they presume `wgmma`, which these kernels do not use, and are out of reach.
"""

MEMORY = """
## Wavefronts and sectors

Counted in the main loops by the virtual GPU in checked mode, beside the least possible: wavefronts of 128 bytes of shared memory (more where
lanes meet in a bank), sectors of 32 bytes of global memory (more where lanes touch parts of them). `tests/test_virtual_gpu_costs.py` allows
1.15 and 1.1 of the ideal. The shapes are small, so that the numbers are exact but the counts mean nothing by themselves.
"""


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [list(header), *([str(cell) for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def shared_bytes(one: dict[str, Any]) -> int:
    found: int = one["static_shared"] + one["dynamic_shared"]
    return found


def report(measured: dict[str, Any]) -> str:
    kernels = measured["kernels"]
    architectures = sorted({one["architecture"] for one in kernels}, key=int)
    introduction = INTRODUCTION.format(
        compiler=measured["compiler"],
        kernels=len(kernels) // len(architectures),
        architectures=", ".join(f"sm_{one}" for one in architectures),
        spills=sum(one["spills"] for one in kernels),
        shared=max(map(shared_bytes, kernels)) / 1024,
    )
    parts = [introduction, RESOURCES, resources(kernels, architectures), LOGITS, per_logit(measured)]
    parts += [PREDICTIONS, predictions(measured), MEMORY, memory(measured["memory"])]
    return "\n".join(parts)


def resources(kernels: list[dict[str, Any]], architectures: list[str]) -> str:
    rows: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    for one in kernels:
        name = one["kernel"] if "loop" in one else one["kernel"].split("<")[0]
        at = rows[one["source"], name]
        if one["registers"] >= at.get(one["architecture"], {"registers": 0})["registers"]:
            at[one["architecture"]] = one

    def cells(source: str, name: str, by: dict[str, dict[str, Any]]) -> Iterator[object]:
        short = name.replace("Shape<", "").replace(">>", ">").replace(">, ", ", ")
        yield from (f"{source}.cu", f"`{short}`", by["90"]["threads"])
        yield f"{max(map(shared_bytes, by.values())) / 1024:.1f}"
        for architecture in architectures:
            yield f"{by[architecture]['registers']} / {by[architecture]['warps']}"
        counts = [by["90"]["all"].get(kind, 0) for kind in WIDE]
        yield ", ".join(map(str, counts)) if any(counts) else ""

    def order(key: tuple[str, str]) -> list[object]:
        return [int(part) if part.isdigit() else part for part in re.split(r"\b(\d+)\b", " ".join(key))]

    found = {key: list(cells(*key, rows[key])) for key in sorted(rows, key=order)}

    def is_needed(source: str, name: str) -> bool:
        twin = found.get((source.replace("_f16", "_bf16"), name.replace("F16", "Bf16")))
        return "_f16" not in source or twin is None or found[source, name][2:] != twin[2:]

    families: dict[str, list[list[object]]] = {family: [] for family in FAMILIES.values()}
    for (source, name), row in found.items():
        if is_needed(source, name):
            families[next(FAMILIES[one] for one in FAMILIES if source.startswith(one))].append(row)
    header = ["source", "kernel", "threads", "KiB", *(f"sm_{a}" for a in architectures), "16 bytes"]
    return "\n".join(f"### {family}\n\n{table(header, of)}" for family, of in families.items())


def per_logit(measured: dict[str, Any]) -> str:
    def rows() -> Iterator[list[object]]:
        for kernel, spelled in PASSES.items():
            for kind in ("Bf16", "Tf32", "F32"):
                for d in (64, 128, 256):
                    for architecture, gpu in model.GPUS.values():
                        name = kernel.format(f"Shape<{kind}, {d}>")
                        loop = model.loop_of(measured, architecture, name)
                        if loop is None:
                            continue
                        counts = model.both(loop)
                        each = {one: counts[one] * 32 / loop["logits"] for one in model.CLASSES}
                        busy = model.cycles(counts, gpu)
                        yield [
                            f"{spelled}, {SPELLED[kind]}",
                            d,
                            f"sm_{architecture}",
                            *(f"{n:.1f}" if n else "" for n in each.values()),
                            f"**{sum(each.values()):.1f}**",
                            *(
                                f"{busy[one] * 32 / loop['logits']:.1f}"
                                for one in ("tensor", "exp", "issue")
                            ),
                        ]

    limits = ["tensor cycles", "exp cycles", "issue cycles"]
    return table(["kernel", "d", "", *model.CLASSES, "all", *limits], rows())


def predictions(measured: dict[str, Any]) -> str:
    def rows() -> Iterator[list[object]]:
        for one in model.predictions(measured):
            if one.type == "F16":
                continue
            architecture, gpu = model.GPUS[one.gpu]
            dtype = torch.bfloat16 if one.type == "Bf16" else torch.float32
            limits = {"loss": loss_limits, "top-k": topk_limits, "ranks": topk_limits}[one.operation]
            limit = limits(gpu, 8192, 1_000_000, one.d, dtype).predicted
            shape = f"Shape<{one.type}, {one.d}>"
            loops = [
                model.loop_of(measured, architecture, name.format(shape))
                for name in model.OPERATIONS[one.operation][0]
            ]
            bounds = dict.fromkeys(model.bound(loop, gpu) for loop in loops if loop)
            aims = AIMS[one.gpu] if (one.operation, one.type) == ("loss", "Bf16") else {}
            yield [
                one.gpu,
                f"{one.operation}, {SPELLED[one.type]}",
                one.d,
                f"{limit:.0f}" if one.type != "Tf32" else "",
                f"{one.overlapped:.0f}",
                f"**{one.serial:.0f}**",
                f"**{one.serial / one.peak:.0%}**",
                aims.get(one.d, ""),
                "; ".join(bounds),
            ]

    header = ["GPU", "operation", "d", "limit", "overlapped", "predicted", "of peak", "aim", "bound"]
    return table(header, rows())


def memory(costs: list[dict[str, Any]]) -> str:
    def cells(one: dict[str, Any]) -> Iterator[object]:
        yield from (one["operation"], one["dtype"], one["d"])
        for what in ("wavefronts", "sectors"):
            found, ideal = one[what], one[f"ideal_{what}"]
            yield from (found, ideal, f"**{found / ideal:.3f}**")

    header = ["operation", "dtype", "d", "wavefronts", "ideal", "ratio", "sectors", "ideal", "ratio"]
    return table(header, map(cells, costs))
