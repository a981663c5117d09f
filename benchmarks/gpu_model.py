"""What a GPU could do at best, to stand beside what was measured. Predictions, not results.

A logit of the loss, forward and backward, costs 8 d operations of the matrix units (four products: the
scores twice, both gradients) and two exponentials. The model adds the two times up, as if nothing
overlapped; the limit takes the larger one, as if everything did, and looks at the traffic from the
second-level cache and from memory. What the kernels do beyond that counts too: rows are padded to 64,
128, 256 or 512 elements, and float32 is three products of TF32 parts, six times the work of 16-bit
factors (csrc/cuda/shapes.h, mma.cuh). Integer and addressing instructions are not counted.

Sources: NVIDIA A100 and H100 whitepapers for multiprocessors, boost clock, operations a cycle, memory
bandwidth, and the A100's 5120 bytes a cycle from the second-level cache (none is published for the H100;
the same is assumed). CUDA programming guide, arithmetic instructions: 16 special functions a cycle and
multiprocessor. Luo et al., arXiv:2402.13499: on the H100 `mma.sync` reaches 62.9 % of what `wgmma` does;
these kernels use `mma.sync`, so the table's whole-peak figures are out of their reach on an H100.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Gpu:
    name: str
    multiprocessors: int
    ghz: float  # the boost clock that the published peaks go with
    matrix_per_cycle: int  # a multiprocessor's operations on 16-bit factors, float32 sums
    float32_per_cycle: int
    mma_sync_share: float  # of the matrix units' peak
    memory_tb: float  # TB/s
    l2_mib: int

    def rate(self, per_cycle: float) -> float:
        """Per second, all multiprocessors."""
        return per_cycle * self.multiprocessors * self.ghz * 1e9


A100 = Gpu("A100 SXM 80 GB", 108, 1.41, 2048, 128, 1.0, 2.039, 40)
H100 = Gpu("H100 SXM", 132, 1.83, 4096, 256, 0.629, 3.35, 50)
# part of the name that PyTorch gives -> what it is
KNOWN = {
    "A100-SXM4-80GB": A100,
    "A100-SXM4-40GB": Gpu("A100 SXM 40 GB", 108, 1.41, 2048, 128, 1.0, 1.555, 40),
    "A100 80GB PCIe": Gpu("A100 PCIe 80 GB", 108, 1.41, 2048, 128, 1.0, 1.935, 40),
    "H100 80GB HBM3": H100,
    "H100 PCIe": Gpu("H100 PCIe", 114, 1.62, 4096, 256, 0.629, 2.0, 50),
    "H200": Gpu("H200 SXM", 132, 1.83, 4096, 256, 0.629, 4.8, 50),
}
L2_BYTES_PER_CYCLE = 5120
SPECIAL_PER_CYCLE = 16
# bytes of a padded row -> rows that a block of threads keeps, as in csrc/cuda/shapes.h
ROWS_OF_A_BLOCK = {128: 256, 256: 128, 512: 128, 1024: 64, 2048: 32}

# d -> TFLOP/s, forward and backward: the H100's model with the whole peak of the matrix units, and what
# the kernels aimed at when they were designed.
MODEL_H100 = {64: 496, 128: 661, 256: 792}
AIM_H100 = {64: 450, 128: 600, 256: 690}
AIM_A100 = {64: 170, 128: 200, 256: 215}


def gpu_of(properties: Any) -> Gpu | None:
    """Of torch.cuda.get_device_properties; None for a GPU that is not in the table."""
    for part, gpu in KNOWN.items():
        if part in properties.name and properties.multi_processor_count == gpu.multiprocessors:
            return gpu
    return None


def published_peak(gpu: Gpu | None, dtype: torch.dtype) -> float:
    """TFLOP/s; NaN for a GPU that is not in the table. float32 without TF32."""
    if gpu is None:
        return math.nan
    per_cycle = gpu.float32_per_cycle if dtype == torch.float32 else gpu.matrix_per_cycle
    return gpu.rate(per_cycle) * 1e-12


@dataclass(frozen=True)
class Limits:
    """Seconds that each resource is busy at least."""

    operations: float
    matrix: float
    exponentials: float
    l2: float
    memory: float

    @property
    def predicted(self) -> float:
        """TFLOP/s with matrix units and exponentials one after the other."""
        seconds = max(self.matrix + self.exponentials, self.l2, self.memory)
        return self.operations / seconds * 1e-12

    @property
    def limit(self) -> float:
        """TFLOP/s with everything at the same time."""
        seconds = max(self.matrix, self.exponentials, self.l2, self.memory)
        return self.operations / seconds * 1e-12

    @property
    def bound(self) -> str:
        """The resource that the limit comes from."""
        busy = {
            "matrix units": self.matrix,
            "exponentials": self.exponentials,
            "second-level cache": self.l2,
            "memory": self.memory,
        }
        return max(busy, key=lambda name: busy[name])


def padded(d: int) -> int:
    """What a row's length becomes in a tile."""
    return next(size for size in (64, 128, 256, 512) if d <= size)


def matrix_seconds(gpu: Gpu, operations: float, dtype: torch.dtype, whole_peak: bool) -> float:
    work = 6 if dtype == torch.float32 else 1
    share = 1.0 if whole_peak else gpu.mma_sync_share
    return work * operations / gpu.rate(gpu.matrix_per_cycle) / share


def rows_of_a_block(d: int, dtype: torch.dtype) -> int:
    return ROWS_OF_A_BLOCK[padded(d) * dtype.itemsize]


def l2_seconds(gpu: Gpu, logits: float, d: int, dtype: torch.dtype) -> float:
    """Every block reads every row of the other side."""
    row = d * dtype.itemsize
    return logits / rows_of_a_block(d, dtype) * row / (L2_BYTES_PER_CYCLE * gpu.ghz * 1e9)


def sweeps(gpu: Gpu, n_users: int, n_items: int, d: int, dtype: torch.dtype) -> int:
    """How often the items come from memory: once, or for every wave of blocks if they do not stay."""
    if n_items * d * dtype.itemsize <= gpu.l2_mib * 2**20:
        return 1
    return math.ceil(n_users / rows_of_a_block(d, dtype) / gpu.multiprocessors)


def loss_limits(
    gpu: Gpu, n_users: int, n_items: int, d: int, dtype: torch.dtype, whole_peak: bool = False
) -> Limits:
    logits = float(n_users) * n_items
    # the first pass sweeps the items for every block of users, the second the users for every block
    # of items, whose gradients are written in float32
    table = n_items * d * dtype.itemsize
    moved = (sweeps(gpu, n_users, n_items, d, dtype) + 1) * table + n_items * d * 4
    return Limits(
        8 * logits * d,
        matrix_seconds(gpu, 8 * logits * padded(d), dtype, whole_peak),
        2 * logits / gpu.rate(SPECIAL_PER_CYCLE),
        2 * l2_seconds(gpu, logits, d, dtype),
        moved / (gpu.memory_tb * 1e12),
    )


def topk_limits(gpu: Gpu, n_users: int, n_items: int, d: int, dtype: torch.dtype) -> Limits:
    logits = float(n_users) * n_items
    moved = sweeps(gpu, n_users, n_items, d, dtype) * n_items * d * dtype.itemsize
    return Limits(
        2 * logits * d,
        matrix_seconds(gpu, 2 * logits * padded(d), dtype, whole_peak=False),
        0.0,
        l2_seconds(gpu, logits, d, dtype),
        moved / (gpu.memory_tb * 1e12),
    )
