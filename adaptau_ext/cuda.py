"""The CUDA kernels: loaded where there are any, with a reason where there are none."""

from __future__ import annotations

import importlib
from typing import Any, NoReturn

import torch

OPERATORS = (
    "fused_adaptive_softmax", "fused_adaptive_softmax_backward", "sampled_adaptive_softmax",
    "sampled_adaptive_softmax_backward", "sampled_scores", "sampled_scores_backward", "topk", "ranks",
    "target_scores", "unit_rows", "pack_items", "draw_negatives", "dropout", "propagate",
)  # fmt: skip
REBUILD = "install it again with nvcc on the PATH, or CUDA_HOME set, and ADAPTAU_CUDA=1"


def why_no_gpu() -> str | None:
    """Why the operators cannot run on a GPU here, in a sentence; None if they can."""
    if missing is not None:
        return missing
    if not torch.cuda.is_available():
        return "PyTorch sees no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES"
    return None


def _load() -> str | None:
    """Registers the CUDA kernels; the reason why there are none."""
    if torch.version.cuda is None:
        return (
            f"PyTorch {torch.__version__} was built without CUDA; install a CUDA build from "
            "https://pytorch.org/get-started/locally"
        )
    try:
        importlib.import_module("adaptau_ext._cuda")
    except ModuleNotFoundError:
        return f"adaptau_ext was built without its CUDA kernels; {REBUILD}"
    except ImportError as error:
        return f"adaptau_ext._cuda could not be loaded ({error}); {REBUILD}"
    return None


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise RuntimeError(f"adaptau_ext cannot compute on CUDA tensors: {missing}")


missing = _load()
_library = torch.library.Library("adaptau", "IMPL")
if missing is not None:
    for _name in OPERATORS:
        _library.impl(_name, _refuse, "CUDA")
