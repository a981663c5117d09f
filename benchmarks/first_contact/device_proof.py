"""A pytest plugin that counts on which devices the operators were really called: every one of them passes
`check_devices`, and a test suite that quietly stayed on the CPU would be found out."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
import torch

import adaptau_ext.graph
import adaptau_ext.ops

CALLS: Counter[str] = Counter()


def _counting(module: object) -> None:
    original = module.check_devices  # type: ignore[attr-defined]

    def check_devices(device: torch.device, **others: torch.Tensor | None) -> None:
        CALLS[device.type] += 1
        original(device, **others)

    module.check_devices = check_devices  # type: ignore[attr-defined]


_counting(adaptau_ext.ops)
_counting(adaptau_ext.graph)


def pytest_sessionfinish(session: pytest.Session) -> None:
    Path(os.environ["FIRST_CONTACT_CALLS"]).write_text(json.dumps(CALLS))
