"""A catalogue that is searched many times: normalised and quantised once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from adaptau_ext import durable, mapped
from adaptau_ext.arguments import Exclusion, check_devices, optional_csr
from adaptau_ext.errors import ModelError, reading
from adaptau_ext.ops import Normalize

_ops = torch.ops.adaptau
_VERSION = 1
_PANEL = 48  # rows, of the packed bytes
_ROWS_AT_ONCE = 2048 * _PANEL
_PACKED = {"bytes": torch.uint8, "meta": torch.float32, "centre": torch.float32}
_Packed = tuple[Tensor | None, ...]
_NOTHING: _Packed = (None, None, None)


class ItemIndex:
    """Exact top-k over a fixed catalogue: `ItemIndex(i, normalize=...).topk(u, k)` is `topk(u, i, k)`.

    ::

        index = ItemIndex(i, normalize="both")
        for u in batches:
            scores, ids = index.topk(u, k)      # the same bits as topk(u, i, k, normalize="both")

    What `topk` does to the items in every call is done once: unit rows, and the bytes that its scan
    reads (one for each element, a quarter of the size of float32). Worth it for small batches, and
    for catalogues that do not fit the processor's caches.

    With a `folder` all of that lies in files, mapped into memory, which `ItemIndex.open` has again at
    once, in any number of processes that share the pages: for catalogues larger than memory. The items
    themselves may be mapped too, `torch.from_numpy(np.load("items.npy", mmap_mode="c"))`; they are read
    some at a time.

    Args:
        i: `[M, d]` items, float32, bfloat16, float16 or float64. Kept, not copied, unless items are
            normalised or a folder is given; do not change it afterwards.
        normalize: which side is divided by its norm first, as in `topk`.
        folder: a place for the index that does not exist yet. On the CPU alone.

    Attributes:
        rows: `[M, d]`, the items as they are searched.
        normalize: as given.

    Raises:
        RuntimeError: for a wrong dtype, device or shape.
        FileExistsError: if there is something at `folder`.
    """

    rows: Tensor
    normalize: Normalize

    def __init__(
        self, i: Tensor, *, normalize: Normalize = "none", folder: str | os.PathLike[str] | None = None
    ) -> None:
        if normalize not in get_args(Normalize):
            raise RuntimeError(f'normalize must be "both", "user", "item" or "none", got "{normalize}"')
        if i.is_meta:
            raise RuntimeError("i must hold data to be packed, got a tensor on meta")
        i = i.detach()
        unit = normalize in ("both", "item")
        if folder is None:
            rows = _ops.unit_rows(i) if unit else i
            packed = _ops.pack_items(rows)
            self._set(rows, normalize, packed if packed[0].numel() else _NOTHING)
            return
        folder = Path(folder)
        if folder.exists():
            raise FileExistsError(f"{folder} exists: open it with ItemIndex.open, or choose another")
        with durable.folder_beside(folder) as part:
            _write(part, i, unit, normalize)
        self._set(*_read(folder))

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> ItemIndex:
        """The index that was made with this `folder`.

        Raises:
            ModelError: if there is none, or its files are not whole.
        """
        index = cls.__new__(cls)
        index._set(*_read(Path(folder)))
        return index

    def _set(self, rows: Tensor, normalize: Normalize, packed: _Packed) -> None:
        self.rows, self.normalize, self._packed = rows, normalize, packed
        self._normalize_users = "user" if normalize in ("both", "user") else "none"

    def __len__(self) -> int:
        return self.rows.shape[0]

    def __repr__(self) -> str:
        return f"ItemIndex({len(self)} x {self.rows.shape[1]}, {self.rows.dtype})"

    def topk(self, u: Tensor, k: int, *, exclude: Exclusion | None = None) -> tuple[Tensor, Tensor]:
        """The k best items of every user: see `topk`."""
        check_devices(u.device, i=self.rows)
        if self.rows.dtype == torch.float32 and u.dtype in (torch.bfloat16, torch.float16):
            u = u.float()  # the unit rows of such items are float32, and exact
        scores, ids = _ops.topk(
            u.detach(),
            self.rows,
            k,
            *optional_csr(exclude, u.device),
            self._normalize_users,
            *self._packed,
        )
        return scores, ids


def _write(folder: Path, i: Tensor, unit: bool, normalize: Normalize) -> None:
    """Some rows at a time."""
    if i.device.type != "cpu":
        raise RuntimeError(f"an index in files is of items on the CPU, got {i.device}")
    if i.dim() != 2:
        raise RuntimeError(f"i must be [n_items, d], got {list(i.shape)}")
    rows_dtype = _ops.unit_rows(i[:0]).dtype if unit else i.dtype
    rows = mapped.create(folder / "rows.npy", i.shape, rows_dtype)
    for part, out in zip(i.split(_ROWS_AT_ONCE), rows.split(_ROWS_AT_ONCE), strict=True):
        out.copy_(_ops.unit_rows(part) if unit else part)
    # bytes are differences from a centre: any is right, that of a spread of rows makes them finer
    centre = _ops.pack_items(rows[:: max(1, len(rows) // 2048)].contiguous())[2]
    packs = centre.numel() > 0
    if packs:
        panels = -(-len(rows) // _PANEL)
        shapes = ((panels, _PANEL, centre.numel()), (panels, 4), centre.shape)
        bytes_, meta, kept = (
            mapped.create(folder / f"{name}.npy", shape, dtype)
            for shape, (name, dtype) in zip(shapes, _PACKED.items(), strict=True)
        )
        kept.copy_(centre)
        parts = (rows.split(_ROWS_AT_ONCE), *(x.split(_ROWS_AT_ONCE // _PANEL) for x in (bytes_, meta)))
        for part, out_bytes, out_meta in zip(*parts, strict=True):
            found = _ops.pack_items(part, centre)
            out_bytes.copy_(found[0])
            out_meta.copy_(found[1])
    about = {
        "version": _VERSION,
        "shape": list(rows.shape),
        "dtype": str(rows_dtype).removeprefix("torch."),
        "normalize": normalize,
        "packed": packs,
    }
    (folder / "index.json").write_text(json.dumps(about, indent=1) + "\n")


def _read(folder: Path) -> tuple[Tensor, Normalize, _Packed]:
    with reading(f"{folder}: damaged, or written by another version", "make the index again"):
        try:
            about = json.loads((folder / "index.json").read_bytes())
            normalize = about["normalize"]
            rows = mapped.read(folder / "rows.npy", getattr(torch, about["dtype"]))
            whole = about["version"] == _VERSION and list(rows.shape) == about["shape"]
            if not whole or normalize not in get_args(Normalize):
                raise ValueError("index.json says something else")
            packed = _NOTHING
            if about["packed"] and _ops.pack_items(rows[:0])[2].numel():  # this processor scans bytes
                files = ((folder / f"{name}.npy", dtype) for name, dtype in _PACKED.items())
                packed = tuple(mapped.read(path, dtype) for path, dtype in files)
        except FileNotFoundError as error:
            raise ModelError(f"{error.filename}: not found; {folder} is no index of items") from None
    return rows, normalize, packed
