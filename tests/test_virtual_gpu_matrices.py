"""mma.sync and ldmatrix of the interpreter: which lane holds what, as the PTX manual has it, and how sums round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

from tests.virtual_gpu.snippet import Array, covers, kernel, launch

pytestmark = pytest.mark.usefixtures("virtual")

Place = Callable[[int, int, int], tuple[int, int]]  # of groupID, threadID_in_group, i: row, column


@dataclass
class Shape:
    """A shape of mma.sync, in the manual's words: groupID is lane / 4, threadID_in_group lane % 4."""

    k: int
    per_register: int  # elements
    a: Place
    b: Place
    added_at_once: int


# "Matrix Fragments for mma.m16n8k16 with floating point type", .f16 and .bf16
K16 = Shape(
    16, 2,
    lambda group, thread, i: (
        group if 0 <= i < 2 or 4 <= i < 6 else group + 8,
        thread * 2 + (i & 1) if i < 4 else thread * 2 + (i & 1) + 8,
    ),
    lambda group, thread, i: (thread * 2 + (i & 1) if i < 2 else thread * 2 + (i & 1) + 8, group),
    8,
)  # fmt: skip
# "Matrix Fragments for mma.m16n8k8", .tf32
K8 = Shape(
    8, 1,
    lambda group, thread, i: (
        group if i in (0, 2) else group + 8,
        thread if i in (0, 1) else thread + 4,
    ),
    lambda group, thread, i: (thread if i == 0 else thread + 4, group),
    4,
)  # fmt: skip


def accumulator(group: int, thread: int, i: int) -> tuple[int, int]:
    """C and D, of both shapes."""
    return (group if i < 2 else group + 8, thread * 2 + (i & 1))


MMA = {
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32": K16,
    "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32": K16,
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32": K8,
}


def encoded(x: Array, opcode: str) -> Array:
    """As 32-bit words of one element, or 16-bit ones."""
    if "bf16" in opcode:
        return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return (
        x.astype(np.float16).view(np.uint16)
        if "f16" in opcode
        else x.astype(np.float32).view(np.uint32)
    )


