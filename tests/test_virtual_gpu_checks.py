"""What the virtual GPU reports: each kind of finding on PTX that must have it, and on a twin that must not."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import pytest
import torch

from tests import virtual_gpu
from tests.virtual_gpu.snippet import HEADER, covers, element, kernel, note_executed

ROOM = ".shared .align 16 .b8 room[1024]; mov.u32 %u, room; mad.lo.u32 %v, %t, 4, %u; xor.b32 %w, %t, {}; mad.lo.u32 %w, %w, 4, %u;"
OTHER_WARP, SAME_WARP = ROOM.format(32), ROOM.format(1)
MINE = element(0, 4)
COPY = f"{ROOM.format(1)} {element(0, 16)} mad.lo.u32 %v, %t, 16, %u; cp.async.cg.shared.global [%v], [%at], 16;"
FIRST = "ld.param.u64 %at, [p0];"
IN_FIRST_HALF = "and.b32 %u, %t, 31; setp.lt.u32 %p, %u, 16;"
FIRST_WARP = "setp.lt.u32 %p, %t, 32;"


@dataclass
class Twins:
    """Bodies of a kernel of 64 threads; p0 has 4096 bytes that the host wrote, p1 as many that it did not."""

    what: str
    finding: str
    bad: str
    good: str
    blocks: int = 1
    stops: bool = False  # the bad one does not come to its end


CASES = [
    # races in shared memory
    Twins("read before a barrier", "race in shared memory",
          f"{OTHER_WARP} st.shared.u32 [%v], %t; ld.shared.u32 %u, [%w];",
          f"{OTHER_WARP} st.shared.u32 [%v], %t; bar.sync 0; ld.shared.u32 %u, [%w];"),
    Twins("written while others may still read", "race in shared memory",
          f"{OTHER_WARP} st.shared.u32 [%v], %t; bar.sync 0; ld.shared.u32 %u, [%w]; st.shared.u32 [%v], %t;",
          f"{OTHER_WARP} st.shared.u32 [%v], %t; bar.sync 0; ld.shared.u32 %u, [%w]; bar.sync 0; st.shared.u32 [%v], %t;"),
    Twins("lanes of a warp without bar.warp.sync", "race in shared memory",
          f"{SAME_WARP} st.shared.u32 [%v], %t; ld.shared.u32 %u, [%w];",
          f"{SAME_WARP} st.shared.u32 [%v], %t; bar.warp.sync -1; ld.shared.u32 %u, [%w];"),
    Twins("a warp's barrier for two warps", "race in shared memory",
          f"{OTHER_WARP} st.shared.u32 [%v], %t; bar.warp.sync -1; ld.shared.u32 %u, [%w];",
          f"{SAME_WARP} st.shared.u32 [%v], %t; bar.warp.sync -1; ld.shared.u32 %u, [%w];"),
    Twins("two writers", "race in shared memory",
          f"{OTHER_WARP} st.shared.u32 [room], %t;", f"{OTHER_WARP} st.shared.u32 [%v], %t;"),
    Twins("neighbours of one word", "race in shared memory",
          f"{OTHER_WARP} shr.u32 %v, %t, 1; add.u32 %v, %v, %u; st.shared.u8 [%v], %t;",
          f"{OTHER_WARP} add.u32 %v, %t, %u; st.shared.u8 [%v], %t;"),
    Twins("counted without atomics", "race in shared memory",
          f"{OTHER_WARP} st.shared.u32 [%v], 0; bar.sync 0; ld.shared.u32 %w, [room]; st.shared.u32 [room], %w;",
          f"{OTHER_WARP} st.shared.u32 [%v], 0; bar.sync 0; atom.shared.add.u32 %w, [room], 1;"),
    Twins("an atomic beside a plain read", "race in shared memory",
          f"{OTHER_WARP} st.shared.u32 [%v], 0; bar.sync 0; atom.shared.add.u32 %w, [room], 1; ld.shared.u32 %w, [room];",
          f"{OTHER_WARP} st.shared.u32 [%v], 0; bar.sync 0; atom.shared.add.u32 %w, [room], 1; bar.sync 0; ld.shared.u32 %w, [room];"),
    Twins("by a generic address", "race in shared memory",
          f"{OTHER_WARP} st.shared.u32 [%v], %t; cvt.u64.u32 %at, %w; cvta.shared.u64 %at, %at; ld.u32 %u, [%at];",
          f"{OTHER_WARP} st.shared.u32 [%v], %t; cvt.u64.u32 %at, %v; cvta.shared.u64 %at, %at; ld.u32 %u, [%at];"),
    # races in global memory
    Twins("blocks that write one place", "race in global memory",
          f"{MINE} st.global.u32 [%at], %t;",
          f"mov.u32 %u, %ctaid.x; mad.lo.u32 %u, %u, 64, %t; {element(0, 4, '%u')} st.global.u32 [%at], %t;", 2),
    Twins("blocks that hand over by a barrier", "race in global memory",
          f"mov.u32 %u, %ctaid.x; mad.lo.u32 %v, %u, 64, %t; {element(0, 4, '%v')} st.global.u32 [%at], %t; bar.sync 0;"
          f"xor.b32 %v, %v, 64; {element(0, 4, '%v')} ld.global.u32 %w, [%at];",
          f"mov.u32 %u, %ctaid.x; mad.lo.u32 %v, %u, 64, %t; {element(0, 4, '%v')} st.global.u32 [%at], %t; bar.sync 0;"
          f"xor.b32 %v, %v, 1; {element(0, 4, '%v')} ld.global.u32 %w, [%at];", 2),
    Twins("warps without a barrier", "race in global memory",
          f"{MINE} st.global.u32 [%at], %t; xor.b32 %u, %t, 32; {element(0, 4, '%u')} ld.global.u32 %u, [%at];",
          f"{MINE} st.global.u32 [%at], %t; bar.sync 0; xor.b32 %u, %t, 32; {element(0, 4, '%u')} ld.global.u32 %u, [%at];"),
    Twins("sums without atomics", "race in global memory",
          f"{FIRST} ld.global.u32 %u, [%at]; st.global.u32 [%at], %u;", f"{FIRST} red.global.add.u32 [%at], 1;", 2),
    # what nobody wrote
    Twins("shared memory", "uninitialised",
          f"{OTHER_WARP} ld.shared.u32 %w, [%v];", f"{OTHER_WARP} st.shared.u32 [%v], %t; ld.shared.u32 %w, [%v];"),
    Twins("a part of a word", "uninitialised",
          f"{OTHER_WARP} st.shared.u16 [%v], %t; ld.shared.u32 %w, [%v];",
          f"{OTHER_WARP} st.shared.u16 [%v], %t; ld.shared.u16 %w, [%v];"),
    Twins("an atomic's shared memory", "uninitialised",
          f"{OTHER_WARP} atom.shared.add.u32 %w, [room], 1;",
          f"{OTHER_WARP} st.shared.u32 [%v], 0; bar.sync 0; atom.shared.add.u32 %w, [room], 1;"),
    Twins("global memory", "uninitialised",
          f"{element(1, 4)} ld.global.u32 %u, [%at];", f"{element(1, 4)} st.global.u32 [%at], %t; ld.global.u32 %u, [%at];"),
    Twins("a part of global memory", "uninitialised",
          f"{element(1, 4)} st.global.u8 [%at+1], %t; ld.global.u16 %u, [%at];",
          f"{element(1, 4)} st.global.u8 [%at+1], %t; ld.global.u8 %u, [%at+1];"),
    Twins("an atomic's global memory", "uninitialised",
          "ld.param.u64 %at, [p1]; red.global.add.u32 [%at], 1;", f"{FIRST} red.global.add.u32 [%at], 1;"),
    Twins("an asynchronous copy's source", "uninitialised",
          COPY.replace("[p0]", "[p1]") + "cp.async.wait_all;", COPY + "cp.async.wait_all;"),
    # out of bounds
    Twins("global memory's end", "out of bounds",
          f"{FIRST} ld.global.u32 %u, [%at+4096];", f"{FIRST} ld.global.u32 %u, [%at+4092];"),
    Twins("global memory's begin", "out of bounds",
          f"{FIRST} ld.global.u8 %u, [%at+-1];", f"{FIRST} ld.global.u8 %u, [%at];"),
    Twins("across the end", "out of bounds",
          f"{FIRST} add.u64 %at, %at, 4092; st.global.u64 [%at+4], %at;", f"{FIRST} add.u64 %at, %at, 4088; ld.global.u64 %at, [%at];"),
    Twins("no memory at all", "out of bounds", "mov.b64 %at, 64; ld.global.u32 %u, [%at];", f"{FIRST} ld.global.u32 %u, [%at];"),
    Twins("an atomic", "out of bounds",
          f"{FIRST} red.global.add.u32 [%at+4096], 1;", f"{FIRST} red.global.add.u32 [%at+4092], 1;"),
    Twins("shared memory's end", "out of bounds",
          f"{OTHER_WARP} st.shared.u32 [%v+1024], %t;", f"{OTHER_WARP} st.shared.u32 [%v+768], %t;"),
    Twins("local memory", "out of bounds",
          ".local .align 4 .b8 own[16]; st.local.u32 [own+16], %t;", ".local .align 4 .b8 own[16]; st.local.u32 [own+12], %t;"),
    Twins("behind the parameters", "out of bounds",
          "mov.b64 %at, p0; ld.param.u64 %at, [%at+16];", "mov.b64 %at, p0; ld.param.u64 %at, [%at+8];"),
    Twins("before the parameters", "out of bounds",
          "mov.b64 %at, p0; ld.param.u64 %at, [%at+-8];", "mov.b64 %at, p1; ld.param.u64 %at, [%at+-8];"),
    Twins("more of the source than is copied", "out of bounds",
          COPY.replace(", 16;", ", 16, 17;") + "cp.async.wait_all;", COPY.replace(", 16;", ", 16, 15;") + "cp.async.wait_all;"),
    Twins("a copy's source", "out of bounds",
          COPY.replace("cp.async", "add.u64 %at, %at, 4096; cp.async") + "cp.async.wait_all;",
          COPY.replace("cp.async", "add.u64 %at, %at, 4096; cp.async").replace(", 16;", ", 16, 0;") + "cp.async.wait_all;"),
    Twins("a row of ldmatrix", "out of bounds",
          f"{OTHER_WARP} st.shared.u32 [%v], 0; bar.sync 0; and.b32 %v, %t, 7; mad.lo.u32 %v, %v, 16, %u; add.u32 %v, %v, 1024;"
          "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%u}, [%v];",
          f"{OTHER_WARP} st.shared.u32 [%v], 0; bar.sync 0; and.b32 %v, %t, 7; mad.lo.u32 %v, %v, 16, %u;"
          "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%u}, [%v];"),
    # alignment
    Twins("a word", "misaligned", f"{FIRST} ld.global.u32 %u, [%at+2];", f"{FIRST} ld.global.u16 %u, [%at+2];"),
    Twins("a vector", "misaligned",
          f"{FIRST} ld.global.v2.u32 {{%u, %v}}, [%at+4];", f"{FIRST} ld.global.v2.u32 {{%u, %v}}, [%at+8];"),
    Twins("a vector in shared memory", "misaligned",
          f"{OTHER_WARP} mad.lo.u32 %v, %t, 8, %u; st.shared.v4.u32 [%v], {{%t, %t, %t, %t}};",
          f"{OTHER_WARP} mad.lo.u32 %v, %t, 16, %u; st.shared.v4.u32 [%v], {{%t, %t, %t, %t}};"),
    Twins("an atomic of 64 bits", "misaligned",
          f"{FIRST} mov.b64 %at1, 1; red.global.add.u64 [%at+4], %at1;", f"{FIRST} mov.b64 %at1, 1; red.global.add.u64 [%at+8], %at1;"),
    Twins("a copy's destination", "misaligned",
          COPY.replace("cp.async", "add.u32 %v, %v, 8; cp.async") + "cp.async.wait_all;", COPY + "cp.async.wait_all;"),
    Twins("a row", "misaligned",
          f"{OTHER_WARP} st.shared.u32 [%v], 0; bar.sync 0; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%u}}, [room+8];",
          f"{OTHER_WARP} st.shared.u32 [%v], 0; bar.sync 0; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%u}}, [room+16];"),
    # asynchronous copies
    Twins("read without a wait", "copy in flight",
          f"{COPY} ld.shared.u32 %w, [%v];", f"{COPY} cp.async.wait_all; ld.shared.u32 %w, [%v];"),
    Twins("one group too few waited for", "copy in flight",
          f"{COPY} cp.async.commit_group; cp.async.wait_group 1; ld.shared.u32 %w, [%v];",
          f"{COPY} cp.async.commit_group; cp.async.wait_group 0; ld.shared.u32 %w, [%v];"),
    Twins("never committed", "copy in flight",
          f"{COPY} cp.async.wait_group 0; ld.shared.u32 %w, [%v];",
          f"{COPY} cp.async.commit_group; cp.async.wait_group 0; ld.shared.u32 %w, [%v];"),
    Twins("written under way", "copy in flight",
          f"{COPY} st.shared.u32 [%v], %t; cp.async.wait_all;", f"{COPY} cp.async.wait_all; st.shared.u32 [%v], %t;"),
    Twins("two copies to one place", "copy in flight",
          f"{COPY} cp.async.cg.shared.global [%v], [%at], 16; cp.async.wait_all;",
          f"{COPY} cp.async.wait_all; cp.async.cg.shared.global [%v], [%at], 16; cp.async.wait_all;"),
    Twins("a source that changes", "copy in flight",
          f"{COPY} st.global.u32 [%at], -1; cp.async.wait_all;", f"{COPY} cp.async.wait_all; st.global.u32 [%at], -1;"),
    Twins("a wait that others did", "race in shared memory",
          f"{COPY} cp.async.wait_all; xor.b32 %w, %t, 32; mad.lo.u32 %w, %w, 16, %u; ld.shared.u32 %w, [%w];",
          f"{COPY} cp.async.wait_all; bar.sync 0; xor.b32 %w, %t, 32; mad.lo.u32 %w, %w, 16, %u; ld.shared.u32 %w, [%w];"),
    # barriers, and instructions of a whole warp
    Twins("two barriers for one", "divergent barrier",
          f"{FIRST_WARP} @%p bra $one; bar.sync 0; bra.uni $met;\n$one:\n bar.sync 0;\n$met:",
          f"{FIRST_WARP} @%p bra $one; mov.u32 %u, 1; bra.uni $met;\n$one:\n mov.u32 %u, 2;\n$met:\n bar.sync 0;"),
    Twins("a barrier that half a warp skips", "divergent barrier",
          f"{IN_FIRST_HALF} @%p bra $skip; bar.sync 0;\n$skip:\n bar.sync 0;", f"{IN_FIRST_HALF} @%p bra $skip; mov.u32 %u, 1;\n$skip:\n bar.sync 0;"),
    Twins("a shuffle that lanes skip", "divergent barrier",
          f"{IN_FIRST_HALF} @%p bra $skip; shfl.sync.bfly.b32 %v, %t, 1, 31, -1; bar.sync 0;\n$skip:\n bar.sync 0;",
          f"{IN_FIRST_HALF} @%p bra $skip; shfl.sync.bfly.b32 %v, %t, 1, 31, 0xffff0000;\n$skip:\n bar.sync 0;", stops=True),
    Twins("a shuffle from a lane that is not there", "divergent barrier",
          f"{IN_FIRST_HALF} @%p bra $skip; shfl.sync.bfly.b32 %v, %t, 16, 31, 0xffff0000;\n$skip:",
          f"{IN_FIRST_HALF} @%p bra $skip; shfl.sync.bfly.b32 %v, %t, 8, 31, 0xffff0000;\n$skip:"),
    Twins("mma by part of a warp", "divergent barrier",
          f"{IN_FIRST_HALF} @%p bra $skip; mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {{%u, %v, %w, %t}}, {{%t, %t, %t, %t}}, {{%t, %t}}, {{%t, %t, %t, %t}}; bar.sync 0;\n$skip:\n bar.sync 0;",
          "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%u, %v, %w, %t}, {%t, %t, %t, %t}, {%t, %t}, {%t, %t, %t, %t};", stops=True),
    Twins("bar.warp.sync for lanes that are elsewhere", "divergent barrier",
          f"{IN_FIRST_HALF} @%p bra $skip; bar.warp.sync -1; bar.sync 0;\n$skip:\n bar.sync 0;",
          f"{IN_FIRST_HALF} @%p bra $skip; bar.warp.sync 0xffff0000;\n$skip:\n bar.sync 0;", stops=True),
    Twins("warps that wait for each other", "deadlock",
          f"{IN_FIRST_HALF} {FIRST_WARP} @!%p bra $wait; and.b32 %u, %t, 1; setp.eq.u32 %q, %u, 0; @%q bra $skip; bar.warp.sync -1;\n$skip:\n bar.sync 0;\n$wait:\n bar.sync 0;",
          "bar.warp.sync -1; bar.sync 0;", stops=True),
    Twins("a trap", "trap", "setp.eq.u32 %p, %t, 40; @%p trap;", "setp.eq.u32 %p, %t, 64; @%p trap;", stops=True),
]  # fmt: skip


def problems(body: str, blocks: int) -> tuple[set[str], str]:
    """Found in a run, in order and in another order; and the error that it ended with."""
    found, errors = [], []
    for seed in (0, 3):
        virtual_gpu.clear()
        written = torch.zeros(1024, dtype=torch.int32).to("virtual")
        unwritten = torch.empty(1024, dtype=torch.int32, device="virtual")
        try:
            with virtual_gpu.running(seed=seed):
                virtual_gpu.launch(
                    kernel(2, body), "snippet", written, unwritten, grid=(blocks,), block=(64,)
                )
            errors.append("")
        except RuntimeError as error:
            errors.append(str(error))
        found.append({finding["problem"] for finding in virtual_gpu.findings()})
    assert found[0] == found[1] and errors[0] == errors[1], (found, errors)
    return found[0], errors[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.finding}: {case.what}")
def test_findings(case: Twins, virtual: ModuleType) -> None:
    found, error = problems(case.bad, case.blocks)
    virtual.clear()
    assert case.finding in found
    assert error == ("stopped" if case.stops else "")
    assert problems(case.good, case.blocks) == (set(), "")


def test_unchecked_launches_look_at_bounds_alone(virtual: ModuleType) -> None:
    x = torch.zeros(64, dtype=torch.int32).to("virtual")
    for body, expected in (
        (f"{OTHER_WARP} ld.shared.u32 %u, [%v];", set()),
        (f"{FIRST} st.global.u32 [%at+256], %t;", {"out of bounds"}),
    ):
        virtual.clear()
        with virtual.running(checked=False):
            virtual.launch(kernel(1, body), "snippet", x, block=(64,))
        assert {finding["problem"] for finding in virtual.findings()} == expected
        assert virtual.line_counts() == []
    virtual.clear()


def test_launches_are_ordered(virtual: ModuleType) -> None:
    x = torch.zeros(64, dtype=torch.int32).to("virtual")
    for _ in range(2):
        virtual.launch(kernel(1, f"{MINE} st.global.u32 [%at], %t;"), "snippet", x, block=(64,))
    virtual.launch(
        kernel(1, f"xor.b32 %u, %t, 32; {element(0, 4, '%u')} ld.global.u32 %u, [%at];"),
        "snippet",
        x,
        block=(64,),
    )


@covers("call.uni", "st.param.b32", "st.param.b64", "trap")
def test_assertions_and_traps(virtual: ModuleType) -> None:
    """An assertion that fails says what it is, and ends the launch. One that holds does not."""
    text = ", ".join(str(c) for c in b"x < 3\0")
    declarations = f""".extern .func __assertfail (.param .b64 a, .param .b64 b, .param .b32 c, .param .b64 d, .param .b64 e);
