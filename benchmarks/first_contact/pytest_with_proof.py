"""pytest that counts on which devices the operators were really called: every one of them passes
`check_devices`, and a test suite that quietly stayed on the CPU would be found out.

python benchmarks/first_contact/pytest_with_proof.py CALLS.json ARGUMENTS...

A script, because `python -m pytest` would find the checkout's adaptau_ext before the installed one.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

sys.path.pop(0)  # this folder

import pytest
import torch

import adaptau_ext.graph
import adaptau_ext.ops

CALLS: Counter[str] = Counter()


def count_calls(module: ModuleType) -> None:
    original = module.check_devices

    def check_devices(device: torch.device, **others: torch.Tensor | None) -> None:
        CALLS[device.type] += 1
        original(device, **others)

    setattr(module, "check_devices", check_devices)  # noqa: B010  a module knows no such attribute


def main() -> int:
    count_calls(adaptau_ext.ops)
    count_calls(adaptau_ext.graph)
    try:
        return int(pytest.main(sys.argv[2:]))
    finally:
        Path(sys.argv[1]).write_text(json.dumps(CALLS))


if __name__ == "__main__":
    sys.exit(main())