def fragments(matrix: Array, place: Place, n: int, per_register: int) -> Array:
    """[32, n / per_register] registers."""
    elements = np.array(
        [[matrix[place(lane // 4, lane % 4, i)] for i in range(n)] for lane in range(32)]
    )
    if per_register == 1:
        return elements.astype(np.uint32)
    return elements[:, ::2].astype(np.uint32) | elements[:, 1::2].astype(np.uint32) << np.uint32(16)


def multiply(opcode: str, a: Array, b: Array, c: Array) -> Array:
    """D, from matrices of encoded A and B and float32 C."""
    shape = MMA[opcode]
    given = np.concatenate(
        [
            fragments(a, shape.a, 16 * shape.k // 32, shape.per_register),
            fragments(b, shape.b, 8 * shape.k // 32, shape.per_register),
            fragments(c.astype(np.float32).view(np.uint32), accumulator, 4, 1),
        ],
        axis=1,
    )
    body = ".reg .b32 %x<10>, %y<4>; ld.param.u64 %at0, [p0]; mad.wide.u32 %at0, %t, 40, %at0;"
    body += "".join(f"ld.global.b32 %x{n}, [%at0+{4 * n}];" for n in range(10))
    body += f"{opcode} {{%y0, %y1, %y2, %y3}}, {{%x0, %x1, %x2, %x3}}, {{%x4, %x5}}, {{%x6, %x7, %x8, %x9}};"
    body += "ld.param.u64 %at1, [p1]; mad.wide.u32 %at1, %t, 16, %at1;"
    body += "".join(f"st.global.b32 [%at1+{4 * n}], %y{n};" for n in range(4))
    out = launch(kernel(2, body), given, np.zeros((32, 4), np.float32))[1].reshape(32, 4)
    d = np.full((16, 8), np.nan, np.float32)
    for lane in range(32):
        for i in range(4):
            d[accumulator(lane // 4, lane % 4, i)] = out[lane, i]
    return d


@covers(*MMA)
def test_fragments(opcode: str) -> None:
    """Products and sums of small integers, which are exact: only places can be wrong."""
    k = MMA[opcode].k
    for seed in range(4):
        rng = np.random.default_rng(seed)
        a, b, c = (rng.integers(-15, 16, shape) for shape in ((16, k), (k, 8), (16, 8)))
        assert (multiply(opcode, encoded(a, opcode), encoded(b, opcode), c) == a @ b + c).all()


@covers(*MMA)
def test_one_element_at_a_time(opcode: str) -> None:
    """Every place of A meets its own of B, and no other."""
    k = MMA[opcode].k
    b = np.arange(1, 8 * k + 1).reshape(k, 8)
    for row, depth in ((0, 0), (3, 1), (8, 0), (15, k - 1), (7, k // 2), (9, k // 2 + 1)):
        a = np.zeros((16, k))
        a[row, depth] = 1
        expected = np.zeros((16, 8))
        expected[row] = b[depth]
        assert (
            multiply(opcode, encoded(a, opcode), encoded(b, opcode), np.zeros((16, 8))) == expected
        ).all()


def cut_off(x: Fraction, unit: Fraction) -> Fraction:
    return int(x / unit) * unit  # int() goes toward zero


def log2_of(x: Fraction) -> int:
    n = 0
    while x >= 2:
        x, n = x / 2, n + 1
    while x < 1:
        x, n = x * 2, n - 1
    return n


def step(products: list[Fraction], total: Fraction) -> Fraction:
    """One addition of the hardware: as the head of operations_mma.cpp describes it."""
    terms = [*products, total]
    largest = max(map(abs, terms))
    if largest == 0:
        return Fraction(0)
    unit = Fraction(2) ** (log2_of(largest) - 24)
    exact = sum(cut_off(x, unit) for x in terms)
    return cut_off(exact, Fraction(2) ** (log2_of(abs(exact)) - 23)) if exact else exact


@covers(*MMA)
def test_sums_are_cut_off(opcode: str) -> None:
    """To the bit, and never further from the exact sum than a unit in the last place for each step."""
    shape = MMA[opcode]
    rng = np.random.default_rng(0)
    mask = {"t": 0xFFFFE000, "b": 0xFFFF0000}.get(
        opcode.split(".")[7][0]
    )  # tf32, bf16: exact in float32
    sizes = 2.0 ** rng.integers(-6, 7, (3, 16, shape.k))

    def rounded(x: Array) -> Array:
        x = x.astype(np.float32)
        return (
            x.astype(np.float16).astype(np.float32)
            if mask is None
            else (x.view(np.uint32) & np.uint32(mask)).view(np.float32)
        )

    a = rounded(rng.standard_normal((16, shape.k)) * sizes[0])
    b = rounded((rng.standard_normal((16, shape.k)) * sizes[1])[:8].T)
    c = (rng.standard_normal((16, 8)) * 2.0 ** rng.integers(-8, 9, (16, 8))).astype(np.float32)
    d = multiply(opcode, encoded(a, opcode), encoded(b, opcode), c)
    for row in range(16):
        for column in range(8):
            products = [
                Fraction(float(x)) * Fraction(float(y))
                for x, y in zip(a[row], b[:, column], strict=True)
            ]
            total = Fraction(float(c[row, column]))
            for first in range(0, shape.k, shape.added_at_once):
                total = step(products[first : first + shape.added_at_once], total)
            assert Fraction(float(d[row, column])) == total


def test_tf32_ignores_the_low_bits() -> None:
    opcode = "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
    rng = np.random.default_rng(0)
    a, b = (
        rng.standard_normal(shape).astype(np.float32).view(np.uint32) for shape in ((16, 8), (8, 8))
    )
    c = np.zeros((16, 8))
    low = np.uint32(0x1FFF)
    assert (multiply(opcode, a | low, b | low, c) == multiply(opcode, a & ~low, b & ~low, c)).all()
    assert not (multiply(opcode, a + low + np.uint32(1), b, c) == multiply(opcode, a, b, c)).all()


@covers(*MMA)
def test_numbers_without_limits(opcode: str) -> None:
    """They are in their rows and columns, and change nothing elsewhere."""
    k = MMA[opcode].k
    rng = np.random.default_rng(0)
    a, b, c = (rng.standard_normal(shape).astype(np.float32) for shape in ((16, k), (k, 8), (16, 8)))
    plain = multiply(opcode, encoded(a, opcode), encoded(b, opcode), c)
    b[1, 3], b[2, 5], c[4, 6], c[5, 7] = np.inf, np.nan, -np.inf, np.nan
    a[:, 1] = np.abs(a[:, 1]) + 1
    a[9, 1] *= -1
    got = multiply(opcode, encoded(a, opcode), encoded(b, opcode), c)
    assert (got[:, 3] == np.where(np.arange(16) == 9, -np.inf, np.inf)).all()
    assert np.isnan(got[:, 5]).all() and got[4, 6] == -np.inf and np.isnan(got[5, 7])
    b[1, 3], b[2, 5], c[4, 6], c[5, 7] = 1, 1, 1, 1
    same_a = multiply(opcode, encoded(a, opcode), encoded(b, opcode), c)
    elsewhere = np.ones((16, 8), bool)
    elsewhere[:, [3, 5]] = elsewhere[4, 6] = elsewhere[5, 7] = False
    assert (got[elsewhere] == same_a[elsewhere]).all() and np.isfinite(plain).all()


LDMATRIX = [
    f"ldmatrix.sync.aligned.m8n8.x{n}{trans}.shared.b16" for n in (1, 2, 4) for trans in ("", ".trans")
]


@covers(*LDMATRIX)
def test_ldmatrix(opcode: str) -> None:
    """Rows wherever lanes 0-7 (x1), 0-15 (x2) or 0-31 (x4) say; lane T holds elements 2 (T % 4) and the
    next of row T / 4, or when transposed of column T / 4. Addresses of other lanes mean nothing."""
    n = int(opcode.split(".")[4][1])
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 1 << 16, (40, 8), dtype=np.uint16)  # of shared memory, 16 bytes each
    at = rng.permutation(40)[:32].astype(np.uint32) * 16
    at[8 * n :] = 0xFFFFFFF1
    results = "{" + ", ".join(f"%x{k}" for k in range(n)) + "}"
    body = """.shared .align 16 .b8 room[640]; .reg .b32 %x<4>, %base; mov.u32 %base, room;
    ld.param.u64 %at0, [p0]; mad.wide.u32 %at0, %t, 20, %at0; mad.lo.u32 %u, %t, 20, %base;"""
    body += "".join(
        f"ld.global.b32 %v, [%at0+{4 * k}]; st.shared.b32 [%u+{4 * k}], %v;" for k in range(5)
    )
    body += f"""bar.sync 0; ld.param.u64 %at1, [p1]; mad.wide.u32 %at1, %t, 4, %at1; ld.global.b32 %u, [%at1];
    add.u32 %u, %u, %base; {opcode} {results}, [%u]; ld.param.u64 %at2, [p2]; mad.wide.u32 %at2, %t, {4 * n}, %at2;"""
    body += "".join(f"st.global.b32 [%at2+{4 * k}], %x{k};" for k in range(n))
    out = launch(kernel(3, body), rows, at, np.zeros((32, n), np.uint32))[2].reshape(32, n)
    for lane in range(32):
        for k in range(n):
            matrix = rows[at[8 * k : 8 * k + 8] // 16]
            first, second = (lane // 4, lane % 4 * 2), (lane // 4, lane % 4 * 2 + 1)
            if "trans" in opcode:
                first, second = first[::-1], second[::-1]
            assert out[lane, k] == int(matrix[first]) | int(matrix[second]) << 16
