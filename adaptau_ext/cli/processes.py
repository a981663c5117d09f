"""Several processes of one run, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from adaptau_ext import cuda
from adaptau_ext.cli.console import console

TIMEOUT = timedelta(minutes=5)  # for a process that does not answer; one that ends is noticed at once


@contextmanager
def processes() -> Iterator[None]:
    """Joins the processes that torchrun has started, if it has: the first one speaks, all work."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 and not dist.is_torchelastic_launched():
        yield
        return
    on_gpus = cuda.why_no_gpu() is None
    if on_gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if on_gpus else "gloo", timeout=TIMEOUT)
    console.quiet = dist.get_rank() != 0
    try:
        yield
    finally:
        console.quiet = False
        dist.destroy_process_group()


def lost_process(problem: RuntimeError) -> bool:
    """Whether an error of a collective says that another process is gone, or does not answer."""
    text = str(problem).lower()
    return isinstance(problem, dist.DistError) or "gloo" in text or "connection closed by peer" in text
