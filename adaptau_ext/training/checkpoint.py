"""Checkpoints that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


def save(state: dict[str, Any], path: Path) -> None:
    """Writes beside, syncs, renames: a crash leaves the checkpoint before."""
    beside = path.with_name(path.name + ".part")
    with beside.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def load(path: Path) -> dict[str, Any]:
    """Tensors and plain values only; nothing in the file is executed."""
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return state