.global .align 1 .b8 message[6] = {{{text}}};"""
    body = f"""{MINE} ld.global.u32 %u, [%at]; setp.lt.u32 %p, %u, 3; @%p bra $fine;
    mov.u64 %at, message; cvta.global.u64 %at, %at;
    {{ .param .b64 param0; st.param.b64 [param0+0], %at; .param .b64 param1; st.param.b64 [param1+0], %at;
    .param .b32 param2; st.param.b32 [param2+0], 55; .param .b64 param3; st.param.b64 [param3+0], %at;
    .param .b64 param4; st.param.b64 [param4+0], 1;
    call.uni __assertfail, (param0, param1, param2, param3, param4); }}
$fine:
    setp.eq.u32 %p, %u, 2; @%p trap;"""
    ptx = kernel(1, body, declarations)
    virtual.launch(ptx, "snippet", torch.ones(64, dtype=torch.int32).to("virtual"), block=(64,))
    assert virtual.findings() == []
    for value in (5, 2):
        x = torch.ones(64, dtype=torch.int32)
        x[50] = value
        with pytest.raises(RuntimeError, match="stopped"):
            virtual.launch(ptx, "snippet", x.to("virtual"), block=(64,))
    found = virtual.findings()
    assert sorted((f["problem"], f["message"]) for f in found) == [
        ("assertion", "x < 3"),
        ("trap", "trap"),
    ]
    note_executed()
    virtual.clear()


def test_places_are_those_of_the_source(virtual: ModuleType) -> None:
    """Of the last .loc, the file by its number."""
    ptx = f"""{HEADER}
