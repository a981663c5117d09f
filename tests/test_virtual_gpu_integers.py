"""Integer and bit instructions of the interpreter (tests/virtual_gpu/interpreter) against Python's integers."""

from __future__ import annotations

import operator

import numpy as np
import pytest

from tests.virtual_gpu.snippet import THREADS, Array, Input, bits, covers, dtype, expect

pytestmark = pytest.mark.usefixtures("virtual")

TYPES = ("u16", "s16", "u32", "s32", "u64", "s64")
WORDS = ("u32", "s32", "u64", "s64")
BITS = ("b16", "b32", "b64")


def values(type_: str, seed: int = 0) -> Array:
    """Any bits, the ends of the range and small numbers among them."""
    rng = np.random.default_rng(seed)
    kind = dtype(type_)
    low, high = int(np.iinfo(kind).min), int(np.iinfo(kind).max)
    x = rng.integers(low, high, THREADS, dtype=kind, endpoint=True)
    x[:8] = [low, high, 0, 1, 2, 3, high // 2, high - 1]
    return x[rng.permutation(THREADS)]


def pair(type_: str) -> list[Input]:
    return [(type_, values(type_, 1)), (type_, values(type_, 2))]


def exact(x: Array) -> list[int]:
    return [int(v) for v in x]


def wrapped(numbers: list[int], type_: str) -> Array:
    mask = (1 << bits(type_)) - 1
    unsigned = np.array([n & mask for n in numbers], dtype=np.uint64)
    return unsigned.astype(f"u{bits(type_) // 8}").view(dtype(type_))


def quotient(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


ARITHMETIC = {
    "add": operator.add,
    "sub": operator.sub,
    "mul.lo": operator.mul,
    "min": min,
    "max": max,
    "div": quotient,
    "rem": lambda a, b: a - b * quotient(a, b),
}


@covers(*(f"{name}.{type_}" for name in ARITHMETIC for type_ in TYPES))
def test_arithmetic(opcode: str) -> None:
    name, type_ = opcode.rsplit(".", 1)
    a, b = pair(type_)
    if name in ("div", "rem"):
        b[1][b[1] == 0] = 7  # of zero the manual says nothing
    expected = [ARITHMETIC[name](x, y) for x, y in zip(exact(a[1]), exact(b[1]), strict=True)]
    expect(f"{opcode} %d, %a, %b;", type_, [a, b], wrapped(expected, type_))


@covers("mul.lo.s32", "add.s64", "sub.s32", "mul.wide.u32", "shl.b64", "max.s32", "and.b64")
def test_constants() -> None:
    """As wide as what they are combined with, their sign extended."""
    a, w = ("s32", values("s32")), ("s64", values("s64"))
    expect("mul.lo.s32 %d, %a, -7;", "s32", [a], wrapped([x * -7 for x in exact(a[1])], "s32"))
    expect(
        "sub.s32 %d, 0x7fffffff, %a;", "s32", [a], wrapped([0x7FFFFFFF - x for x in exact(a[1])], "s32")
    )
    expect("max.s32 %d, %a, -278;", "s32", [a], np.maximum(a[1], -278))
    expect("add.s64 %d, %a, -3;", "s64", [w], wrapped([x - 3 for x in exact(w[1])], "s64"))
    expect(
        "and.b64 %d, %a, -4294967296;",
        "u64",
        [w],
        wrapped([x & -(1 << 32) for x in exact(w[1])], "u64"),
    )
    expect("mul.wide.u32 %d, %a, 4294967295;", "u64", [a],
           wrapped([(x & 0xFFFFFFFF) * 0xFFFFFFFF for x in exact(a[1])], "u64"))  # fmt: skip
    expect("shl.b64 %d, %a, 33;", "u64", [w], wrapped([x << 33 for x in exact(w[1])], "u64"))


@covers(
    *(f"{name}.{type_}" for name in ("mul.hi", "mad.lo") for type_ in WORDS), "mad.lo.u16", "mad.lo.s16"
)
def test_products(opcode: str) -> None:
    type_ = opcode.rsplit(".", 1)[1]
    a, b = pair(type_)
    c = (type_, values(type_, 3))
    given = zip(exact(a[1]), exact(b[1]), exact(c[1]), strict=True)
    if opcode.startswith("mul.hi"):
        high = [x * y >> bits(type_) for x, y, _ in given]
        expect(f"{opcode} %d, %a, %b;", type_, [a, b], wrapped(high, type_))
    else:
        sums = [x * y + z for x, y, z in given]
        expect(f"{opcode} %d, %a, %b, %c;", type_, [a, b, c], wrapped(sums, type_))


@covers("mul.wide.s16", "mul.wide.u16", "mul.wide.s32", "mul.wide.u32", "mad.wide.s32", "mad.wide.u32")
def test_wide_products(opcode: str) -> None:
    type_ = opcode.rsplit(".", 1)[1]
    wide = f"{type_[0]}{2 * bits(type_)}"
    a, b = pair(type_)
    c = (wide, values(wide, 3))
    given = zip(exact(a[1]), exact(b[1]), exact(c[1]), strict=True)
    if opcode.startswith("mul"):
        products = [x * y for x, y, _ in given]
        expect(f"{opcode} %d, %a, %b;", wide, [a, b], wrapped(products, wide))
    else:
        sums = [x * y + z for x, y, z in given]
        expect(f"{opcode} %d, %a, %b, %c;", wide, [a, b, c], wrapped(sums, wide))


@covers(*(f"{name}.{type_}" for name in ("abs", "neg") for type_ in ("s16", "s32", "s64")))
def test_signs(opcode: str) -> None:
    type_ = opcode.split(".")[1]
    a = (type_, values(type_))
    function = abs if opcode.startswith("abs") else operator.neg
    expect(f"{opcode} %d, %a;", type_, [a], wrapped([function(x) for x in exact(a[1])], type_))


LOGIC = {"and": operator.and_, "or": operator.or_, "xor": operator.xor}


@covers(*(f"{name}.{type_}" for name in (*LOGIC, "not") for type_ in BITS))
def test_logic(opcode: str) -> None:
    name, type_ = opcode.split(".")
    a, b = pair(type_)
    if name == "not":
        expect(f"{opcode} %d, %a;", type_, [a], ~a[1])
    else:
        expect(f"{opcode} %d, %a, %b;", type_, [a, b], LOGIC[name](a[1], b[1]))


@covers(*(f"shl.{type_}" for type_ in BITS), *(f"shr.{type_}" for type_ in (*BITS, *TYPES)))
def test_shifts(opcode: str) -> None:
    """By more than the width as well: all bits go, or become the sign's."""
    name, type_ = opcode.split(".")
    a = (type_, values(type_))
    n = bits(type_)
    by = ("u32", np.arange(THREADS, dtype=np.uint32) * (n + 6) // THREADS)
    by[1][:3] = 0xFFFFFFFF, 256, 32
    shift = operator.lshift if name == "shl" else operator.rshift
    moved = [shift(x, min(int(s), n)) for x, s in zip(exact(a[1]), by[1], strict=True)]
    expect(f"{opcode} %d, %a, %b;", type_, [a, by], wrapped(moved, type_))


@covers("shf.l.clamp.b32", "shf.r.clamp.b32", "shf.l.wrap.b32", "shf.r.wrap.b32")
def test_funnel_shift(opcode: str) -> None:
    a, b = pair("b32")
    by = ("u32", np.arange(THREADS, dtype=np.uint32))
    expected = []
    for x, y, s in zip(exact(a[1]), exact(b[1]), exact(by[1]), strict=True):
        n = s % 32 if "wrap" in opcode else min(s, 32)
        both = y << 32 | x
        expected.append(both << n >> 32 if ".l." in opcode else both >> n)
    expect(f"{opcode} %d, %a, %b, %c;", "u32", [a, b, by], wrapped(expected, "u32"))


@covers("lop3.b32")
@pytest.mark.parametrize("table", [0x00, 0xE8, 0x96, 0xCA, 0x1D, 0xF0, 0xCC, 0xAA, 0xFF])
def test_lookup(table: int) -> None:
    a, b, c = [("b32", values("u32", n)) for n in range(3)]
    expected = np.zeros(THREADS, np.uint32)
    for bit in range(32):
        at = (a[1] >> bit & 1) << 2 | (b[1] >> bit & 1) << 1 | (c[1] >> bit & 1)
        expected |= (np.uint32(table) >> at & 1) << np.uint32(bit)
    expect(f"lop3.b32 %d, %a, %b, %c, {table};", "b32", [a, b, c], expected)


def fields(type_: str) -> tuple[Input, Input]:
    rng = np.random.default_rng(0)
    at, length = [("u32", rng.integers(0, 40, THREADS, dtype=np.uint32)) for _ in range(2)]
    length[1][:4] = 0
    length[1][4:6], at[1][6:8] = (32, 255), (31, 255)
    return at, length


@covers("bfe.u32", "bfe.s32")
def test_extracted_fields(opcode: str) -> None:
    """As the manual's pseudo-code has it, bit by bit."""
    type_ = opcode.split(".")[1]
    a = (type_, values(type_))
    at, length = fields(type_)
    expected = []
    for x, p, k in zip(exact(a[1]), exact(at[1]), exact(length[1]), strict=True):
        sign = type_[0] == "s" and k > 0 and x >> min(p + k - 1, 31) & 1
        bit = [x >> (p + n) & 1 if n < k and p + n <= 31 else sign for n in range(32)]
        expected.append(sum(int(b) << n for n, b in enumerate(bit)))
    expect(f"{opcode} %d, %a, %b, %c;", type_, [a, at, length], wrapped(expected, type_))


@covers("bfi.b32")
def test_inserted_fields() -> None:
    a, b = pair("b32")
    at, length = fields("b32")
    expected = []
    for x, y, p, k in zip(*(exact(v[1]) for v in (a, b, at, length)), strict=True):
        for n in range(32):
            if n < k and p + n <= 31:
                y = y & ~(1 << (p + n)) | (x >> n & 1) << (p + n)
        expected.append(y)
    expect("bfi.b32 %d, %a, %b, %c, %e;", "b32", [a, b, at, length], wrapped(expected, "b32"))


@covers("popc.b32", "clz.b32", "brev.b32", "bfind.shiftamt.u32")
def test_counts() -> None:
    x = values("u32")
    x[:40] = 1 << (np.arange(40) % 33)  # 2^32 wraps: a zero
    a = ("u32", x)
    expect("popc.b32 %d, %a;", "u32", [a], np.array([v.bit_count() for v in exact(x)]))
    expect("clz.b32 %d, %a;", "u32", [a], np.array([32 - v.bit_length() for v in exact(x)]))
    expect("brev.b32 %d, %a;", "u32", [a], np.array([int(f"{v:032b}"[::-1], 2) for v in exact(x)]))
    shifts = [32 - v.bit_length() if v else -1 for v in exact(x)]
    expect("bfind.shiftamt.u32 %d, %a;", "u32", [a], wrapped(shifts, "u32"))


@covers("prmt.b32")
def test_permutation() -> None:
    a, b, c = [("b32", values("u32", n)) for n in range(3)]
    expected = []
    for x, y, selector in zip(exact(a[1]), exact(b[1]), exact(c[1]), strict=True):
        source = (y << 32 | x).to_bytes(8, "little")
        out = []
        for n in range(4):
            choice = selector >> 4 * n & 15
            byte = source[choice & 7]
            out.append((0xFF if byte & 0x80 else 0) if choice & 8 else byte)
        expected.append(int.from_bytes(bytes(out), "little"))
    expect("prmt.b32 %d, %a, %b, %c;", "b32", [a, b, c], np.array(expected))


ORDER = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}
EQUALITY = {"eq": np.equal, "ne": np.not_equal}
UNSIGNED = {"lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal}
COMPARISONS = EQUALITY | ORDER | UNSIGNED


@covers(
    *(f"setp.{name}.{type_}" for name in EQUALITY for type_ in (*TYPES, *BITS)),
    *(f"setp.{name}.{type_}" for name in ORDER for type_ in TYPES),
    *(f"setp.{name}.{type_}" for name in UNSIGNED for type_ in ("u16", "u32", "u64")),
)
def test_comparisons(opcode: str) -> None:
    _, name, type_ = opcode.split(".")
    a, b = pair(type_)
    b[1][::3] = a[1][::3]
    holds = COMPARISONS[name](a[1], b[1]).astype(np.uint32)
    expect(f"{opcode} %q, %a, %b; selp.u32 %d, 1, 0, %q;", "u32", [a, b], holds)
    both = f"{opcode} %q|%r, %a, %b; selp.u32 %u, 1, 0, %q; selp.u32 %d, 2, 0, %r; or.b32 %d, %d, %u;"
    expect(both, "u32", [a, b], 2 - holds)


@covers(*(f"selp.{type_}" for type_ in (*BITS, *TYPES, "f32", "f64")))
def test_selection(opcode: str) -> None:
    type_ = opcode.split(".")[1]
    integer = f"u{bits(type_)}"
    a, b = [(type_, values(integer, n).view(dtype(type_))) for n in (1, 2)]
    t = np.arange(THREADS)
    for predicate, which in (("%q", t % 4 >= 2), ("!%q", t % 4 < 2)):
        body = f"and.b32 %u, %t, 2; setp.ne.u32 %q, %u, 0; {opcode} %d, %a, %b, {predicate};"
        expect(body, type_, [a, b], np.where(which, a[1], b[1]))


@covers("not.pred", "and.pred", "or.pred", "xor.pred", "mov.pred")
def test_predicates() -> None:
    t = np.arange(THREADS)
    p, q = t & 1 == 0, t & 2 == 0
    given = "and.b32 %u, %t, 1; setp.eq.u32 %p, %u, 0; and.b32 %u, %t, 2; setp.eq.u32 %q, %u, 0;"
    for body, expected in (
        ("not.pred %r, %p;", ~p),
        ("and.pred %r, %p, %q;", p & q),
        ("and.pred %r, !%p, %q;", ~p & q),
        ("or.pred %r, %p, %q;", p | q),
        ("or.pred %r, %p, !%q;", p | ~q),
        ("xor.pred %r, %p, %q;", p ^ q),
        ("mov.pred %r, %p;", p),
        ("mov.pred %r, -1;", t >= 0),
        ("mov.pred %r, 0;", t < 0),
    ):
        expect(f"{given} {body} selp.u32 %d, 7, 9, %r;", "u32", [], np.where(expected, 7, 9))


@covers(*(f"mov.{type_}" for type_ in (*BITS, *TYPES, "f32", "f64")))
def test_moves(opcode: str) -> None:
    type_ = opcode.split(".")[1]
    a = (type_, values(f"u{bits(type_)}").view(dtype(type_)))
    expect(f"{opcode} %d, %a;", type_, [a], a[1])
    constant = {"f32": "0fC0490FDB", "f64": "0dC00921FB54442D18"}.get(type_, "-5")
    number = {"f32": -np.float32(np.pi), "f64": -np.pi}.get(type_)
    want = wrapped([-5], type_)[0] if number is None else number
    expect(f"{opcode} %d, {constant};", type_, [], np.full(THREADS, want, dtype(type_)))


@covers("mov.b32", "mov.b64")
def test_halves() -> None:
    a, b = [("b16", values("u16", n)) for n in (1, 2)]
    both = a[1].astype(np.uint32) | b[1].astype(np.uint32) << np.uint32(16)
    expect("mov.b32 %d, {%a, %b};", "b32", [a, b], both)
    expect("mov.b32 %d, {0, %b};", "b32", [a, b], both & np.uint32(0xFFFF0000))
    # a 16-bit register that holds the extension of a negative number
    expect("cvt.s16.s8 %a, %a; mov.b32 %d, {%a, %b};", "b32", [("s8", a[1].astype(np.int8)), b],
           a[1].astype(np.int8).astype(np.int16).view(np.uint16) | both & np.uint32(0xFFFF0000))  # fmt: skip
    for half, expected in (("%l", a[1]), ("%h", b[1])):
        expect(
            f".reg .b16 %l, %h; mov.b32 {{%l, %h}}, %a; mov.b16 %d, {half};",
            "b16",
            [("b32", both)],
            expected,
        )
    x, y = [("b32", values("u32", n)) for n in (1, 2)]
    wide = x[1].astype(np.uint64) | y[1].astype(np.uint64) << np.uint64(32)
    expect("mov.b64 %d, {%a, %b};", "b64", [x, y], wide)
    for half, expected in (("%l", x[1]), ("%h", y[1])):
        expect(
            f".reg .b32 %l, %h; mov.b64 {{%l, %h}}, %a; mov.b32 %d, {half};",
            "b32",
            [("b64", wide)],
            expected,
        )


INTEGERS = ("u8", "s8", *TYPES)


@covers(*(f"cvt.{to}.{source}" for to in INTEGERS for source in INTEGERS))
def test_conversions(opcode: str) -> None:
    """Cut off; a narrow result is extended to the register that it is in, by the sign if it has one."""
    _, to, source = opcode.split(".")
    a = (source, values(source))
    register = to if bits(to) > 8 else f"{to[0]}16"
    cut = wrapped(exact(a[1]), to)
    expect(f"{opcode} %d, %a;", register, [a], cut.astype(dtype(register)))
    if bits(to) < 32:
        expect(f"{opcode} %d, %a;", f"{to[0]}32", [a], cut.astype(dtype(f"{to[0]}32")))
