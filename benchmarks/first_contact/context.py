"""What every step is told: where it runs, how large, what may be left out."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import torch

from adaptau_ext.cuda import why_no_gpu

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Context:
    device: str
    output: str
    without: tuple[str, ...] = ()
    minutes: float = 90.0  # for the timings
    tests: tuple[str, ...] = ()  # other tests than the operators', for dry runs

    @property
    def folder(self) -> Path:
        return Path(self.output)

    @property
    def hardware(self) -> bool:
        """False in a dry run, which is tiny and proves the script, not the kernels."""
        return torch.device(self.device).type == "cuda"

    @property
    def place(self) -> str:
        """For the steps that only hardware has."""
        kind = torch.device(self.device).type if self.device != "virtual" else "virtual"
        return {"virtual": "the virtual GPU", "cpu": "a CPU"}.get(kind, kind)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Context:
        saved = json.loads(text)
        return cls(**saved | {key: tuple(saved[key]) for key in ("without", "tests")})


def virtual_gpu() -> ModuleType:
    """tests/virtual_gpu, which only the checkout has."""
    if str(ROOT) not in sys.path:
        sys.path.append(
            str(ROOT)
        )  # last: the installed package comes before the folder of the same name
    from tests import virtual_gpu

    why = virtual_gpu.build.why_not()
    if why is not None:
        raise RuntimeError(f"--device virtual: {why}")
    return virtual_gpu


def load(device: str) -> torch.device:
    """The device, made ready; RuntimeError with the way out where it cannot be had."""
    if device.startswith("cuda"):
        why = why_no_gpu()
        if why is not None:
            raise RuntimeError(f"--device {device}: {why}")
        if torch.device(device).index is not None:
            torch.cuda.set_device(torch.device(device))
    elif device == "virtual":
        virtual_gpu().load()
    elif device != "cpu":
        raise RuntimeError(f"--device must be cuda, cuda:N, virtual or cpu, got {device}")
    return torch.device(device)
