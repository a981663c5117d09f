"""Reading machine code, and the model: examples small enough to check by hand."""

from __future__ import annotations

import pytest
from gpu_model import A100, H100
from kernel_table import cubins, flow, model, sass

# A walk over tiles: an inner loop of products, a branch over something rare, slow code for diverged
# lanes, and a jump out that ptxas wrote as a call.
WALK = """
.text._Z4walkv:
        /*0000*/                   S2R R0, SR_TID.X ;
.L_x_0:
        /*0010*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0020*/                   LDGSTS.E.BYPASS.128 [R1], [R2.64] ;
.L_x_1:
        /*0030*/                   LDSM.16.M88.4 R4, [R3] ;
        /*0040*/                   HMMA.16816.F32.BF16 R8, R4, R6, R8 ;
        /*0050*/              @!P0 BRA `(.L_x_1) ;
        /*0060*/                   BRA.DIV ~URZ, `(.L_x_4) ;
        /*0070*/               @P1 BRA `(.L_x_2) ;
        /*0080*/                   LDL R1, [R5] ;
        /*0090*/                   STG.E.128 desc[UR4][R2.64], R4 ;
.L_x_2:
        /*00a0*/                   MUFU.EX2 R9, R9 ;
        /*00b0*/               @P2 CALL.REL.NOINC `(.L_x_3) ;
        /*00c0*/                   BRA `(.L_x_0) ;
.L_x_3:
        /*00d0*/                   EXIT ;
.L_x_4:
        /*00e0*/                   WARPSYNC.COLLECTIVE R1, `(.L_x_2) ;
        /*00f0*/                   BRA `(.L_x_2) ;
"""


def test_main_loop_and_usual_round() -> None:
    ((name, blocks),) = sass.functions(WALK.splitlines())
    assert name == "_Z4walkv"
    found = flow.loops(blocks)
    assert [blocks[loop.header].labels for loop in found] == [[".L_x_1"], [".L_x_0"]]
    main = flow.main_loop(blocks, found)
    assert main == found[1]  # the inner one has no barrier
    way = flow.usual_round(blocks, main, found)
    ops = flow.with_trips(way, hmma=3, copies=1)
    assert sass.count(ops) == {
        "instructions": 2 + 3 * 3 + 5,
        "HMMA": 3,
        "LDSM": 3,
        "LDGSTS": 1,
        "MUFU": 1,
        "BAR": 1,
    }
    everything = sass.count(i.op for block in blocks for i in block.instructions)
    assert everything["local"] == 1 and everything["STG128"] == 1


@pytest.mark.parametrize(("hmma", "copies"), [(0, 1), (3, 2), (3, 0)])
def test_work_that_a_round_cannot_hold_is_an_error(hmma: int, copies: int) -> None:
    ((_, blocks),) = sass.functions(WALK.splitlines())
    found = flow.loops(blocks)
    way = flow.usual_round(blocks, found[1], found)
    with pytest.raises(ValueError, match="in a round"):
        flow.with_trips(way, hmma, copies)


def test_names_are_readable() -> None:
    name = "_ZN7adaptau4cuda17topk_lists_kernelINS0_5ShapeINS0_4Bf16ELi64EEEEEvNS0_9TopkListsE"
    assert cubins.readable(name) == "topk_lists_kernel<Shape<Bf16, 64>>"


@pytest.mark.parametrize(
    ("op", "kind", "words"),
    [
        ("HMMA.16816.F32.BF16", "HMMA", 0),
        ("MUFU.EX2", "MUFU", 0),
        ("FFMA.FTZ", "FP32", 0),
        ("FMNMX", "compare, convert", 0),
        ("F2FP.BF16.F32.PACK_AB", "compare, convert", 0),
        ("LDSM.16.MT88.4", "LDSM", 4),
        ("LDS.64", "LDS, STS", 2),
        ("LDGSTS.E.BYPASS.128", "LDGSTS", 4),
        ("SHFL.BFLY", "exchange", 1),
        ("BRA", "uniform, control", 0),
        ("LDC.64", "uniform, control", 0),
        ("UIADD3", "uniform, control", 0),
        ("IMAD.WIDE.U32", "IMAD", 0),
        ("LOP3.LUT", "integer", 0),
    ],
)
def test_classes(op: str, kind: str, words: int) -> None:
    assert model.class_of(op) == kind
    assert model.shared_words(op) == words


def test_cycles_are_the_documented_rates() -> None:
    # 2048 multiplications at 256 a quarter; 16 specials, 64 others, 128 bytes a multiprocessor
    counts = {"HMMA": 1, "MUFU": 1, "FP32": 1, "IMAD": 1, "integer": 1, "LDS, STS": 1, "words": 2}
    busy = model.cycles(counts, A100)
    assert busy["tensor"] == 8 and busy["exp"] == 8
    assert busy["float32"] == 4 and busy["other arithmetic"] == 2
    assert busy["shared memory"] == 8 and busy["issue"] == 6
    on_h100 = model.cycles({"HMMA": 1, "FP32": 1}, H100)
    assert on_h100["tensor"] == pytest.approx(4 / 0.629) and on_h100["float32"] == 1


def test_serial_time_is_products_and_rest_unless_shared_memory_takes_longer() -> None:
    loop = model.phases(["HMMA.16816.F32.BF16", "LDSM.16.M88.4"] * 10 + ["FADD"] * 100)
    assert loop["products"]["LDSM"] == 9 and loop["rest"]["FP32"] == 100
    assert model.overlapped(loop, A100) == 200
    assert model.serial(loop, A100) == 80 + 200
    assert model.bound(loop, A100) == "tensor + float32"
    loop = model.phases(["HMMA.16816.F32.BF16", *["LDSM.16.M88.4"] * 3] * 10)
    assert model.serial(loop, A100) == 30 * 16
    assert model.bound(loop, A100) == "shared memory"


def test_far_apart_products_do_not_hide_what_is_between() -> None:
    ops = ["HMMA.16816.F32.BF16", *["FADD"] * (model.GAP + 1), "HMMA.16816.F32.BF16"]
    assert model.phases(ops)["rest"]["FP32"] == model.GAP + 1


def test_a_loop_of_products_alone_is_predicted_to_reach_the_peak() -> None:
    loop = model.phases(["HMMA.16816.F32.BF16"] * 16) | {"passes": 1, "logits": 16 * 8 * 4}
    row = {"architecture": "80", "kernel": "topk_lists_kernel<Shape<Bf16, 64>>", "loop": loop}
    (one,) = model.predictions({"kernels": [row]})  # d = 64: four steps of 16 for 8 columns
    assert one.serial == one.overlapped == pytest.approx(one.peak)
