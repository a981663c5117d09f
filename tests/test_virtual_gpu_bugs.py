"""The virtual GPU finds what is wrong: the shipped kernels with one line broken, each found out.

Every bug is a change to the source in csrc/cuda, compiled to PTX that replaces the kernels; the call is
one that passes without findings as it stands.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import scipy.sparse
import torch

import adaptau_ext as ax
from adaptau_ext.ops import Normalize
from tests import virtual_gpu
from tests.devices import VIRTUAL
from tests.virtual_gpu import build


def loss(n_rows: int = 40, n_items: int = 150, d: int = 64) -> None:
    u = torch.randn(n_rows, d).to("virtual").requires_grad_()
    i = torch.randn(n_items, d).to("virtual").requires_grad_()
    target = torch.randint(n_items, (n_rows,)).to("virtual")
    ax.fused_adaptive_softmax(u, i, 0.2, target=target).backward()


def topk(n_rows: int = 40, n_items: int = 700, k: int = 20) -> None:
    ax.topk(torch.randn(n_rows, 64).to("virtual"), torch.randn(n_items, 64).to("virtual"), k)


def sampled(d: int = 24, normalize: Normalize = "none") -> None:
    u = torch.randn(5, d).to("virtual").requires_grad_()
    i = torch.randn(40, d).to("virtual").requires_grad_()
    positives = torch.arange(5).to("virtual")
    ax.sampled_adaptive_softmax(
        u, i, None, positives, 5.0, n_negatives=150, seed=1, normalize=normalize
    ).backward()


def scores(d: int = 24) -> None:
    u = torch.randn(5, d).to("virtual").requires_grad_()
    i = torch.randn(40, d).to("virtual").requires_grad_()
    ax.sampled_scores(u, i, torch.randint(40, (5, 150)).to("virtual")).sum().backward()


def propagate() -> None:
    """Two of the three users have more neighbours than their warps take for themselves."""
    known = torch.ones(3, 900, dtype=torch.bool)
    known[1, 5:] = False
    graph = ax.BipartiteGraph(scipy.sparse.csr_array(known.numpy())).to("virtual")
    graph.hop(torch.randn(3, 8).to("virtual"), torch.randn(900, 8).to("virtual"))


@dataclass
class Bug:
    what: str
    file: str
    old: str
    new: str
    unit: str  # the .cu that the file is compiled in
    finding: str
    call: Callable[[], None] = loss


BUGS = [
    Bug("no barrier once a tile has arrived", "tile_walk.cuh",
        "      __syncthreads();  // the tile is there for all, the one before is read no more\n", "",
        "weighted_sums_f32", "race in shared memory"),
    Bug("copies not waited for", "tile_walk.cuh",
        "wait_copies<S::kStages == 1 ? 0 : S::kStages - 2>();", "wait_copies<S::kStages>();",
        "weighted_sums_f32", "copy in flight"),
    Bug("one group too few waited for", "tile_walk.cuh",
        "wait_copies<S::kStages == 1 ? 0 : S::kStages - 2>();",
        "wait_copies<S::kStages == 1 ? 0 : S::kStages - 1>();", "weighted_sums_f32", "copy in flight"),
    Bug("a tile loaded over the one in use", "tile_walk.cuh",
        "stage == 0 ? S::kStages - 1 : stage - 1", "stage",
        "weighted_sums_f32", "copy in flight", lambda: loss(40, 300)),
    Bug("rows read beyond the table", "tiles.cuh", "source, r < rows_left", "source, rows_left > 0",
        "weighted_sums_f32", "out of bounds"),
    Bug("one row too many", "tiles.cuh", "source, r < rows_left", "source, r <= rows_left",
        "weighted_sums_f32", "out of bounds"),
    Bug("chunks read beyond the row", "tiles.cuh", "chunk + c < rows.chunks ? rows.count - first - row : 0",
        "rows.count - first - row",
        "weighted_sums_f32", "out of bounds", lambda: loss(40, 149, 24)),
    Bug("mask bits never cleared at first", "tile_masks.cuh",
        "    for (int w = threadIdx.x; w < 3 * kBufferWords; w += S::kThreads) bits_[w] = 0;\n", "",
        "weighted_sums_f32", "uninitialised"),
    Bug("two mask buffers for three uses", "tile_masks.cuh",
        "filling_ = filling_ == 2 ? 0 : filling_ + 1;", "filling_ = filling_ == 1 ? 0 : filling_ + 1;",
        "weighted_sums_f32", "race in shared memory", lambda: loss(40, 300)),
    Bug("sums stored beyond the last row", "weighted_sums.cuh",
        "      if (row >= p.tables.rows.count) continue;\n", "", "weighted_sums_f32", "out of bounds"),
    Bug("pairs stored where they are not aligned", "weighted_sums.cuh", "if (p.d % 2 == 0) {",
        "if (true) {", "weighted_sums_f32", "misaligned", lambda: loss(40, 150, 3)),
    Bug("splits that share one result", "weighted_sums.cuh",
        "split == 0 ? p.sums : p.more_sums + int64_t{split - 1} * p.tables.rows.count * p.d",
        "p.sums", "weighted_sums_f32", "race in global memory", lambda: loss(40, 700)),
    Bug("a shuffle that half a warp skips", "weighted_sums.cuh", "top[m][h] = quad_max(top[m][h]);",
        "if (threadIdx.x % 32 < 16) top[m][h] = quad_max(top[m][h]);",
        "weighted_sums_f32", "divergent barrier"),
    Bug("a barrier that some warps skip", "tile_walk.cuh", "      masks_.next();\n",
        "      masks_.next();\n      if (threadIdx.x < 64) __syncthreads();\n",
        "weighted_sums_f32", "divergent barrier"),
    Bug("lists read before they are whole", "topk.cuh",
        "    __syncwarp();  // the lists are whole\n", "", "topk_f32", "race in global memory", topk),
    Bug("keys moved while others read them", "selection.cuh",
        "    __syncwarp();  // read by all before what follows writes it\n", "",
        "topk_f32", "race in global memory", topk),
    Bug("a counter used before it is zero", "topk.cu", "  __syncthreads();  // kept is zero\n", "",
        "topk", "race in shared memory", topk),
    Bug("a sum overwritten while it is read", "topk.cu",
        "  __syncthreads();  // before the next sum\n", "", "topk", "race in shared memory",
        lambda: topk(40, 1500)),
    Bug("an entry beyond its bucket", "masks.cu", "offsets[bucket] - atomicSub(counts + bucket, 1)",
        "offsets[bucket] - atomicSub(counts + bucket, 1) + 1", "masks", "out of bounds"),
    Bug("counting without atomics", "masks.cu", "atomicAdd(counts + bucket, 1);", "++counts[bucket];",
        "masks", "race in global memory"),
    Bug("the padding of columns left out", "softmax.cu", "b.user_columns[user] = {1, 0, 0, 0};", ";",
        "softmax", "uninitialised"),
    Bug("an item with two owners", "softmax.cu",
        "if (sorted_target != nullptr && first > 0 && sorted_target[first - 1] == item) return;", "",
        "softmax", "race in global memory", lambda: loss(300, 20)),
    Bug("an id nobody checked", "masks.cu", "const int64_t target = p.target != nullptr ? p.target[user] : user;",
        "const int64_t target = p.n_items;", "masks", "assertion"),
    Bug("a gradient overwritten while it is read", "sampled_rows.cuh",
        "  __syncwarp();  // every group has read the row that one of them overwrites\n", "",
        "sampled_f32", "race in global memory", sampled),
    Bug("sums of warps read before they are there", "sampled_rows.cuh",
        "  __syncthreads();  // every warp's sums are there\n", "",
        "sampled_f32", "race in shared memory", sampled),
    Bug("a logit that every slice keeps", "sampled_rows.cuh",
        " && (!Shape::Sliced || threadIdx.x < 32)", "",
        "sampled_f32", "race in global memory", lambda: sampled(600)),
    Bug("slices summed up over the last sum", "row_lanes.cuh",
        "      __syncthreads();  // the last sum has been read\n", "",
        "sampled_f32", "race in shared memory", lambda: sampled(600)),
    Bug("rows read beyond the last column", "row_lanes.cuh",
        "min(column(c), t.columns - kElements)", "column(c)",
        "sampled_f32", "out of bounds", sampled),
    Bug("an item that half a warp rescues", "sampled_rows.cuh",
        "if (__any_sync(kAllLanes, !is_safe_square(square)))", "if (threadIdx.x % 32 < 16)",
        "sampled_f32", "divergent barrier", lambda: sampled(24, "both")),
    Bug("parts of a gradient added up before they are there", "sampled_scores.cuh",
        "  __syncthreads();  // every warp's part is there\n", "",
        "sampled_f32", "race in shared memory", scores),
    Bug("a score that every slice writes", "sampled_scores.cuh",
        " && (!Shape::Sliced || threadIdx.x < 32)", "",
        "sampled_f32", "race in global memory", lambda: scores(600)),
    Bug("an entry beyond the last", "sampled_items.cuh",
        "if (tile + lane < last) {", "if (tile + lane <= last) {",
        "sampled_f32", "out of bounds", sampled),
    Bug("parts of a long row overwritten while they are read", "propagate.cu",
        "    __syncthreads();  // the last row's parts have been read\n", "",
        "propagate", "race in shared memory", propagate),
    Bug("parts of a long row read before they are there", "propagate.cu",
        "    __syncthreads();  // every warp's part is there\n", "",
        "propagate", "race in shared memory", propagate),
    Bug("neighbours beyond the last row", "propagate.cu", "if (row >= s.rows || !hop.edges) return;",
        "if (!hop.edges) return;", "propagate", "out of bounds", propagate),
]  # fmt: skip


@pytest.mark.parametrize("device", [VIRTUAL])
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.what)
def test_a_broken_kernel_is_found_out(bug: Bug, device: str, tmp_path: Path) -> None:
    for folder in ("core", "cuda"):
        shutil.copytree(build.CSRC / folder, tmp_path / folder)
    broken = tmp_path / "cuda" / bug.file
    source = broken.read_text()
    assert source.count(bug.old) == 1, f"{bug.file} has changed: find another way to break it"
    broken.write_text(source.replace(bug.old, bug.new))
    virtual_gpu.clear()
    with (
        virtual_gpu.running(
            seed=3, patches={bug.file: build.ptx(tmp_path / "cuda" / f"{bug.unit}.cu", "80")}
        ),
        contextlib.suppress(RuntimeError),
    ):  # a launch that was cut short says so
        bug.call()
    problems = {finding["problem"] for finding in virtual_gpu.findings()}
    assert bug.finding in problems, f"found {problems or 'nothing'}"


@pytest.mark.parametrize("device", [VIRTUAL])
def test_the_same_calls_find_nothing_in_the_kernels_as_they_are(device: str) -> None:
    virtual_gpu.clear()
    for bug in BUGS:
        bug.call()
    assert virtual_gpu.findings() == []
