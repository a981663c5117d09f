"""What is here: the GPU and its settings, the extension's library, the peers to compare with."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

import torch
from gpu_info import describe
from gpu_model import gpu_of
from throughput_report import commit, cpu_name

import adaptau_ext
from adaptau_ext.cuda import OPERATORS, why_no_gpu
from first_contact.context import Context, virtual_gpu
from first_contact.outcome import (
    ELSEWHERE,
    LEFT_OUT,
    MISSING,
    PASSED,
    Check,
    Outcome,
    Table,
    attempt,
    check,
)
from first_contact.tools import find_tool

DISPATCH_KEYS = {"cuda": "CUDA", "virtual": "PrivateUse1", "cpu": "CPU"}

# name -> (distribution to install, module to import)
PEERS = {
    "torch.compile": ("triton", "triton"),
    "CCE": ("cut-cross-entropy", "cut_cross_entropy"),
    "Liger": ("liger-kernel", "liger_kernel.transformers.functional"),
    "quack": ("quack-kernels", "quack.linear_cross_entropy"),
    "faiss": ("faiss-gpu-cuvs", "faiss"),
    "cuVS": ("cuvs-cu13", "cuvs.neighbors.brute_force"),
}


def library(device: str) -> Path | None:
    """The shared object that the device's kernels come from."""
    if device == "virtual":
        return virtual_gpu().build.library()  # type: ignore[no-any-return]
    name = "_cuda" if device.startswith("cuda") else "_C"
    found = sorted(Path(adaptau_ext.__file__).parent.glob(f"{name}*.so"))
    return found[0] if found else None


def digest(device: str) -> str:
    path = library(device)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path else "no library"


def key(device: str) -> dict[str, str]:
    """What results must share to be put together."""
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    return {
        "commit": commit(),
        "library": digest(device),
        "device": gpu,
        "PyTorch": torch.__version__,
    }


def architectures(path: Path) -> str:
    """The code in the library, as cuobjdump lists it."""
    tool = find_tool("cuobjdump")
    if tool is None:
        return "cuobjdump is not installed"
    found = []
    for option in ("--list-elf", "--list-ptx"):
        answer = subprocess.run(
            [tool, option, str(path)], capture_output=True, text=True, check=False, timeout=120
        )
        names = {
            part for line in answer.stdout.splitlines() for part in line.split(".") if "sm_" in part
        }
        found.append(" ".join(sorted(names)) or "none")
    return f"SASS for {found[0]}; PTX for {found[1]}"


def environment(context: Context) -> Outcome:
    facts = {
        "commit": commit(),
        "CPU": cpu_name(),
        "system": platform.platform(),
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "CUDA of PyTorch": str(torch.version.cuda),
        "library": f"{library(context.device)}, sha256 {digest(context.device)}",
    }
    checks = [check("library", library(context.device) is not None, facts["library"])]
    if context.hardware:
        device = torch.device(context.device)
        properties = torch.cuda.get_device_properties(device)
        capability = torch.cuda.get_device_capability(device)
        known = gpu_of(properties)
        facts |= {
            "GPU": properties.name,
            "compute capability": "{}.{}".format(*capability),
            "multiprocessors": str(properties.multi_processor_count),
            "memory": f"{properties.total_memory / 2**30:.1f} GiB",
            "second-level cache": f"{properties.L2_cache_size / 2**20:.0f} MiB",
            "model": known.name if known else "none for this GPU: no predictions",
            **{f"nvidia-smi {k}": v for k, v in describe(device).items()},
        }
        path = library(context.device)
        if path is not None:
            facts["code"] = architectures(path)
        checks.append(
            check(
                "compute capability", capability >= (8, 0), f"{capability}, at least (8, 0) is needed"
            )
        )
        checks.append(attempt("a kernel of PyTorch's runs", lambda: first_kernel(device)))
    else:
        checks.append(Check("GPU", ELSEWHERE + context.place))
    cells = [["what", "value"], *[[name, value] for name, value in facts.items()]]
    return Outcome(checks, [Table("Environment", cells)], {"facts": facts})


def first_kernel(device: torch.device) -> str:
    total = float(torch.ones(1000, device=device).sum())
    assert total == 1000, f"the sum of 1000 ones is {total}"
    return ""


def registration(context: Context) -> Outcome:
    """Every operator has a kernel of its own for the device, so that nothing falls back in silence."""
    dispatch_key = DISPATCH_KEYS[context.device.partition(":")[0]]
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    checks = [
        check(name, has_kernel(f"adaptau::{name}", dispatch_key), f"key {dispatch_key}")
        for name in OPERATORS
    ]
    if context.hardware:  # where there are no kernels, ones that refuse are registered
        why = why_no_gpu()
        checks.append(check("the kernels were loaded", why is None, why or ""))
    return Outcome(checks)


def peers(context: Context) -> Outcome:
    """Those that are lacking are missing unless they were left out by name."""
    checks = []
    for name, (distribution, module) in PEERS.items():
        if name in context.without:
            checks.append(Check(name, LEFT_OUT, "--without"))
            continue
        try:
            found = importlib.import_module(module)
            if name == "faiss" and not hasattr(found, "StandardGpuResources"):
                raise ImportError("this faiss was built without CUDA")
            checks.append(Check(name, PASSED, version(distribution)))
        except Exception as gone:
            if context.hardware:
                why = f"{type(gone).__name__}: {gone}"[:200]
                checks.append(
                    Check(name, MISSING, f"{why}; pip install {distribution}, or --without {name}")
                )
            else:
                checks.append(Check(name, ELSEWHERE + context.place, "not installed"))
    cells = [["peer", "status", "version"], *[[c.name, c.status, c.note] for c in checks]]
    return Outcome(checks, [Table("Peers", cells)])


def version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "installed under another name"
