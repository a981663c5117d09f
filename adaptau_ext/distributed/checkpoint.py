"""Checkpoints of which every rank writes its part, for any number of ranks to go on from.

`checkpoint/` holds safetensors files, written through torch.distributed.checkpoint, and `state.json`
with everything that is no tensor and the files' SHA-256. Nothing in it is executed when it is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from adaptau_ext.distributed.world import World
from adaptau_ext.errors import ModelError, reading

Sharded = dict[str, tuple[Tensor, int]]  # this rank's rows, and how many all ranks have


def save(folder: Path, tables: Sharded, replicated: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Writes beside, syncs, renames: a crash leaves the checkpoint before, here or in `.old`.

    Args:
        tables: by name; tensors are those of all ranks together. replicated: the same on every rank.
        state: plain values.
    """
    world, beside = World.current(), folder.with_name(folder.name + ".part")
    if world.is_first:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
    dist.barrier()
    writer = HuggingFaceStorageWriter(str(beside), save_distributed=True)
    state_dict_saver.save({**_as_global(tables), **replicated}, storage_writer=writer)
    dist.barrier()
    if world.is_first:
        sums = {path.name: _synced_sum(path) for path in sorted(beside.iterdir())}
        with (beside / "state.json").open("w") as file:
            json.dump({"sha256": sums, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        old = folder.with_name(folder.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        beside.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    dist.barrier()


def load(folder: Path, tables: Sharded, replicated: dict[str, Tensor]) -> dict[str, Any] | None:
    """Fills the tensors from what `save` wrote, whatever the number of ranks was; returns `state`.

    Returns None where there is no checkpoint.

    Raises:
        ModelError: if a file is missing or has changed since, or is of other tensors.
    """
    way_out = f"remove {folder} to start again"
    old = folder.with_name(folder.name + ".old")
    if not folder.exists() and old.exists():
        folder = old
    path = folder / "state.json"
    if not path.exists():
        return None
    with reading(f"{path}: the checkpoint is damaged", way_out):
        state: dict[str, Any] = dict(json.loads(path.read_text()))
        sums = dict(state.pop("sha256"))
    for name, digest in sums.items():
        part = folder / name
        if not part.is_file() or _sum(part) != digest:
            raise ModelError(f"{part}: missing or changed since it was written; {way_out}")
    with reading(f"{folder}: the checkpoint is damaged, or of another model", way_out):
        _fill({**_as_global(tables), **replicated}, folder)
    return state


def _fill(tensors: dict[str, Any], folder: Path) -> None:
    try:
        state_dict_loader.load(tensors, storage_reader=HuggingFaceStorageReader(str(folder)))
    except CheckpointException as problem:  # a BaseException, with the tracebacks of all ranks
        failures = {repr(error) for error, _ in problem.failures.values()}
        raise RuntimeError("; ".join(sorted(failures))) from None


def _as_global(tables: Sharded) -> dict[str, Tensor]:
    world = World.current()
    device = next(iter(tables.values()))[0].device.type
    mesh = init_device_mesh(device, (world.size,))
    return {
        name: DTensor.from_local(
            rows.detach(),
            mesh,
            [Shard(0)],
            run_check=False,
            shape=torch.Size((n_rows, *rows.shape[1:])),
            stride=rows.stride(),
        )
        for name, (rows, n_rows) in tables.items()
    }


def _sum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _synced_sum(path: Path) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return _sum(path)
