"""Builds `adaptau_ext._C` (operator schemas, CPU kernels) and `adaptau_ext._cuda` (CUDA kernels).

One wheel serves every CPython from 3.10 and every PyTorch from 2.10: the Python side uses the limited
API, the PyTorch side LibTorch's stable ABI only. `_cuda` is a second, independent library that links
none of PyTorch's CUDA libraries, so it is built wherever nvcc is found, whatever PyTorch is there:
on the PATH, in CUDA_HOME, or from PyPI (nvidia-cuda-nvcc and its companions). In the environment,

    ADAPTAU_CUDA=0             leaves it out;  ADAPTAU_CUDA=1 makes a missing nvcc an error
    TORCH_CUDA_ARCH_LIST=...   architectures, as PyTorch spells them: "8.0;9.0a;10.0+PTX"
    MAX_JOBS=...               compilers at a time, default: one a processor
    ADAPTAU_FLAGS=...          to compile and link `_C` with: sanitizers, coverage, -Werror
    SOURCE_DATE_EPOCH=...      time of the files in a wheel, default: the first that a zip can have

The same sources, compiler and build requirements give the same wheel without CUDA, byte for byte,
wherever it is built: `.ci/same-wheel` builds two and compares them.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

CSRC = Path("csrc")
TORCH_TARGET_VERSION = "0x020A000000000000"  # 2.10
X86 = platform.machine() in ("x86_64", "AMD64")
LINUX = platform.system() == "Linux"
FLAGS = shlex.split(os.environ.get("ADAPTAU_FLAGS", ""))

# name -> (vector bytes, flags); CMakeLists.txt has the same table.
INSTRUCTION_SETS: dict[str, tuple[int, list[str]]] = {"baseline": (16, [])}
if X86:
    # GCC 12's own AVX-512 header sets off -Wmaybe-uninitialized, which Clang does not know
    quiet = ["-Wno-unknown-warning-option", "-Wno-maybe-uninitialized"]
    avx512 = [*(f"-mavx512{x}" for x in ("f", "bw", "dq", "vl")), "-mfma", *quiet]
    INSTRUCTION_SETS["avx2"] = (32, ["-mavx2", "-mfma"])
    INSTRUCTION_SETS["avx512"] = (64, avx512)
    INSTRUCTION_SETS["avx512vnni"] = (64, [*avx512, "-mavx512vnni"])
    avx512bf16 = [*avx512, "-mavx512vnni", "-mavx512bf16"]
    INSTRUCTION_SETS["avx512bf16"] = (64, avx512bf16)
    INSTRUCTION_SETS["avx512amx"] = (64, [*avx512bf16, "-mamx-tile", "-mamx-int8", "-mamx-bf16"])

# Binaries of one major version run on every later minor one; PTX of the last on whatever follows.
CUDA_ARCHITECTURES = ("8.0", "9.0", "10.0")  # those that nvcc knows
CUDA_FAMILIES = {
    "Ampere": "8.0;8.6+PTX",
    "Ada": "8.9+PTX",
    "Hopper": "9.0+PTX",
    "Blackwell": "10.0;10.3;12.0;12.1+PTX",
}
NVCC_FLAGS = [
    "-std=c++17",
    "-O3",
    "-lineinfo",
    "--expt-relaxed-constexpr",
    "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall",
    "-Xptxas=-warn-spills",
    "-Xfatbin=-compress-all",
]


def find_nvcc() -> Path | None:
    """The compiler of CUDA_HOME, of the PATH, or of the PyPI packages."""
    homes = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    candidates = [home / "bin" / "nvcc" for home in homes]
    on_path = shutil.which("nvcc")
    candidates += [Path(on_path)] if on_path else []
    nvidia = importlib.util.find_spec("nvidia")
    for folder in (nvidia.submodule_search_locations or ()) if nvidia else ():
        candidates += sorted(Path(folder).glob("cu*/bin/nvcc"), reverse=True)
    return next((path.resolve() for path in candidates if path.is_file()), None)


def toolkit_of(nvcc: Path) -> Path:
    """Where its headers and libraries are; the file itself may be a script that calls another."""
    command = [str(nvcc), "--dryrun", "-x", "cu", "-c", os.devnull]
    steps = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    top = re.search(r"^#\$ TOP=(.*)$", steps, re.MULTILINE)
    return Path(top[1]).resolve() if top else nvcc.parents[1]


def cuda_wanted() -> bool:
    choice = os.environ.get("ADAPTAU_CUDA", "")
    if choice not in ("", "0", "1"):
        raise SystemExit(f"ADAPTAU_CUDA must be 0 or 1, or unset for what is there, got {choice!r}")
    if choice == "0" or not LINUX:
        return False
    found = find_nvcc() is not None
    if choice == "1" and not found:
        raise SystemExit(
            "ADAPTAU_CUDA=1 needs nvcc, which is not on the PATH; set CUDA_HOME, or pip install "
            "nvidia-cuda-nvcc nvidia-nvvm nvidia-cuda-crt nvidia-cuda-runtime nvidia-cuda-cccl "
            "and build with --no-build-isolation"
        )
    return found


def gencode(nvcc: Path) -> list[str]:
    """nvcc's flags for TORCH_CUDA_ARCH_LIST, or for the default."""
    architectures = os.environ.get("TORCH_CUDA_ARCH_LIST", "")
    if not architectures:
        known = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True)
        chosen = [a for a in CUDA_ARCHITECTURES if f"compute_{a.replace('.', '')}\n" in known.stdout]
        architectures = ";".join(chosen) + "+PTX"
    for family, numbers in CUDA_FAMILIES.items():
        architectures = re.sub(rf"\b{family}\b", numbers, architectures)
    flags, wrong = [], 'TORCH_CUDA_ARCH_LIST must hold compute capabilities, like "8.0;9.0;10.0+PTX"'
    for one in re.split(r"[;,\s]+", architectures.strip()):
        match = re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", one)
        if not match:
            raise SystemExit(f"{wrong}, got {one!r}")
        if int(match[1]) < 8:  # lists are set for all that a machine builds
            print(f"TORCH_CUDA_ARCH_LIST: {one} is left out, the kernels need 8.0")
            continue
        number = f"{match[1]}{match[2]}{match[3]}"
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if match[4]:
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    if not flags:
        raise SystemExit(f"{wrong}, one of 8.0 or more, got {architectures!r}")
    return flags


