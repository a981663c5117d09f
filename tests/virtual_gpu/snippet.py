"""PTX of a few lines, run by 64 threads: how the tests of the interpreter look at one instruction."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from tests import virtual_gpu

THREADS = 64
HEADER = ".version 9.0\n.target sm_90\n.address_size 64\n"

REGISTERS = {8: "b16", 16: "b16", 32: "b32", 64: "b64"}
Array = np.ndarray
Input = tuple[str, Array]  # of a PTX type

TESTED: set[str] = set()  # opcodes with all their modifiers, by the tests that were imported
_executed: set[str] = set()  # by the test that runs


def opcode_of(instruction: str) -> str:
    """The opcode with its modifiers, of an instruction with or without a guard."""
    return re.sub(r"@\S+\s+", "", instruction).split(maxsplit=1)[0]


def note_executed() -> None:
    """What was executed so far. For tests that `clear`, before they do."""
    _executed.update(opcode_of(line["instruction"]) for line in virtual_gpu.line_counts())


def covers(*opcodes: str) -> Callable[[Callable[..., None]], Any]:
    """A test of these opcodes: it fails unless they were executed.

    All in one test; or, if it has a parameter `opcode`, in a run of the test for each.
    """
    TESTED.update(opcodes)

    def decorate(test: Callable[..., None]) -> Any:
        one_each = "opcode" in inspect.signature(test).parameters

        @functools.wraps(test)
        def checked(*args: Any, **kwargs: Any) -> None:
            _executed.clear()
            test(*args, **kwargs)
            note_executed()
            missing = ({kwargs["opcode"]} if one_each else set(opcodes)) - _executed
            assert not missing, f"never executed: {sorted(missing)}"

        return pytest.mark.parametrize("opcode", opcodes)(checked) if one_each else checked

    return decorate


def bits(type_: str) -> int:
    return int(type_.lstrip("busf"))


def dtype(type_: str) -> np.dtype:
    return np.dtype(f"{ {'f': 'f', 's': 'i'}.get(type_[0], 'u') }{bits(type_) // 8}")


def kernel(parameters: int, body: str, declarations: str = "", name: str = "snippet") -> str:
    """A module of one kernel: its parameters are pointers p0, p1, .. to global memory.

    Registers: addresses %at and %at0 .. %at9, of 32 bits %t (the thread), %u, %v, %w, predicates
    %p, %q, %r.
    """
    pointers = ", ".join(f".param .u64 p{n}" for n in range(parameters))
    return f"""{HEADER}{declarations}
.visible .entry {name}({pointers}) {{
    .reg .b64 %at, %at<10>; .reg .b32 %t, %u, %v, %w; .reg .pred %p, %q, %r;
    mov.u32 %t, %tid.x;
    {body}
    ret;
}}"""


def element(parameter: int, size: int, index: str = "%t") -> str:
    """Puts the address of an element of an array into %at."""
    return f"ld.param.u64 %at, [p{parameter}]; mad.wide.u32 %at, {index}, {size}, %at;"


def run(body: str, result: str, inputs: Sequence[Input] = (), odd_only: bool = False) -> Array:
    """%d of type `result` after `body`, from inputs %a, %b, %c, %e, .. of their types.

    odd_only: odd threads alone run it, and the others keep 0.
    """
    loads = "".join(
        f"""
    .reg .{REGISTERS[bits(type_)]} %{name};
    {element(n, bits(type_) // 8)} ld.global.b{bits(type_)} %{name}, [%at];"""
        for n, (name, (type_, _)) in enumerate(zip("abcefgh", inputs, strict=False), 1)
    )
    skip = "and.b32 %u, %t, 1; setp.eq.u32 %p, %u, 0; @%p bra $skip;" if odd_only else ""
    ptx = kernel(
        1 + len(inputs),
        f""".reg .{REGISTERS[bits(result)]} %d;{loads}
    mov.b{max(bits(result), 16)} %d, 0;
    {skip}
    {body}
$skip:
    {element(0, bits(result) // 8)} st.global.b{bits(result)} [%at], %d;""",
    )
    out = np.zeros(THREADS, dtype(result))
    return launch(ptx, out, *(x for _, x in inputs), block=THREADS)[0]


def launch(
    ptx: str, *arrays: Array, block: int = 32, grid: int = 1, shared: int = 0, name: str = "snippet"
) -> list[Array]:
    """What has become of the arrays, each in an allocation of its own."""
    there = [
        torch.from_numpy(np.ascontiguousarray(x).view(np.uint8).reshape(-1)).to("virtual")
        for x in arrays
    ]
    virtual_gpu.launch(ptx, name, *there, block=(block,), grid=(grid,), shared=shared)
    return [x.cpu().numpy().view(a.dtype) for x, a in zip(there, arrays, strict=True)]


def same(got: Array, want: Array, relative: float = 0) -> Array:
    """Elementwise: the same bits, or NaN of any bits, or within a relative error."""
    if got.dtype.kind != "f":
        return got == want
    both_nan = np.isnan(got) & np.isnan(want)
    with np.errstate(all="ignore"):
        near = np.abs(got - want) <= relative * np.abs(want)
    unsigned = np.dtype(f"u{got.itemsize}")
    return both_nan | (near if relative else got.view(unsigned) == want.view(unsigned))


def expect(
    body: str, result: str, inputs: Sequence[Input], expected: Array, relative: float = 0
) -> None:
    """By all threads, and by odd ones alone."""
    for odd_only in (False, True):
        got = run(body, result, inputs, odd_only)
        want = (
            np.where(np.arange(THREADS) % 2 == 1, expected, np.zeros_like(expected))
            if odd_only
            else expected
        )
        fine = same(got, want.astype(got.dtype), relative)
        where = int(np.argmin(fine))
        values = [x[where] for _, x in inputs]
        assert fine.all(), f"{body} of {values}: got {got[where]}, expected {want[where]}"
