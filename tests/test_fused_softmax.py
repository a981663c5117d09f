"""fused_adaptive_softmax against its float64 twin."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

import adaptau_ext as ax
from adaptau_ext import reference
from tests.budget import LossBudget, assert_within, reduced
from tests.devices import DEVICES, GPUS, roundoff, runs, to_device

SIZES = (0, 1, 3, 17, 63, 64, 65, 127, 300)


def run(
    module: Any, u: Tensor, i: Tensor, tau: Tensor, options: dict[str, Any], device: str = "cpu"
) -> tuple[dict[str, Tensor], Tensor]:
    """Loss, unit loss and every gradient, with an uneven weight on the rows for reduction "none"."""
    leaves = {"u": u, "i": i, "tau": tau}
    leaves |= {k: options[k] for k in ("positive_tau", "log_q") if options.get(k) is not None}
    leaves = {name: x.detach().clone().to(device).requires_grad_() for name, x in leaves.items()}
    given = {k: to_device(v, device) for k, v in options.items()}
    given |= {k: v for k, v in leaves.items() if k not in ("u", "i", "tau")}
    loss, unit_loss = module.fused_adaptive_softmax(
        leaves["u"], leaves["i"], leaves["tau"], return_unit_loss=True, **given
    )
    weight = ((torch.arange(loss.numel()) % 7 - 2) / 4).to(loss.dtype).reshape(loss.shape)
    (loss * weight.to(device)).sum().backward()
    gradients = {f"grad {name}": x.grad for name, x in leaves.items()}
    results = {"loss": loss.detach(), "unit_loss": unit_loss, **gradients}
    return {name: x.cpu() for name, x in results.items()}, weight


def float64(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


def compare(u: Tensor, i: Tensor, tau: Tensor, device: str = "cpu", **options: Any) -> None:
    """Runs operator and float64 twin on the same (already rounded) inputs and checks all outputs."""
    twin_options = {k: float64(v) for k, v in options.items() if k != "precision"}
    twin_given = u.double(), i.double(), tau.double()
    exact, weight = run(reference, *twin_given, twin_options)
    twin_options["reduction"] = "none"
    exact["rows"] = reference.fused_adaptive_softmax(*twin_given, **twin_options)
    for _ in runs(device):
        ours, _weight = run(ax, u, i, tau, options, device)
        check(ours, exact, weight, u, i, tau, device, options)


def check(
    ours: dict[str, Tensor], exact: dict[str, Tensor], weight: Tensor, u: Tensor, i: Tensor,
    tau: Tensor, device: str, options: dict[str, Any],
) -> None:  # fmt: skip
    n_rows, n_items = u.shape[0], i.shape[0]
    normalize = options.get("normalize", "both")
    compute = torch.float64 if u.dtype == torch.float64 else torch.float32
    all_tau = tau if options.get("positive_tau") is None else torch.cat([tau, options["positive_tau"]])
    rounding = roundoff(device, u.dtype, options.get("precision", "float32"))
    budget = LossBudget.of(
        compute, u, i, all_tau, normalize, max(n_rows, n_items), rounding.factors, rounding.weights
    )

    reduction = options.get("reduction", "mean")
    loss_budget = reduced(budget.loss, budget.u, exact["rows"], reduction)
    assert_within(ours["loss"], exact["loss"], loss_budget, "loss")
    assert_within(ours["unit_loss"], exact["unit_loss"], budget.loss, "unit_loss")

    # Sum of absolute terms behind each gradient: weights times 1 / tau times the other side's rows.
    row_weight = weight.double().abs().expand(n_rows) / (n_rows if reduction == "mean" else 1)
    inv_tau = (1 / all_tau.double()).reshape(-1, n_rows).amax(0) if n_rows else all_tau.double()
    pull = row_weight * inv_tau * 2
    user_norm, item_norm = u.double().norm(dim=1), i.double().norm(dim=1)
    i_size = 1.0 if normalize in ("both", "item") else item_norm.max() if n_items else 0.0
    u_size = torch.ones_like(user_norm) if normalize in ("both", "user") else user_norm
    by_norm = {
        "u": torch.where(user_norm > 0, 1 / user_norm, 0) if normalize in ("both", "user") else 1.0,
        "i": torch.where(item_norm > 0, 1 / item_norm, 0) if normalize in ("both", "item") else 1.0,
    }
    # gradients are rounded to the inputs' dtype, the smallest ones to multiples of one number
    own = torch.finfo(u.dtype).eps
    step = own * torch.finfo(u.dtype).smallest_normal
    scale = {
        "grad u": (pull * i_size * by_norm["u"])[:, None],
        "grad i": ((pull * u_size).sum() * by_norm["i"])[..., None]
        if isinstance(by_norm["i"], Tensor)
        else (pull * u_size).sum(),
        "grad tau": pull * inv_tau * u_size * i_size,
        "grad positive_tau": pull * inv_tau * u_size * i_size,
        "grad log_q": row_weight.sum() * 2,
    }
    for name, gradient in exact.items():
        if name.startswith("grad"):
            limit = scale[name] * budget.gradient + gradient.abs() * own + step
            assert_within(ours[name], gradient, limit, name)
            assert ours[name].dtype == (u.dtype if name in ("grad u", "grad i") else compute)


def embeddings(
    n_rows: int, n_items: int, d: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    return torch.randn(n_rows, d).to(dtype), torch.randn(n_items, d).to(dtype)


def random_csr(n_rows: int, n_columns: int, density: float = 0.1) -> scipy.sparse.csr_array:
    rng = np.random.default_rng(0)
    csr = scipy.sparse.csr_array(rng.random((n_rows, n_columns)) < density)
    csr.sort_indices()
    return csr


@pytest.mark.parametrize("d", SIZES)
@pytest.mark.parametrize("n_items", [m for m in SIZES if m])
def test_odd_shapes(n_items: int, d: int) -> None:
    for turn, n_rows in enumerate(SIZES):
        u, i = embeddings(n_rows, n_items, d)
        options = [
            {"target": torch.randint(n_items, (n_rows,))},
            {"target": torch.randint(n_items, (n_rows,)), "denominator": "negatives"},
            {"target": torch.randint(n_items, (n_rows,)), "normalize": "none", "reduction": "sum"},
        ][turn % 3]
        if options.get("denominator") == "negatives" and n_items == 1 and n_rows:
            continue  # nothing but the positive: an error, tested elsewhere
        if n_items >= n_rows and turn % 2:
            options.pop("target")  # in-batch
        compare(u, i, torch.rand(n_rows) + 0.2, **options)


def test_no_items_and_no_rows() -> None:
    u, i = torch.zeros(0, 5, requires_grad=True), torch.zeros(0, 5, requires_grad=True)
    assert ax.fused_adaptive_softmax(u, i, 0.1).isnan()
    total = ax.fused_adaptive_softmax(u, i, 0.1, reduction="sum")
    total.backward()
    assert total == 0 and u.grad.shape == (0, 5) and i.grad.shape == (0, 5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("normalize", ["both", "user", "item", "none"])
@pytest.mark.parametrize("denominator", ["all", "negatives"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_options_and_dtypes(
    device: str, dtype: torch.dtype, normalize: str, denominator: str, reduction: str
) -> None:
    if device != "cpu" and dtype == torch.float64:
        pytest.skip("float64 is the CPU's")
    n_rows, n_items, d = (25, 80, 24) if device == "virtual" else (70, 150, 64)
    u, i = embeddings(n_rows, n_items, d, dtype)
    u, i = u / 4, i / 4
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    target = torch.randint(n_items, (n_rows,))
    tau, positive_tau = torch.rand(2, n_rows, dtype=compute) + 0.3
    log_q = torch.randn(n_items, dtype=compute)
    common = {"normalize": normalize, "denominator": denominator, "reduction": reduction}
    exclude = random_csr(n_rows, n_items)
    ids = torch.arange(n_items) // 3  # every item three times
    compare(u, i, tau, device, target=target, **common)
    compare(u, i, tau, device, target=target, exclude=exclude, **common)
    compare(u, i, tau, device, target=target, positive_tau=positive_tau, log_q=log_q, **common)
    compare(u, i, tau, device, positive_tau=positive_tau, item_ids=ids, **common)  # in-batch
    compare(
        u, i, tau, device, target=target, positive_tau=positive_tau, log_q=log_q,
        item_ids=ids[torch.randperm(n_items)], exclude=random_csr(n_rows, 60), **common,
    )  # fmt: skip


FEW_ROWS, MANY_ROWS = ((1, 1), (1, 130), (17, 64)), ((65, 33), (130, 129))
GPU_SHAPES = [
    *product(FEW_ROWS, (0, 1, 3, 8, 17, 64, 65, 128, 200, 256, 300, 511, 512)),
    *product(MANY_ROWS, (1, 3, 8, 17, 64, 65, 128)),  # slow to interpret
]


@pytest.mark.parametrize("device", GPUS)
@pytest.mark.parametrize(("shape", "d"), GPU_SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_shapes_on_a_gpu(device: str, dtype: torch.dtype, shape: tuple[int, int], d: int) -> None:
    n_rows, n_items = shape
    u, i = embeddings(n_rows, n_items, d, dtype)
    compare(u, i, torch.rand(n_rows) + 0.2, device, target=torch.randint(n_items, (n_rows,)))


@pytest.mark.parametrize("device", GPUS)
@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
@pytest.mark.parametrize("normalize", ["both", "none"])
def test_coarser_products_on_a_gpu(device: str, precision: str, normalize: str) -> None:
    for n_rows, n_items, d in ((20, 70, 64), (20, 70, 128), (40, 40, 256), (9, 20, 512)):
        u, i = embeddings(n_rows, n_items, d)
        options = {"precision": precision, "normalize": normalize, "log_q": torch.randn(n_items)}
        size = 1 if normalize == "both" else 4 * d**0.5
        tau = torch.full((n_rows,), 0.1 * size)
        compare(u, i, tau, device, target=torch.randint(n_items, (n_rows,)), **options)


@pytest.mark.parametrize("device", GPUS)
def test_several_splits_and_many_duplicates_on_a_gpu(device: str) -> None:
    """Tables long enough that blocks share a row's columns, and ids that fill whole tiles."""
    u, i = embeddings(40, 1700, 16)
    target = torch.randint(1700, (40,))
    ids = torch.randint(5, (1700,))
    compare(u, i, torch.full((40,), 0.2), device, target=target, exclude=random_csr(40, 1700, 0.3))
    compare(u, i, torch.full((40,), 0.2), device, target=target, item_ids=ids)
    u, i = embeddings(1100, 30, 16)
    compare(u, i, torch.full((1100,), 0.2), device, target=torch.randint(30, (1100,)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("loss", ["fused", "sampled"])
def test_gradients_do_not_depend_on_which_are_wanted(loss: str, device: str) -> None:
    given = {
        "u": torch.randn(9, 8), "i": torch.randn(40, 8), "tau": torch.rand(9) + 0.3,
        "positive_tau": torch.rand(9) + 0.3, "log_q": torch.randn(40),
    }  # fmt: skip
    target = torch.randint(40, (9,)).to(device)

    def gradients(wanted: Sequence[str]) -> list[Tensor]:
        x = {name: v.clone().to(device).requires_grad_(name in wanted) for name, v in given.items()}
        spoiled = [
            torch.full((n,), torch.nan, device=device) for n in (9, 40, 72, 320) for _ in range(9)
        ]
        del spoiled  # what was freed is what is allocated next
        terms = {name: x[name] for name in ("positive_tau", "log_q")}
        if loss == "fused":
            result = ax.fused_adaptive_softmax(x["u"], x["i"], x["tau"], target=target, **terms)
        else:
            result = ax.sampled_adaptive_softmax(
                x["u"], x["i"], None, target, x["tau"], n_negatives=7, seed=1, **terms
            )
        return list(torch.autograd.grad(result, [x[name] for name in wanted]))

    every = dict(zip(given, gradients(list(given)), strict=True))
    for size in range(1, len(given)):
        for wanted in combinations(given, size):
            for name, gradient in zip(wanted, gradients(wanted), strict=True):
                assert torch.equal(gradient, every[name]), (wanted, name)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("tau", [0.005, 0.01, 0.02, 0.0233, 0.05, 0.1, 1.0, 10.0])
def test_temperatures(device: str, tau: float) -> None:
    n_rows, n_items = (30, 200) if device == "virtual" else (100, 1000)
    u, i = embeddings(n_rows, n_items, 64)
    target = torch.randint(n_items, (n_rows,))
    i[target[: n_rows // 2]] += 3 * u[: n_rows // 2]  # half of the users are well fitted
    taus = torch.full((n_rows,), tau)
    compare(u, i, taus, device, target=target)
    compare(u, i, taus, device, target=target, denominator="negatives")
    compare(u / 8, i, taus, device, target=target, normalize="none")
    opposite = 0.02 * torch.randn(9, 64) - u[0]  # of the row's user: small sums of exponentials
    opposite[4] = u[0]
    compare(u[:1], opposite, taus[:1], device, target=torch.tensor([4]), denominator="negatives")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_twins_compute_in_float32(dtype: torch.dtype) -> None:
    u, i = (300 * torch.randn(n, 8).to(dtype) for n in (5, 9))  # beyond float16's squares
    target, csr = torch.arange(5), (torch.arange(6), torch.arange(5))

    def results(u: Tensor, i: Tensor) -> list[Tensor]:
        return [
            reference.fused_adaptive_softmax(u, i, 0.2, normalize="item"),
            reference.sampled_adaptive_softmax(u, i, None, target, 0.2, n_negatives=4, seed=0),
            reference.sampled_scores(u, i, target[:, None]),
            *reference.topk(u, i, 3),
            reference.ranks(u, i, csr),
            *reference.propagate(csr, u, i, 2),
            *reference.hop(csr, u, i),
            *reference.layers(csr, u, i, 2, items=target),
        ]

    for ours, expected in zip(results(u, i), results(u.float(), i.float()), strict=True):
        assert ours.isfinite().all() and torch.equal(ours, expected)


def test_twins_refuse_targets_out_of_range() -> None:
    u, i = torch.randn(5, 8), torch.randn(4, 8)
    for target in (None, torch.tensor([0, 1, 2, 3, 4]), torch.tensor([0, 1, 2, 3, -2])):
        for form in (reference, ax):
            with pytest.raises(RuntimeError, match="target must lie in|target is needed"):
                form.fused_adaptive_softmax(u, i, 0.2, target=target)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weight", [1.0, 1e6])
@pytest.mark.parametrize("tau", [1 / 350, 1 / 340, 0.02, 0.0234, 0.0255, 0.027, 1 / 32, 0.04])
def test_all_candidates_opposite(tau: float, weight: float, dtype: torch.dtype) -> None:
    """The sum of exponentials is as small as it can be; its reciprocal times tau's and a weight's is not."""
    rows = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.02], [-1.0, 0.01], [-1.0, -0.03]])
    target, negatives = torch.tensor([0]), torch.tensor([[1, 2, 2]])

    def gradients(
        form: Any, dtype: torch.dtype, denominator: str, reduction: str
    ) -> list[tuple[Tensor, ...]]:
        u, i = (x.to(dtype).requires_grad_() for x in rows)
        options = {"denominator": denominator, "reduction": reduction}
        losses = [
            form.fused_adaptive_softmax(u, i, tau, target=target, **options),
            form.sampled_adaptive_softmax(u, i, None, target, tau, negatives=negatives, **options),
        ]
        return [
            (loss, *torch.autograd.grad(loss, (u, i), torch.full_like(loss, weight))) for loss in losses
        ]

    for options in product(("all", "negatives"), ("mean", "none")):
        found, exact = (gradients(f, t, *options) for f, t in ((ax, dtype), (reference, torch.float64)))
        for ours, expected in zip(found, exact, strict=True):
            for one, other in zip(ours, expected, strict=True):
                limit = 2e-4 if dtype == torch.float32 else 1e-11  # of scores, times 1 / tau
                size = max(1.0, float(other.detach().abs().max()))
                assert_within(one.detach().double(), other.detach(), limit * size)


def test_one_tau_in_every_form() -> None:
    u, i = embeddings(20, 30, 8)
    expected = ax.fused_adaptive_softmax(u, i, torch.full((20,), 0.25))
    assert torch.equal(ax.fused_adaptive_softmax(u, i, 0.25), expected)
    tau = torch.tensor(0.25, requires_grad=True)
    loss = ax.fused_adaptive_softmax(u, i, tau)
    loss.backward()
    assert torch.equal(loss, expected)
    reference_tau = torch.tensor(0.25, dtype=torch.float64, requires_grad=True)
    reference.fused_adaptive_softmax(u.double(), i.double(), reference_tau).backward()
    assert_within(tau.grad, reference_tau.grad, 1e-5, "grad of a scalar tau")


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-20, 1e15, 1e20, 1e30, 3e37])
def test_huge_and_tiny_norms_and_zero_rows(scale: float) -> None:
    u, i = embeddings(20, 100, 64)
    u, i = u.clamp(-3, 3), i.clamp(-3, 3)
    u[0] = 0
    i[5] = 0
    i[7] = 0
    target = torch.randint(100, (20,))
    target[1] = 5
    compare(u, i, torch.full((20,), 0.1), target=target)
    # Scaling one side leaves the loss alone and divides its gradient.
    base, _ = run(ax, u, i, torch.full((20,), 0.1), {"target": target})
    scaled, _ = run(ax, u * scale, i, torch.full((20,), 0.1), {"target": target})
    assert_within(scaled["loss"], base["loss"].double(), 1e-5, "loss")
    representable = (base["grad u"].double() / scale).abs() < torch.finfo(torch.float32).max
    expected = (base["grad u"].double() / scale)[representable]
    assert_within(
        scaled["grad u"][representable], expected, 2e-4 * expected.abs().max().item(), "grad u"
    )
    assert (scaled["grad u"][0] == 0).all() and not scaled["grad u"].isnan().any()
    assert (scaled["grad i"][5] == 0).all()


