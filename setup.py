"""Builds `adaptau_ext._C`: operator schemas and CPU kernels, against LibTorch's stable ABI.

One wheel serves every CPython from 3.10 and every PyTorch from 2.10: the Python side uses the limited
API, the PyTorch side the stable ABI only. `_cuda` joins as a second, independent library when there
are CUDA kernels to build (see docs/design.md); nothing here links CUDA.
"""

from __future__ import annotations

import platform
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CSRC = Path("csrc")
TORCH_TARGET_VERSION = "0x020A000000000000"  # 2.10
X86 = platform.machine() in ("x86_64", "AMD64")

# name -> (vector bytes, flags); CMakeLists.txt has the same table.
INSTRUCTION_SETS: dict[str, tuple[int, list[str]]] = {"baseline": (16, [])}
if X86:
    # GCC 12's own AVX-512 header sets off -Wmaybe-uninitialized, which Clang does not know
    quiet = ["-Wno-unknown-warning-option", "-Wno-maybe-uninitialized"]
    avx512 = [*(f"-mavx512{x}" for x in ("f", "bw", "dq", "vl")), "-mfma", *quiet]
    INSTRUCTION_SETS["avx2"] = (32, ["-mavx2", "-mfma"])
    INSTRUCTION_SETS["avx512"] = (64, avx512)
    INSTRUCTION_SETS["avx512vnni"] = (64, [*avx512, "-mavx512vnni"])
    INSTRUCTION_SETS["avx512bf16"] = (64, [*avx512, "-mavx512vnni", "-mavx512bf16"])


class BuildOperators(build_ext):
    """Compiles csrc/cpu/kernels/table.cpp once per instruction set, everything else once."""

    def build_extension(self, ext: Extension) -> None:
        from torch.utils.cpp_extension import include_paths, library_paths

        ext.include_dirs += include_paths()
        ext.library_dirs += library_paths()
        table = str(CSRC / "cpu" / "kernels" / "table.cpp")
        for name, (vector_bytes, flags) in INSTRUCTION_SETS.items():
            ext.extra_objects += self.compiler.compile(
                [table],
                output_dir=str(Path(self.build_temp) / name),
                macros=[("ADAPTAU_ISA", name), ("ADAPTAU_VECTOR_BYTES", str(vector_bytes))],
                extra_postargs=[
                    *ext.extra_compile_args,
                    "-ffp-contract=fast",
                    "-fno-math-errno",
                    *flags,
                ],
                depends=ext.depends,
            )
        super().build_extension(ext)


folders = ("cpu", "torch", "torch/cpu")
sources = sorted(str(path) for folder in folders for path in (CSRC / folder).glob("*.cpp"))
macros = [("TORCH_TARGET_VERSION", TORCH_TARGET_VERSION)] + ([("ADAPTAU_X86", None)] if X86 else [])

setup(
    ext_modules=[
        Extension(
            "adaptau_ext._C",
            sources=sources,
            depends=sorted(str(p) for p in CSRC.rglob("*") if p.suffix in (".h", ".inl")),
            define_macros=macros,
            libraries=["torch", "torch_cpu"],
            extra_compile_args=["-std=c++17", "-O3", "-g0", "-fvisibility=hidden", "-Wall"],
            extra_link_args=["-Wl,--as-needed"] if platform.system() == "Linux" else [],
            py_limited_api=True,
        )
    ],
    cmdclass={"build_ext": BuildOperators},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
