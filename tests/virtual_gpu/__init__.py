"""The virtual GPU: the PTX that nvcc makes of the shipped CUDA sources, executed on the CPU, with checks.

from tests import virtual_gpu
virtual_gpu.load()                                    # builds it if need be: some minutes
u = torch.randn(100, 64, device="virtual")
with virtual_gpu.running(seed=3, target="90"):
    loss = ax.fused_adaptive_softmax(u, u, 0.1)
assert virtual_gpu.findings() == []
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch

import adaptau_ext  # noqa: F401  operators are registered before the virtual device joins them
from tests.virtual_gpu import build

SHARED_MEMORY = 163 << 10  # bytes a block may have, as on an A100


class Stream:
    """The only one there is: kernels have run when their launch returns."""

    def synchronize(self) -> None: ...


STREAM = Stream()


class Device(ModuleType):
    """What PyTorch asks of `torch.virtual`."""

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def current_stream(device: object = None) -> Stream:
        return STREAM

    @staticmethod
    def stream(stream: object) -> AbstractContextManager[None]:
        return nullcontext()

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def get_rng_state(device: object = None) -> torch.Tensor:
        return torch.empty(0, dtype=torch.uint8)

    @staticmethod
    def set_rng_state(state: torch.Tensor, device: object = None) -> None:
        """There is none: random numbers come from the CPU's generator."""

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        """Random numbers come from the CPU's generator."""


@cache
def load() -> ctypes.CDLL:
    """The library; afterwards there is a device "virtual".

    Backward passes of this thread then run in it: PyTorch counts the devices that get threads of their
    own in the first one, which may have been before.
    """
    path = build.library()
    torch.autograd.set_multithreading_enabled(False)
    torch.utils.rename_privateuse1_backend("virtual")
    torch._register_device_module("virtual", Device("virtual"))
    torch.ops.load_library(path)
    library = ctypes.CDLL(str(path))
    for name in ("findings", "launch", "line_counts", "patch"):
        getattr(library, f"virtual_gpu_{name}").restype = ctypes.c_char_p
    library.virtual_gpu_settings.restype = ctypes.c_bool
    library.virtual_gpu_settings.argtypes = [
        ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p, ctypes.c_int,
    ]  # fmt: skip
    return library


@contextmanager
def running(
    *,
    checked: bool = True,
    seed: int = 0,
    target: str = "80",
    rough_functions: bool = True,
    shared_memory: int = SHARED_MEMORY,
    patches: dict[str, str] | None = None,
) -> Iterator[None]:
    """How kernels run inside the block.

    seed: of the order of blocks and warps; 0 is in order. target: the PTX that runs. patches: PTX by
    name of file, whose kernels replace those of the same names.
    """
    library = load()
    try:
        for name, text in (patches or {}).items():
            if error := library.virtual_gpu_patch(text.encode(), name.encode()):
                raise ValueError(error.decode())
        if not library.virtual_gpu_settings(
            checked, seed, rough_functions, f"sm_{target}".encode(), shared_memory
        ):
            raise ValueError(f"target must be one of {build.TARGETS}, got {target!r}")
        yield
    finally:
        library.virtual_gpu_settings(True, 0, True, b"sm_80", SHARED_MEMORY)
        library.virtual_gpu_remove_patches()


def launch(
    ptx: str,
    kernel: str,
    *arguments: torch.Tensor | np.generic,
    grid: Sequence[int] = (1,),
    block: Sequence[int],
    shared: int = 0,
) -> None:
    """Runs a kernel of any PTX, for tests of the virtual GPU itself. Tensors are pointers."""
    sizes = [(ctypes.c_uint32 * 3)(*[*given, 1, 1][:3]) for given in (grid, block)]
    values = [
        a.data_ptr().to_bytes(8, "little") if isinstance(a, torch.Tensor) else a.tobytes()
        for a in arguments
    ]
    held = [ctypes.create_string_buffer(value, len(value)) for value in values]
    pointers = (ctypes.c_void_p * max(len(held), 1))(*map(ctypes.addressof, held))
    error = load().virtual_gpu_launch(ptx.encode(), kernel.encode(), *sizes, shared, pointers)
    if error:
        raise RuntimeError(error.decode())


def findings() -> list[dict[str, Any]]:
    """What the checks found since `clear`: problem, kernel, file, line, instruction, message, count."""
    return json.loads(load().virtual_gpu_findings())


def line_counts() -> list[dict[str, Any]]:
    """Of every PTX line that ran: warps, wavefronts, sectors, and what they would ideally be."""
    return json.loads(load().virtual_gpu_line_counts())


def clear() -> None:
    """Forgets findings and counts."""
    load().virtual_gpu_clear()
