"""Loads, stores, atomics and asynchronous copies of the interpreter against NumPy."""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests import virtual_gpu
from tests.virtual_gpu.snippet import (
    HEADER,
    THREADS,
    Array,
    bits,
    covers,
    dtype,
    element,
    kernel,
    launch,
    opcode_of,
    run,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("virtual")

TYPES = [f"{kind}{n}" for n in (8, 16, 32, 64) for kind in "bus"] + ["f32", "f64"]
VECTORS = [(v, t) for v in ("v2", "v4") for t in TYPES if int(v[1]) * bits(t) <= 128]


def some(size: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def vector(opcode: str) -> tuple[int, str]:
    """Elements, and the type of one."""
    *before, type_ = opcode.split(".")
    return int(before[-1][1]) if before[-1] in ("v2", "v4") else 1, type_


def pieces(name: str, n: int) -> str:
    return f"%{name}0" if n == 1 else "{" + ", ".join(f"%{name}{k}" for k in range(n)) + "}"


LOADS = [
    *(f"ld.global.{t}" for t in TYPES),
    *(f"ld.global.{v}.{t}" for v, t in VECTORS),
    *(
        f"ld.global.{hint}.u32"
        for hint in ("nc", "ca", "cg", "cs", "lu", "cv", "L1::no_allocate", "L2::128B")
    ),
    *(
        "ld.global.nc.v4.u32",
        "ld.global.cs.s32",
        "ld.global.cs.s64",
        "ld.global.cs.f32",
        "ld.volatile.global.u32",
        "ldu.global.u32",
    ),
    *("ld.relaxed.gpu.global.u32", "ld.acquire.sys.global.u32", "ld.weak.global.u32"),
    *("ld.u8", "ld.s16", "ld.u32", "ld.u64", "ld.f32", "ld.v4.u32"),
]


@covers(*LOADS)
def test_loads(opcode: str) -> None:
    """Extended to the register, by the sign if the type has one."""
    n, type_ = vector(opcode)
    size = bits(type_) // 8
    there = some(n * size * 32)
    body = f""".reg .b64 %x<4>; .reg .b{max(bits(type_), 32)} %y<4>;
    {element(0, n * size)} {opcode} {pieces("y", n)}, [%at];"""
    for k in range(n):
        sign = "s" if type_[0] == "s" else "u"
        widen = "mov.b64" if size == 8 else f"cvt.{sign}64.{sign}32"
        body += f"{widen} %x{k}, %y{k}; {element(1, n * 8)} st.global.b64 [%at+{8 * k}], %x{k};"
    out = launch(kernel(2, body), there, np.zeros(n * 32, np.uint64))[1]
    integer = np.dtype(f"{'i' if type_[0] == 's' else 'u'}{size}")
    assert (out == there.view(integer).astype(np.int64).view(np.uint64)).all()


STORES = [
    *(f"st.global.{t}" for t in TYPES),
    *(f"st.global.{v}.{t}" for v, t in VECTORS),
    *(f"st.global.{hint}.u32" for hint in ("wb", "cg", "cs", "wt")),
    *(
        "st.global.cs.f32",
        "st.volatile.global.u32",
        "st.release.gpu.global.u32",
        "st.relaxed.cta.global.u32",
    ),
    *("st.u8", "st.u16", "st.u32", "st.u64", "st.v4.f32"),
]


@covers(*STORES)
def test_stores(opcode: str) -> None:
    """Of the lower bytes of the register; nothing beside them is touched."""
    n, type_ = vector(opcode)
    size = bits(type_) // 8
    there = some(n * 8 * 32).view(np.uint64)
    body = f".reg .b64 %x<4>; .reg .b{max(bits(type_), 32)} %y<4>;"
    for k in range(n):
        narrow = "mov.b64" if size == 8 else "cvt.u32.u64"
        body += f"{element(0, n * 8)} ld.global.u64 %x{k}, [%at+{8 * k}]; {narrow} %y{k}, %x{k};"
    body += f"{element(1, 2 * n * size)} {opcode} [%at], {pieces('y', n)};"
    out = launch(kernel(2, body), there, np.full(2 * n * size * 32, 77, np.uint8))[1].reshape(32, -1)
    assert (
        out[:, : n * size].reshape(32, n, size) == there.view(np.uint8).reshape(32, n, 8)[:, :, :size]
    ).all()
    assert (out[:, n * size :] == 77).all()


OTHER = [
    (space, f"{v}.{t}" if v else t)
    for space in ("shared", "local")
    for v, t in [*(("", t) for t in TYPES), *VECTORS]
]


@covers(*(f"{op}.{space}.{what}" for space, what in OTHER for op in ("ld", "st")))
@pytest.mark.parametrize("where", ["its own", "generic"])
def test_shared_and_local_memory(opcode: str, where: str) -> None:
    """A store and a load of the same type, and what they touch read a byte at a time in between."""
    n, type_ = vector(opcode)
    space, what = opcode.split(".", 2)[1:]
    size = n * bits(type_) // 8
    # local memory is a thread's own: all threads use the same offsets there
    index = "%t" if space == "shared" else "0"
    there = some(size * 32)
    end = f"{'' if where == 'its own' else '.' + space}"
    op = "" if where == "generic" else f".{space}"
    body = f""".reg .b{max(bits(type_), 32)} %y<4>; .reg .b64 %s; .reg .b32 %z;
    .{space} .align 16 .b8 room[{16 * 32 if space == "shared" else 16}];
    mov.u32 %u, room; mad.lo.u32 %u, {index}, {size}, %u; cvt.u64.u32 %s, %u;
    {f"cvta{end}.u64 %s, %s;" if end else ""}
    {element(0, size)} ld.global.{what} {pieces("y", n)}, [%at]; st{op}.{what} [%s], {pieces("y", n)};"""
    body += "bar.warp.sync -1;"
    for k in range(size):  # the bytes
        body += f"{element(1, size)} ld{op}.u8 %z, [%s+{k}]; st.global.u8 [%at+{k}], %z;"
    body += f"""mov.b{max(bits(type_), 32)} %y0, 0; bar.warp.sync -1; ld{op}.{what} {pieces("y", n)}, [%s];
    {element(2, size)} st.global.{what} [%at], {pieces("y", n)};"""
    if where == "generic":  # which ran without its space: with it as well, to be counted as executed
        place = "room" if space == "local" else "%u"
        body += f"bar.warp.sync -1; st.{space}.{what} [{place}], {pieces('y', n)}; bar.warp.sync -1;"
        body += f"ld.{space}.{what} {pieces('y', n)}, [{place}];"
    _, by_bytes, whole = launch(kernel(3, body), there, np.zeros_like(there), np.zeros_like(there))
    assert (by_bytes == there).all() and (whole == there).all()


PARAMETERS = [*(f"ld.param.{t}" for t in TYPES), *(f"ld.param.{v}.{t}" for v, t in VECTORS)]


@covers(*PARAMETERS)
def test_parameters(opcode: str) -> None:
    """By their names, and by an address that a register holds."""
    n, type_ = vector(opcode)
    size = n * bits(type_) // 8
    given = some(48)
    for address, place in (("[given+16]", 16), ("[%s]", 0), ("[%s+32]", 32)):
        ptx = f"""{HEADER}
.visible .entry snippet(.param .u64 out, .param .align 16 .b8 given[48]) {{
    .reg .b{max(bits(type_), 32)} %y<4>; .reg .b64 %s, %at;
    mov.b64 %s, given; ld.param.u64 %at, [out];
    {opcode} {pieces("y", n)}, {address}; st.global.{opcode.split(".", 2)[2]} [%at], {pieces("y", n)};
    ret;
}}"""
        got = launch_with(ptx, np.zeros(size, np.uint8), given)
        assert (got == given[place : place + size]).all()


def launch_with(ptx: str, out: Array, given: Array) -> Array:
    """With the bytes themselves as the second argument."""
    there = torch.from_numpy(out).to("virtual")
    virtual_gpu.launch(ptx, "snippet", there, np.void(given.tobytes()), block=(1,))
    return there.cpu().numpy()


@covers(
    "ld.const.u32",
    "ld.global.u32",
    "mov.u64",
    "cvta.global.u64",
    "cvta.to.global.u64",
    "cvta.const.u64",
)
def test_variables() -> None:
    """Of a module, with and without their first values."""
    declarations = """
.const .align 4 .u32 primes[4] = {2, 3, 5, 7};
.visible .global .align 4 .b8 bytes[8] = {1, 2, 3, 4, 255, 255, 255, 255};
.global .align 4 .u32 zeros[4];"""
    body = f"""mov.u64 %at0, primes; cvta.const.u64 %at0, %at0; mov.u64 %at1, bytes; cvta.global.u64 %at1, %at1;
    cvta.to.global.u64 %at2, %at1; {element(0, 4, "0")}
    ld.const.u32 %u, [primes+8]; st.global.u32 [%at], %u; ld.u32 %u, [%at0+12]; st.global.u32 [%at+4], %u;
    ld.global.u32 %u, [bytes]; st.global.u32 [%at+8], %u; ld.global.u32 %u, [%at2+4]; st.global.u32 [%at+12], %u;
    ld.global.u32 %u, [zeros+4]; st.global.u32 [%at+16], %u;"""
    out = launch(kernel(1, body, declarations), np.zeros(5, np.uint32), block=1)[0]
    assert out.tolist() == [5, 7, 0x04030201, 0xFFFFFFFF, 0]


@covers(
    "cvta.shared.u64",
    "cvta.to.shared.u64",
    "cvta.local.u64",
    "cvta.to.local.u64",
    "cvta.to.const.u64",
    "cvta.param.u64",
    "cvta.to.param.u64",
)
def test_addresses_there_and_back() -> None:
    for space in ("shared", "local", "const", "param"):
        there = "" if space == "const" else f"cvta.{space}.u64 %d, %d;"
        body = f"mov.b64 %d, 48; {there} cvta.to.{space}.u64 %d, %d;"
        if space == "const":
            body = "mov.b64 %d, 48; cvta.to.const.u64 %d, %d;"
        assert (run(body, "b64") == 48).all()


def test_dynamic_shared_memory_follows_what_is_declared() -> None:
    declarations = ".extern .shared .align 16 .b8 dynamic[];"
    body = f""".shared .align 4 .b8 fixed[12];
    mov.u32 %u, fixed; st.shared.u32 [%u+8], %t; st.shared.u32 [dynamic+4], %t; mov.u32 %v, dynamic;
    ld.shared.u32 %w, [%v+4]; {element(0, 12, "0")} st.global.u32 [%at], %u; st.global.u32 [%at+4], %v;
    mov.u32 %u, %dynamic_smem_size; st.global.u32 [%at+8], %u;"""
    fixed, dynamic, size = launch(
        kernel(1, body, declarations), np.zeros(3, np.uint32), block=1, shared=64
    )[0]
    assert fixed + 12 <= dynamic and dynamic % 16 == 0 and size == 64


Fold = Callable[[int, int], int]
ATOMICS: dict[str, tuple[Fold, tuple[str, ...]]] = {
    "add": (operator.add, ("u32", "s32", "u64")),
    "min": (min, ("u32", "s32", "u64", "s64")),
    "max": (max, ("u32", "s32", "u64", "s64")),
    "and": (operator.and_, ("b32", "b64")),
    "or": (operator.or_, ("b32", "b64")),
    "xor": (operator.xor, ("b32", "b64")),
    "exch": (lambda old, new: new, ("b32", "b64")),
}
SPACES = (".global", ".shared", "")


def atomic_body(opcode: str, size: int, operands: str, shared_words: int, index: str) -> str:
    """p0: memory, p1: values, p2: swaps, p3: what was there."""
    reg = f"b{8 * size}"
    compute = (
        f"{opcode} [%s], {operands};"
        if opcode.startswith("red")
        else f"{opcode} %old, [%s], {operands};"
    )
    body = f".reg .{reg} %value, %swap, %old; .reg .b64 %s; mov.{reg} %old, 0;"
    body += f"{element(1, size)} ld.global.{reg} %value, [%at]; {element(2, size)} ld.global.{reg} %swap, [%at];"
    if ".shared" not in opcode:
        return (
            body
            + f"{element(0, size, index)} mov.b64 %s, %at; {compute} {element(3, size)} st.global.{reg} [%at], %old;"
        )
    return (
        body
        + f""".shared .align 8 .b8 room[{size * shared_words}];
    {element(0, size)} ld.global.{reg} %old, [%at];
    mov.u32 %u, room; mad.lo.u32 %v, %t, {size}, %u; st.shared.{reg} [%v], %old; bar.sync 0;
    mad.lo.u32 %w, {index}, {size}, %u; cvt.u64.u32 %s, %w; {compute}
    {element(3, size)} st.global.{reg} [%at], %old;
    bar.sync 0; ld.shared.{reg} %old, [%v]; {element(0, size)} st.global.{reg} [%at], %old;"""
    )


def numbers(type_: str, seed: int) -> Array:
    info = np.iinfo(dtype(type_))
    return np.random.default_rng(seed).integers(
        info.min, info.max, THREADS, dtype(type_), endpoint=True
    )


@covers(
    *(f"{op}{space}.{name}.{type_}" for name, (_, types) in ATOMICS.items() for type_ in types
      for space in SPACES for op in (("atom",) if name == "exch" else ("atom", "red"))),
    "atom.relaxed.gpu.global.add.u32", "atom.global.acq_rel.sys.add.u32", "red.release.gpu.global.or.b32",
)  # fmt: skip
def test_atomics(opcode: str) -> None:
    """Each thread an element of its own; then all of them the first one."""
    *before, type_ = opcode.split(".")
    fold, _ = ATOMICS[before[-1]]
    size, mask = bits(type_) // 8, (1 << bits(type_)) - 1
    memory, values = numbers(type_, 1), numbers(type_, 2)
    unused, zeros = np.zeros_like(values), np.zeros_like(values)

    def wrap(x: int) -> int:
        return int(np.array([x & mask], np.uint64).astype(f"u{size}").view(dtype(type_))[0])

    body = atomic_body(opcode, size, "%value", THREADS, "%t")
    after, _, _, old = launch(kernel(4, body), memory, values, unused, zeros, block=THREADS)
    assert after.tolist() == [wrap(fold(int(m), int(v))) for m, v in zip(memory, values, strict=True)]
    if opcode.startswith("atom"):
        assert (old == memory).all()

    body = atomic_body(opcode, size, "%value", THREADS, "0")
    after, _, _, old = launch(kernel(4, body), memory, values, unused, zeros, block=THREADS)
    assert (after[1:] == memory[1:]).all()
    if before[-1] == "exch":  # what was there, and what is, are all that were ever put there
        assert sorted([*old.tolist(), int(after[0])]) == sorted([*values.tolist(), int(memory[0])])
        return
    total = int(memory[0])
    for v in values:
        total = fold(total, int(v))
    assert int(after[0]) == wrap(total)
    if opcode.startswith("atom"):  # in some order: who came first saw what was there
        assert int(memory[0]) in old.tolist()
    if opcode.startswith("atom") and before[-1] == "add":
        chain = {int(o): wrap(int(o) + int(v)) for o, v in zip(old, values, strict=True)}
        at = int(memory[0])
        for _ in range(THREADS):
            at = chain.pop(at)
        assert at == int(after[0])


@covers(*(f"atom{space}.cas.{type_}" for space in SPACES for type_ in ("b32", "b64")))
def test_compare_and_swap(opcode: str) -> None:
    type_ = opcode.rsplit(".", 1)[1]
    size = bits(type_) // 8
    memory, swaps = numbers(type_, 1), numbers(type_, 2)
    compared = np.where(np.arange(THREADS) % 3 == 0, memory, memory + 1).astype(memory.dtype)
    zeros = np.zeros_like(memory)
    body = atomic_body(opcode, size, "%value, %swap", THREADS, "%t")
    after, _, _, old = launch(kernel(4, body), memory, compared, swaps, zeros, block=THREADS)
    assert (after == np.where(compared == memory, swaps, memory)).all() and (old == memory).all()
    # all at one: exactly one finds what it expects
    body = atomic_body(opcode, size, "%value, %swap", THREADS, "0")
    same = np.full_like(memory, memory[0])
    after, _, _, old = launch(kernel(4, body), memory, same, swaps, zeros, block=THREADS)
    assert (old == memory[0]).sum() == 1 and after[0] == swaps[np.argmax(old == memory[0])]


COPIES = {
    "cp.async.cg.shared.global": (16,),
    "cp.async.cg.shared.global.L2::128B": (16,),
    "cp.async.ca.shared.global": (4, 8, 16),
    "cp.async.ca.shared.global.L2::64B": (4, 8, 16),
}


@covers(*COPIES)
def test_asynchronous_copies(opcode: str) -> None:
    """Of which the first bytes come from the source, and the rest is zero."""
    for size in COPIES[opcode]:
        for length in ("all", "some"):
            given = some(32 * size)
            lengths = (np.arange(32) % (size + 1)).astype(np.uint32)
            third = "" if length == "all" else ", %v"
            body = f""".shared .align 16 .b8 room[{32 * size}]; .reg .b{32} %z;
            {element(1, 4)} ld.global.u32 %v, [%at]; mov.u32 %u, room; mad.lo.u32 %u, %t, {size}, %u; {element(0, size)}
            {opcode} [%u], [%at], {size}{third}; cp.async.wait_all;
            {element(2, size)}"""
            for k in range(0, size, 4):
                body += f"ld.shared.b32 %z, [%u+{k}]; st.global.b32 [%at+{k}], %z;"
            out = launch(kernel(3, body), given, lengths, np.zeros_like(given))[2].reshape(32, size)
            kept = np.arange(size)[None] < (size if length == "all" else lengths[:, None])
            assert (out == np.where(kept, given.reshape(32, size), 0)).all()


@covers(
    "cp.async.commit_group", "cp.async.wait_group", "cp.async.wait_all", "cp.async.cg.shared.global"
)
@pytest.mark.parametrize("kept", [0, 1, 2])
def test_groups_of_copies(kept: int) -> None:
    """Waited for in their order; what is still under way is waited for by wait_all."""
    given = some(3 * 32 * 16)
    body = ".shared .align 16 .b8 room[1536]; mov.u32 %u, room; mad.lo.u32 %u, %t, 16, %u;"
    body += element(0, 16)
    for _ in range(3):
        body += "cp.async.cg.shared.global [%u], [%at], 16; cp.async.commit_group; add.u32 %u, %u, 512; add.u64 %at, %at, 512;"
    body += f"sub.u32 %u, %u, 1536; cp.async.wait_group {kept}; {element(1, 4)}"
    for n in range(3 - kept):
        body += f"ld.shared.b32 %v, [%u+{512 * n}]; st.global.b32 [%at+{128 * n}], %v;"
    body += "cp.async.wait_all;"
    for n in range(3 - kept, 3):
        body += f"ld.shared.b32 %v, [%u+{512 * n}]; st.global.b32 [%at+{128 * n}], %v;"
    out = launch(kernel(2, body), given, np.zeros(96, np.uint32))[1]
    assert (out == given.view(np.uint32)[::4]).all()


NO_EFFECT = (
    "membar.gl", "membar.cta", "membar.sys", "fence.acq_rel.gpu", "fence.sc.cta", "prefetch.global.L2", "nanosleep.u32",
)  # fmt: skip


@covers(*NO_EFFECT)
def test_what_changes_no_values(opcode: str) -> None:
    operand = {"prefetch": " [%at]", "nanosleep": " 20"}.get(opcode.split(".")[0], "")
    assert (run(f"ld.param.u64 %at, [p0]; mov.b32 %d, 7; {opcode}{operand};", "b32") == 7).all()
    assert opcode_of(f"@!%p {opcode}{operand}") == opcode
