"""The table: one row a kernel instance and architecture, and what must not change without notice.

`measure` makes it from a built library, `violations` are what no kernel may do, `differences` what a change of
the sources must say: whoever makes the kernels bigger on purpose writes the table anew
(`python benchmarks/gpu_kernels.py`) and commits it with them.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import cubins, flow, model, occupancy, sass
from .launches import Launch, launches

Row = dict[str, Any]

# How much more than the committed table a build may need.
REGISTERS = 8
INSTRUCTIONS = 0.05  # of the main loop; of all where there is none
EXACT = ("HMMA", "LDSM", "LDGSTS")  # in the main loop
WIDE = ("LDG128", "STG128", "LDS128", "STS128")  # accesses of 16 bytes: never fewer


def measure(files: Iterable[Path], architectures: Container[str] = cubins.ARCHITECTURES) -> Row:
    """Of every kernel in the files. Instructions are counted in these architectures only."""
    asked = launches()

    def read(cubin: Path) -> list[cubins.Kernel]:
        return cubins.kernels(cubin, cubin.suffixes[-2].removeprefix(".sm_") in architectures)

    with ThreadPoolExecutor() as pool:
        found = [kernel for kernels in pool.map(read, files) for kernel in kernels]
    rows = [row(kernel, asked.get(kernel.name)) for kernel in found]
    rows.sort(key=lambda one: (one["source"], one["kernel"], int(one["architecture"])))
    return {"compiler": cubins.compiler(), "kernels": rows}


def row(kernel: cubins.Kernel, launch: Launch | None) -> Row:
    """Resources, occupancy and instructions of one kernel; of its main loop too, if it walks over tiles."""
    static = kernel.static_shared
    if int(kernel.architecture) >= 90:  # there the kilobyte that the system takes is in it
        static = max(0, static - occupancy.SYSTEM_SHARED)
    dynamic = launch.shared if launch else 0
    threads = launch.threads if launch else kernel.threads
    blocks = occupancy.blocks(kernel.architecture, threads, kernel.registers, static + dynamic)
    found: Row = {
        "source": kernel.source,
        "kernel": kernel.name,
        "architecture": kernel.architecture,
        "registers": kernel.registers,
        "spills": kernel.stack,
        "static_shared": static,
        "dynamic_shared": dynamic,
        "threads": threads,
        "blocks": blocks,
        "warps": blocks * -(-threads // 32),
    }
    if kernel.blocks is not None:
        found["all"] = sass.count(i.op for block in kernel.blocks for i in block.instructions)
        if launch:
            found["loop"] = loop(kernel.name, kernel.blocks, launch)
    return found


def loop(name: str, blocks: list[sass.Block], launch: Launch) -> Row:
    """A usual round of the main loop: instructions of a warp for one tile."""
    found = flow.loops(blocks)
    main = flow.main_loop(blocks, found)
    if main is None:
        raise ValueError(f"{name} has no main loop")
    try:
        once = flow.usual_round(blocks, main, found)
        ops = flow.with_trips(once, launch.hmma, launch.copies)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return {
        **sass.count(ops),
        "shapes": sorted({op for op in ops if op.startswith(("HMMA", "LDGSTS"))}),
        "logits": launch.logits,
        "passes": launch.d // launch.sums if "weighted" in name else 1,
        **model.phases(ops),
    }


def name_of(one: Row) -> str:
    return f"{one['source']}: {one['kernel']}, sm_{one['architecture']}"


def violations(table: Row) -> list[str]:
    """What no kernel may do, whatever the table says."""
    found = []
    for one in table["kernels"]:
        if one["spills"] or one.get("all", {}).get("local"):
            found.append(f"{name_of(one)}: spills {one['spills']} bytes to local memory")
        shared = one["static_shared"] + one["dynamic_shared"]
        if shared > occupancy.SMALLEST_SHARED:
            found.append(
                f"{name_of(one)}: {shared} bytes of shared memory; sm_86 and sm_89 have 99 KiB"
            )
        for architecture in (one["architecture"], "86", "89"):
            if not occupancy.blocks(architecture, one["threads"], one["registers"], shared):
                found.append(
                    f"{name_of(one)}: not one block fits a multiprocessor of sm_{architecture}"
                )
    return found


def differences(committed: Row, fresh: Row) -> list[str]:
    """In which a fresh build needs more than the committed table allows, or does other work.

    Only sources and architectures that the fresh build has count, so that a part of it can be compared.
    """
    before = {name_of(one): one for one in committed["kernels"]}
    after = {name_of(one): one for one in fresh["kernels"]}
    built = {(one["source"], one["architecture"]) for one in after.values()}
    found = [
        f"{name}: in the table, but not built"
        for name, one in before.items()
        if name not in after and (one["source"], one["architecture"]) in built
    ]
    for name, new in after.items():
        if name in before:
            found += [f"{name}: {change}" for change in _changes(before[name], new)]
        elif new["architecture"] in cubins.ARCHITECTURES:
            found.append(f"{name}: built, but not in the table")
    return found


def _changes(old: Row, new: Row) -> list[str]:
    found = []
    if new["registers"] > old["registers"] + REGISTERS:
        found.append(f"{new['registers']} registers, {old['registers']} in the table")
    shared = [one["static_shared"] + one["dynamic_shared"] for one in (old, new)]
    if shared[1] > shared[0]:
        found.append(f"{shared[1]} bytes of shared memory, {shared[0]} in the table")
    if new["blocks"] < old["blocks"]:
        found.append(f"{new['blocks']} blocks at once, {old['blocks']} in the table")
    if "loop" in old and "all" in new and "loop" not in new:
        found.append("no main loop, which the table has")
    for part in ("all", "loop"):
        if part in old and part in new:
            found += _instructions(part, old[part], new[part], whole="loop" not in old)
    return found


def _instructions(part: str, old: Row, new: Row, whole: bool) -> list[str]:
    """`whole`: the kernel has no main loop, all of it counts."""
    where = "in all" if part == "all" else "in the main loop"
    found = []
    if (part == "loop" or whole) and new["instructions"] > old["instructions"] * (1 + INSTRUCTIONS):
        found.append(f"{new['instructions']} instructions {where}, {old['instructions']} in the table")
    for kind in EXACT if part == "loop" else WIDE:
        was, now = old.get(kind, 0), new.get(kind, 0)
        if now != was if part == "loop" else now < was:
            found.append(f"{now} {kind} {where}, {was} in the table")
    return found