def test_subnormal_rows_give_directions() -> None:
    u, i = embeddings(20, 100, 8)
    u = torch.randint(1, 1000, (20, 8)) * 1e-44  # exact multiples of the smallest subnormals
    exact = reference.fused_adaptive_softmax(u.double() * 1e40, i.double(), 0.1)
    assert_within(ax.fused_adaptive_softmax(u, i, 0.1), exact, 1e-5)


def test_strides() -> None:
    n_rows, n_items, d = 70, 100, 17
    base_u, base_i = torch.randn(2 * n_rows, 3 * d), torch.randn(d, n_items)
    target = torch.randint(n_items, (n_rows,))
    tau = torch.full((n_rows,), 0.2)
    for u, i in (
        (base_u[::2, ::3], base_i.T),  # strided rows and columns, transposed
        (base_u[1::2, 1 : 1 + d], base_i.T.flip(0)),
        (base_u[:1, :d].expand(n_rows, d), base_i.T[:, :1].expand(n_items, d)),  # zero strides
    ):
        plain = ax.fused_adaptive_softmax(u.contiguous(), i.contiguous(), tau, target=target)
        assert torch.equal(ax.fused_adaptive_softmax(u, i, tau, target=target), plain)


@pytest.mark.parametrize("n_rows", [1, 130, 400])
@pytest.mark.parametrize("options", [{}, {"normalize": "none"}, {"reduction": "none"}])
def test_bitwise_the_same_on_any_number_of_threads(
    n_rows: int, options: dict[str, Any], restore_threads: None
) -> None:
    u, i = embeddings(n_rows, 5000, 33)
    target = torch.randint(5000, (n_rows,))
    results = []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        results.append(run(ax, u, i, torch.full((n_rows,), 0.1), {"target": target, **options})[0])
    for other in results[1:]:
        for name, value in results[0].items():
            assert torch.equal(value, other[name]), name


