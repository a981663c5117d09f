"""Several processes on this machine give what one process gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="PyTorch was built without Gloo")
CHECKS = ("in_batch", "sharded_softmax", "topk", "ranks")


def launch(world: int, *words: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """`torchrun` on this machine, at any free port."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={world}",
    ]
    return subprocess.run(
        [*command, *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("world", [1, 2, 4])
def test_parts_together_are_the_whole(world: int) -> None:
    done = launch(world, str(Path(__file__).with_name("distributed_checks.py")), *CHECKS)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [word for name in CHECKS for word in (name, "passed")]
