"""Builds the virtual GPU's library: the shipped CUDA sources, compiled by nvcc for the host and to PTX,
with the interpreter in place of the CUDA runtime. `python -m tests.virtual_gpu` does it now.

A file is compiled again when its command or the contents of anything it includes changed, whatever
the time stamps say: another branch, checked out and back, costs nothing.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
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

CXX = ["c++", "-fPIC", "-fvisibility=hidden", "-c"]
TORCH = [f"-isystem{path}" for path in include_paths()]
STABLE = "-DTORCH_TARGET_VERSION=0x020A000000000000"  # as in setup.py
MISSING = "no nvcc: put it on the PATH, set CUDA_HOME, or pip install '.[virtual-gpu]'"


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


def why_not() -> str | None:
    """Why the library cannot be built here, in a sentence; None if it can."""
    if find_nvcc() is None:
        return MISSING
    return None if shutil.which("c++") else "no C++ compiler: c++ is not on the PATH"


@cache
def nvcc() -> str:
    if (path := find_nvcc()) is None:
        raise FileNotFoundError(MISSING)
    return str(path)


@cache
def cuda_include() -> Path:
    """The toolkit's headers, as nvcc itself finds them."""
    dry_run = subprocess.run(
        [nvcc(), "--dryrun", "-c", "x.cu"], capture_output=True, text=True, check=False
    ).stderr
    for line in dry_run.splitlines():
        if "INCLUDES=" in line:
            for word in line.split("INCLUDES=")[1].replace('"', " ").split():
                path = Path(word.removeprefix("-I"))
                if (path / "cuda_runtime_api.h").is_file():
                    return path.resolve()
    raise FileNotFoundError(f"cuda_runtime_api.h is not where {nvcc()} looks for it")


@cache
def shipped_flags() -> list[str]:
    """What setup.py compiles kernels with, less how machine code is made and packed."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "NVCC_FLAGS":
            flags: list[str] = ast.literal_eval(node.value)
            return [f for f in flags if not f.startswith(("-Xptxas", "-Xfatbin"))]
    raise LookupError("setup.py has no NVCC_FLAGS")


@cache
def contents(path: str) -> str:
    return hashlib.sha256((ROOT / path).read_bytes()).hexdigest()


def run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


@cache
def this_processor() -> str:
    """What -march=native means here, spelled out by the compiler (gcc or clang)."""
    command = ["c++", "-march=native", "-###", "-E", "-x", "c++", os.devnull]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def compiled(command: list[str], source: Path) -> Path:
    """The object file, made unless one of the same command and files is there."""
    name = str(source.relative_to(ROOT))
    # a cache that came from another machine may hold instructions that this one lacks
    native = [this_processor()] if "-march=native" in command else []
    which = hashlib.sha256("\0".join([*command, name, *native]).encode()).hexdigest()[:12]
    output = CACHE / f"{source.stem}-{which}.o"
    record = output.with_suffix(".json")
    if output.exists() and record.exists():
        files: dict[str, str] = json.loads(record.read_text())
        if all((ROOT / path).exists() and contents(path) == h for path, h in files.items()):
            return output
    CACHE.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)
    start = time.time()
    unfinished = output.with_name(f"{os.getpid()}-{output.name}")
    depends = unfinished.with_suffix(".d")
    run([*command, "-MD", "-MF", str(depends), name, "-o", str(unfinished)])
    words = re.split(r"(?<!\\)\s+", depends.read_text().replace("\\\n", " ").split(": ", 1)[1])
    depends.unlink()
    paths = sorted({word.replace("\\ ", " ") for word in words if word})
    unfinished.rename(output)
    if all((ROOT / path).stat().st_mtime < start for path in paths):  # none was edited meanwhile
        record.write_text(json.dumps({path: contents(path) for path in paths}))
    return output


def kernel_object(source: Path) -> Path:
    """Host code, with the PTX for every target inside, uncompressed so that it can be read there.

    One run of nvcc makes both: it names kernels in unnamed namespaces by its process.
    """
    codes = [f"-gencode=arch=compute_{t},code=compute_{t}" for t in TARGETS]
    return compiled([nvcc(), *shipped_flags(), *codes, "--no-compress", "-c"], source)


def ptx(source: Path, target: str) -> str:
    """The PTX of a source in csrc/cuda, or in a copy of csrc anywhere, for one target.

    The same copy in another place has the same PTX: it is known by its contents.
    """
    command = [nvcc(), *shipped_flags(), f"-arch=compute_{target}", "-ptx"]
    state = hashlib.sha256("\0".join([*command, source.name]).encode())
    for folder in (source.parent, source.parent.with_name("core")):
        for path in sorted(p for p in folder.glob("*") if p.is_file()):
            state.update(path.read_bytes())
    output = CACHE / f"{source.stem}-{state.hexdigest()[:20]}.{target}.ptx"
    if not output.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = output.with_name(f"{os.getpid()}-{output.name}")
        run([*command, str(source), "-o", str(unfinished)])
        unfinished.rename(output)
    return output.read_text()


def host_object(source: Path) -> Path:
    if source.parent.name == "interpreter":
        return compiled([*CXX, "-std=c++20", "-O3", "-march=native"], source)
    cuda = f"-isystem{cuda_include()}"
    # the device is made with PyTorch's own headers, the package's operators with the stable ones
    stable = [STABLE] if CSRC in source.parents or source.stem == "operators" else []
    return compiled([*CXX, "-std=c++20", "-O1", *stable, *TORCH, cuda], source)


def library() -> Path:
    """The library, built or as it was. Another process that builds it is waited for."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _library()


def _library() -> Path:
    kernels = [*(CSRC / "cuda").glob("*.cu"), *(HERE / "kernels").glob("*.cu")]
    torch_layer = [
        p for p in (CSRC / "torch" / "cuda").glob("*.cpp") if p.stem not in ("module", "stream")
    ]
    hosts = [*torch_layer, CSRC / "torch" / "tensors.cpp", *HERE.glob("*/*.cpp")]
    contents.cache_clear()
    with ThreadPoolExecutor(JOBS) as pool:
        objects = [*pool.map(kernel_object, sorted(kernels)), *pool.map(host_object, sorted(hosts))]
    folders = [flag for path in library_paths() for flag in (f"-L{path}", f"-Wl,-rpath,{path}")]
    libraries = [*folders, "-ltorch", "-ltorch_cpu", "-lc10", "-Wl,--no-undefined"]
    state = hashlib.sha256("\0".join([*libraries, torch.__version__]).encode())
    for path in objects:
        state.update(path.read_bytes())
    output = CACHE / f"libvirtual_gpu-{state.hexdigest()[:20]}.so"
    if not output.exists():
        for old in CACHE.glob("libvirtual_gpu-*.so"):
            old.unlink()
        unfinished = output.with_name(f"{os.getpid()}-{output.name}")
        run(["c++", "-shared", *map(str, objects), *libraries, "-o", str(unfinished)])
        unfinished.rename(output)
    return output