class Step(NamedTuple):
    """Compiles a source; the object is named from the folder that all of them are in."""

    source: str
    output: str
    command: list[str]


class BuildOperators(build_ext):
    """Compiles csrc/cpu/kernels/table.cpp once per instruction set, *.cu with nvcc."""

    def run(self) -> None:
        super().run()
        built = set(map(Path, self.get_outputs()))
        for library in Path(self.build_lib, "adaptau_ext").glob("*.so"):
            if library not in built:  # the CUDA half of an earlier build would join this one's wheel
                library.unlink()

    def build_extension(self, ext: Extension) -> None:
        from torch.utils.cpp_extension import include_paths, library_paths

        headers = include_paths()
        # __FILE__ in PyTorch's headers would tell where it was installed
        ext.extra_compile_args += [f"-ffile-prefix-map={folder}=." for folder in headers]
        ext.include_dirs += headers
        ext.library_dirs += library_paths()
        steps = self.cuda_kernels(ext) if ext.name.endswith("_cuda") else self.cpu_kernels(ext)
        cxx = self.cxx(ext)
        steps += [Step(source, f"{source}.o", cxx) for source in ext.sources]
        linked = copy.copy(ext)
        linked.sources, linked.language = [], "c++"
        linked.extra_objects = linked.depends = self.compile(Path(self.build_temp, ext.name), steps)
        super().build_extension(linked)

    def cxx(self, ext: Extension) -> list[str]:
        include = [f"-I{folder}" for folder in [*self.compiler.include_dirs, *ext.include_dirs]]
        define = [f"-D{name}={value}" for name, value in ext.define_macros]
        return [*self.compiler.compiler_so_cxx, *include, *define, *ext.extra_compile_args]

    def cpu_kernels(self, ext: Extension) -> list[Step]:
        table = str(CSRC / "cpu" / "kernels" / "table.cpp")
        common = [*self.cxx(ext), "-ffp-contract=fast", "-fno-math-errno"]
        steps = []
        for name, (vector_bytes, flags) in INSTRUCTION_SETS.items():
            define = [f"-DADAPTAU_ISA={name}", f"-DADAPTAU_VECTOR_BYTES={vector_bytes}"]
            steps.append(Step(table, f"{table}.{name}.o", [*common, *define, *flags]))
        return steps

    def cuda_kernels(self, ext: Extension) -> list[Step]:
        nvcc = find_nvcc()
        assert nvcc is not None
        home = toolkit_of(nvcc)
        ext.include_dirs.append(str(home / "include"))
        ext.library_dirs += [str(p) for p in (home / "lib64", home / "lib") if p.is_dir()]
        command = [str(nvcc), *NVCC_FLAGS, *gencode(nvcc)]
        sources = sorted(map(str, (CSRC / "cuda").glob("*.cu")))
        return [Step(source, f"{source}.o", command) for source in sources]

    def compile(self, folder: Path, steps: list[Step]) -> list[str]:
        """Through ninja: in parallel, and only what a change touches."""
        lines = [
            f"builddir = {folder}",
            "rule compile",
            "  command = $compiler -MD -MF $out.d -c $in -o $out",
            "  description = $out",
            "  deps = gcc",
            "  depfile = $out.d",
        ]
        objects = [str(folder / step.output) for step in steps]
        for step, output in zip(steps, objects, strict=True):
            compiler = shlex.join(step.command).replace("$", "$$")
            path = re.sub(r"[ :$]", r"$\g<0>", output)
            lines += [f"build {path}: compile {step.source}", f"  compiler = {compiler}"]
        folder.mkdir(parents=True, exist_ok=True)
        plan = folder / "build.ninja"
        plan.write_text("\n".join([*lines, ""]))
        jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1)
        subprocess.run([sys.executable, "-m", "ninja", "-f", str(plan), "-j", jobs], check=True)
        return objects


