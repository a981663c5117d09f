"""The CUDA runtime's replacement (tests/virtual_gpu/runtime) refuses what a GPU's refuses.

Error codes come from the toolkit's headers; here they go by their names.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

import adaptau_ext as ax
from tests.virtual_gpu import build

pytestmark = pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not()))

KIB = 1 << 10
TO_DEVICE, TO_HOST = 1, 2  # cudaMemcpyKind
DYNAMIC_SHARED = 8  # cudaFuncAttributeMaxDynamicSharedMemorySize


class Dim3(ctypes.Structure):
    _fields_ = [(axis, ctypes.c_uint) for axis in "xyz"]


class Attribute(ctypes.Structure):
    _fields_ = [("id", ctypes.c_int), ("pad", ctypes.c_char * 4), ("value", ctypes.c_uint * 16)]


class Config(ctypes.Structure):
    _fields_ = [
        ("grid", Dim3), ("block", Dim3), ("shared", ctypes.c_size_t), ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(Attribute)), ("n_attributes", ctypes.c_uint),
    ]  # fmt: skip


class FunctionAttributes(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("shared", "constant", "local")),
        *((name, ctypes.c_int) for name in ("threads", "registers", "ptx", "binary", "cache", "dynamic")),
        ("rest", ctypes.c_int * 32),
    ]  # fmt: skip


class Runtime:
    """The runtime as C sees it, errors by their names: `runtime("cudaFree", pointer)`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        for lookup in (library.runtime_function, library.sample_kernel):
            lookup.restype = ctypes.c_void_p

    def function(self, name: str, result: Any = ctypes.c_int) -> Callable[..., Any]:
        return ctypes.CFUNCTYPE(result)(self.library.runtime_function(name.encode()))

    def __call__(self, name: str, *arguments: Any) -> str:
        return self.error_name(self.function(name)(*arguments))

    def error_name(self, error: int) -> str:
        return self.function("cudaGetErrorName", ctypes.c_char_p)(error).decode()

    def error_text(self, error: int) -> str:
        return self.function("cudaGetErrorString", ctypes.c_char_p)(error).decode()

    def kernel(self, name: str) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.library.sample_kernel(name.encode()))

    def launch(
        self, name: str, *arguments: Any, grid: tuple[int, ...] = (1, 1, 1),
        block: tuple[int, ...] = (1, 1, 1), shared: int = 0,
    ) -> str:  # fmt: skip
        """What the launch returned, which must be what cudaGetLastError says next."""
        pointers = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(a) for a in arguments))
        error = self(
            "cudaLaunchKernel", self.kernel(name), Dim3(*grid), Dim3(*block), pointers,
            ctypes.c_size_t(shared), None,
        )  # fmt: skip
        assert self("cudaPeekAtLastError") == error
        assert self("cudaGetLastError") == error
        assert self("cudaGetLastError") == "cudaSuccess"
        return error

    def allow_shared(self, name: str, size: int) -> str:
        error = self("cudaFuncSetAttribute", self.kernel(name), DYNAMIC_SHARED, size)
        self("cudaGetLastError")
        return error

    def malloc(self, size: int) -> ctypes.c_void_p:
        pointer = ctypes.c_void_p()
        assert self("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(size)) == "cudaSuccess"
        return pointer


@pytest.fixture
def runtime(virtual: Any) -> Runtime:
    return Runtime(virtual.load())


def pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def problems(virtual: Any) -> set[str]:
    found = {finding["problem"] for finding in virtual.findings()}
    virtual.clear()
    return found


@pytest.mark.parametrize("target", build.TARGETS)
def test_launcher(virtual: Any, runtime: Runtime, target: str) -> None:
    x = torch.randn(1000, device="virtual")
    out = torch.empty_like(x)
    with virtual.running(target=target, seed=1):
        given = pointer(out), pointer(x), ctypes.c_float(3), 1000
        assert runtime.library.sample_scale(*given, 128) == 0
        assert torch.equal(out.cpu(), x.cpu() * 3)
        assert runtime.error_name(runtime.library.sample_scale(*given, 2048)) == (
            "cudaErrorInvalidConfiguration"
        )


@pytest.mark.parametrize(
    ("grid", "block", "error"),
    [
        ((1, 1, 1), (32, 1, 1), "cudaSuccess"),
        ((0, 1, 1), (32, 1, 1), "cudaErrorInvalidConfiguration"),
        ((1, 0, 1), (32, 1, 1), "cudaErrorInvalidConfiguration"),
        ((1, 65536, 1), (32, 1, 1), "cudaErrorInvalidConfiguration"),
        ((1 << 31, 1, 1), (32, 1, 1), "cudaErrorInvalidConfiguration"),
        ((1, 1, 1), (0, 1, 1), "cudaErrorInvalidConfiguration"),
        ((1, 1, 1), (1025, 1, 1), "cudaErrorInvalidConfiguration"),
        ((1, 1, 1), (32, 33, 1), "cudaErrorInvalidConfiguration"),
        ((1, 1, 1), (1, 1, 65), "cudaErrorInvalidConfiguration"),
        ((1, 1, 1), (65, 1, 1), "cudaErrorInvalidValue"),  # more than its launch bounds
    ],
)
def test_shape_of_a_launch(
    runtime: Runtime, grid: tuple[int, ...], block: tuple[int, ...], error: str
) -> None:
    out = torch.empty(64, device="virtual")
    assert runtime.launch("bounded", pointer(out), grid=grid, block=block) == error


def test_no_such_kernel(runtime: Runtime) -> None:
    other = runtime.library.runtime_function(b"cudaFree")
    error = runtime(
        "cudaLaunchKernel", ctypes.c_void_p(other), Dim3(1, 1, 1), Dim3(1, 1, 1), None,
        ctypes.c_size_t(0), None,
    )  # fmt: skip
    assert error == runtime("cudaGetLastError") == "cudaErrorInvalidDeviceFunction"


def test_shared_memory_must_be_asked_for(virtual: Any, runtime: Runtime) -> None:
    """shared_bytes declares 1 KiB; the rest is up to the launch."""
    out = torch.empty(1, dtype=torch.int32, device="virtual")

    def launch(kib: int) -> str:
        return runtime.launch("shared_bytes", pointer(out), shared=kib * KIB)

    assert launch(47) == "cudaSuccess"
    assert launch(48) == "cudaErrorInvalidValue"
    assert runtime.allow_shared("shared_bytes", 163 * KIB) == "cudaErrorInvalidValue"
    assert runtime.allow_shared("shared_bytes", 162 * KIB) == "cudaSuccess"
    assert launch(162) == "cudaSuccess"
    with virtual.running(shared_memory=99 * KIB):  # a smaller GPU, what was asked for elsewhere or not
        assert launch(100) == "cudaErrorInvalidValue"
        assert runtime.allow_shared("shared_bytes", 99 * KIB) == "cudaErrorInvalidValue"
        assert launch(98) == "cudaSuccess"
    assert runtime.allow_shared("shared_bytes", 50 * KIB) == "cudaSuccess"
    assert launch(51) == "cudaErrorInvalidValue"
    assert out.item() == 2


def test_what_is_known_of_kernels_and_device(virtual: Any, runtime: Runtime) -> None:
    assert runtime.allow_shared("shared_bytes", 60 * KIB) == "cudaSuccess"
    attributes = FunctionAttributes()
    assert runtime(
        "cudaFuncGetAttributes", ctypes.byref(attributes), runtime.kernel("shared_bytes")
    ) == "cudaSuccess"  # fmt: skip
    assert (attributes.shared, attributes.threads, attributes.dynamic) == (KIB, 1024, 60 * KIB)

    def blocks(kernel: str, threads: int, shared: int) -> int:
        n = ctypes.c_int()
        name = "cudaOccupancyMaxActiveBlocksPerMultiprocessor"
        given = runtime.kernel(kernel), threads, ctypes.c_size_t(shared)
        assert runtime(name, ctypes.byref(n), *given) == "cudaSuccess"
        return n.value

    assert blocks("scale", 1024, 0) == 2  # of 2048 threads
    assert blocks("scale", 33, 0) == 32  # of 32 blocks
    assert blocks("shared_bytes", 32, 52 * KIB) == 3  # of 164 KiB: 52 + 1 declared + 1 of the system's
    assert blocks("bounded", 65, 0) == 0

    def attribute(which: int) -> int:
        value = ctypes.c_int()
        assert runtime("cudaDeviceGetAttribute", ctypes.byref(value), which, 0) == "cudaSuccess"
        return value.value

    major, opt_in = 75, 97  # cudaDevAttrComputeCapabilityMajor, cudaDevAttrMaxSharedMemoryPerBlockOptin
    assert (attribute(major), attribute(opt_in)) == (8, 163 * KIB)
    with virtual.running(target="90"):
        assert attribute(major) == 9
    assert runtime("cudaSetDevice", 0) == "cudaSuccess"
    assert runtime("cudaSetDevice", 1) == runtime("cudaGetLastError") == "cudaErrorInvalidDevice"


STOPPED = {
    "asserts": ("cudaErrorAssert", "assertion", "device-side assert triggered"),
    "traps": ("cudaErrorLaunchFailure", "trap", "unspecified launch failure"),
    "writes": ("cudaErrorIllegalAddress", "out of bounds", "an illegal memory access was encountered"),
    "writes_wide": ("cudaErrorMisalignedAddress", "misaligned", "misaligned address"),
    "waits": ("cudaErrorLaunchTimeout", "deadlock", "the launch timed out and was terminated"),
}


@pytest.mark.parametrize("kernel", STOPPED)
def test_kernels_that_a_gpu_stops(virtual: Any, runtime: Runtime, kernel: str) -> None:
    error, problem, text = STOPPED[kernel]
    x = torch.arange(64, dtype=torch.int32, device="virtual")
    at = ctypes.c_int64(256 if kernel == "writes" else 8)
    arguments = {"asserts": (pointer(x),), "writes": (pointer(x), at), "writes_wide": (pointer(x), at)}
    assert runtime.launch(kernel, *arguments.get(kernel, ()), block=(64, 1, 1)) == error
    code = next(n for n in range(1000) if runtime.error_name(n) == error)
    place = r": \S+\.(cu|hpp):\d+: "  # of the kernel, or of the toolkit's function that it calls
    assert re.match(text + place, runtime.error_text(code))
    assert problem in problems(virtual)
    # once the error has been asked for, the next launch is not concerned
    assert runtime.launch("bounded", pointer(torch.empty(1, device="virtual"))) == "cudaSuccess"


def test_what_a_gpu_would_not_notice(virtual: Any, runtime: Runtime) -> None:
    out, x = torch.empty(32, device="virtual"), torch.empty(32, device="virtual")
    given = ctypes.c_float(1), ctypes.c_int(32)
    scale: dict[str, Any] = {"block": (32, 1, 1)}
    assert runtime.launch("scale", pointer(out), pointer(x), *given, **scale) == "cudaSuccess"
    assert problems(virtual) == {"uninitialised"}
    assert runtime.launch("scale", pointer(out), pointer(x.zero_()), *given, **scale) == "cudaSuccess"
    assert runtime.launch("races", pointer(out), block=(64, 1, 1)) == "cudaSuccess"
    assert problems(virtual) == {"race in global memory"}
    with virtual.running(checked=False):
        assert runtime.launch("races", pointer(out), block=(64, 1, 1)) == "cudaSuccess"


def test_extended_launch(runtime: Runtime) -> None:
    out = torch.empty(64, device="virtual")
    held = pointer(out)
    arguments = (ctypes.c_void_p * 1)(ctypes.addressof(held))
    config = Config(grid=Dim3(1, 1, 1), block=Dim3(64, 1, 1))
    given = ctypes.byref(config), runtime.kernel("bounded"), arguments
    assert runtime("cudaLaunchKernelExC", *given) == "cudaSuccess"
    assert out.sum().item() == 64
    cluster = Attribute(id=4)  # cudaLaunchAttributeClusterDimension
    config.attributes, config.n_attributes = ctypes.pointer(cluster), 1
    assert runtime("cudaLaunchKernelExC", *given) == "cudaErrorNotSupported"
    assert runtime("cudaGetLastError") == "cudaErrorNotSupported"


def test_memory(runtime: Runtime) -> None:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    both = ctypes.byref(free), ctypes.byref(total)
    runtime("cudaMemGetInfo", *both)
    before = free.value
    device = runtime.malloc(100)
    runtime("cudaMemGetInfo", *both)
    assert before - free.value == 100
    too_much = ctypes.c_size_t(total.value + 1)
    other = ctypes.c_void_p(1)
    assert runtime("cudaMalloc", ctypes.byref(other), too_much) == "cudaErrorMemoryAllocation"
    assert other.value is None

    host = ctypes.create_string_buffer(b"x" * 101)
    size = ctypes.c_size_t

    def copy(to: Any, source: Any, n: int, kind: int) -> str:
        return runtime("cudaMemcpy", to, source, size(n), kind)

    assert copy(device, host, 100, TO_DEVICE) == "cudaSuccess"
    assert copy(device, host, 101, TO_DEVICE) == "cudaErrorInvalidValue"  # more than there is
    assert copy(host, host, 100, TO_DEVICE) == "cudaErrorInvalidValue"  # not the device's
    assert copy(device, device, 100, TO_DEVICE) == "cudaErrorInvalidValue"  # not the host's
    assert runtime("cudaMemset", device, ord("y"), size(99)) == "cudaSuccess"
    assert runtime("cudaMemset", device, 0, size(101)) == "cudaErrorInvalidValue"
    assert copy(host, device, 100, TO_HOST) == "cudaSuccess"
    assert host.raw[:101] == b"y" * 99 + b"xx"

    inside = ctypes.c_void_p((device.value or 0) + 1)
    assert runtime("cudaFree", inside) == "cudaErrorInvalidValue"
    assert runtime("cudaFree", device) == "cudaSuccess"
    assert runtime("cudaFree", device) == "cudaErrorInvalidValue"  # twice
    assert runtime("cudaFree", None) == "cudaSuccess"
    runtime("cudaMemGetInfo", *both)
    assert free.value == before


def test_streams_and_events(runtime: Runtime) -> None:
    stream, event = ctypes.c_void_p(), ctypes.c_void_p()
    assert runtime("cudaStreamCreateWithFlags", ctypes.byref(stream), 0) == "cudaSuccess"
    assert runtime("cudaEventCreateWithFlags", ctypes.byref(event), 0) == "cudaSuccess"
    for where in (stream, None):
        assert runtime("cudaEventRecord", event, where) == "cudaSuccess"
        assert runtime("cudaStreamSynchronize", where) == "cudaSuccess"
    assert runtime("cudaStreamDestroy", stream) == runtime("cudaEventDestroy", event) == "cudaSuccess"
    gone = "cudaErrorInvalidResourceHandle"
    assert runtime("cudaStreamSynchronize", stream) == runtime("cudaEventSynchronize", event) == gone
    assert runtime("cudaStreamDestroy", stream) == runtime("cudaGetLastError") == gone


@pytest.mark.parametrize("target", build.TARGETS)
def test_patched_kernels(virtual: Any, runtime: Runtime, target: str) -> None:
    text = build.ptx(build.HERE / "kernels" / "samples.cu", target)
    x = torch.ones(4, device="virtual")
    given = pointer(x), pointer(x), ctypes.c_float(3), 4, 128
    patch = {"samples": text.replace("mul.f32", "add.f32")}
    assert patch["samples"] != text
    with virtual.running(target=target, patches=patch):
        assert runtime.library.sample_scale(*given) == 0
    assert x.tolist() == [4.0] * 4
    with virtual.running(target=target):
        assert runtime.library.sample_scale(*given) == 0
    assert x.tolist() == [12.0] * 4
    unknown = {"other": text.replace("5scale", "7another")}
    refused = pytest.raises(ValueError, match=r"other: no kernel is called \w+7another")
    with refused, virtual.running(target=target, patches=unknown):
        pass


def test_an_operator_that_was_stopped(virtual: Any) -> None:
    u, tau = torch.randn(4, 8, device="virtual"), torch.tensor([1.0, 1.0, -1.0, 1.0], device="virtual")
    with pytest.raises(RuntimeError, match=r"device-side assert triggered.*softmax.cu:\d+: tau > 0"):
        ax.fused_adaptive_softmax(u, u, tau)
    assert problems(virtual) == {"assertion"}
    # kernels after it, which would have read what it did not write, were not run
    assert torch.isfinite(ax.fused_adaptive_softmax(u, u, tau.abs())).item()
