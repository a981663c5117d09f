"""adaptau doctor"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys

import torch
import typer
from rich.table import Table
from rich.text import Text

import adaptau_ext
from adaptau_ext import cuda
from adaptau_ext.cli.console import console, explained

OPTIONAL = {
    "matplotlib": "report",
    "faiss-cpu": "export",
    "hnswlib": "export",
    "onnx": "export",
    "tensorboard": "tensorboard",
    "pooch": "fetch",
    "safetensors": "distributed",
    "pandas": "pandas",
    "polars": "polars",
}
# What a processor is worth to the kernels, slowest first.
LEVELS = ("baseline", "avx2", "avx512", "avx512vnni", "avx512bf16", "avx512amx")


def add(app: typer.Typer) -> None:
    """The command."""
    app.command(epilog="[bold]Example[/]\n\nadaptau doctor")(doctor)


@explained
def doctor() -> None:
    """Tell what is installed, what this machine can do, what is missing and how to get it."""
    table = Table("", "found", "what to do", show_header=True)
    for row in [*_software(), *_processor(), _gpu(), *_optional()]:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    u, i = torch.randn(8, 16), torch.randn(8, 16)
    loss = adaptau_ext.fused_adaptive_softmax(u, i, 0.1)
    twin = adaptau_ext.reference.fused_adaptive_softmax(u, i, 0.1)
    assert isinstance(loss, torch.Tensor) and isinstance(twin, torch.Tensor)
    if not torch.allclose(loss, twin, rtol=1e-5):
        console.print("[bold red]the loss differs from its definition: this build is broken[/]")
        raise typer.Exit(1)
    console.print("the loss equals its definition in plain PyTorch")


def _software() -> list[tuple[str, str, str]]:
    return [
        ("adaptau_ext", adaptau_ext.__version__, ""),
        ("Python", f"{platform.python_version()}, {platform.machine()} {sys.platform}", ""),
        ("PyTorch", torch.__version__, ""),
    ]


def _processor() -> list[tuple[str, str, str]]:
    level = torch.ops.adaptau.cpu_level()
    forced = os.environ.get("ADAPTAU_ISA")
    if forced:
        advice = "unset ADAPTAU_ISA for the best that the processor has"
    elif level == "baseline" and platform.machine() in ("x86_64", "AMD64"):
        advice = "this processor has no AVX2: expect a quarter of the speed"
    else:
        advice = ""
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    few = f"OMP_NUM_THREADS={cores} would use all {cores} processors" if threads < cores else ""
    return [
        ("kernels for", f"{level} of {', '.join(LEVELS)}" if advice == "" else level, advice),
        ("threads", str(threads), few),
    ]


def _gpu() -> tuple[str, str, str]:
    reason = cuda.why_no_gpu()
    if reason is None:
        return "CUDA", torch.cuda.get_device_name(), ""
    return "CUDA", "not used", reason


def _optional() -> list[tuple[str, str, str]]:
    rows = []
    for package, extra in OPTIONAL.items():
        try:
            rows.append((package, importlib.metadata.version(package), ""))
        except importlib.metadata.PackageNotFoundError:
            rows.append((package, "no", f"pip install 'adaptau_ext[{extra}]'"))
    return rows
