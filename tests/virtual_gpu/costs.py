"""What the main loops' memory accesses cost, beside the least possible: for a test and for a table.

Shared memory: wavefronts of 128 bytes, more of them where lanes meet in a bank. Global memory: sectors of 32
bytes, more of them where lanes touch parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch

import adaptau_ext as ax
from tests import virtual_gpu

COUNTED = ("wavefronts", "ideal_wavefronts", "sectors", "ideal_sectors")
DTYPES, DIMENSIONS = (torch.float32, torch.bfloat16, torch.float16), (64, 128, 256)


def loss(dtype: torch.dtype, d: int) -> None:
    u = torch.randn(256, d).to("virtual", dtype).requires_grad_()
    i = torch.randn(512, d).to("virtual", dtype).requires_grad_()
    ax.fused_adaptive_softmax(u, i, 0.2).backward()


def topk(dtype: torch.dtype, d: int) -> None:
    u, i = torch.randn(128, d).to("virtual", dtype), torch.randn(1000, d).to("virtual", dtype)
    ax.topk(u, i, 20)


def ranks(dtype: torch.dtype, d: int) -> None:
    u, i = torch.randn(128, d).to("virtual", dtype), torch.randn(900, d).to("virtual", dtype)
    indptr = torch.arange(129).to("virtual") * 4
    targets = torch.arange(4).repeat(128) + torch.arange(128).repeat_interleave(4)
    ax.ranks(u, i, (indptr, targets.to("virtual")))


# operation -> a call of it, and the kernel that walks over its tiles
MAIN_LOOPS: dict[str, tuple[Callable[[torch.dtype, int], None], str]] = {
    "loss": (loss, "weighted_sums_kernel"),
    "top-k": (topk, "topk_lists_kernel"),
    "ranks": (ranks, "count_before_kernel"),
}


def main_loop(operation: str, dtype: torch.dtype, d: int) -> tuple[Counter[str], Counter[str]]:
    """COUNTED of the loop's accesses, and by PTX line how many more than the ideal."""
    call, kernel = MAIN_LOOPS[operation]
    virtual_gpu.clear()
    torch.manual_seed(0)
    call(dtype, d)
    lines = [line for line in virtual_gpu.line_counts() if kernel in line["kernel"]]
    launched = {line["kernel"]: line["warps"] for line in reversed(lines)}  # by the first line
    total: Counter[str] = Counter()
    extra: Counter[str] = Counter()
    for line in lines:
        if line["warps"] > launched[line["kernel"]]:  # in a loop
            total.update({what: line[what] for what in COUNTED})
            extra[f"{line['file']}:{line['line']} {line['instruction']}"] += (
                line["wavefronts"] - line["ideal_wavefronts"] + line["sectors"] - line["ideal_sectors"]
            )
    return total, extra
