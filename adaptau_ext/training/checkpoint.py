"""Files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from adaptau_ext.errors import reading


def write(path: Path, content: Callable[[BinaryIO], object]) -> None:
    """Writes beside, syncs, renames: a crash leaves the file that was there before."""
    beside = path.with_name(path.name + ".part")
    with beside.open("wb") as file:
        content(file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def write_text(path: Path, text: str) -> None:
    """As `write`."""
    write(path, lambda file: file.write(text.encode()))


def save(state: dict[str, Any], path: Path) -> None:
    """As `write`; for `load`."""
    write(path, lambda file: torch.save(state, file))


def load(path: Path) -> dict[str, Any]:
    """Tensors and plain values only; nothing in the file is executed.

    Raises:
        ModelError: if `save` has not written it so.
    """
    with reading(f"{path}: the checkpoint is damaged", "remove it to start again"):
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return state
