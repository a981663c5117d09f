"""The devices that the operators' tests run on, and every way of running on each.

"virtual" is the virtual GPU: PTX executed on the CPU (tests/virtual_gpu). There every call runs four
times, for two PTX targets in two orders of blocks and warps each, and the checks must find nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tests import virtual_gpu
from tests.virtual_gpu import build

ORDERS = list(zip(build.TARGETS * 2, (1, 2, 3, 4), strict=True))  # PTX target, seed: all of them differ
VIRTUAL = pytest.param(
    "virtual",
    marks=pytest.mark.skipif(build.find_nvcc() is None, reason="no nvcc: pip install '.[virtual-gpu]'"),
)
GPUS = [VIRTUAL, *(["cuda"] if torch.cuda.is_available() else [])]
DEVICES = ["cpu", *GPUS]


def runs(device: str) -> Iterator[None]:
    """Once for every way of running on the device; the body of the loop calls the operators."""
    if device != "virtual":
        yield
        return
    for target, seed in ORDERS:
        virtual_gpu.clear()
        with virtual_gpu.running(target=target, seed=seed):
            yield
        found = virtual_gpu.findings()
        assert not found, f"compute_{target}, seed {seed}: {found[:3]}"


@dataclass
class Roundoff:
    """Relative errors of one operation: sums and exponentials, factors of scores, weights."""

    sums: float
    factors: float
    weights: float


def roundoff(device: str, dtype: torch.dtype, precision: str = "float32") -> Roundoff:
    """What products of tiles cost on the device, for embeddings of the dtype.

    On a GPU float32 factors are sums of two of 11 bits each, whose smallest product is left out;
    16-bit factors are exact; and tensor cores cut sums off instead of rounding them (2^-23 a step).
    Weights become 16-bit numbers, or 11-bit ones in "tf32".
    """
    if device == "cpu":
        unit = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps / 2
        return Roundoff(unit, unit, unit)
    if dtype == torch.bfloat16:
        return Roundoff(2.0**-23, 2.0**-23, 2.0**-8)
    if dtype == torch.float16:
        return Roundoff(2.0**-23, 2.0**-23, 2.0**-10)
    if precision == "float32":
        return Roundoff(2.0**-23, 2.0**-21, 2.0**-21)
    return Roundoff(2.0**-23, 2.0**-11, 2.0**-10)


def to_device(value: object, device: str) -> object:
    return value.to(device) if isinstance(value, Tensor) else value
