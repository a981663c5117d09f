"""What nvidia-smi knows: clocks, power, temperature, and what held them down."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
from types import TracebackType

import torch

STATIC = (
    "name", "driver_version", "vbios_version", "clocks.max.sm", "clocks.max.mem", "power.limit",
    "power.default_limit", "persistence_mode", "ecc.mode.current", "mig.mode.current", "compute_mode",
)  # fmt: skip
RUNNING = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu")


def _select(device: torch.device) -> list[str]:
    """nvidia-smi counts all GPUs, PyTorch those that CUDA_VISIBLE_DEVICES leaves."""
    return ["-i", f"GPU-{torch.cuda.get_device_properties(device).uuid}"]


def _query(fields: tuple[str, ...], device: torch.device) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader", *_select(device)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def describe(device: torch.device) -> dict[str, str]:
    """Settings and the present state; a field that this driver does not know says so."""
    if shutil.which("nvidia-smi") is None:
        return {"nvidia-smi": "not installed"}
    known = {}
    for field in (*STATIC, *RUNNING, "clocks_event_reasons.active"):
        answer = _query((field,), device)
        text = answer.stdout.strip() or answer.stderr.strip()
        known[field] = text if answer.returncode == 0 else f"not known to this driver: {text}"[:100]
    return known


class ClockLog:
    """Samples clock, power and temperature while something runs: `with ClockLog(device) as log`."""

    def __init__(self, device: torch.device):
        self._device = device
        self._process: subprocess.Popen[bytes] | None = None
        self.summary = "clocks not sampled"

    def __enter__(self) -> ClockLog:
        if self._device.type == "cuda" and shutil.which("nvidia-smi") is not None:
            self._samples = tempfile.TemporaryFile()
            command = [
                "nvidia-smi",
                f"--query-gpu={','.join(RUNNING)}",
                "--format=csv,noheader,nounits",
            ]
            # line by line, so that nothing is left in a buffer when it is told to end
            unbuffered = ["stdbuf", "-oL"] if shutil.which("stdbuf") else []
            self._process = subprocess.Popen(
                [*unbuffered, *command, "-lms", "200", *_select(self._device)],
                stdout=self._samples, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        self._process.terminate()
        self._process.wait(10)
        self._samples.seek(0)
        rows = [line.split(",") for line in self._samples.read().decode().splitlines()]
        columns = []
        for position in range(len(RUNNING)):
            numbers = [row[position].strip() for row in rows if len(row) == len(RUNNING)]
            columns.append([float(x) for x in numbers if x.replace(".", "", 1).isdigit()])
        if all(columns):
            sm, memory, power, temperature = columns
            self.summary = (
                f"SM {statistics.median(sm):.0f} MHz ({min(sm):.0f} - {max(sm):.0f}), memory "
                f"{statistics.median(memory):.0f} MHz, {statistics.median(power):.0f} W, "
                f"{max(temperature):.0f} °C at most"
            )
