"""A catalogue that is searched many times: normalised and quantised once."""

from __future__ import annotations

import torch
from torch import Tensor

from adaptau_ext.arguments import Exclusion, check_devices, optional_csr
from adaptau_ext.ops import Normalize

_ops = torch.ops.adaptau


class ItemIndex:
    """Exact top-k over a fixed catalogue: `ItemIndex(i, normalize).topk(u, k)` is `topk(u, i, k)`.

    ::

        index = ItemIndex(i, normalize="both")
        for u in batches:
            scores, ids = index.topk(u, k)      # the same bits as topk(u, i, k, normalize="both")

    What `topk` does to the items in every call is done once: unit rows, and the bytes that its scan
    reads (one for each element, a quarter of the size of float32). Worth it for small batches, and
    for catalogues that do not fit the processor's caches.

    Args:
        i: `[M, d]` items, float32, bfloat16, float16 or float64. Kept, not copied, unless items are
            normalised; do not change it afterwards.
        normalize: which side is divided by its norm first, as in `topk`.

    Raises:
        RuntimeError: for a wrong dtype, device or shape.
    """

    def __init__(self, i: Tensor, *, normalize: Normalize = "none") -> None:
        if normalize not in ("both", "user", "item", "none"):
            raise RuntimeError(f'normalize must be "both", "user", "item" or "none", got "{normalize}"')
        if i.is_meta:
            raise RuntimeError("i must hold data to be packed, got a tensor on meta")
        i = i.detach()
        self.rows = _ops.unit_rows(i) if normalize in ("both", "item") else i
        self._normalize_users = "user" if normalize in ("both", "user") else "none"
        packed = _ops.pack_items(self.rows)
        self._packed: tuple[Tensor | None, ...] = packed if packed[0].numel() else (None, None, None)

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