class SameWheel(bdist_wheel):
    """A wheel that tells neither when it was built nor by whom: fixed times and permissions."""

    def write_wheelfile(self, wheelfile_base: str, **options: str) -> None:
        super().write_wheelfile(wheelfile_base, **options)
        for path in Path(self.bdist_dir).rglob("*"):  # the last moment before they are packed
            path.chmod(0o755 if path.is_dir() or path.suffix == ".so" else 0o644)


def files(*suffixes: str, without: str = "") -> list[str]:
    found = (p for p in CSRC.rglob("*") if p.suffix in suffixes and without not in p.parts)
    return sorted(map(str, found))


def extension(name: str, sources: list[str], depends: list[str], libraries: list[str]) -> Extension:
    return Extension(
        f"adaptau_ext.{name}",
        sources=sources,
        depends=depends,  # what a source distribution has beside the sources; ninja finds out by itself
        define_macros=[("TORCH_TARGET_VERSION", TORCH_TARGET_VERSION)]
        + ([("ADAPTAU_X86", "1")] if X86 else []),
        libraries=libraries,
        extra_compile_args=["-std=c++17", "-O3", "-g0", "-fvisibility=hidden", "-Wall", *FLAGS],
        # PyTorch's CUDA runtime is another library with the same names: what is linked in stays inside
        extra_link_args=(["-Wl,--as-needed", "-Wl,--exclude-libs,ALL"] if LINUX else []) + FLAGS,
        py_limited_api=True,
    )


os.environ.setdefault("SOURCE_DATE_EPOCH", "315532800")  # 1980-01-01
sources = {
    name: sorted(map(str, (CSRC / name).glob("*.cpp")))
    for name in ("cpu", "torch", "torch/cpu", "torch/cuda")
}
extensions = [
    extension(
        "_C",
        sources["cpu"] + sources["torch"] + sources["torch/cpu"],
        files(".h", ".inl", without="cuda"),
        ["torch", "torch_cpu"],
    )
]
if cuda_wanted():
    extensions.append(
        extension(
            "_cuda",
            [*sources["torch/cuda"], str(CSRC / "torch" / "tensors.cpp")],
            files(".h", ".cuh", ".cu"),
            ["torch_cpu", "cudart_static", "rt", "pthread", "dl"],
        )
    )

setup(
    ext_modules=extensions,
    cmdclass={"build_ext": BuildOperators, "bdist_wheel": SameWheel},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
