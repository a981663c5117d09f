"""sampled_scores against its float64 twin, where there is a kernel and where there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import adaptau_ext as ax
from adaptau_ext import gathered, reference
from adaptau_ext.arguments import compute_dtype
from tests.test_fused_softmax import float64

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
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


def assert_close(ours: list[Tensor], exact: list[Tensor], d: int, n: int) -> None:
    """Sums of d products, then of up to n rows, in the compute type; then rounded to their own."""
    assert len(ours) == len(exact) == 3
    for found, expected in zip(ours, exact, strict=True):
        computed = torch.finfo(compute_dtype(found)).eps
        scale = float(expected.abs().max()) if expected.numel() else 0.0
        atol = (4 + d**0.5 + n**0.5) * computed * scale
        rtol = 8 * computed + torch.finfo(found.dtype).eps
        torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape: tuple[int, ...], normalize: str, device: str) -> None:
    B, M, N, d = shape
    for dtype in (torch.float32, torch.float64)[: 2 if device == "cpu" else 1]:
        u, i = torch.randn(B, d, dtype=dtype), torch.randn(M, d, dtype=dtype)
        i[0] = 0  # a zero row has no direction, and no gradient
        items = torch.randint(M, (B, N))
        exact = results(reference.sampled_scores, float64(u), float64(i), items, normalize)
        given = u.to(device), i.to(device), items.to(device)
        ours = [x.cpu() for x in results(ax.sampled_scores, *given, normalize)]
        assert_close(ours, exact, d, max(B, N))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves(dtype: torch.dtype) -> None:
    u, i = (torch.randn(n, 24).to(dtype) for n in (20, 300))
    items = torch.randint(300, (20, 50))
    ours = results(ax.sampled_scores, u, i, items, "both")
    assert [x.dtype for x in ours] == [torch.float32, dtype, dtype]
    exact = results(reference.sampled_scores, float64(u), float64(i), items, "both")
    assert_close(ours, exact, 24, 50)


def test_strides_are_any() -> None:
    u, i, items = torch.randn(24, 20), torch.randn(12, 60)[:, ::2], torch.randint(30, (9, 40))
    ours = results(ax.sampled_scores, u[:, ::2].T[:, ::2], i.T, items.T[::4], "item")
    exact = results(
        reference.sampled_scores, float64(u[:, ::2].T[:, ::2]), float64(i.T), items.T[::4], "item"
    )
    assert_close(ours, exact, 12, 10)


def test_one_side_alone_has_a_gradient() -> None:
    u, i, items = torch.randn(9, 8), torch.randn(30, 8), torch.randint(30, (9, 4))
    both = results(ax.sampled_scores, u, i, items, "both")
    for side in (0, 1):
        leaves = [x.clone().requires_grad_(n == side) for n, x in enumerate((u, i))]
        scores = ax.sampled_scores(*leaves, items, normalize="both")
        weight = ((torch.arange(36) % 7 - 2) / 4).view(9, 4)
        (scores * weight).sum().backward()
        assert torch.equal(scores, both[0]) and leaves[1 - side].grad is None
        assert torch.equal(leaves[side].grad, both[1 + side])


def test_same_bits_on_any_number_of_threads(restore_threads: None) -> None:
    u, i, items = torch.randn(300, 64), torch.randn(9000, 64), torch.randint(9000, (300, 200))
    every = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        every.append(results(ax.sampled_scores, u, i, items, "both"))
    for other in every[1:]:
        assert all(torch.equal(a, b) for a, b in zip(every[0], other, strict=True))


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_without_a_kernel(normalize: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What CUDA tensors take, on the CPU."""
    u, i, items = torch.randn(30, 12), torch.randn(50, 12), torch.randint(50, (30, 7))
    i[3] = 0
    exact = results(reference.sampled_scores, float64(u), float64(i), items, normalize)
    weight = ((torch.arange(210) % 7 - 2) / 4).view(30, 7)
    for chunk in (1, 1000, 1 << 21):  # a row, some rows, all rows at a time
        monkeypatch.setattr(gathered, "_CHUNK", chunk)
        scores = gathered.sampled_scores(u, i, items, normalize)
        grads = gathered.sampled_scores_backward(weight, u, i, items, normalize, 3)
        assert_close([scores, *grads], exact, 12, 30)
        for bit in (1, 2):
            one = gathered.sampled_scores_backward(weight, u, i, items, normalize, bit)
            assert torch.equal(one[bit - 1], grads[bit - 1]) and one[2 - bit].numel() == 0
    halves = gathered.sampled_scores(u.bfloat16(), i.bfloat16(), items, normalize)
    assert halves.dtype == torch.float32
    twin = reference.sampled_scores(
        u.bfloat16().float(), i.bfloat16().float(), items, normalize=normalize
    )
    torch.testing.assert_close(halves, twin)


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


def test_nan_stays_where_it_is() -> None:
    u, i = torch.randn(4, 8), torch.randn(9, 8)
    i[5, 2], u[1, 0] = torch.nan, torch.nan
    items = torch.tensor([[0, 5], [1, 2], [3, 4], [5, 5]])
    for normalize in NORMALIZE:
        scores = ax.sampled_scores(u, i, items, normalize=normalize)
        assert scores.isnan().tolist() == [[False, True], [True, True], [False, False], [True, True]]


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
