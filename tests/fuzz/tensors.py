"""Tensors of every kind that an operator may be given, and what may be wrong with one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hypothesis.strategies as st
import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from tests.fuzz.target import refused

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
VALUES = ("normal", "small integers", "large", "tiny", "zero rows", "equal rows", "not finite")
LAYOUTS = ("contiguous", "transposed", "strided", "reversed columns", "offset", "expanded", "negated")

# around the sizes of tiles and vectors, and small
sizes = st.one_of(st.integers(0, 9), st.sampled_from([15, 16, 17, 33, 47, 48, 49, 63, 64, 65, 97, 130]))
seeds = st.integers(0, 2**16)


def mostly(good: Any, bad: list[Any]) -> st.SearchStrategy[Any]:
    """One of the good ones, and once in a while a bad one: two bad options hide each other."""
    good = st.sampled_from(good) if isinstance(good, list) else good
    return st.integers(0, 15).flatmap(lambda n: st.sampled_from(bad) if n == 13 else good)


def matrix(rows: int, d: int, dtype: str, values: str, layout: str, seed: int) -> Tensor:
    """A matrix of the seed; any layout of one holds the same numbers, but for expanded ones."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, d, generator=draw)
    if values == "small integers":
        x = x.round()
    elif values == "large":
        x *= 2.0**12
    elif values == "tiny":
        x *= 2.0**-12
    elif values == "zero rows" and rows:
        x[torch.randint(rows, (1 + rows // 3,), generator=draw)] = 0
    elif values == "equal rows" and rows:
        x[torch.randint(rows, (rows // 2,), generator=draw)] = x[0].clone()
    elif values == "not finite" and x.numel():
        at = torch.randint(x.numel(), (2,), generator=draw)
        x.view(-1)[at] = torch.tensor([torch.nan, [torch.inf, -torch.inf][seed % 2]])
    return laid_out(x.to(DTYPES[dtype]), layout)


def laid_out(x: Tensor, layout: str) -> Tensor:
    if layout == "transposed":
        return x.t().contiguous().t()
    if layout == "strided":
        return torch.stack([x, x + 1], dim=2).flatten(1)[:, ::2] if x.dim() == 2 else x
    if layout == "reversed columns":  # as close to a negative stride as PyTorch comes
        return x.flip(1).contiguous().flip(1)
    if layout == "offset":
        return torch.cat([x.new_ones(1, x.shape[1]), x])[1:]
    if layout == "expanded":
        return x[:1].expand(x.shape[0], -1) if x.shape[0] else x
    if layout == "negated":  # a lazy view: the memory holds the opposite sign
        return torch._neg_view((-x).contiguous())
    return x


def csr(n_rows: int, n_columns: int, density: float, seed: int) -> scipy.sparse.csr_array:
    rng = np.random.default_rng(seed)
    found = scipy.sparse.csr_array(rng.random((n_rows, n_columns)) < density)
    found.sort_indices()
    return found


FAULTS = (
    "meta", "float32", "float64", "float16", "int32", "int64", "bool", "complex64", "uint8", "float8_e5m2",
    "0-d", "1-d", "3-d", "without a row", "a row more", "no rows", "without a column", "no columns",
    "every second", "expanded", "nan", "inf", "-inf", "zero", "minus one", "first past the end", "2^31",
    "2^62", "-2^63", "sparse", "zero tensor", "needs grad",
)  # fmt: skip


def spoilt(x: Tensor, fault: str) -> Tensor:
    """x with something wrong with it, or at least unusual."""
    if x.is_sparse:  # enough is wrong with it
        return x
    if fault == "meta":
        return x.to("meta")
    if isinstance(dtype := getattr(torch, fault, None), torch.dtype):
        return x.to(dtype)
    if fault == "0-d":
        return x.flatten()[0] if x.numel() else x.new_zeros(())
    if fault == "1-d":
        return x.flatten()
    if fault == "3-d":
        return x.reshape(1, *x.shape, *[1] * (2 - x.dim()))
    if fault == "sparse":
        dense_only = x.is_meta or x.dtype == torch.float8_e5m2
        return x if dense_only else x.to_sparse()
    if fault == "zero tensor":  # without memory
        return torch._efficientzerotensor(x.shape, dtype=x.dtype)
    if fault == "needs grad":
        return x.detach().clone().requires_grad_() if x.is_floating_point() else x
    if x.dim() == 0:
        return x
    if fault == "without a row":
        return x[:-1]
    if fault == "a row more":
        return torch.cat([x, x[:1]]) if len(x) else x.new_ones(1, *x.shape[1:])
    if fault == "no rows":
        return x[:0]
    if fault == "without a column":
        return x[..., :-1]
    if fault == "no columns":
        return x[..., :0]
    if fault == "every second":
        return x.repeat_interleave(2, dim=0)[::2]
    if fault == "expanded":
        return x[:1].expand_as(x) if len(x) else x
    numbers = {
        "nan": torch.nan, "inf": torch.inf, "-inf": -torch.inf, "zero": 0, "minus one": -1,
        "first past the end": len(x), "2^31": 2**31, "2^62": 2**62, "-2^63": -(2**63),
    }  # fmt: skip
    number = numbers[fault]
    any_number = x.is_floating_point() or x.is_complex() or x.dtype == torch.bool
    limits = None if any_number else torch.iinfo(x.dtype)
    if not x.numel() or (limits and not limits.min <= number <= limits.max):
        return x
    x = x.clone(memory_format=torch.contiguous_format)
    x.view(-1)[x.numel() // 2] = number
    return x


def faults(*names: str) -> st.SearchStrategy[Any]:
    """Most cases have nothing wrong with them."""
    one = st.tuples(st.sampled_from(names), st.sampled_from(FAULTS)).map(list)
    return st.one_of(st.just([]), st.lists(one, min_size=1, max_size=2))


def spoil(arguments: dict[str, Any], found: list[list[str]]) -> dict[str, Any]:
    """The arguments with these faults; "x.0" is the first of the pair x."""
    arguments = dict(arguments)
    for name, fault in found:
        name, _, place = name.partition(".")
        value = arguments.get(name)
        if isinstance(value, Tensor):
            arguments[name] = spoilt(value, fault)
        elif isinstance(value, tuple) and place:
            parts = list(value)
            parts[int(place)] = spoilt(parts[int(place)], fault)
            arguments[name] = tuple(parts)
    return arguments


def made_whole(arguments: dict[str, Any]) -> dict[str, Any]:
    """With memory for all tensors: PyTorch's indexing crashes on ids without."""
    return {
        name: x.new_zeros(x.shape) if isinstance(x, Tensor) and x._is_zerotensor() else x
        for name, x in arguments.items()
    }


def explained(problem: Exception, names: tuple[str, ...]) -> str:
    """The outcome of a refusal, which must be a documented error that names an argument."""
    assert isinstance(problem, (RuntimeError, TypeError, ValueError)), repr(problem)
    said = str(problem)
    if said.startswith("Could not run 'adaptau::"):  # PyTorch's own: no operator takes sparse tensors
        return "no kernel for sparse tensors"
    if said.startswith("ZeroTensors are immutable"):  # PyTorch's own, too
        return "nothing to write to"
    assert any(re.search(rf"\b{name}\b", said) for name in names), said
    return refused(problem)


@contextmanager
def threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
