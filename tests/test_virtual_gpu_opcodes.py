"""Every instruction that the shipped kernels are made of has a test of its own in test_virtual_gpu_*.py."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest

from tests.virtual_gpu import build
from tests.virtual_gpu.snippet import HEADER, TESTED, kernel, launch, opcode_of

pytestmark = pytest.mark.usefixtures("virtual")


def shipped_ptx() -> list[str]:
    """For every target, as nvcc put it into the library."""
    found = re.findall(rb"\.version \d[^\0]*", build.library().read_bytes())
    return [text.decode() for text in found]


def opcodes(ptx: str) -> set[str]:
    code = re.sub(r"//.*|\"(\\.|[^\"\\])*\"", "", ptx)
    code = re.sub(r"(?m)^\s*(\.(loc|file|version|target|address_size)\b.*|[\w$]+:)", "", code)
    pieces = (piece.strip() for piece in re.split("[;{}]", code))
    instruction = re.compile(r"(@!?[\w%$]+\s+)?[a-z][a-z0-9_]*(\.[\w:]+)*(\s|$)")
    return {opcode_of(piece) for piece in pieces if instruction.match(piece)}


def test_every_shipped_opcode_is_tested() -> None:
    for path in Path(__file__).parent.glob("test_virtual_gpu_*.py"):
        importlib.import_module(f"tests.{path.stem}")  # fills TESTED
    texts = shipped_ptx()
    for target in build.TARGETS:
        of_target = [text for text in texts if f".target sm_{target}" in text]
        assert len(of_target) >= len(list((build.CSRC / "cuda").glob("*.cu")))
        used = set().union(*map(opcodes, of_target))
        assert len(used) > 150 and {"fma.rn.f32", "ret", "cp.async.commit_group", "call.uni"} <= used
        untested = used - TESTED
        assert not untested, (
            f"no test covers {sorted(untested)}: see tests/virtual_gpu/snippet.py, covers"
        )


def test_opcodes_are_found_in_ptx() -> None:
    """Else the test above would pass by finding none."""
    text = """.visible .entry f(.param .u64 p) { // add.s32 %r, 1;
    .reg .pred p; @!%p1 bra $L__BB0_4; { mov.b32 {low,high},%r1; }
    { call.uni __assertfail,
    (param0,
    param1); }
    .loc 1 2 3
$L__BB0_4: ret;
    @%p2 mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f1, %f2}, {%r1}; cp.async.wait_all;
}"""
    assert opcodes(text) == {
        "bra", "mov.b32", "call.uni", "ret", "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", "cp.async.wait_all",
    }  # fmt: skip


UNKNOWN = [
    "add.sat.s32 %u, %v, %w;", "mad.hi.s32 %u, %v, %w, %u;", "dp4a.u32.u32 %u, %v, %w, %u;", "popc.b64 %u, %at;",
    "cvt.rz.f32.s32 %u, %v;", "cvt.sat.u8.s32 %u, %v;", "setp.lt.and.s32 %p, %u, %v, %q;", "add.rz.f32 %u, %v, %w;",
    "ex2.approx.f32 %u, %v;", "atom.global.add.f32 %u, [%at], %v;", "atom.global.inc.u32 %u, [%at], %v;",
    "redux.sync.max.f32 %u, %v, -1;", "bar.arrive 0, 64;", "ldmatrix.sync.aligned.m8n8.x3.shared.b16 {%u, %v, %w}, [%t];",
    "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%u, %v, %w, %t}, {%u, %v}, {%w}, {%u, %v, %w, %t};",
    "ld.global.v8.b32 {%u, %v}, [%at];", "add.s32.wrong %u, %v, %w;", "nonsense;",
]  # fmt: skip
REFUSED = {
    "mov.b64 %at, {%u, %v, %w, %t};": "halves",
    "mov.b16 %u, {%v, %w};": "unknown|halves",
    "bar.sync 1, 64;": "some of the block's warps",
    "bar.red.or.pred %p, 1, 64, %q;": "some of the block's warps",
    "cp.async.ca.shared.global [%u], [%at], 4, %p;": "ignore",
    "mov.u64 %at, %clock64;": "unknown register %clock64",
    "add.s32 %u, %nobody, 1;": "not a register: %nobody",
    "bra $nowhere;": "no label",
    "call printf, (%u);": "only __assertfail",
}


@pytest.mark.parametrize("instruction", UNKNOWN)
def test_unknown_instructions_are_errors(instruction: str) -> None:
    """That name the line: nothing is skipped or taken for something else."""
    line = 1 + kernel(0, instruction).split("\n").index(f"    {instruction}")
    with pytest.raises(
        RuntimeError, match=rf"(?s)PTX:{line}: unknown instruction.*{re.escape(instruction[:-1])}"
    ):
        launch(kernel(0, instruction))


@pytest.mark.parametrize("instruction", REFUSED)
def test_what_is_not_modelled_is_refused(instruction: str) -> None:
    with pytest.raises(RuntimeError, match=REFUSED[instruction]):
        launch(kernel(0, instruction))


def test_malformed_modules_are_errors() -> None:
    for ptx in (f"{HEADER}.entry f() {{ .surface .u32 x; ret; }}", f"{HEADER}add.s32 %r1, %r2, %r3;"):
        with pytest.raises(RuntimeError, match="unknown directive|outside of a kernel"):
            launch(ptx, np.zeros(1), name="f")
    with pytest.raises(RuntimeError, match="no such kernel"):
        launch(kernel(0, ""), name="another")


def test_objects_of_another_processor_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "CACHE", tmp_path / "cache")
    source = tmp_path / "one.cpp"
    source.write_text("int one = 1;\n")
    command = [*build.CXX, "-march=native"]
    here = build.compiled(command, source)
    made = here.stat().st_mtime_ns
    assert build.compiled(command, source) == here and here.stat().st_mtime_ns == made
    monkeypatch.setattr(build, "this_processor", lambda: "another one")
    assert build.compiled(command, source) != here
