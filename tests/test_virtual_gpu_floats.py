"""Floating-point instructions of the interpreter (tests/virtual_gpu/interpreter) against NumPy and fractions."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from tests import virtual_gpu
from tests.virtual_gpu.snippet import THREADS, Array, Input, bits, covers, dtype, expect, run

pytestmark = [
    pytest.mark.usefixtures("virtual"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # of NumPy: invalid, overflow, ..
]

SPECIAL = (0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, 1e-40, -1e-40, 3e38, -3e38)
FLOATS = ("f32", "f64")


def values(type_: str = "f32", seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(THREADS) * 10.0 ** rng.integers(-8, 8, THREADS)
    x[: len(SPECIAL)] = SPECIAL
    return x[rng.permutation(THREADS)].astype(dtype(type_))


def flushed(x: Array) -> Array:
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), x), x)


def nearest(x: Fraction, kind: Any) -> Any:
    """The number of the type that is nearest, of two the even one: what rounding once gives."""
    below = kind(float(x))  # of a double; what is a little off is put right below
    while Fraction(float(below)) > x:
        below = np.nextafter(below, kind(-np.inf))
    while Fraction(float(np.nextafter(below, kind(np.inf)))) <= x:
        below = np.nextafter(below, kind(np.inf))
    if Fraction(float(below)) == x:
        return below
    above = np.nextafter(below, kind(np.inf))
    low, high = x - Fraction(float(below)), Fraction(float(above)) - x
    even = below.view(f"u{below.itemsize}") % 2 == 0
    return below if low < high or (low == high and even) else above


BINARY = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}


@covers(
    *(f"{n}{rn}.{t}" for n in ("add", "sub", "mul") for rn in ("", ".rn") for t in FLOATS),
    *(f"div.rn.{t}" for t in FLOATS),
)
def test_arithmetic(opcode: str) -> None:
    """Infinities, NaN, signs of zeros and subnormal numbers among them."""
    name, type_ = opcode.split(".")[0], opcode.split(".")[-1]
    a, b = [(type_, values(type_, n)) for n in (1, 2)]
    a[1][:2], b[1][:2] = (0.0, -0.0), (-0.0, -0.0)
    expect(f"{opcode} %d, %a, %b;", type_, [a, b], BINARY[name](a[1], b[1]))


EXACT: dict[str, Callable[[Fraction, Fraction, Fraction], Fraction]] = {
    "add": lambda x, y, z: x + y,
    "sub": lambda x, y, z: x - y,
    "mul": lambda x, y, z: x * y,
    "div.rn": lambda x, y, z: x / y,
    "fma.rn": lambda x, y, z: x * y + z,
    "rcp.rn": lambda x, y, z: 1 / x,
}


@covers(*(f"{name}.{type_}" for name in EXACT for type_ in FLOATS))
def test_rounding(opcode: str) -> None:
    """Once, to the nearest, ties to even."""
    name, type_ = opcode.rsplit(".", 1)
    rng = np.random.default_rng(0)
    kind = dtype(type_).type
    a, b, c = [(type_, rng.standard_normal(THREADS).astype(kind)) for _ in range(3)]
    c[1][::2] = -(a[1] * b[1])[::2]  # what is left is what rounding took
    a[1][1::8], b[1][1::8] = 1, np.ldexp(kind(1), -24 if type_ == "f32" else -53)  # a tie
    a[1][3::8], b[1][3::8] = 1 + np.finfo(kind).eps, b[1][1]  # another, to the other side
    triples = zip(*([Fraction(float(x)) for x in v[1]] for v in (a, b, c)), strict=True)
    expected = np.array([nearest(EXACT[name](*given), kind) for given in triples])
    operands = {"fma.rn": "%a, %b, %c", "rcp.rn": "%a"}.get(name, "%a, %b")
    expect(f"{opcode} %d, {operands};", type_, [a, b, c], expected + kind(0))


@covers("sqrt.rn.f32", "sqrt.rn.f64", "rcp.rn.f32", "rcp.rn.f64")
def test_roots_and_reciprocals(opcode: str) -> None:
    type_ = opcode.split(".")[-1]
    a = (type_, values(type_))
    function = np.sqrt if opcode.startswith("sqrt") else np.reciprocal
    expect(f"{opcode} %d, %a;", type_, [a], function(a[1]))


@covers(*(f"{name}.{type_}" for name in ("abs", "neg") for type_ in FLOATS))
def test_signs(opcode: str) -> None:
    name, type_ = opcode.split(".")
    a = (type_, values(type_))
    expect(f"{opcode} %d, %a;", type_, [a], np.abs(a[1]) if name == "abs" else -a[1])


@covers(*(f"{name}.{type_}" for name in ("min", "max") for type_ in FLOATS))
def test_extremes(opcode: str) -> None:
    """Of a number and NaN, the number; and +0 is more than -0."""
    name, type_ = opcode.split(".")
    a, b = [(type_, values(type_, n)) for n in (1, 2)]
    x, y = a[1], b[1]
    x[:4], y[:4] = (0.0, -0.0, 0.0, -0.0), (-0.0, 0.0, 0.0, -0.0)
    x[4:6], y[4:6] = (np.nan, 5), (np.nan, np.nan)
    first = (x < y) | ((x == y) & np.signbit(x))  # is less
    if name == "max":
        first = ~first
    chosen = np.where(np.isnan(x), y, np.where(np.isnan(y), x, np.where(first, x, y)))
    expect(f"{opcode} %d, %a, %b;", type_, [a, b], chosen)


ORDERED = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
    "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip


@covers(
    *(f"setp.{n}.{t}" for n in (*ORDERED, *(f"{o}u" for o in ORDERED), "num", "nan") for t in FLOATS)
)
def test_comparisons(opcode: str) -> None:
    """Of NaN none holds, or all of those that end in u."""
    _, name, type_ = opcode.split(".")
    a, b = [(type_, values(type_, n)) for n in (1, 2)]
    b[1][::3] = a[1][::3]
    unordered = np.isnan(a[1]) | np.isnan(b[1])
    if name in ("num", "nan"):
        holds = unordered if name == "nan" else ~unordered
    else:
        plain = ORDERED[name.removesuffix("u")](a[1], b[1])
        holds = plain | unordered if name.endswith("u") else plain & ~unordered
    for predicate, which in (("%q", holds), ("!%q", ~holds)):
        body = f"{opcode} %q, %a, %b; selp.u32 %d, 1, 0, {predicate};"
        expect(body, "u32", [a, b], which.astype(np.uint32))


def ex2(x: Array) -> Array:
    return flushed(np.exp2(flushed(x).astype(np.float64)).astype(np.float32)).astype(np.float64)


# largest errors by the PTX manual: relative, but that of lg2 is absolute between 1/2 and 2
FUNCTIONS: dict[str, tuple[Callable[[Array], Array], float]] = {
    "ex2.approx.ftz.f32": (ex2, 2.0**-22),
    "rsqrt.approx.f32": (lambda x: 1 / np.sqrt(x.astype(np.float64)), 2.0**-22.9),
    "lg2.approx.f32": (lambda x: np.log2(x.astype(np.float64)), 2.0**-22),
}


@pytest.mark.parametrize("rough", [False, True])
@covers(*FUNCTIONS)
def test_approximate_functions(opcode: str, rough: bool) -> None:
    """Within the manual's errors, and not much better when they are to be rough."""
    function, error = FUNCTIONS[opcode]
    x = np.concatenate([np.linspace(0.03, 2.4, 40), np.linspace(-150, 130, 12), SPECIAL]).astype(
        np.float32
    )
    expected = function(x)
    with virtual_gpu.running(rough_functions=rough):
        got = run(f"{opcode} %d, %a;", "f32", [("f32", x)])
    wide = got.astype(np.float64)
    special = ~np.isfinite(expected) | (expected == 0)
    equal = (got == expected) | (np.isnan(got) & np.isnan(expected))
    equal &= (expected != 0) | (np.signbit(got) == np.signbit(expected))
    scale = np.abs(expected)
    if opcode.startswith("lg2"):
        scale = np.where((x > 0.5) & (x < 2), 1, scale)
    scale = np.maximum(scale, 2.0**-126)
    limit = error if rough else 2.0**-24
    fine = np.where(special, equal, np.abs(wide - expected) <= limit * scale)
    assert fine.all(), (x[~fine], got[~fine], expected[~fine])
    off = np.abs(wide / expected - 1)[~special]
    assert not rough or off.max() > error / 4


