"""sampled_scores against its float64 twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import adaptau_ext as ax
from adaptau_ext import reference
from adaptau_ext.arguments import compute_dtype, split_normalize
from tests.devices import DEVICES, GPUS, runs
from tests.test_fused_softmax import float64

NORMALIZE = ("none", "user", "item", "both")
SHAPES = (  # B, M, N, d
    (0, 5, 3, 8),
    (3, 4, 0, 8),
    (1, 1, 1, 1),
    (7, 9, 33, 5),
    (70, 5000, 33, 64),
    (130, 40, 300, 7),  # items drawn often
    (65, 20_000, 9, 100),  # buckets without samples
    (3, 50, 40, 515),
)


def results(
    scores: Callable[..., Tensor], u: Tensor, i: Tensor, items: Tensor, normalize: str
) -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in (u, i)]
    found = scores(*leaves, items, normalize=normalize)
    weight = ((torch.arange(found.numel()) % 7 - 2) / 4).to(found).view(found.shape)
    (found * weight).sum().backward()
    return [found.detach(), *(x.grad for x in leaves if x.grad is not None)]


def sizes_of(u: Tensor, i: Tensor, items: Tensor, normalize: str) -> list[Tensor]:
    """Of what is summed up for each row of the scores and gradients, before a gradient loses what lies
    along a unit row, which may be all of it; no gradient of a zero row."""
    tables = u.double(), i.double()
    norms = [x.norm(dim=1) for x in tables]
    inverse = [torch.where(norm > 0, 1 / norm, 0) for norm in norms]
    unit = split_normalize(normalize)
    rows = [x * inv[:, None] if one else x for x, inv, one in zip(tables, inverse, unit, strict=True)]
    longest = [float(x.norm(dim=1).max()) if len(x) else 0.0 for x in rows]
    _, *along = results(reference.sampled_scores, *rows, items, "none")
    sizes = [rows[0].norm(dim=1) * longest[1]]
    for grad, inv, one, other in zip(along, inverse, unit, longest[::-1], strict=True):
        size = torch.maximum(grad.norm(dim=1), torch.full_like(inv, other))
        sizes.append(size * inv if one else size)
    return sizes


def assert_close(
    ours: list[Tensor], exact: list[Tensor], sizes: list[Tensor], roundings: tuple[float, ...]
) -> None:
    """Sums in the compute type, then rounded to their own."""
    for found, expected, size, n in zip(ours, exact, sizes, roundings, strict=True):
        computed = torch.finfo(compute_dtype(found)).eps
        own = torch.finfo(found.dtype)
        bound = n * computed * size[:, None] + (8 * computed + own.eps) * expected.abs()
        found, expected = (x.double().clamp(-own.max, own.max) for x in (found, expected))
        close = (found - expected).abs() <= bound + own.smallest_normal * own.eps
        assert found.shape == expected.shape
        assert torch.equal(found.isnan(), expected.isnan()) and (close | expected.isnan()).all()


def compare(u: Tensor, i: Tensor, items: Tensor, normalize: str, device: str) -> None:
    exact = results(reference.sampled_scores, float64(u), float64(i), items, normalize)
    sizes, products = sizes_of(u, i, items, normalize), 4 + u.shape[1] ** 0.5
    most_used = int(items.flatten().bincount().max()) if items.numel() else 0
    roundings = products, products + items.shape[1] ** 0.5, products + most_used**0.5
    given, every = [x.to(device) for x in (u, i, items)], []
    for _ in runs(device):
        every.append([x.cpu() for x in results(ax.sampled_scores, *given, normalize)])
        assert_close(every[-1], exact, sizes, roundings)
    assert_same_bits(every)


def assert_same_bits(every: list[list[Tensor]]) -> None:
    for other in every[1:]:
        assert all(torch.equal(a, b) for a, b in zip(every[0], other, strict=True))


@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape: tuple[int, ...], normalize: str) -> None:
    B, M, N, d = shape
    for dtype in (torch.float32, torch.float64):
        u, i = torch.randn(B, d, dtype=dtype), torch.randn(M, d, dtype=dtype)
        i[0] = 0  # a zero row has no direction, and no gradient
        compare(u, i, torch.randint(M, (B, N)), normalize, "cpu")


@pytest.mark.parametrize("device", GPUS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("d", [0, 1, 31, 64, 128, 200, 400, 1100])
def test_shapes_on_a_gpu(d: int, dtype: torch.dtype, device: str) -> None:
    """Every length of row that kernels are made for; an item used more often than a warp sums up."""
    for normalize, (B, M, N) in zip(
        NORMALIZE, [(0, 5, 3), (3, 4, 0), (1, 1, 1), (2, 90, 70)], strict=True
    ):
        u, i = torch.randn(B, d).to(dtype), torch.randn(M, d).to(dtype)
        compare(u, i, torch.randint(M, (B, N)), normalize, device)
    u, i = torch.randn(9, d).to(dtype), torch.randn(3, d).to(dtype)
    i[0] = 0
    compare(u, i, torch.randint(3, (9, 200)) % 2 * 2, "both", device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_norms_beyond_the_range_of_squares(scale: float, device: str) -> None:
    u, i = torch.randn(3, 24), torch.randn(8, 24)
    u[1] *= scale
    i[5] *= scale
    compare(u, i, torch.randint(8, (3, 40)), "both", device)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves(dtype: torch.dtype) -> None:
    u, i = (torch.randn(n, 24).to(dtype) for n in (20, 300))
    items = torch.randint(300, (20, 50))
    ours = results(ax.sampled_scores, u, i, items, "both")
    assert [x.dtype for x in ours] == [torch.float32, dtype, dtype]
    compare(u, i, items, "both", "cpu")


@pytest.mark.parametrize("device", DEVICES)
def test_strides_are_any(device: str) -> None:
    u, i, items = torch.randn(24, 20), torch.randn(12, 60)[:, ::2], torch.randint(30, (9, 40))
    compare(u[:, ::2].T[:, ::2], i.T, items.T[::4], "item", device)


@pytest.mark.parametrize("device", DEVICES)
def test_one_side_alone_has_a_gradient(device: str) -> None:
    given = torch.randn(9, 8), torch.randn(30, 8), torch.randint(30, (9, 4))
    u, i, items = (x.to(device) for x in given)
    both = results(ax.sampled_scores, u, i, items, "both")
    weight = ((torch.arange(36) % 7 - 2) / 4).view(9, 4).to(device)
    for _ in runs(device):
        for side in (0, 1):
            leaves = [x.clone().requires_grad_(n == side) for n, x in enumerate((u, i))]
            scores = ax.sampled_scores(*leaves, items, normalize="both")
            (scores * weight).sum().backward()
            assert torch.equal(scores.cpu(), both[0].cpu()) and leaves[1 - side].grad is None
            assert torch.equal(leaves[side].grad.cpu(), both[1 + side].cpu())


def test_same_bits_on_any_number_of_threads(restore_threads: None) -> None:
    u, i, items = torch.randn(300, 64), torch.randn(9000, 64), torch.randint(9000, (300, 200))
    every = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        every.append(results(ax.sampled_scores, u, i, items, "both"))
    assert_same_bits(every)


def test_gradcheck_opcheck_and_compile() -> None:
    u, i = (torch.randn(n, 5, dtype=torch.float64, requires_grad=True) for n in (6, 8))
    items = torch.randint(8, (6, 3))
    operator = torch.ops.adaptau.sampled_scores
    for normalize in NORMALIZE:
        torch.autograd.gradcheck(lambda *x, how=normalize: operator(*x, items, how), (u, i))
        torch.library.opcheck(operator.default, (u, i, items, normalize))

    def loss(u: Tensor, i: Tensor) -> Tensor:
        return ax.sampled_scores(u, i, items, normalize="both").relu().sum()

    expected = torch.autograd.grad(loss(u, i), (u, i))
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    for a, b in zip(expected, torch.autograd.grad(compiled(u, i), (u, i)), strict=True):
        assert torch.equal(a, b)
    first = torch.autograd.grad(loss(u, i), u, create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="sampled_scores has first derivatives only"):
        first.sum().backward()


@pytest.mark.parametrize("device", DEVICES)
def test_nan_stays_where_it_is(device: str) -> None:
    u, i = torch.randn(4, 8), torch.randn(9, 8)
    i[5, 2], u[1, 0] = torch.nan, torch.nan
    items = torch.tensor([[0, 5], [1, 2], [3, 4], [5, 5]])
    u, i, items = (x.to(device) for x in (u, i, items))
    expected = [[False, True], [True, True], [False, False], [True, True]]
    for normalize in NORMALIZE:
        for _ in runs(device):
            assert ax.sampled_scores(u, i, items, normalize=normalize).isnan().tolist() == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"items": torch.zeros(4, dtype=torch.int64)}, r"items must have shape \[4, .*\], got \[4\]"),
        ({"items": torch.zeros(3, 2, dtype=torch.int64)}, r"items must have shape \[4, .*\], got \[3, 2\]"),
        ({"items": torch.zeros(4, 2, dtype=torch.int32)}, "items must .*int64.*int32"),
        ({"items": torch.full((4, 2), 9)}, r"items.*\[0, 9\).*9"),
        ({"items": torch.full((4, 2), -1)}, r"items.*\[0, 9\).*-1"),
        ({"i": torch.zeros(9, 7)}, "the same number of columns|columns"),
        ({"i": torch.zeros(9, 8, dtype=torch.float64)}, "dtype"),
        ({"normalize": "cosine"}, 'normalize must be .*"cosine"'),
    ],
    ids=str,
)  # fmt: skip
def test_errors(changes: dict[str, Any], message: str) -> None:
    given = {
        "u": torch.zeros(4, 8),
        "i": torch.zeros(9, 8),
        "items": torch.zeros(4, 2, dtype=torch.int64),
    }
    with pytest.raises(RuntimeError, match=message):
        ax.sampled_scores(**{**given, **changes})


def test_gradients_of_another_shape_are_refused() -> None:
    given = torch.zeros(4, 8), torch.zeros(9, 8), torch.zeros(4, 2, dtype=torch.int64), "both", 3
    for shape in ((4,), (4, 3), (3, 2)):
        with pytest.raises(
            RuntimeError, match=r"grad must have the shape of the scores, \[4, 2\], got"
        ):
            torch.ops.adaptau.sampled_scores_backward(torch.zeros(shape), *given)
