"""Instructions that lanes and warps execute together, and the flow of control, in the interpreter."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests import virtual_gpu
from tests.virtual_gpu.snippet import THREADS, Array, covers, element, expect, kernel, launch, run

pytestmark = pytest.mark.usefixtures("virtual")

LANE = np.arange(THREADS) % 32
WARP = np.arange(THREADS) // 32


def words(seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 1 << 32, THREADS, dtype=np.uint32)


def shuffled(mode: str, lane: int, b: int, c: int) -> tuple[int, bool]:
    """The manual's pseudo-code: the source lane, and whether it is in range."""
    bval, cval, mask = b & 31, c & 31, c >> 8 & 31
    most, least = (lane & mask) | (cval & ~mask), lane & mask
    if mode == "up":
        j, fine = lane - bval, lane - bval >= most
    elif mode == "down":
        j, fine = lane + bval, lane + bval <= most
    elif mode == "bfly":
        j, fine = lane ^ bval, lane ^ bval <= most
    else:
        j = least | (bval & ~mask)
        fine = j <= most
    return (j if fine else lane), fine


@covers("shfl.sync.up.b32", "shfl.sync.down.b32", "shfl.sync.bfly.b32", "shfl.sync.idx.b32")
def test_shuffles(opcode: str) -> None:
    """Of whole warps and of segments; the predicate says whether the source is in range."""
    a = words()
    mode = opcode.split(".")[2]
    for width in (32, 16, 4, 1):
        c = (32 - width) << 8 | (0 if mode == "up" else 31)
        for b in (0, 1, 3, 16, 31):
            by = [shuffled(mode, int(lane), b, c) for lane in LANE]
            source = np.array([j for j, _ in by]) + 32 * WARP
            body = f"{opcode} %d|%p, %a, {b}, {c}, -1; @!%p xor.b32 %d, %d, -1;"
            got = run(body, "b32", [("b32", a)])
            assert (got == np.where([fine for _, fine in by], a[source], ~a[source])).all(), (b, c)
    # every lane names its own source
    names = words(1) % 32
    by = [
        shuffled(mode, int(lane), int(b), 0 if mode == "up" else 31)
        for lane, b in zip(LANE, names, strict=True)
    ]
    got = run(
        f"{opcode} %d, %a, %b, {0 if mode == 'up' else 31}, -1;", "b32", [("b32", a), ("b32", names)]
    )
    assert (got == a[np.array([j for j, _ in by]) + 32 * WARP]).all()


def in_halves(body: str) -> str:
    """The lanes of each half of a warp by themselves, the masks of their members in %v."""
    return f"""and.b32 %u, %t, 16; setp.eq.u32 %q, %u, 0; selp.b32 %v, 0x0000ffff, 0xffff0000, %q;
    @%q bra $lower; {body} bra.uni $met;
$lower:
    {body}
$met:"""


def test_parts_of_a_warp() -> None:
    """Lanes that branched apart shuffle, vote and add among those that they name."""
    a = words()
    other = np.arange(THREADS) ^ 3
    assert (
        run(in_halves("shfl.sync.bfly.b32 %d, %a, 3, 31, %v;"), "b32", [("b32", a)]) == a[other]
    ).all()
    odd = a & 1 == 1
    half = np.arange(THREADS) // 16
    ballots = np.array(
        [sum(1 << int(LANE[t]) for t in range(THREADS) if odd[t] and half[t] == h) for h in half]
    )
    body = in_halves("and.b32 %w, %a, 1; setp.ne.u32 %p, %w, 0; vote.sync.ballot.b32 %d, %p, %v;")
    assert (run(body, "b32", [("b32", a)]) == ballots).all()
    sums = np.array([int(a[half == h].astype(np.uint64).sum()) & 0xFFFFFFFF for h in half])
    assert (run(in_halves("redux.sync.add.u32 %d, %a, %v;"), "b32", [("b32", a)]) == sums).all()


@covers("vote.sync.all.pred", "vote.sync.any.pred", "vote.sync.uni.pred", "vote.sync.ballot.b32")
def test_votes(opcode: str) -> None:
    name = opcode.split(".")[2]
    for given in (np.zeros(THREADS), np.ones(THREADS), LANE == 7, LANE != 9, WARP == 1, words() % 2):
        holds = np.asarray(given, bool)
        for inverted in ("", "!"):
            says = ~holds if inverted else holds
            warps = [says[:32], says[32:]]
            if name == "ballot":
                want = [sum(1 << n for n in range(32) if w[n]) for w in warps]
                vote = f"{opcode} %d, {inverted}%q, -1;"
            else:
                test = {"all": np.all, "any": np.any, "uni": lambda w: w.all() or not w.any()}[name]
                want = [int(test(w)) for w in warps]
                vote = f"{opcode} %r, {inverted}%q, -1; selp.u32 %d, 1, 0, %r;"
            body = f"setp.ne.u32 %q, %a, 0; {vote}"
            assert (run(body, "b32", [("b32", holds.astype(np.uint32))]) == np.array(want)[WARP]).all()


