"""sampled_adaptive_softmax against its float64 twin, and the draw of negatives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import adaptau_ext as ax
from adaptau_ext import reference
from tests import virtual_gpu
from tests.budget import LossBudget, assert_within
from tests.devices import fewer, on, using
from tests.test_fused_softmax import float64

SIZES = (0, 1, 3, 17, 63, 64, 65, 127, 300)


def run(
    module: Any, given: dict[str, Any], options: dict[str, Any], device: str = "cpu"
) -> dict[str, Tensor]:
    given = on(device, given)
    leaves = {
        name: given[name].detach().clone().requires_grad_()
        for name in ("user_table", "item_table", "tau", "positive_tau", "log_q")
        if given.get(name) is not None
    }
    loss, unit_loss = module.sampled_adaptive_softmax(
        **{**given, **leaves}, **options, return_unit_loss=True
    )
    weight = ((torch.arange(loss.numel()) % 7 - 2) / 4).to(loss).reshape(loss.shape)
    (loss * weight).sum().backward()
    gradients = {f"grad {name}": x.grad for name, x in leaves.items()}
    return on("cpu", {"loss": loss.detach(), "unit_loss": unit_loss, **gradients})


def compare(
    user_table: Tensor,
    item_table: Tensor,
    users: Tensor | None,
    positives: Tensor,
    tau: Tensor,
    *,
    positive_tau: Tensor | None = None,
    log_q: Tensor | None = None,
    negatives: Tensor | None = None,
    device: str = "cpu",
    **options: Any,
) -> None:
    given = dict(
        user_table=user_table, item_table=item_table, users=users, positives=positives, tau=tau,
        positive_tau=positive_tau, log_q=log_q, negatives=negatives,
    )  # fmt: skip
    options = {"seed": 12345, **options}
    ours = run(ax, given, options, device)
    exact = run(reference, {k: float64(v) for k, v in given.items()}, options)

    n_rows = positives.numel()
    normalize = options.get("normalize", "both")
    compute = torch.float64 if user_table.dtype == torch.float64 else torch.float32
    all_tau = tau if positive_tau is None else torch.cat([tau, positive_tau])
    n_negatives = options.get("n_negatives", 1024)
    budget = LossBudget.of(
        compute, user_table, item_table, all_tau, normalize, max(n_rows * n_negatives, 1)
    )
    # The regulariser is a sum of (N + 1) d squares, relative error at most as many roundings.
    l2 = float(options.get("item_l2", 0.0))
    longest = float(item_table.double().norm(dim=1).max())
    squares = l2 * longest**2 * (n_negatives + 1) * (n_rows if options.get("reduction") == "sum" else 1)
    loss_budget = (
        budget.loss
        + squares * (item_table.shape[1] + n_negatives + 8) * 2 * budget.u
        + exact["loss"].abs() * 8 * budget.u
    )
    assert_within(ours["loss"], exact["loss"], loss_budget, "loss")
    assert_within(ours["unit_loss"], exact["unit_loss"], budget.loss, "unit_loss")
    # Every gradient entry is a sum of terms of at most 2 / tau times the other side's rows (or |s|),
    # over the rows that use it, divided by the smallest norm on its own side.
    size = budget.logit_size * n_rows
    own = torch.finfo(user_table.dtype).eps
    tables = {"grad user_table": user_table, "grad item_table": item_table}
    inv_tau = float((1 / all_tau).max()) if n_rows else 1.0
    for name, gradient in exact.items():
        if not name.startswith("grad"):
            continue
        limit = budget.gradient * 2 * size
        if name == "grad item_table":
            limit += l2 * longest * n_rows * (n_negatives + 1) * 8 * budget.u
        if name in tables:
            norm = tables[name].double().norm(dim=1)
            limit = limit / min([1.0, *norm[norm > 0].tolist()])
        elif "tau" in name:
            limit = limit * inv_tau / n_rows if n_rows else limit
        assert_within(ours[name], gradient, limit + gradient.abs() * own, name)


def tables(
    n_users: int, n_items: int, d: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    return torch.randn(n_users, d).to(dtype), torch.randn(n_items, d).to(dtype)


@pytest.mark.parametrize("d", SIZES)
@pytest.mark.parametrize("n_negatives", [n for n in SIZES if n])
def test_odd_shapes(n_negatives: int, d: int, device: str) -> None:
    for turn, n_rows in enumerate(fewer(device, SIZES, (0, 3, 17) if n_negatives * d < 9000 else (1, 2))):
        n_items = (1, 3, 200, 1001)[turn % 4]
        u, i = tables(40, n_items, d)
        users = torch.randint(40, (n_rows,)) if turn % 2 else None
        if users is None:
            u = torch.randn(n_rows, d)
        options = {"normalize": "none"} if turn % 3 == 2 else {}
        compare(
            u, i, users, torch.randint(n_items, (n_rows,)), torch.rand(n_rows) + 0.2,
            n_negatives=n_negatives, device=device, **options,
        )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("normalize", ["both", "user", "item", "none"])
@pytest.mark.parametrize("denominator", ["all", "negatives"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_options_and_dtypes(
    dtype: torch.dtype, normalize: str, denominator: str, reduction: str, device: str
) -> None:
    if dtype == torch.float64 and device != "cpu":
        pytest.skip("float64 is computed on the CPU only: see test_errors.py")
    n_rows, n_items, d = (20, 50, 24) if device == "virtual" else (70, 150, 64)
    u, i = tables(40, n_items, d, dtype)
    u, i = u / 4, i / 4
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    users, positives = torch.randint(40, (n_rows,)), torch.randint(n_items, (n_rows,))
    tau, positive_tau = torch.rand(2, n_rows, dtype=compute) + 0.3
    log_q = torch.randn(n_items, dtype=compute)
    common = {
        "normalize": normalize, "denominator": denominator, "reduction": reduction, "n_negatives": 50,
        "device": device,
    }  # fmt: skip
    compare(u, i, users, positives, tau, **common)
    compare(u, i, users, positives, tau, positive_tau=positive_tau, log_q=log_q, **common)
    compare(u, i, users, positives, tau, item_l2=0.01, **common)
    negatives = torch.randint(n_items, (n_rows, 33))
    common.pop("n_negatives")
    compare(u, i, users, positives, tau, negatives=negatives, **common)


@pytest.mark.parametrize("tau", [0.005, 0.02, 0.1, 10.0])
@pytest.mark.parametrize("scale", [1e-38, 1e-25, 1.0, 1e25, 3e37])
def test_temperatures_and_norms(tau: float, scale: float, device: str) -> None:
    u, i = tables(40, 500, 64)
    u, i = u.clamp(-3, 3), i.clamp(-3, 3)
    users, positives = torch.randint(40, (50,)), torch.randint(500, (50,))
    u[users[0]] = 0
    i[7] = 0
    i[11] *= scale  # one extreme row among ordinary ones
    compare(u, i, users, positives, torch.full((50,), tau), n_negatives=64, device=device)


def test_zero_rows_have_zero_gradient(device: str) -> None:
    u, i = tables(4, 20, 8)
    u[1] = 0
    i[3] = 0
    u, i = (x.to(device).requires_grad_() for x in (u, i))
    positives = torch.tensor([3, 3, 1, 2], device=device)
    ax.sampled_adaptive_softmax(u, i, None, positives, 0.1, n_negatives=64, seed=1).backward()
    assert (u.grad[1] == 0).all() and (i.grad[3] == 0).all()
    assert (u.grad[0] != 0).any() and (i.grad[1] != 0).any()


def test_strides(device: str) -> None:
    n_rows = fewer(device, (70,), (7,))[0]
    users, positives = torch.randint(40, (n_rows,)), torch.randint(300, (n_rows,))
    negatives = torch.randint(300, (64, n_rows)).to(device)
    base, odd, wide, u = on(
        device, (torch.randn(17, 300), torch.randn(300, 34), torch.randn(300, 128), torch.randn(40, 64))
    )

    def loss(u: Tensor, i: Tensor, negatives: Tensor) -> Tensor:
        return ax.sampled_adaptive_softmax(
            u, i, *on(device, (users, positives)), 0.2, negatives=negatives
        )

    # transposed, every other column, rows further apart than they are long
    for strided_u, strided_i in ((base[:, :40].T, odd[:, ::2]), (u, wide[:, :64]), (u[:, :9], wide[:, 3:12])):
        strided = loss(strided_u, strided_i, negatives.T)
        plain = loss(strided_u.contiguous(), strided_i.contiguous(), negatives.T.contiguous())
        assert torch.equal(strided, plain)


@pytest.mark.parametrize("options", [{}, {"normalize": "none"}, {"reduction": "none"}])
def test_bitwise_the_same_on_any_number_of_threads(
    options: dict[str, Any], restore_threads: None
) -> None:
    u, i = tables(200, 3000, 64)
    given = dict(
        user_table=u, item_table=i, users=torch.randint(200, (300,)),
        positives=torch.randint(3000, (300,)), tau=torch.full((300,), 0.1),
    )  # fmt: skip
    results = []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        results.append(run(ax, given, {"seed": 5, **options}))
    for other in results[1:]:
        for name, value in results[0].items():
            assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("target", virtual_gpu.build.TARGETS)
@pytest.mark.parametrize("d", [24, 64, 130, 600])
def test_bitwise_the_same_in_any_order_of_blocks_and_warps(d: int, target: str) -> None:
    u, i = tables(5, 40, d)
    given = dict(
        user_table=u, item_table=i, users=torch.randint(5, (9,)), positives=torch.randint(40, (9,)),
        tau=torch.full((9,), 0.1), log_q=torch.randn(40),
    )  # fmt: skip
    options = {"seed": 5, "n_negatives": 150, "item_l2": 0.1}
    with using("virtual"):
        results = []
        for order in (0, 1, 2):
            with virtual_gpu.running(seed=order, target=target):
                results.append(run(ax, given, options, "virtual"))
    for other in results[1:]:
        for name, value in results[0].items():
            assert torch.equal(value, other[name]), name


def test_many_uses_of_one_item(device: str) -> None:
    """Its entries are cut into pieces, which other warps add up."""
    u, i = tables(6, 5, 24)
    negatives = torch.full((6, 400), 3)
    negatives[:, 7] = torch.arange(6) % 5
    compare(
        u, i, None, torch.tensor([3, 3, 1, 0, 4, 3]), torch.full((6,), 0.5), negatives=negatives,
        log_q=torch.randn(5), item_l2=0.01, n_negatives=400, device=device,
    )  # fmt: skip


def test_drawn_negatives_are_the_published_stream(device: str) -> None:
    for n_items in (1, 2, 1000, 3 << 29, 2**31 - 1):
        ours = ax.draw_negatives(7, 1030, n_items, seed=2**61 + 17, device=device)
        assert ours.device.type == device
        assert torch.equal(ours.cpu(), reference.draw_negatives(7, 1030, n_items, seed=2**61 + 17))
    u, i, positives = on(device, (*tables(5, 100, 8), torch.randint(100, (5,))))
    drawn = ax.sampled_adaptive_softmax(u, i, None, positives, 0.1, n_negatives=40, seed=9)
    given = ax.sampled_adaptive_softmax(
        u, i, None, positives, 0.1, negatives=ax.draw_negatives(5, 40, 100, seed=9, device=device)
    )
    assert torch.equal(drawn, given)


def test_twin_philox_known_answers() -> None:
    """Random123's known answers, for the twin that the kernels are compared with."""
    known = [
        (0, [0] * 4, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (2**64 - 1, [0xFFFFFFFF] * 4, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            0x299F31D0A4093822,
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ]
    for seed, counter, words in known:
        assert reference.philox(seed, torch.tensor(counter)).tolist() == words


def test_draws_are_uniform_and_rows_differ() -> None:
    ids = ax.draw_negatives(2000, 500, 100, seed=1)
    counts = torch.bincount(ids.flatten(), minlength=100).double()
    expected = ids.numel() / 100
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert 50 < chi_square < 165  # 99 degrees of freedom: five standard deviations
    assert not torch.equal(ids[0], ids[1])
    assert not torch.equal(ids, ax.draw_negatives(2000, 500, 100, seed=2))


def test_seed_comes_from_pytorchs_generator() -> None:
    u, i = tables(5, 100, 8)
    positives = torch.randint(100, (5,))
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(ax.sampled_adaptive_softmax(u, i, None, positives, 0.1))
    assert torch.equal(losses[0], losses[1]) and not torch.equal(losses[0], losses[2])


def test_a_second_backward_pass_gives_the_same_gradient(device: str) -> None:
    u, i = (x.to(device).requires_grad_() for x in tables(20, 30, 8))
    positives = torch.randint(30, (20,)).to(device)
    loss = ax.sampled_adaptive_softmax(u, i, None, positives, 0.1, n_negatives=64, seed=1)
    loss.backward(retain_graph=True)
    first = i.grad.clone()
    loss.backward()
    assert_within(i.grad.cpu(), 2 * first.cpu().double(), 1e-6 * float(first.abs().max()))
