"""How many blocks and warps of a kernel a multiprocessor holds at once, by the documented limits.

CUDA C++ programming guide, "Compute capabilities"; for allocation units, NVIDIA's occupancy calculator
(cuda_occupancy.h): registers go to warps 256 at a time, shared memory to blocks 128 bytes at a time, and each
block takes 1 KiB of shared memory for the system.
"""

from __future__ import annotations

from dataclasses import dataclass

REGISTERS = 65536  # of a multiprocessor, and at most of a block
SYSTEM_SHARED = 1024  # of each block


@dataclass(frozen=True)
class Limits:
    warps: int
    blocks: int
    shared: int  # bytes of a multiprocessor
    shared_of_block: int


LIMITS = {
    "80": Limits(warps=64, blocks=32, shared=164 * 1024, shared_of_block=163 * 1024),
    "86": Limits(warps=48, blocks=16, shared=100 * 1024, shared_of_block=99 * 1024),
    "89": Limits(warps=48, blocks=24, shared=100 * 1024, shared_of_block=99 * 1024),
    "90": Limits(warps=64, blocks=32, shared=228 * 1024, shared_of_block=227 * 1024),
    "100": Limits(warps=64, blocks=32, shared=228 * 1024, shared_of_block=227 * 1024),
}
SMALLEST_SHARED = min(limits.shared_of_block for limits in LIMITS.values())


def _rounded(n: int, unit: int) -> int:
    return -(-n // unit) * unit


def blocks(architecture: str, threads: int, registers: int, shared: int) -> int:
    """Blocks at once; 0 if not even one fits. `registers` of a thread, `shared` bytes of a block."""
    limits = LIMITS[architecture]
    warps = -(-threads // 32)
    of_warp = _rounded(registers * 32, 256)
    if shared > limits.shared_of_block or of_warp * _rounded(warps, 4) > REGISTERS:
        return 0
    by_registers = REGISTERS // 4 // of_warp * 4 // warps  # a quarter of the warps on each quarter
    by_shared = limits.shared // _rounded(shared + SYSTEM_SHARED, 128)
    return min(limits.blocks, limits.warps // warps, by_registers, by_shared)