REDUCTIONS: dict[str, Callable[[int, int], int]] = {
    "add": operator.add, "min": min, "max": max,
    "and": operator.and_, "or": operator.or_, "xor": operator.xor,
}  # fmt: skip


@covers(
    *(f"redux.sync.{name}.{t}" for name in ("add", "min", "max") for t in ("u32", "s32")),
    *(f"redux.sync.{name}.b32" for name in ("and", "or", "xor")),
)
def test_reductions(opcode: str) -> None:
    _, _, name, type_ = opcode.split(".")
    a = words().view(np.int32 if type_ == "s32" else np.uint32)
    totals = [functools.reduce(REDUCTIONS[name], map(int, w)) & 0xFFFFFFFF for w in (a[:32], a[32:])]
    assert (run(f"{opcode} %d, %a, -1;", "b32", [("b32", a)]) == np.array(totals)[WARP]).all()


@covers("match.any.sync.b32", "activemask.b32")
def test_who_is_here() -> None:
    a = words() % 5
    same = [sum(1 << n for n in range(32) if a[32 * (t // 32) + n] == a[t]) for t in range(THREADS)]
    assert (run("match.any.sync.b32 %d, %a, -1;", "b32", [("b32", a)]) == same).all()
    expected = np.where(LANE < 16, 0x0000FFFF, 0xFFFF0000)
    assert (run(in_halves("activemask.b32 %d;"), "b32") == expected).all()


def exchange(barrier: str, by: int) -> str:
    """Through shared memory, to the thread with another number."""
    return f""".shared .align 4 .b8 room[256]; mov.u32 %u, room; mad.lo.u32 %v, %t, 4, %u; st.shared.u32 [%v], %a;
    {barrier} xor.b32 %w, %t, {by}; mad.lo.u32 %v, %w, 4, %u; ld.shared.u32 %d, [%v];"""


@covers("bar.warp.sync", "bar.sync", "barrier.sync", "barrier.sync.aligned")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_barriers(opcode: str, seed: int) -> None:
    a = words()
    by = 7 if "warp" in opcode else 39
    with virtual_gpu.running(seed=seed):
        got = run(exchange(f"{opcode} {-1 if 'warp' in opcode else 0};", by), "b32", [("b32", a)])
    assert (got == a[np.arange(THREADS) ^ by]).all()


@covers("bar.red.and.pred", "bar.red.or.pred", "bar.red.popc.u32")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_reducing_barriers(opcode: str, seed: int) -> None:
    """What all threads of the block say; and they are a barrier."""
    name = opcode.split(".")[2]
    for given in (np.zeros(THREADS), np.ones(THREADS), np.arange(THREADS) == 40, words() % 2):
        holds = np.asarray(given, bool)
        for inverted in ("", "!"):
            says = ~holds if inverted else holds
            want = {"and": says.all(), "or": says.any(), "popc": says.sum()}[name]
            result = "%d" if name == "popc" else "%r"
            after = "" if name == "popc" else "selp.u32 %d, 1, 0, %r;"
            body = f"setp.ne.u32 %q, %a, 0; {opcode} {result}, 0, {inverted}%q; {after}"
            with virtual_gpu.running(seed=seed):
                assert (run(body, "b32", [("b32", holds.astype(np.uint32))]) == int(want)).all()
    with virtual_gpu.running(seed=seed):
        barrier = f"setp.ne.u32 %q, %t, 0; {opcode} {'%w' if name == 'popc' else '%r'}, 0, %q;"
        assert (
            run(exchange(barrier, 39), "b32", [("b32", words())]) == words()[np.arange(THREADS) ^ 39]
        ).all()


@covers("bra", "bra.uni", "ret", "exit")
def test_flow() -> None:
    """Lanes branch apart, go round loops as often as each wants, and end where they like."""
    steps = (LANE * 7 + WARP) % 23
    body = """mov.u32 %u, 0; mov.b32 %d, 1;
$round:
    setp.ge.u32 %p, %u, %a; @%p bra $done;
    and.b32 %v, %u, 1; setp.eq.u32 %q, %v, 0; @!%q bra $odd;
    mad.lo.u32 %d, %d, 3, %u; bra.uni $next;
$odd:
    add.u32 %d, %d, %t;
$next:
    add.u32 %u, %u, 1; bra $round;
$done:"""
    expected = []
    for t, n in enumerate(steps):
        d = 1
        for u in range(n):
            d = d * 3 + u if u % 2 == 0 else d + t
        expected.append(d & 0xFFFFFFFF)
    expect(body, "b32", [("b32", steps.astype(np.uint32))], np.array(expected))
    for end in ("ret", "exit"):
        body = f"and.b32 %u, %t, 3; setp.eq.u32 %q, %u, 1; {element(0, 4)} @%q {end}; bar.sync 0; st.global.u32 [%at], %t;"
        got = launch(kernel(1, body), np.full(THREADS, 77, np.uint32), block=THREADS)[0]
        assert (got == np.where(LANE % 4 == 1, 77, np.arange(THREADS))).all()
    # both spellings of the end were executed
    launch(kernel(0, "exit;"), block=1)


def test_lanes_meet_after_a_branch() -> None:
    """Else a warp's later instructions would run once for each way there was."""
    body = """and.b32 %u, %t, 1; setp.eq.u32 %q, %u, 0; @%q bra $even; mov.b32 %d, 1; bra.uni $met;
$even:
    mov.b32 %d, 2;
$met:
    activemask.b32 %d;"""
    assert (run(body, "b32") == 0xFFFFFFFF).all()


def test_guards() -> None:
    """Lanes whose guard fails keep what they have, of every width."""
    t = np.arange(THREADS)
    for guard, runs in (("%q", t % 4 == 0), ("!%q", t % 4 != 0)):
        for type_ in ("b32", "b64"):
            body = f"and.b32 %u, %t, 3; setp.eq.u32 %q, %u, 0; mov.{type_} %d, 5; @{guard} mov.{type_} %d, 6;"
            assert (run(body, type_) == np.where(runs, 6, 5)).all()
        body = f"and.b32 %u, %t, 3; setp.eq.u32 %q, %u, 0; mov.pred %r, 0; @{guard} setp.lt.u32 %r, %t, 40; selp.u32 %d, 1, 0, %r;"
        assert (run(body, "b32") == (runs & (t < 40))).all()


SPECIAL: dict[str, Callable[[Array, Array, Array], Array]] = {
    # of thread x, y, z of blocks of 5 x 3 x 4 threads: 60, a warp and a part of one
    "%tid.x": lambda x, y, z: x, "%tid.y": lambda x, y, z: y, "%tid.z": lambda x, y, z: z,
    "%ntid.x": lambda x, y, z: 5 + 0 * x, "%ntid.y": lambda x, y, z: 3 + 0 * x, "%ntid.z": lambda x, y, z: 4 + 0 * x,
    "%laneid": lambda x, y, z: (x + 5 * y + 15 * z) % 32, "%warpid": lambda x, y, z: (x + 5 * y + 15 * z) // 32,
    "%lanemask_eq": lambda x, y, z: 1 << (x + 5 * y + 15 * z) % 32,
    "%lanemask_lt": lambda x, y, z: (1 << (x + 5 * y + 15 * z) % 32) - 1,
    "%lanemask_le": lambda x, y, z: (2 << (x + 5 * y + 15 * z) % 32) - 1,
    "%lanemask_gt": lambda x, y, z: (1 << 32) - (2 << (x + 5 * y + 15 * z) % 32),
    "%lanemask_ge": lambda x, y, z: (1 << 32) - (1 << (x + 5 * y + 15 * z) % 32),
}  # fmt: skip


@pytest.mark.parametrize("name", SPECIAL)
def test_special_registers_of_a_thread(name: str) -> None:
    z, y, x = (v.ravel() for v in np.mgrid[0:4, 0:3, 0:5].astype(np.int64))
    body = f"""mov.u32 %u, %tid.y; mov.u32 %v, %tid.z; mad.lo.u32 %u, %v, 3, %u; mad.lo.u32 %u, %u, 5, %t;
    {element(0, 4, "%u")} mov.u32 %w, {name}; st.global.u32 [%at], %w;"""
    out = torch.zeros(60, dtype=torch.int32, device="virtual")
    virtual_gpu.launch(kernel(1, body), "snippet", out, block=(5, 3, 4))
    assert (out.cpu().numpy().view(np.uint32) == SPECIAL[name](x, y, z)).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_special_registers_of_a_block(seed: int) -> None:
    body = "mov.u32 %u, %ctaid.z; mov.u32 %v, %nctaid.y; mad.lo.u32 %u, %u, %v, 0; mov.u32 %v, %ctaid.y; add.u32 %u, %u, %v;"
    body += f"mov.u32 %v, %nctaid.x; mul.lo.u32 %u, %u, %v; mov.u32 %v, %ctaid.x; add.u32 %u, %u, %v; {element(0, 4, '%u')}"
    body += "mov.u32 %v, %nctaid.z; mad.lo.u32 %v, %v, 100, %u; st.global.u32 [%at], %v;"
    out = torch.zeros(24, dtype=torch.int32, device="virtual")
    with virtual_gpu.running(seed=seed):
        virtual_gpu.launch(kernel(1, body), "snippet", out, grid=(2, 3, 4), block=(1,))
    assert out.cpu().tolist() == [400 + n for n in range(24)]


@pytest.mark.parametrize("seed", range(1, 6))
def test_order_of_warps_is_the_seeds(seed: int) -> None:
    """The ticket each warp draws: every order of blocks comes up, and always the same for a seed."""
    body = f"mov.u32 %u, %ctaid.x; {element(0, 4, '0')} atom.global.add.u32 %v, [%at], 1; {element(1, 4, '%u')} st.global.u32 [%at], %v;"
    tickets = []
    for _ in range(2):
        with virtual_gpu.running(seed=seed):
            tickets.append(
                launch(
                    kernel(2, body), np.zeros(1, np.uint32), np.zeros(8, np.uint32), block=1, grid=8
                )[1].tolist()
            )
    assert (
        tickets[0] == tickets[1]
        and sorted(tickets[0]) == list(range(8))
        and tickets[0] != list(range(8))
    )
