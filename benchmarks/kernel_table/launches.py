"""What the launchers of the tile kernels ask for: launches.cu, compiled and run on the host."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import cubins


@dataclass(frozen=True)
class Launch:
    kernel: str
    threads: int
    shared: int  # dynamic, bytes
    d: int  # elements of a row, padded
    sums: int  # of these a block sums up
    rows: int  # of a block
    columns: int  # of a tile
    hmma: int  # tensor-core instructions of a warp, for one tile
    copies: int  # asynchronous copies of a thread, for one tile and its parameters

    @property
    def logits(self) -> int:
        """Of a warp, for one tile."""
        return self.rows * 32 // self.threads * self.columns

    @property
    def type(self) -> str:
        """Bf16, F16, Tf32 or F32."""
        return self.kernel.split("Shape<")[1].split(",")[0]


def launches() -> dict[str, Launch]:
    """By kernel."""
    source = Path(__file__).with_name("launches.cu")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "launches"
        flags = ["-std=c++17", "-arch=sm_80", "--expt-relaxed-constexpr", "-I", cubins.CSRC]
        cubins.output(cubins.tool("nvcc"), *flags, source, "-o", program)
        found = [Launch(**one) for one in json.loads(cubins.output(program))]
    return {one.kernel: one for one in found}
