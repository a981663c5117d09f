"""What the kernels' memory accesses cost, counted on the virtual GPU, beside the least possible.

Shared memory: wavefronts of 128 bytes, more of them where lanes meet in a bank. Global memory: sectors
of 32 bytes, more of them where lanes touch parts.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import scipy.sparse
import torch

import adaptau_ext as ax
from tests import virtual_gpu
from tests.devices import VIRTUAL
from tests.virtual_gpu import costs

WAVEFRONTS, SECTORS = 1.15, 1.1  # over the ideal


@pytest.mark.parametrize("device", [VIRTUAL])
@pytest.mark.parametrize("dtype", costs.DTYPES, ids=str)
@pytest.mark.parametrize("d", costs.DIMENSIONS)
@pytest.mark.parametrize("operation", costs.MAIN_LOOPS)
def test_main_loops_waste_no_bandwidth(operation: str, d: int, dtype: torch.dtype, device: str) -> None:
    total, extra = costs.main_loop(operation, dtype, d)
    assert total["ideal_wavefronts"] > 0 and total["ideal_sectors"] > 0
    assert total["wavefronts"] <= WAVEFRONTS * total["ideal_wavefronts"], extra.most_common(3)
    assert total["sectors"] <= SECTORS * total["ideal_sectors"], extra.most_common(3)
    print(f"wavefronts {total['wavefronts'] / total['ideal_wavefronts']:.3f}, "
          f"sectors {total['sectors'] / total['ideal_sectors']:.3f} of the ideal")  # fmt: skip


def sampled(dtype: torch.dtype, d: int) -> None:
    u = torch.randn(4, d).to("virtual", dtype).requires_grad_()
    i = torch.randn(60, d).to("virtual", dtype).requires_grad_()
    positives = torch.arange(4).to("virtual")
    ax.sampled_adaptive_softmax(u, i, None, positives, 0.2, n_negatives=320, seed=1).backward()


def scores(dtype: torch.dtype, d: int) -> None:
    u = torch.randn(4, d).to("virtual", dtype).requires_grad_()
    i = torch.randn(60, d).to("virtual", dtype).requires_grad_()
    ax.sampled_scores(u, i, torch.randint(60, (4, 320)).to("virtual")).sum().backward()


def hop(dtype: torch.dtype, d: int) -> None:
    csr = scipy.sparse.random_array((40, 60), density=0.3, format="csr", rng=0)
    csr.sort_indices()
    users, items = torch.randn(40, d).to("virtual", dtype), torch.randn(60, d).to("virtual", dtype)
    ax.BipartiteGraph(csr).to("virtual").hop(users, items)


@pytest.mark.parametrize("device", [VIRTUAL])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("d", [64, 128, 256])
@pytest.mark.parametrize(
    ("call", "kernel"),
    [
        (sampled, "sampled_sums_kernel"),
        (sampled, "sampled_items_kernel"),
        (scores, "sampled_scores_kernel"),
        (hop, "hop_kernel"),
    ],
)
def test_rows_are_gathered_in_whole_sectors(
    call: Callable[[torch.dtype, int], None], kernel: str, d: int, dtype: torch.dtype, device: str
) -> None:
    """These kernels are bound by their gathers: of 16 bytes a lane, each sector read once."""
    virtual_gpu.clear()
    call(dtype, d)
    gathers = [
        line
        for line in virtual_gpu.line_counts()
        if kernel in line["kernel"] and line["instruction"].startswith("ld.global.nc.v4")
    ]
    assert sum(line["warps"] for line in gathers) > 0
    assert sum(x["sectors"] for x in gathers) == sum(x["ideal_sectors"] for x in gathers)