def test_large_catalogue_recomputes_and_small_one_stashes() -> None:
    """260,000 items x 96 users exceed the workspace, so the second pass recomputes exponentials."""
    for n_items in (5000, 260_000):
        u, i = embeddings(100, n_items, 4)
        compare(u, i, torch.full((100,), 0.1), target=torch.randint(n_items, (100,)))


def test_nan_and_inf_propagate_to_the_rows_they_touch() -> None:
    u, i = embeddings(4, 50, 8)
    u[1, 3] = torch.nan
    u[2, 3] = torch.inf
    loss = ax.fused_adaptive_softmax(u, i, 0.1, reduction="none")
    assert loss.isnan().tolist() == [False, True, True, False]
    i[40, 0] = torch.inf
    assert ax.fused_adaptive_softmax(u, i, 0.1, reduction="none").isnan().all()


def test_excluding_is_the_same_as_removing() -> None:
    u, i = embeddings(1, 50, 8)
    keep = torch.tensor([j for j in range(50) if j % 3])
    gone = torch.arange(0, 50, 3)
    exclude = (torch.tensor([0, gone.numel()]), gone)
    left = ax.fused_adaptive_softmax(u, i, 0.1, target=torch.tensor([4]), exclude=exclude)
    removed = ax.fused_adaptive_softmax(u, i[keep], 0.1, target=torch.tensor([2]))
    assert_within(left, removed.double(), 1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_log_q_that_is_not_finite(value: float, device: str) -> None:
    """Of an item that counts in the last row alone and is the positive of none."""
    u, i = embeddings(4, 20, 8)
    exclude = torch.tensor([0, 1, 2, 3, 3]), torch.tensor([7, 7, 7])

    def losses(log_q: Tensor) -> Tensor:
        found: Tensor = ax.fused_adaptive_softmax(
            u.to(device), i.to(device), 0.1, log_q=log_q.to(device), reduction="none",
            exclude=tuple(x.to(device) for x in exclude),
        )  # fmt: skip
        return found.cpu()

    log_q = torch.randn(20)
    for _ in runs(device):
        log_q[7] = 0
        finite = losses(log_q)
        log_q[7] = value
        other = losses(log_q)
        assert torch.equal(finite[:3], other[:3])
        assert bool(other[3].isfinite()) == (value == torch.inf)  # of probability zero


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n_items", [2, 1])
def test_a_positive_s_log_q_that_is_not_finite(n_items: int, device: str) -> None:
    u, i = embeddings(2, n_items, 8)
    target = torch.zeros(2, dtype=torch.int64)
    for value, expected in ((-torch.inf, "nan"), (torch.inf, "inf" if n_items > 1 else "nan")):
        log_q = torch.tensor([value, 0.0][:n_items])
        exact = reference.fused_adaptive_softmax(
            u.double(), i.double(), 0.1, target=target, log_q=log_q.double(), reduction="none"
        )
        assert isinstance(exact, Tensor) and {str(float(x)) for x in exact} == {expected}
        for _ in runs(device):
            ours = ax.fused_adaptive_softmax(
                u.to(device), i.to(device), 0.1, target=target.to(device), log_q=log_q.to(device),
                reduction="none",
            )  # fmt: skip
            assert not bool(ours.isfinite().any()), value


def test_the_positive_is_never_excluded() -> None:
    u, i = embeddings(3, 20, 8)
    everything = (torch.tensor([0, 20, 40, 60]), torch.arange(20).repeat(3))
    assert ax.fused_adaptive_softmax(u, i, 0.1, exclude=everything) == 0


def test_a_second_backward_pass_gives_the_same_gradient() -> None:
    u, i = (x.requires_grad_() for x in embeddings(20, 30, 8))
    loss = ax.fused_adaptive_softmax(u, i, 0.1)
    loss.backward(retain_graph=True)
    first = u.grad.clone()
    loss.backward()
    assert_within(u.grad, 2 * first.double(), 1e-6 * float(first.abs().max()))


def test_second_derivatives_are_refused() -> None:
    u, i = (x.requires_grad_() for x in embeddings(20, 30, 8))
    for reduction in ("mean", "none"):
        loss = ax.fused_adaptive_softmax(u, i, 0.1, reduction=reduction).sum()
        (gradient,) = torch.autograd.grad(loss, u, create_graph=True)
        with pytest.raises(NotImplementedError, match="has first derivatives only"):
            gradient.sum().backward()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("denominator", ["all", "negatives"])
def test_rows_without_a_positive(device: str, denominator: str) -> None:
    n_rows, n_items = 70, 150
    u, i = embeddings(n_rows, n_items, 24)
    target = torch.where(torch.rand(n_rows) < 0.5, -1, torch.randint(n_items, (n_rows,)))
    ids, options = torch.randint(60, (n_items,)), {"denominator": denominator}
    tau = torch.rand(n_rows) + 0.2
    positive_tau, log_q = torch.rand(n_rows) + 0.3, torch.randn(n_items)
    compare(u, i, tau, device, target=target, reduction="none", **options)
    compare(u, i, tau, device, target=target, exclude=random_csr(n_rows, n_items), **options)
    compare(u, i, tau, device, target=target, item_ids=ids, positive_tau=positive_tau, **options)
    compare(u, i, tau, device, target=target, log_q=log_q, normalize="none", **options)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n_items", [0, 3])
def test_a_row_without_any_candidate_is_minus_infinity(device: str, n_items: int) -> None:
    u, i = torch.randn(4, 8), torch.randn(n_items, 8)
    everything = scipy.sparse.csr_array(np.ones((4, n_items)))
    for _ in runs(device):
        rows, items = u.to(device).requires_grad_(), i.to(device).requires_grad_()
        target = torch.full((4,), -1, device=device)
        loss = ax.fused_adaptive_softmax(
            rows,
            items,
            0.2,
            target=target,
            exclude=everything,
            denominator="negatives",
            reduction="none",
        )
        assert (loss == -torch.inf).all()
        loss.backward(torch.ones_like(loss))
        assert not rows.grad.any() and not items.grad.any()
