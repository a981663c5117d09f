"""topk and ranks against their twins and against each other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

import adaptau_ext as ax
from adaptau_ext import reference
from adaptau_ext.arguments import csr_pair
from adaptau_ext.errors import ModelError
from adaptau_ext.ops import Normalize
from tests.budget import LossBudget, assert_same_ranking
from tests.devices import DEVICES, GPUS, roundoff, runs

SIZES = (0, 1, 3, 17, 63, 64, 65, 127, 300)
NORMALIZE = ("both", "user", "item", "none")


def random_csr(n_rows: int, n_columns: int, density: float, seed: int = 0) -> scipy.sparse.csr_array:
    rng = np.random.default_rng(seed)
    csr = scipy.sparse.csr_array(rng.random((n_rows, n_columns)) < density)
    csr.sort_indices()
    return csr


def score_budget(u: Tensor, i: Tensor, normalize: str, device: str) -> float:
    compute = torch.float64 if u.dtype == torch.float64 else torch.float32
    factors = roundoff(device, u.dtype).factors
    return LossBudget.of(compute, u, i, torch.ones(1), normalize, 1, factors).logit_error


def check_topk(
    u: Tensor, i: Tensor, k: int, exclude: scipy.sparse.csr_array | None, normalize: str,
    device: str = "cpu",
) -> None:  # fmt: skip
    user, item = reference.normalized_pair(u.double(), i.double(), normalize)
    excluded = reference.csr_mask(exclude, u.shape[0], i.shape[0], u.device)
    for _ in runs(device):
        found = ax.topk(u.to(device), i.to(device), k, exclude=exclude, normalize=normalize)
        scores, ids = (x.cpu() for x in found)
        assert scores.shape == ids.shape == (u.shape[0], k)
        budget = score_budget(u, i, normalize, device)
        assert_same_ranking(ids, scores, user @ item.T, ~excluded, budget)


def ranks(device: str, u: Tensor, i: Tensor, targets: Any, **options: Any) -> Iterator[Tensor]:
    """The ranks, for every way of running on the device."""
    for _ in runs(device):
        yield ax.ranks(u.to(device), i.to(device), targets, **options).cpu()


@pytest.mark.parametrize("d", SIZES)
@pytest.mark.parametrize("n_items", [m for m in SIZES if m])
def test_topk_odd_shapes(n_items: int, d: int) -> None:
    for turn, n_rows in enumerate(SIZES):
        u, i = torch.randn(n_rows, d), torch.randn(n_items, d)
        exclude = random_csr(n_rows, n_items, 0.1) if turn % 2 and n_rows else None
        left = n_items if exclude is None else n_items - int(np.diff(exclude.indptr).max())
        for k in {1, left // 2, left} - {0}:
            if k <= left:
                check_topk(u, i, k, exclude, NORMALIZE[turn % 4])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_topk_dtypes(device: str, dtype: torch.dtype, normalize: str) -> None:
    if device != "cpu" and dtype == torch.float64:
        pytest.skip("float64 is the CPU's")
    n_rows, n_items, d = (30, 600, 32) if device == "virtual" else (100, 2000, 64)
    u, i = torch.randn(n_rows, d).to(dtype), torch.randn(n_items, d).to(dtype)
    for k in (1, 20, n_items // 2):
        check_topk(u, i, k, random_csr(n_rows, n_items, 0.05), normalize, device)


GPU_SHAPES = [
    *product(((1, 33), (3, 200)), (1, 8, 17, 64, 100, 128, 256, 400, 512)),
    *product(((65, 127),), (1, 8, 17, 64, 100, 128)),  # slow to interpret
]


@pytest.mark.parametrize("device", GPUS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("shape", "d"), GPU_SHAPES)
@pytest.mark.parametrize("k", [1, 5, 33])
def test_topk_shapes_on_a_gpu(
    device: str, dtype: torch.dtype, shape: tuple[int, int], d: int, k: int
) -> None:
    n_rows, n_items = shape
    u, i = torch.randn(n_rows, d).to(dtype), torch.randn(n_items, d).to(dtype)
    check_topk(u, i, k, random_csr(n_rows, n_items, 0.1) if k < 20 else None, "none", device)


@pytest.mark.parametrize("device", GPUS)
@pytest.mark.parametrize("k", [1, 100, 2500])
def test_topk_of_several_splits_on_a_gpu(device: str, k: int) -> None:
    """Lists that are cut, merged, and sorted in shared memory or beyond it."""
    u, i = torch.randn(3, 16), torch.randn(3000, 16)
    check_topk(u, i, k, random_csr(3, 3000, 0.1), "both", device)
    check_topk(u, i.sort(dim=0).values, k, None, "none", device)  # ever better


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n_rows", [1, 5, 100])
def test_order_is_total_with_ties_nan_and_infinities(device: str, n_rows: int) -> None:
    """Small integers: every score is exact, so ids must agree with a plain sort, ties by id."""
    u, i = torch.randint(-2, 3, (n_rows, 3)).float(), torch.randint(-2, 3, (700, 3)).float()
    i[5] = torch.nan
    # on a GPU, where a float32 factor is a sum of two parts, an infinity is not a number
    i[600, 0] = torch.inf if device == "cpu" else torch.nan
    i[601, 0] = -torch.inf if device == "cpu" else torch.nan
    i[650] = -0.0
    exclude = random_csr(n_rows, 700, 0.1)
    for k in (1, 33, 400):
        expected_scores, expected_ids = reference.topk(u, i, k, exclude=exclude)
        for _ in runs(device):
            found = ax.topk(u.to(device), i.to(device), k, exclude=exclude)
            scores, ids = (x.cpu() for x in found)
            assert torch.equal(ids, expected_ids)
            assert torch.equal(scores, expected_scores + 0.0) or scores.isnan().any()
    targets = random_csr(n_rows, 700, 0.02, seed=1)
    expected = reference.ranks(u, i, targets, exclude=exclude)
    for found in ranks(device, u, i, targets, exclude=exclude):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_topk_of_a_constant_catalogue_is_the_first_ids(device: str) -> None:
    for _ in runs(device):
        u, i = torch.ones(3, 4, device=device), torch.ones(5000, 4, device=device)
        assert torch.equal(ax.topk(u, i, 100)[1].cpu(), torch.arange(100).expand(3, 100))


@pytest.mark.parametrize("device", GPUS)
@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(3, 600, 8), (20, 150, 17), (140, 40, 64), (9, 50, 300)], ids=str)
def test_ranks_agree_with_topk_on_a_gpu(
    device: str, shape: tuple[int, int, int], dtype: torch.dtype, normalize: str
) -> None:
    """In one call for all users: the places of their whole catalogues, no exclusions."""
    n_rows, n_items, d = shape
    u, i = torch.randn(n_rows, d).to(device, dtype), torch.randn(n_items, d).to(device, dtype)
    i[1::7] = i[0]  # ties
    targets = random_csr(n_rows, n_items, 0.05, seed=1)
    order = ax.topk(u, i, n_items, normalize=normalize)[1].cpu()
    places = order.argsort(dim=1) + 1
    rows = torch.arange(n_rows).repeat_interleave(torch.from_numpy(np.diff(targets.indptr)))
    expected = places[rows, torch.from_numpy(targets.indices).long()]
    for found in ranks(device, u, i, targets, normalize=normalize):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 5000, 8), (60, 300, 17), (130, 100, 64)])
def test_ranks_agree_with_topk(shape: tuple[int, int, int], dtype: torch.dtype, normalize: str) -> None:
    """A target's rank is its place in the full top-k: the two operators share one score and order."""
    n_rows, n_items, d = shape
    u, i = torch.randn(n_rows, d).to(dtype), torch.randn(n_items, d).to(dtype)
    i[1::7] = i[0]  # ties
    exclude = random_csr(n_rows, n_items, 0.2)
    targets = random_csr(n_rows, n_items, 0.05, seed=1)
    targets = scipy.sparse.csr_array((targets.astype(int) - targets.multiply(exclude)) > 0)
    targets.sort_indices()
    left = n_items - np.diff(exclude.indptr)
    found = ax.ranks(u, i, targets, exclude=exclude, normalize=normalize)
    expected = []
    for row in range(n_rows):
        only = exclude[[row]]
        order = ax.topk(u[row : row + 1], i, int(left[row]), exclude=only, normalize=normalize)[1][0]
        place = torch.empty(n_items, dtype=torch.int64)
        place[order] = torch.arange(1, int(left[row]) + 1)
        expected.append(place[targets.indices[targets.indptr[row] : targets.indptr[row + 1]]])
    assert torch.equal(found, torch.cat(expected))


