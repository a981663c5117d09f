"""Kernels of the built library, as NVIDIA's cuobjdump and nvdisasm read them: no GPU, no driver.

Both come with the toolkit, or with `pip install 'adaptau_ext[test,virtual-gpu]'`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from . import sass

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc" / "cuda"
ARCHITECTURES = ("80", "90", "100")


class Missing(RuntimeError):
    """A program or library that is not there, and how to get it."""


@cache
def tool(name: str) -> str:
    """Path of nvcc, cuobjdump or nvdisasm: from PyPI, CUDA_HOME or the PATH."""
    found = [str(p) for folder in sys.path for p in Path(folder).glob(f"nvidia/cu*/bin/{name}")]
    if home := os.environ.get("CUDA_HOME"):
        found.append(f"{home}/bin/{name}")
    found += [path for path in [shutil.which(name)] if path]
    if not found:
        package = "nvidia-cuda-nvcc" if name == "nvcc" else f"nvidia-cuda-{name}"
        raise Missing(f"{name} is not there; pip install {package}, or set CUDA_HOME")
    return found[0]


def output(*command: str | Path) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def compiler() -> str:
    """nvcc's version: "13.0.88"."""
    version = re.search(r"V(\d+\.\d+\.\d+)", output(tool("nvcc"), "--version"))
    return version[1] if version else "unknown"


def library() -> Path | None:
    """The installed package's kernels, if they were built."""
    package = importlib.util.find_spec("adaptau_ext")
    folders = package.submodule_search_locations if package else None
    found = [path for folder in folders or () for path in Path(folder).glob("_cuda.*so")]
    return found[0] if found else None


def extract(built: Path, folder: Path) -> list[Path]:
    """The library's machine code: SOURCE.sm_ARCHITECTURE.cubin, one a source file and architecture."""
    command = [tool("cuobjdump"), "-xelf", "all", str(built.resolve())]
    subprocess.run(command, cwd=folder, capture_output=True, check=True)
    return sorted(folder.glob("*.cubin"))


def compiled(sources: Iterable[str], architecture: str, folder: Path) -> list[Path]:
    """The same of a few sources, where no library is built."""
    flags = ["-std=c++17", "-O3", "--expt-relaxed-constexpr", f"-arch=sm_{architecture}", "-cubin"]
    for source in sources:
        target = folder / f"{source}.sm_{architecture}.cubin"
        output(tool("nvcc"), *flags, CSRC / f"{source}.cu", "-o", target)
    return sorted(folder.glob("*.cubin"))


@dataclass
class Kernel:
    source: str  # file it is instantiated in, without .cu
    name: str  # without namespaces and arguments: "topk_lists_kernel<Shape<Bf16, 64>>"
    architecture: str  # "80"
    registers: int
    stack: int
    static_shared: int
    threads: int  # at most, by __launch_bounds__
    blocks: list[sass.Block] | None  # None: not disassembled


def readable(mangled: str) -> str:
    """A kernel's name as its template arguments spell it."""
    library = ctypes.CDLL("libstdc++.so.6")
    library.__cxa_demangle.restype = ctypes.c_void_p
    status = ctypes.c_int()
    pointer = library.__cxa_demangle(mangled.encode(), None, None, ctypes.byref(status))
    if status.value != 0:
        return mangled
    full = ctypes.string_at(pointer).decode()
    ctypes.CDLL(None).free(ctypes.c_void_p(pointer))
    for part in ("void ", "adaptau::", "cuda::", "(anonymous namespace)::"):
        full = full.replace(part, "")
    return re.sub(r"\(.*", "", full).replace("> >", ">>")


def kernels(cubin: Path, disassembled: bool = True) -> list[Kernel]:
    """Everything in a file that extract() gave."""
    source, architecture = cubin.name.removesuffix(".cubin").rsplit(".sm_", 1)
    usage = output(tool("cuobjdump"), "--dump-resource-usage", cubin)
    resources = {
        name: (int(registers), int(stack) + int(local), int(shared))
        for name, registers, stack, shared, local in re.findall(
            r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage
        )
    }
    threads = _max_threads(output(tool("cuobjdump"), "-elf", cubin))
    if without := resources.keys() - threads.keys():
        raise ValueError(f"kernels without __launch_bounds__: {sorted(map(readable, without))}")
    blocks: dict[str, list[sass.Block]] = {}
    if disassembled:
        blocks = dict(sass.functions(output(tool("nvdisasm"), "-c", cubin).splitlines()))
    return [
        Kernel(source, readable(name), architecture, *found, threads[name], blocks.get(name))
        for name, found in resources.items()
    ]


def _max_threads(elf: str) -> dict[str, int]:
    """By __launch_bounds__, where a kernel has them."""
    found = {}
    for section in elf.split("\n.nv.info.")[1:]:
        name = section.split("\n", 1)[0].strip()
        if match := re.search(r"EIATTR_MAX_THREADS\n.*\n.*?((?:\s*0x[0-9a-f]+){3})\s*\n", section):
            x, y, z = (int(n, 16) for n in match[1].split())
            found[name] = x * y * z
    return found
