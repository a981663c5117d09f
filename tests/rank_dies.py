"""`adaptau WORDS` of which one process is killed: `rank_dies.py RANK MOMENT N WORDS`, by torchrun.

step    in the Nth step, between its gradients and those of the others
part    in the Nth checkpoint of shards, before its own is written
whole   in the Nth checkpoint of one file, before that gets its name
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from typing import Any

from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

from adaptau_ext import cli
from adaptau_ext.distributed import World
from adaptau_ext.training import checkpoint

MOMENTS: dict[str, tuple[Any, str]] = {
    "step": (World, "sum_gradients"),
    "part": (HuggingFaceStorageWriter, "write_data"),
    "whole": (checkpoint, "_save"),
}


def die(where: Any, name: str, call: int) -> None:
    """At so many calls, the first being 1."""
    calls, original = itertools.count(1), getattr(where, name)

    def dying(*arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(where, name, dying)


if __name__ == "__main__":
    rank, moment, call, *words = sys.argv[1:]
    if os.environ["RANK"] == rank:
        die(*MOMENTS[moment], int(call))
    cli.app(words, prog_name="adaptau")