@pytest.mark.parametrize("device", DEVICES)
def test_excluded_targets_are_ranked_among_the_rest(device: str) -> None:
    u, i = torch.ones(1, 1), torch.tensor([[5.0], [4.0], [3.0], [2.0]])
    targets = (torch.tensor([0, 2]), torch.tensor([1, 3]))
    exclude = (torch.tensor([0, 2]), torch.tensor([0, 1]))
    for found in ranks(device, u, i, targets, exclude=exclude):
        assert found.tolist() == [1, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [1, 5])
def test_targets_nothing_or_everything_stands_before(
    restore_threads: None, dtype: torch.dtype, threads: int
) -> None:
    """NaN, infinite and tied targets in every panel, users by groups and items by ranges."""
    torch.set_num_threads(threads)
    i = torch.randint(-2, 3, (9001, 2)).to(dtype)
    i[::7, 0], i[3::7, 0], i[5::7, 0] = torch.nan, torch.inf, -torch.inf
    u = torch.tensor([[1, 0], [0, 0], [torch.nan, 0], [-1, 1], [torch.inf, 1], [0, -0.0]], dtype=dtype)
    for n_rows in (1, 6, 49):
        rows = u[torch.arange(n_rows) % 6]
        targets, exclude = random_csr(n_rows, 9001, 0.02, seed=2), random_csr(n_rows, 9001, 0.3)
        expected = reference.ranks(rows, i, targets, exclude=exclude, normalize="none")
        got = ax.ranks(rows, i, targets, exclude=exclude, normalize="none")
        assert torch.equal(got, expected)