.visible .entry snippet(.param .u64 p0) {{
    .reg .b64 %at; .reg .b32 %u;
    .loc 2 17 3
    ld.param.u64 %at, [p0];
    .loc 1 21 3
    ld.global.u32 %u, [%at+-4];
    ret;
}}
.file 1 "one.cuh"
.file 2 "two.cu"
"""
    virtual.launch(ptx, "snippet", torch.zeros(4).to("virtual"), block=(3,))
    (finding,) = virtual.findings()
    lines = {(line["file"], line["line"], line["warps"]) for line in virtual.line_counts()}
    virtual.clear()
    assert (finding["file"], finding["line"], finding["count"]) == ("one.cuh", 21, 3)
    assert finding["instruction"] == "ld.global.u32 %u, [%at+-4]" and finding["kernel"] == "snippet"
    assert "global" in finding["message"]
    assert lines == {("two.cu", 17, 1), ("one.cuh", 21, 1)}


# address of a lane, bytes: wavefronts of shared memory, sectors of global memory; and the least of each
COSTS = {
    "consecutive words": ("%t, 4", 4, (1, 1), (4, 4)),
    "every second word": ("%t, 8", 4, (2, 1), (8, 4)),
    "rows of 32 words": ("%t, 128", 4, (32, 1), (32, 4)),
    "rows of 33 words": ("%t, 132", 4, (1, 1), (32, 4)),
    "one word for all": ("%t, 0", 4, (1, 1), (1, 1)),
    "consecutive 16 bytes": ("%t, 16", 16, (4, 4), (16, 16)),
    "consecutive 8 bytes": ("%t, 8", 8, (2, 2), (8, 8)),
    "consecutive bytes": ("%t, 1", 1, (1, 1), (1, 1)),
}


@pytest.mark.parametrize("name", COSTS)
def test_costs(name: str, virtual: ModuleType) -> None:
    index, size, wavefronts, sectors = COSTS[name]
    type_ = {1: "u8", 4: "u32", 8: "v2.u32", 16: "v4.u32"}[size]
    registers = {8: "{%v, %w}", 16: "{%v, %w, %x, %y}"}.get(size, "%v")
    body = f""".reg .b32 %x, %y; .shared .align 16 .b8 room[8192];
    mov.u32 %v, room; mad.lo.u32 %u, {index}, %v; cvt.u64.u32 %at1, %u;
    ld.shared.{type_} {registers}, [%u]; ld.param.u64 %at, [p0]; mad.wide.u32 %at, {index}, %at; ld.global.{type_} {registers}, [%at];"""
    virtual.launch(
        kernel(1, body), "snippet", torch.zeros(8192, dtype=torch.uint8).to("virtual"), block=(32,)
    )
    counts = {
        line["instruction"].split(".")[1]: line
        for line in virtual.line_counts()
        if line["instruction"].startswith("ld.")
    }
    virtual.clear()  # nobody wrote the shared memory
    shared, there = counts["shared"], counts["global"]
    assert (shared["wavefronts"], shared["ideal_wavefronts"], shared["sectors"]) == (*wavefronts, 0)
    assert (there["sectors"], there["ideal_sectors"], there["wavefronts"]) == (*sectors, 0)