@covers("rcp.approx.ftz.f64")
def test_start_of_a_division() -> None:
    """The upper half of the reciprocal, within 2^-20; subnormal numbers are zeros, before and after."""
    x = values("f64")
    x[:8] = 5e-324, -1e-310, 2.0**1023, -(2.0**1023), 2.0**1022, np.finfo(np.float64).tiny, -0.0, np.inf
    got = run("rcp.approx.ftz.f64 %d, %a;", "f64", [("f64", x)])
    assert (got.view(np.uint64) & 0xFFFFFFFF == 0).all()
    assert got[:4].tolist() == [np.inf, -np.inf, 0, 0]
    assert np.signbit(got[:4]).tolist() == [False, True, False, True]
    expected = 1 / x
    special = ~np.isfinite(expected) | (expected == 0)
    equal = (got == expected) | (np.isnan(got) & np.isnan(expected))
    special[:4] = equal[:4] = True
    assert np.where(special, equal, np.abs(got * x - 1) <= 2.0**-20).all()


def as_float(x: Array, type_: str) -> Array:
    """Of 16 bits, by what the formats are: sign, exponent, fraction."""
    fraction_bits = 10 if type_ == "f16" else 7
    bias = 15 if type_ == "f16" else 127
    sign = np.where(x >> 15, -1.0, 1.0)
    exponent = (x.astype(np.int64) & 0x7FFF) >> fraction_bits
    fraction = (x.astype(np.int64) & ((1 << fraction_bits) - 1)) / (1 << fraction_bits)
    normal = np.ldexp(1 + fraction, exponent - bias)
    subnormal = np.ldexp(fraction, 1 - bias)
    top = exponent == 2 * bias + 1
    magnitude = np.where(top, np.where(fraction, np.nan, np.inf), np.where(exponent, normal, subnormal))
    return (sign * magnitude).astype(np.float32)


