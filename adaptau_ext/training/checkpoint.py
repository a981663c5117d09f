"""What the next epoch depends on, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import torch

from adaptau_ext import durable
from adaptau_ext.errors import reading


def save(state: dict[str, Any], path: Path) -> None:
    """Writes tensors and plain values for `load`; `torch.load` reads it as well.

    A crash, or a disk that is full, leaves the file that was there before.
    """
    durable.write_sealed(path, lambda file: _save(state, file))


def load(path: Path) -> dict[str, Any]:
    """Tensors and plain values only; nothing in the file is executed.

    Raises:
        ModelError: if the file is not as `save` wrote it.
    """
    way_out = "put a copy of it back, or remove it to start again from the first epoch"
    nothing = f"{path}: this is no checkpoint of tensors and plain values"
    with durable.opened(path, way_out) as file, reading(nothing, way_out):
        state = torch.load(file, weights_only=True, map_location="cpu")
        if not isinstance(state, dict):
            raise TypeError(f"a {type(state).__name__}")
    return state


def _save(state: dict[str, Any], file: BinaryIO) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as problem:  # torch.save closes its archive after a failed write, which fails
        if isinstance(problem.__context__, (KeyboardInterrupt, MemoryError, OSError)):
            raise problem.__context__ from None
        raise
