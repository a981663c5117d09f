"""Static gates: the machine code of every built kernel against the committed table."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gpu_kernels import COMMITTED, PAGE, as_json
from kernel_table import cubins, occupancy, table
from kernel_table.report import report

Table = dict[str, Any]


@pytest.fixture(scope="module")
def committed() -> Table:
    found: Table = json.loads(COMMITTED.read_text())
    return found


COUNTED = ("90",)  # the architectures whose instructions are read: all three take a minute
WITHOUT_LIBRARY = ("softmax", "topk_bf16", "weighted_sums_bf16")  # sources compiled instead


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """All of the built library or, where there is none, some of the sources."""
    folder, library = tmp_path_factory.mktemp("cubins"), cubins.library()
    try:
        for name in ("nvcc", "cuobjdump", "nvdisasm"):
            cubins.tool(name)
    except cubins.Missing as missing:
        pytest.skip(f"{missing}, or pip install 'adaptau_ext[test,virtual-gpu]'")
    if library is not None:
        return table.measure(cubins.extract(library, folder), COUNTED)
    return table.measure(cubins.compiled(WITHOUT_LIBRARY, COUNTED[0], folder), COUNTED)


def test_no_kernel_spills_and_every_kernel_fits_every_gpu(built: Table) -> None:
    assert table.violations(built) == []


def test_build_is_what_the_table_says(built: Table, committed: Table) -> None:
    if built["compiler"] != committed["compiler"]:
        pytest.skip(f"nvcc {built['compiler']}; the table is nvcc {committed['compiler']}'s")
    assert table.differences(committed, built) == [], (
        "on purpose? python benchmarks/gpu_kernels.py. Or is the library older than its sources?"
    )


def test_page_and_json_are_of_the_same_table(committed: Table) -> None:
    assert as_json(committed) == COMMITTED.read_text()
    assert report(committed) == PAGE.read_text()


def test_table_has_every_kernel_for_every_architecture(committed: Table) -> None:
    by_architecture: dict[str, set[str]] = {}
    for one in committed["kernels"]:
        by_architecture.setdefault(one["architecture"], set()).add(f"{one['source']}: {one['kernel']}")
    assert set(by_architecture) == set(cubins.ARCHITECTURES)
    assert len({frozenset(names) for names in by_architecture.values()}) == 1
    sources = {one["source"] for one in committed["kernels"]}
    global_ = {path.stem for path in cubins.CSRC.glob("*.cu") if "__global__" in path.read_text()}
    assert global_ <= sources
    assert table.violations(committed) == []


def test_products_are_made_of_the_fastest_instructions(committed: Table) -> None:
    walks = [one for one in committed["kernels"] if "loop" in one]
    assert len(walks) == 3 * (4 * 4 * 2 + 2 * 3 * 4)
    for one in walks:
        loop = one["loop"]
        assert loop["HMMA"] and loop["LDSM"] and loop["LDGSTS"] and loop["BAR"], table.name_of(one)
        half_width = "Bf16" in one["kernel"] or "Shape<F16" in one["kernel"]
        for op in loop["shapes"]:
            if op.startswith("HMMA"):
                assert (".16816." if half_width else ".1688.F32.TF32") in op
            else:  # 16 bytes, past the first cache
                assert op.startswith("LDGSTS") and ".BYPASS" in op and ".128" in op


# The comparison itself.


def a_walk(kernels: Table) -> Table:
    found: Table = next(one for one in kernels["kernels"] if "loop" in one)
    return found


def more(key: str, by: int) -> Callable[[Table], None]:
    def change(kernels: Table) -> None:
        a_walk(kernels)[key] += by

    return change


def more_in_loop(key: str, factor: float) -> Callable[[Table], None]:
    def change(kernels: Table) -> None:
        loop = a_walk(kernels)["loop"]
        loop[key] = int(loop[key] * factor) + 1

    return change


def local_access(kernels: Table) -> None:
    a_walk(kernels)["all"]["local"] = 2


def without_a_kernel(kernels: Table) -> None:
    kernels["kernels"].remove(a_walk(kernels))


def another_kernel(kernels: Table) -> None:
    kernels["kernels"].append(a_walk(kernels) | {"kernel": "new_kernel"})


def fewer_ldsm(kernels: Table) -> None:
    a_walk(kernels)["loop"]["LDSM"] -= 1


def fewer_wide_stores(kernels: Table) -> None:
    one = next(one for one in kernels["kernels"] if one["all"].get("STG128"))
    one["all"]["STG128"] -= 1


def more_of_a_kernel_without_tiles(kernels: Table) -> None:
    one = next(one for one in kernels["kernels"] if "loop" not in one)
    one["all"]["instructions"] = round(one["all"]["instructions"] * 1.06 + 0.5)


def without_a_loop(kernels: Table) -> None:
    del a_walk(kernels)["loop"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (more("registers", table.REGISTERS + 1), "registers"),
        (more("blocks", -1), "blocks at once"),
        (more_in_loop("instructions", 1.06), "instructions in the main loop"),
        (more_in_loop("HMMA", 1.0), "HMMA"),
        (fewer_ldsm, "LDSM"),
        (more_in_loop("LDGSTS", 1.0), "LDGSTS"),
        (more("static_shared", 16), "shared memory"),
        (fewer_wide_stores, "STG128"),
        (more_of_a_kernel_without_tiles, "instructions in all"),
        (without_a_loop, "no main loop"),
        (without_a_kernel, "not built"),
        (another_kernel, "not in the table"),
    ],
)
def test_differences_are_found(
    change: Callable[[Table], None], complaint: str, committed: Table
) -> None:
    doctored = copy.deepcopy(committed)
    change(doctored)
    assert [complaint in found for found in table.differences(committed, doctored)] == [True]


def test_slack_is_tolerated(committed: Table) -> None:
    doctored = copy.deepcopy(committed)
    for one in doctored["kernels"]:
        one["registers"] += table.REGISTERS
        if "loop" in one:
            one["loop"]["instructions"] = int(one["loop"]["instructions"] * 1.05)
    assert table.differences(committed, doctored) == []
    only_one = {"kernels": [one for one in committed["kernels"] if one["architecture"] == "90"]}
    assert table.differences(committed, only_one) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (more("spills", 4), "local memory"),
        (local_access, "local memory"),
        (more("dynamic_shared", 99 * 1024), "99 KiB"),
        (more("threads", 1024), "not one block fits"),
    ],
)
def test_violations_are_found(
    change: Callable[[Table], None], complaint: str, committed: Table
) -> None:
    doctored = copy.deepcopy(committed)
    change(doctored)
    assert any(complaint in found for found in table.violations(doctored))


def test_occupancy_is_what_nvidias_calculator_says(tmp_path: Path) -> None:
    try:
        nvcc = Path(cubins.tool("nvcc")).resolve()
        dry_run = subprocess.run(
            [nvcc, "--dryrun", "-c", "-x", "cu", os.devnull], capture_output=True, text=True, check=True
        )
    except cubins.Missing as missing:
        pytest.skip(str(missing))
    includes = next(line for line in dry_run.stderr.splitlines() if "INCLUDES=" in line)
    flags = includes.split("INCLUDES=")[1].replace('"', "").split()
    grid = [
        (architecture, threads, registers, shared)
        for architecture in occupancy.LIMITS
        for threads in (32, 64, 96, 128, 256, 384, 512, 1024)
        for registers in (24, 40, 63, 64, 96, 127, 128, 168, 255)
        for shared in (0, 1000, 20000, 48 << 10, 70000, 99 << 10, 110000, 163 << 10, 227 << 10)
    ]
    asked = "\n".join(
        f"{a[:-1]} {a[-1]} {limits.warps * 32} {limits.shared} {limits.shared_of_block} {t} {r} {s}"
        for a, t, r, s in grid
        for limits in [occupancy.LIMITS[a]]
    )
    program = tmp_path / "calculator"
    source = Path(__file__).with_name("gpu_occupancy.cpp")
    subprocess.run(["g++", *flags, source, "-o", program], check=True)
    said = subprocess.run([program], input=asked, capture_output=True, text=True, check=True).stdout
    assert [occupancy.blocks(*one) for one in grid] == [int(n) for n in said.split()]