def as_bits(x: Array, type_: str) -> Array:
    """The nearest of all 16-bit numbers, of two the even one. NaN is 0x7fff."""
    patterns = np.arange(0x8000, dtype=np.uint16)
    known = as_float(patterns, type_).astype(np.float64)
    finite = np.isfinite(known)
    known, patterns = known[finite], patterns[finite]
    step = known[-1] - known[-2]
    known = np.append(known, known[-1] + step)  # infinity, as if numbers went on
    magnitude = np.minimum(np.abs(x.astype(np.float64)), known[-1])
    above = np.clip(np.searchsorted(known, magnitude), 1, len(known) - 1)
    middle = (known[above - 1] + known[above]) / 2
    up = (magnitude > middle) | ((magnitude == middle) & (above % 2 == 0))
    result = np.where(up, above, above - 1) | np.signbit(x) << 15
    return np.where(np.isnan(x), 0x7FFF, result).astype(np.uint16)


HALVES = ("f16", "bf16")


@covers("cvt.f32.f16", "cvt.f32.bf16")
def test_conversions_from_halves(opcode: str) -> None:
    type_ = opcode.split(".")[2]
    x = np.arange(0, 1 << 16, 61, dtype=np.uint16)
    for first in range(0, len(x), THREADS):
        some = np.resize(x[first : first + THREADS], THREADS)
        expect(f"{opcode} %d, %a;", "f32", [("b16", some)], as_float(some, type_))


def hard_for(type_: str) -> list[Array]:
    """float32 numbers: of all sizes, next to and at the middle between two of 16 bits, special ones."""
    rng = np.random.default_rng(0)
    ties = as_float(rng.integers(0, 0x7C00, THREADS).astype(np.uint16), type_).astype(np.float64)
    after = as_float(as_bits(ties, type_) + np.uint16(1), type_)
    middle = ((ties + after) / 2).astype(np.float32)
    middle = np.where(np.isfinite(middle), middle, 1).astype(np.float32)
    sizes = [
        (rng.standard_normal(THREADS) * s).astype(np.float32) for s in (1, 1e-6, 3e-8, 7e4, 1e38, 1e-39)
    ]
    edges = np.resize(
        np.float32([65504, 65519.996, 65520, 3.3895314e38, 3.396e38, 2.0**-25, 3e-8]), THREADS
    )
    near = [np.nextafter(middle, np.float32(s)) for s in (-np.inf, np.inf)]
    return [*sizes, values(), edges, -edges, middle, -middle, *near]


