"""Tensors in .npy files that are mapped into memory: pages are read when they are touched, and dropped
when memory is short."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_AS = {torch.bfloat16: torch.int16}  # for NumPy, which does not know it


def create(path: Path, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Zeros; what is written to the tensor goes to the file."""
    array = torch.empty(0, dtype=_AS.get(dtype, dtype)).numpy()
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=array.dtype, shape=tuple(shape))
    return torch.from_numpy(mapped).view(dtype)


def read(path: Path, dtype: torch.dtype) -> Tensor:
    """What `create` left; what is written to the tensor does not go to the file.

    Raises:
        OSError: where there is none. ValueError: if it is another, or cut short.
    """
    tensor = torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    if tensor.dtype != _AS.get(dtype, dtype):
        raise ValueError(f"{path}: {tensor.dtype}, not {dtype}")
    return tensor.view(dtype)