def test_ranks_of_ties_at_zero_while_subnormals_are_flushed() -> None:
    """The next number above zero is zero to such a thread."""
    targets = (torch.tensor([0, 2]), torch.tensor([40, 70]))
    if not torch.set_flush_denormal(True):
        pytest.skip("no flushing of subnormals here")
    try:
        for dtype in (torch.float32, torch.float64):
            items = torch.ones(100, 3, dtype=dtype)
            assert ax.ranks(torch.zeros(1, 3, dtype=dtype), items, targets).tolist() == [41, 71]
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("device", DEVICES)
def test_users_of_one_group_have_any_number_of_targets(device: str) -> None:
    u, i = torch.randint(-3, 4, (60, 4)).float(), torch.randint(-3, 4, (150, 4)).float()
    counts = torch.arange(60) * 2 % 101  # 0 to 100
    indices = torch.cat([torch.randperm(150)[:n].sort()[0] for n in counts])
    targets = (torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]), indices)
    exclude = random_csr(60, 150, 0.5)
    expected = reference.ranks(u, i, targets, exclude=exclude, normalize="none")
    for found in ranks(device, u, i, targets, exclude=exclude, normalize="none"):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n_rows", [0, 1, 50])
def test_ranks_of_nothing(device: str, n_rows: int) -> None:
    empty = (torch.zeros(n_rows + 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    for found in ranks(device, torch.randn(n_rows, 4), torch.randn(9, 4), empty):
        assert found.shape == (0,)


def test_bitwise_the_same_on_any_number_of_threads(restore_threads: None) -> None:
    for n_rows in (1, 60, 500):
        u, i = torch.randn(n_rows, 33), torch.randn(9000, 33)
        targets = random_csr(n_rows, 9000, 0.001)
        results = []
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            results.append((*ax.topk(u, i, 50), ax.ranks(u, i, targets)))
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_strides_do_not_matter() -> None:
    u, i = torch.randn(33, 70).T, torch.randn(300, 66)[:, ::2]
    targets = random_csr(70, 300, 0.05)
    for a, b in zip(ax.topk(u, i, 9), ax.topk(u.contiguous(), i.contiguous(), 9), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(ax.ranks(u, i, targets), ax.ranks(u.contiguous(), i.contiguous(), targets))


def test_exclusion_forms_are_equivalent() -> None:
    u, i = torch.randn(10, 8), torch.randn(50, 8)
    csr = random_csr(10, 50, 0.2)
    expected = ax.topk(u, i, 5, exclude=csr)[1]
    arrays = (csr.indptr, csr.indices)
    tensors = tuple(torch.from_numpy(part) for part in arrays)
    for form in (scipy.sparse.csr_matrix(csr), arrays, tensors):
        assert torch.equal(ax.topk(u, i, 5, exclude=form)[1], expected)


@pytest.mark.parametrize("normalize", ["both", "user", "item", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(3, 40, 5), (7, 5000, 33), (100, 3000, 64)], ids=str)
def test_an_index_gives_the_bits_of_topk(
    shape: tuple[int, int, int], dtype: torch.dtype, normalize: Normalize
) -> None:
    n_users, n_items, d = shape
    u = torch.randn(n_users, d).to(dtype)
    i = (torch.randn(n_items, d) + 3 * torch.randn(d)).to(dtype)
    index = ax.ItemIndex(i, normalize=normalize)
    gone = torch.arange(0, n_items, 3)
    exclude = (torch.arange(n_users + 1) * gone.numel(), gone.repeat(n_users))
    for k, options in ((1, {}), (20, {"exclude": exclude}), (26, {})):
        expected = ax.topk(u, i, k, normalize=normalize, **options)
        for found, wanted in zip(index.topk(u, k, **options), expected, strict=True):
            assert torch.equal(found, wanted)
    assert len(index) == n_items
    assert repr(index).startswith(f"ItemIndex({n_items} x {d}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("normalize", ["both", "none"])
def test_an_index_in_files(
    dtype: torch.dtype, normalize: Normalize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written in parts, the last one not full, and opened again: the same bits."""
    monkeypatch.setattr("adaptau_ext.index._ROWS_AT_ONCE", 96)
    u, i = (torch.randn(n, 20).to(dtype) for n in (60, 1000))
    i[7] = math.inf  # the centre leaves it out
    expected = ax.topk(u, i, 9, normalize=normalize)
    folder = tmp_path / "deep" / "index"
    for index in (ax.ItemIndex(i, normalize=normalize, folder=folder), ax.ItemIndex.open(folder)):
        for found, wanted in zip(index.topk(u, 9), expected, strict=True):
            assert found.equal(wanted)
    if ax.ItemIndex(i)._packed[0] is not None and dtype != torch.float64:
        assert index._packed[0] is not None
    assert [path.name for path in folder.parent.iterdir()] == ["index"]
    with pytest.raises(FileExistsError, match="open it with ItemIndex.open"):
        ax.ItemIndex(i, folder=folder)
    index.rows.zero_()  # this process's pages
    assert ax.ItemIndex.open(folder).topk(u, 9)[0].equal(expected[0])


def test_a_damaged_index_is_refused(tmp_path: Path) -> None:
    i = torch.randn(200, 8)
    with pytest.raises(ModelError, match=r"index.json: not found; .* is no index of items"):
        ax.ItemIndex.open(tmp_path)
    names = {path.name for path in _index_files(i, tmp_path / "whole")}
    for name in sorted(names):
        gone = next(p for p in _index_files(i, tmp_path / f"without-{name}") if p.name == name)
        gone.unlink()
        with pytest.raises(ModelError, match=f"{name}: not found"):
            ax.ItemIndex.open(gone.parent)
        cut = next(p for p in _index_files(i, tmp_path / f"cut-{name}") if p.name == name)
        cut.write_bytes(cut.read_bytes()[:-5])
        with pytest.raises(ModelError, match="damaged, or written by another version"):
            ax.ItemIndex.open(cut.parent)
    about = next(p for p in _index_files(i, tmp_path / "about") if p.name == "index.json")
    text = about.read_text()
    for other in ('"unnormalized"', '"normalize": "nine", "unused"'):
        about.write_text(text.replace('"normalize"', other))
        with pytest.raises(ModelError, match="damaged, or written by another version"):
            ax.ItemIndex.open(about.parent)


def _index_files(i: Tensor, folder: Path) -> list[Path]:
    ax.ItemIndex(i, folder=folder)
    return list(folder.iterdir())


def test_an_index_of_another_catalogue_is_refused() -> None:
    u, i = torch.randn(40, 16), torch.randn(3000, 16)
    packed = torch.ops.adaptau.pack_items(i)
    if packed[0].numel() == 0:
        pytest.skip("this level has no bytes")
    with pytest.raises(RuntimeError, match="must be what pack_items made of i"):
        torch.ops.adaptau.topk(u, i[:2000], 5, None, None, "none", *packed)
    with pytest.raises(RuntimeError, match="must be what pack_items made of i"):
        torch.ops.adaptau.topk(u, i, 5, None, None, "none", packed[0], None, packed[2])
    with pytest.raises(RuntimeError, match="normalise i before packing it"):
        torch.ops.adaptau.topk(u, i, 5, None, None, "both", *packed)
    with pytest.raises(RuntimeError, match='got "cosine"'):
        ax.ItemIndex(i, normalize="cosine")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="u and i must have the same dtype"):
        ax.ItemIndex(i).topk(u.double(), 3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("normalize", ["none", "both"])
def test_ranks_of_parts_add_up(device: str, normalize: str) -> None:
    n_rows, n_items, borders = 50, 310, (0, 90, 90, 201, 310)
    u, i = torch.randn(n_rows, 12), torch.randn(n_items, 12)
    i[200:260] = i[40:100]  # ties across parts
    i[7] = i[205] = torch.nan
    targets, exclude = random_csr(n_rows, n_items, 0.03), random_csr(n_rows, n_items, 0.1, seed=1)
    exclude = scipy.sparse.csr_array(exclude - exclude.multiply(targets))
    exclude.eliminate_zeros()
    exclude.sort_indices()
    operators = torch.ops.adaptau
    for _ in runs(device):
        rows, items = u.to(device), i.to(device)
        whole = csr_pair(targets, rows.device)
        scores = operators.target_scores(rows, items, *whole, normalize)
        total = torch.ones_like(whole[1])
        for first, last in pairwise(borders):
            part = csr_pair(exclude[:, first:last].tocsr(), rows.device)
            found = operators.ranks(
                rows,
                items[first:last],
                *whole,
                *part,
                normalize,
                target_scores=scores,
                first_item=first,
            )
            total += found - 1
        expected = ax.ranks(rows, items, targets, exclude=exclude, normalize=normalize)
        assert torch.equal(total, expected)
