"""Reads the machine code of the built CUDA kernels: what they need, and how fast they could be.

    python benchmarks/gpu_kernels.py           writes benchmarks/results/gpu_kernels.json and docs/gpu_kernels.md
    python benchmarks/gpu_kernels.py --check   compares with the JSON instead, as tests/test_gpu_gates.py does

Needs nvcc, cuobjdump and nvdisasm (`pip install 'adaptau_ext[test,virtual-gpu]'`) and a built `_cuda` library, and
takes a minute. No GPU is needed; wavefronts and sectors are counted on the virtual one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from kernel_table import cubins, table
from kernel_table.report import report

COMMITTED = cubins.ROOT / "benchmarks" / "results" / "gpu_kernels.json"
PAGE = cubins.ROOT / "docs" / "gpu_kernels.md"


def as_json(measured: dict[str, Any]) -> str:
    """One line a kernel, so that a change shows as its lines."""
    parts = [f'"compiler": "{measured["compiler"]}"']
    for name in ("kernels", "memory"):
        rows = ",\n".join(json.dumps(one) for one in measured[name])
        parts.append(f'"{name}": [\n{rows}\n]')
    return "{" + ", ".join(parts) + "}\n"


def memory() -> list[dict[str, Any]]:
    """Wavefronts and sectors of the main loops."""
    sys.path.append(str(cubins.ROOT))  # last: the installed package comes before the folder
    from tests.virtual_gpu import costs, load

    load()
    return [
        {"operation": operation, "dtype": str(dtype).removeprefix("torch."), "d": d}
        | costs.main_loop(operation, dtype, d)[0]
        for operation in costs.MAIN_LOOPS
        for dtype in costs.DTYPES
        for d in costs.DIMENSIONS
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--library", type=Path, help="another _cuda library than the installed one")
    arguments = parser.parse_args()
    library = arguments.library or cubins.library()
    if library is None:
        parser.error("adaptau_ext._cuda is not built: install the package where nvcc is found")
    with tempfile.TemporaryDirectory() as folder:
        measured = table.measure(cubins.extract(library, Path(folder)))
    found = table.violations(measured)
    if arguments.check:
        found += table.differences(json.loads(COMMITTED.read_text()), measured)
    else:
        measured["memory"] = memory()
        COMMITTED.write_text(as_json(measured))
        PAGE.write_text(report(measured))
    print("\n".join(found) or "no kernel spills, all fit every GPU")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