@covers("cvt.rn.f16.f32", "cvt.rn.bf16.f32")
def test_conversions_to_halves(opcode: str) -> None:
    type_ = opcode.split(".")[2]
    for x in hard_for(type_):
        expect(f"{opcode} %d, %a;", "b16", [("f32", x)], as_bits(x, type_))


@covers("cvt.rn.f16x2.f32", "cvt.rn.bf16x2.f32")
def test_conversions_to_two_halves(opcode: str) -> None:
    """The first operand is the upper half."""
    type_ = opcode.split(".")[2].removesuffix("x2")
    for x in hard_for(type_):
        y = x[::-1].copy()
        both = as_bits(x, type_).astype(np.uint32) << np.uint32(16) | as_bits(y, type_)
        expect(f"{opcode} %d, %a, %b;", "b32", [("f32", x), ("f32", y)], both)


INTEGERS = ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64")
WHOLE = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


@covers(*(f"cvt.{mode}.{to}.{source}" for mode in WHOLE for to in INTEGERS for source in FLOATS))
def test_conversions_to_integers(opcode: str) -> None:
    """Beyond the range its ends; NaN is 0, but the top bit alone from or to 64 bits."""
    _, mode, to, source = opcode.split(".")
    x = values(source)
    x[10:30] = np.arange(20) / 4 - 2.5
    x[30:36] = 2.0**31, -(2.0**31), 2.0**63, -(2.0**63), 2.0**32, 2.0**15
    low, high = int(np.iinfo(dtype(to)).min), int(np.iinfo(dtype(to)).max)
    expected = []
    for v in WHOLE[mode](x.astype(np.float64)):
        if np.isnan(v):
            top = (low if to[0] == "s" else high // 2 + 1) if "64" in to + source else 0
            expected.append(top)
        else:
            expected.append(min(max(int(v), low), high) if np.isfinite(v) else high if v > 0 else low)
    register = to if bits(to) > 8 else f"{to[0]}16"
    expect(f"{opcode} %d, %a;", register, [(source, x)], np.array(expected, dtype(register)))


@covers(*(f"cvt.rn.{to}.{source}" for to in FLOATS for source in INTEGERS))
def test_conversions_from_integers(opcode: str) -> None:
    _, _, to, source = opcode.split(".")
    info = np.iinfo(dtype(source))
    x = np.random.default_rng(0).integers(info.min, info.max, THREADS, dtype(source), endpoint=True)
    if bits(source) >= 32:
        x[:4] = (1 << 24) + np.arange(4)  # ties of float32
    if bits(source) == 64:
        x[4:8] = (1 << 53) + np.arange(4)  # of double
        x[8] = (1 << 60) + (1 << 36) + 1  # just beyond one of float32: a double would make it one
    expected = np.array([nearest(Fraction(int(v)), dtype(to).type) for v in x])
    expect(f"{opcode} %d, %a;", to, [(source, x)], expected)


@covers("cvt.f64.f32", "cvt.rn.f32.f64")
def test_conversions_between_floats() -> None:
    x, y = values("f32"), values("f64")
    y[::5] = 1 + np.arange(len(y[::5])) * 2.0**-27
    expect("cvt.f64.f32 %d, %a;", "f64", [("f32", x)], x.astype(np.float64))
    expect("cvt.rn.f32.f64 %d, %a;", "f32", [("f64", y)], y.astype(np.float32))
    finite = y[np.isfinite(y)]
    assert (
        finite.astype(np.float32) == [nearest(Fraction(float(v)), np.float32) for v in finite]
    ).all()


@covers(*(f"cvt.{mode}.{type_}.{type_}" for mode in WHOLE for type_ in FLOATS))
def test_rounding_to_integral_floats(opcode: str) -> None:
    _, mode, type_, _ = opcode.split(".")
    x = values(type_)
    x[10:30] = np.arange(20) / 4 - 2.5
    given: list[Input] = [(type_, x)]
    expect(f"{opcode} %d, %a;", type_, given, WHOLE[mode](x))
