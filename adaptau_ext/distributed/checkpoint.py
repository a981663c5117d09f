"""Checkpoints of which every rank writes its part, for any number of ranks to go on from.

`checkpoint/` holds safetensors files, written through torch.distributed.checkpoint, and `state`: a line
of JSON with everything that is no tensor and the files' SHA-256, sealed with its own. Nothing in it is
executed when it is read.
"""

from __future__ import annotations

import json
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

from adaptau_ext import durable
from adaptau_ext.distributed.world import World
from adaptau_ext.errors import ModelError, reading

Sharded = dict[str, tuple[Tensor, int]]  # this rank's rows, and how many all ranks have


def save(folder: Path, tables: Sharded, replicated: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Writes beside, syncs, renames: a crash leaves the checkpoint before, here or where `load` looks.

    Args:
        tables: by name; tensors are those of all ranks together. replicated: the same on every rank.
        state: plain values.
    """
    world, part = World.current(), folder.with_name(folder.name + ".part")
    if world.is_first:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    dist.barrier()
    try:
        writer = HuggingFaceStorageWriter(str(part), save_distributed=True)
        state_dict_saver.save({**_as_global(tables), **replicated}, storage_writer=writer)
        dist.barrier()
        if world.is_first:
            _complete(part, folder, state)
    except BaseException as problem:
        if world.is_first:
            shutil.rmtree(part, ignore_errors=True)
        if isinstance(problem, CheckpointException):  # of any rank, known to all of them
            causes = (failure for failure, _ in problem.failures.values())
            raise next((cause for cause in causes if isinstance(cause, OSError)), problem) from None
        raise
    dist.barrier()


def _complete(part: Path, folder: Path, state: dict[str, Any]) -> None:
    files = sorted(part.iterdir())
    for path in files:
        durable.sync(path)
    sums = {path.name: durable.sha256(path) for path in files}
    line = json.dumps({"sha256": sums, **state}).encode()
    durable.write_sealed(part / "state", lambda file: file.write(line))
    durable.replace_folder(part, folder)


def load(folder: Path, tables: Sharded, replicated: dict[str, Tensor]) -> dict[str, Any] | None:
    """Fills the tensors from what `save` wrote, whatever the number of ranks was; returns `state`.

    Returns None where there is no checkpoint.

    Raises:
        ModelError: if a file is missing, has changed since, or is none of the checkpoint's.
    """
    folder = durable.found(folder)
    if not folder.exists():
        return None
    path = folder / "state"
    way_out = f"put a copy of it back, or remove {folder} to start again from the first epoch"
    nothing = f"{path}: this describes no checkpoint"
    with durable.opened(path, way_out) as file, reading(nothing, way_out):
        state: dict[str, Any] = dict(json.loads(file.readline()))
        sums = dict(state.pop("sha256"))
    # the reader takes every such file of the folder, not only those of which there are sums
    names = {file.name for file in folder.iterdir() if file.suffix == ".safetensors"}
    for name in sorted(names | set(sums)):
        if name not in names or durable.sha256(folder / name) != sums.get(name):  # no ../ is among them
            raise ModelError(f"{folder / name}: missing, or changed since it was written; {way_out}")
    with reading(f"{folder}: a checkpoint of another model or version", way_out):
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
