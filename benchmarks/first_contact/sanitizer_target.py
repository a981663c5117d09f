"""What compute-sanitizer runs: every operator on small inputs, or one kernel with a bug on purpose.

python benchmarks/first_contact/sanitizer_target.py cuda
python benchmarks/first_contact/sanitizer_target.py cuda --inject racecheck
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from first_contact.calls import SMALL, TINY, every_call
from first_contact.context import load

# tool -> (kernel, threads): each makes the one mistake that its tool is there for
BUGS = {
    "memcheck": ("x[1 << 20] = 1.0f;", 1),
    "racecheck": (
        "__shared__ float s[64]; s[threadIdx.x] = x[threadIdx.x]; x[threadIdx.x] = s[63 - threadIdx.x];",
        64,
    ),
    "initcheck": ("x[threadIdx.x] += 1.0f;", 64),
    "synccheck": ("if (threadIdx.x < 16) __syncthreads(); x[threadIdx.x] = 1.0f;", 32),
}


def inject(tool: str, device: torch.device) -> None:
    body, threads = BUGS[tool]
    source = f'extern "C" __global__ void bug(float* x) {{ {body} }}'
    kernel = torch.cuda._compile_kernel(source, "bug")  # type: ignore[attr-defined]
    x = torch.empty(64, device=device)
    if tool != "initcheck":
        x.zero_()
    kernel(grid=(1, 1, 1), block=(threads, 1, 1), args=[x])
    torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("device")
    parser.add_argument("--inject", choices=tuple(BUGS))
    given = parser.parse_args()
    device = load(given.device)
    if given.inject:
        inject(given.inject, device)
        return
    made = 0
    for size in SMALL if device.type == "cuda" else (TINY,):
        for call in every_call(device, size):
            call.run()
            made += 1
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    print(f"calls made: {made}", flush=True)


if __name__ == "__main__":
    main()
