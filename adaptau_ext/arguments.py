"""Arguments in the forms that users have them, brought to the one form that the operators take."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

if TYPE_CHECKING:  # whoever has such a matrix has imported it
    import scipy.sparse

Temperature: TypeAlias = float | Tensor
Exclusion: TypeAlias = (
    "tuple[Tensor | np.ndarray, Tensor | np.ndarray] | scipy.sparse.csr_matrix | scipy.sparse.csr_array"
)


def compute_dtype(x: Tensor) -> torch.dtype:
    """float64 computes in float64, everything else in float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def n_rows_of(name: str, x: Tensor, form: str) -> int:
    """The first size, of a tensor that has one; the operators check the others."""
    if x.dim() == 0:
        raise RuntimeError(f"{name} must have shape {form}, got []")
    return x.shape[0]


def as_real(name: str, x: Tensor, u: Tensor) -> Tensor:
    """x in the compute dtype of u."""
    if x.is_complex():
        raise RuntimeError(f"{name} must be real, got {x.dtype}; take its .real")
    if x.layout != torch.strided:
        raise RuntimeError(f"{name} must be dense, got {x.layout}; call .to_dense()")
    return x.to(compute_dtype(u))


def row_temperature(tau: Temperature, u: Tensor, n_rows: int, name: str = "tau") -> Tensor:
    """A float, a scalar tensor or one value a row -> `[n_rows]` in the compute dtype."""
    if not isinstance(tau, Tensor):
        return torch.full((n_rows,), float(tau), dtype=compute_dtype(u), device=u.device)
    tau = as_real(name, tau, u)
    return (tau.expand(n_rows) if tau.dim() == 0 else tau).contiguous()


def check_devices(device: torch.device, **others: Tensor | None) -> None:
    """The dispatcher picks a kernel before the kernel can object, so mixed devices are caught here."""
    for name, tensor in others.items():
        if tensor is not None and tensor.device != device:
            raise RuntimeError(
                f"{name} must be on {device} like the embeddings, got {tensor.device}; "
                f'move it with .to("{device}")'
            )


def refuse_tangents(*tensors: Tensor | None) -> None:
    """PyTorch takes an operator without a forward-mode derivative for one whose derivative is zero."""
    if forward_ad._current_level < 0:
        return
    for x in tensors:
        if x is not None and forward_ad.unpack_dual(x).tangent is not None:
            raise NotImplementedError(
                "derivatives of this operator are of reverse mode; for forward mode use its twin in "
                "adaptau_ext.reference"
            )


def as_ids(x: Tensor | None) -> Tensor | None:
    """Ids one after the other, as the operators read them."""
    return x if x is None or x.layout != torch.strided else x.contiguous()


def csr_pair(csr: Exclusion, device: torch.device, name: str = "exclude") -> tuple[Tensor, Tensor]:
    """A pair (indptr, indices), of tensors or arrays, or a SciPy CSR -> two int64 tensors."""
    if _is_sparse(csr):
        matrix: Any = csr
        if matrix.format != "csr":
            raise TypeError(
                f"{name} must be in CSR format, got a SciPy {matrix.format} matrix; call .tocsr()"
            )
        csr = (matrix.indptr, matrix.indices)
    if not isinstance(csr, tuple) or len(csr) != 2:
        raise TypeError(
            f"{name} must be a pair (indptr, indices) or a SciPy CSR matrix, got {type(csr).__name__}"
        )
    indptr, indices = (
        _integers(f"{name} {what}", torch.as_tensor(part), device)
        for what, part in zip(("indptr", "indices"), csr, strict=True)
    )
    return indptr, indices


def _integers(name: str, x: Tensor, device: torch.device) -> Tensor:
    integers = not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)
    if x.numel() and not integers:  # an empty NumPy array is float64
        raise TypeError(f"{name} must hold integers, got {x.dtype}; nothing is rounded to ids")
    if x.is_sparse or (x.is_meta and device.type != "meta"):
        raise TypeError(f"{name} must be a dense tensor or array, got one that is sparse or on meta")
    return x.to(device, torch.int64).contiguous()


def _is_sparse(x: Any) -> bool:
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and sparse.issparse(x)


def optional_csr(csr: Exclusion | None, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """The same, and (None, None) for None."""
    return (None, None) if csr is None else csr_pair(csr, device)


def split_normalize(normalize: str) -> tuple[bool, bool]:
    """(users normalised, items normalised) of "both", "user", "item" or "none"."""
    return normalize in ("both", "user"), normalize in ("both", "item")
