"""The examples run, and show what they say."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_two_tower(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], restore_threads: None
) -> None:
    """Towers over features find new items, which matrix factorisation cannot tell apart."""
    torch.set_num_threads(1)
    monkeypatch.setattr(
        sys, "argv", ["two_tower.py", "--epochs", "2", "--users", "800", "--items", "600"]
    )
    runpy.run_path(str(EXAMPLES / "two_tower.py"), run_name="__main__")
    rows = re.findall(r"recall@20 (\S+), among new items (\S+)", capsys.readouterr().out)
    (_, factorisation), (_, towers) = [(float(a), float(b)) for a, b in rows]
    assert factorisation < 0.5 and towers > 1.5 * factorisation
