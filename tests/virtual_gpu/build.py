"""Builds the virtual GPU's library: the shipped CUDA sources, compiled by nvcc for the host and to PTX,
with the interpreter in place of the CUDA runtime. Only what changed is compiled again."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths, library_paths

ROOT = Path(__file__).parents[2]
CSRC, HERE = ROOT / "csrc", Path(__file__).parent
CACHE = ROOT / "build" / "virtual_gpu"
TARGETS = ("80", "90")
JOBS = 2

GCC = ["-std=c++20", "-fPIC", "-fvisibility=hidden", "-w"]
TORCH = [f"-I{path}" for path in include_paths()]
STABLE = "-DTORCH_TARGET_VERSION=0x020A000000000000"  # all but the device itself, as in setup.py


@cache
def find_nvcc() -> Path | None:
    """nvcc of the PATH, of CUDA_HOME, or of the package nvidia-cuda-nvcc."""
    candidates = [shutil.which("nvcc")]
    if home := os.environ.get("CUDA_HOME"):
        candidates.append(f"{home}/bin/nvcc")
    candidates += [
        str(path) for folder in sys.path for path in Path(folder).glob("nvidia/cu*/bin/nvcc")
    ]
    return next((Path(c) for c in candidates if c and Path(c).is_file()), None)


@cache
def cuda_include() -> Path:
    """The toolkit's headers, as nvcc itself finds them."""
    dry_run = subprocess.run(
        [str(find_nvcc()), "--dryrun", "-c", "x.cu"], capture_output=True, text=True, check=False
    ).stderr
    for line in dry_run.splitlines():
        if "INCLUDES=" in line:
            for word in line.split("INCLUDES=")[1].replace('"', " ").split():
                path = Path(word.removeprefix("-I"))
                if (path / "cuda_runtime_api.h").is_file():
                    return path.resolve()
    raise FileNotFoundError(f"cuda_runtime_api.h is not where {find_nvcc()} looks for it")


def digest(command: list[str], inputs: list[Path]) -> str:
    state = hashlib.sha256("\0".join([*command, torch.__version__, sys.version]).encode())
    for path in inputs:
        state.update(path.read_bytes())
    return state.hexdigest()[:20]


def headers(*folders: Path) -> list[Path]:
    return sorted(p for f in folders for p in f.rglob("*") if p.suffix in (".h", ".cuh"))


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def built(command: list[str], source: Path, inputs: list[Path], suffix: str) -> Path:
    """`command source -o output`, unless an output of the same command and inputs is there."""
    output = CACHE / f"{source.stem}-{digest(command, [source, *inputs])}{suffix}"
    if not output.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = output.with_suffix(f".{os.getpid()}{suffix}")
        run([*command, str(source), "-o", str(unfinished)])
        unfinished.rename(output)
    return output


def nvcc_flags() -> list[str]:
    """PTX for every target, uncompressed so that it can be read, and no machine code."""
    codes = [f"-gencode=arch=compute_{t},code=compute_{t}" for t in TARGETS]
    return ["-std=c++17", "-O3", "-lineinfo", "--no-compress", "-cudart=none", *codes]


def kernel_object(source: Path) -> Path:
    command = [str(find_nvcc()), *nvcc_flags(), "-Xcompiler=-fPIC,-fvisibility=hidden,-O1", "-c"]
    return built(command, source, headers(CSRC / "cuda", CSRC / "core"), ".o")


def ptx(source: Path, target: str) -> str:
    """The PTX of one source, for one target."""
    flags = ["-std=c++17", "-O3", "-lineinfo", f"-arch=compute_{target}", "-ptx"]
    command = [str(find_nvcc()), *flags]
    near = headers(source.parent, source.parents[1] / "core")
    return built(command, source, near, f".{target}.ptx").read_text()


def host_object(source: Path) -> Path:
    folder = source.parent
    if folder.name == "interpreter":
        command = ["g++", *GCC, "-O3", "-march=native", "-c"]
        return built(command, source, headers(folder), ".o")
    stable = [] if source.stem == "device" and folder.parent == HERE else [STABLE]
    command = ["g++", *GCC, "-O1", *TORCH, *stable, f"-I{cuda_include()}", "-c"]
    near = headers(HERE, CSRC / "core", CSRC / "cuda", CSRC / "torch")
    return built(command, source, near, ".o")


def library() -> Path:
    """The library, built or as it was."""
    torch_layer = [
        p for p in (CSRC / "torch" / "cuda").glob("*.cpp") if p.stem not in ("module", "stream")
    ]
    hosts = [*torch_layer, CSRC / "torch" / "tensors.cpp", *HERE.glob("*/*.cpp")]
    kernels = sorted((CSRC / "cuda").glob("*.cu"))
    with ThreadPoolExecutor(JOBS) as pool:
        objects = [*pool.map(kernel_object, kernels), *pool.map(host_object, sorted(hosts))]
    folders = [flag for path in library_paths() for flag in (f"-L{path}", f"-Wl,-rpath,{path}")]
    libraries = [*folders, "-ltorch", "-ltorch_cpu", "-lc10"]
    output = CACHE / f"libvirtual_gpu-{digest(libraries, objects)}.so"
    if not output.exists():
        unfinished = output.with_suffix(f".{os.getpid()}.so")
        run(["g++", "-shared", *map(str, objects), *libraries, "-o", str(unfinished)])
        unfinished.rename(output)
    return output
