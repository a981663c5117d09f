"""sampled_adaptive_softmax against its float64 twin, and the draw of negatives."""

from __future__ import annotations

from typing import Any

import pytest
import scipy.sparse
import torch
from torch import Tensor

import adaptau_ext as ax
from adaptau_ext import reference
from tests.budget import LossBudget, assert_within, reduced
from tests.devices import DEVICES, GPUS, runs, to_device
from tests.test_fused_softmax import float64

SIZES = (0, 1, 3, 17, 63, 64, 65, 127, 300)


def run(
    module: Any, given: dict[str, Any], options: dict[str, Any], device: str = "cpu"
) -> dict[str, Tensor]:
    given = {name: to_device(x, device) for name, x in given.items()}
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
    results = {"loss": loss.detach(), "unit_loss": unit_loss, **gradients}
    return {name: x.cpu() for name, x in results.items()}


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
    twin_given = {k: float64(v) for k, v in given.items()}
    exact = run(reference, twin_given, options)
    exact["rows"] = reference.sampled_adaptive_softmax(**twin_given, **{**options, "reduction": "none"})
    every = []
    for _ in runs(device):
        every.append(run(ax, given, options, device))
        check(every[-1], exact, given, options)
    assert_same_bits(every)


def assert_same_bits(every: list[dict[str, Tensor]]) -> None:
    for other in every[1:]:
        for name, value in every[0].items():
            assert torch.equal(value.nan_to_num(0.5), other[name].nan_to_num(0.5)), name


def check(
    ours: dict[str, Tensor], exact: dict[str, Tensor], given: dict[str, Any], options: dict[str, Any]
) -> None:
    user_table, item_table, tau = given["user_table"], given["item_table"], given["tau"]
    positive_tau = given["positive_tau"]
    n_rows = given["positives"].numel()
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
    squares = l2 * longest**2 * (n_negatives + 1)
    row_budget = budget.loss + squares * (item_table.shape[1] + n_negatives + 8) * 2 * budget.u
    loss_budget = reduced(row_budget, budget.u, exact["rows"], options.get("reduction", "mean"))
    assert_within(ours["loss"], exact["loss"], loss_budget, "loss")
    assert_within(ours["unit_loss"], exact["unit_loss"], budget.loss, "unit_loss")
    # Every gradient entry is a sum of terms of at most 2 / tau times the other side's rows (or |s|),
    # over the rows that use it, divided by the smallest norm on its own side.
    # (1 at least: rows of zeros have gradients, too)
    rows = max(1.0, longest, *user_table.double().norm(dim=1).tolist())
    size = max(budget.logit_size, rows * float((1 / all_tau).max() if n_rows else 1)) * n_rows
    own = torch.finfo(user_table.dtype).eps
    step = own * torch.finfo(user_table.dtype).smallest_normal
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
        assert_within(ours[name], gradient, limit + gradient.abs() * own + step, name)


def tables(
    n_users: int, n_items: int, d: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    return torch.randn(n_users, d).to(dtype), torch.randn(n_items, d).to(dtype)


@pytest.mark.parametrize("d", SIZES)
@pytest.mark.parametrize("n_negatives", [n for n in SIZES if n])
def test_odd_shapes(n_negatives: int, d: int) -> None:
    for turn, n_rows in enumerate(SIZES):
        compare_odd_shape(turn, n_rows, n_negatives, d, torch.float32, "cpu")


def compare_odd_shape(
    turn: int, n_rows: int, n_negatives: int, d: int, dtype: torch.dtype, device: str
) -> None:
    n_items = (1, 3, 200, 1001)[turn % 4]
    u, i = tables(40, n_items, d, dtype)
    users = torch.randint(40, (n_rows,)) if turn % 2 else None
    if users is None:
        u = torch.randn(n_rows, d).to(dtype)
    options = {"normalize": "none"} if turn % 3 == 2 else {}
    compare(
        u, i, users, torch.randint(n_items, (n_rows,)), torch.rand(n_rows) + 0.2,
        n_negatives=n_negatives, device=device, **options,
    )  # fmt: skip


@pytest.mark.parametrize("device", GPUS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("d", [0, 1, 8, 31, 64, 65, 128, 200, 256, 400, 512, 513, 1100])
def test_odd_shapes_on_a_gpu(device: str, dtype: torch.dtype, d: int) -> None:
    """Every length of row that kernels are made for, and rows that fill it in part."""
    for turn, (n_rows, n_negatives) in enumerate([(0, 5), (3, 1), (5, 33), (2, 70)]):
        compare_odd_shape(turn, n_rows, n_negatives, d, dtype, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("normalize", ["both", "user", "item", "none"])
@pytest.mark.parametrize("denominator", ["all", "negatives"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_options_and_dtypes(
    dtype: torch.dtype, normalize: str, denominator: str, reduction: str, device: str
) -> None:
    if dtype == torch.float64 and device != "cpu":
        pytest.skip("float64 is the CPU's")
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


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("tau", [0.005, 0.02, 0.1, 10.0])
@pytest.mark.parametrize("scale", [1e-38, 1e-25, 1.0, 1e25, 3e37])
def test_temperatures_and_norms(tau: float, scale: float, device: str) -> None:
    u, i = tables(40, 500, 64)
    u, i = u.clamp(-3, 3), i.clamp(-3, 3)
    n_rows = 4 if device == "virtual" else 50
    users, positives = torch.randint(40, (n_rows,)), torch.randint(500, (n_rows,))
    positives[1] = 11
    u[users[0]] = 0
    i[7] = 0
    i[11] *= scale  # one extreme row among ordinary ones
    u[users[-1]] *= scale
    compare(u, i, users, positives, torch.full((n_rows,), tau), n_negatives=64, device=device)


@pytest.mark.parametrize("device", DEVICES)
def test_zero_rows_have_zero_gradient(device: str) -> None:
    u, i = tables(4, 20, 8)
    u[1] = 0
    i[3] = 0
    positives = torch.tensor([3, 3, 1, 2], device=device)
    for _ in runs(device):
        leaves = u_leaf, i_leaf = [x.to(device).requires_grad_() for x in (u, i)]
        ax.sampled_adaptive_softmax(*leaves, None, positives, 0.1, n_negatives=64, seed=1).backward()
        assert (u_leaf.grad[1] == 0).all() and (i_leaf.grad[3] == 0).all()
        assert (u_leaf.grad[0] != 0).any() and (i_leaf.grad[1] != 0).any()


@pytest.mark.parametrize("device", DEVICES)
def test_strides(device: str) -> None:
    n_rows = 4 if device == "virtual" else 70
    users, positives = torch.randint(40, (n_rows,)).to(device), torch.randint(300, (n_rows,)).to(device)
    negatives = torch.randint(300, (64, n_rows)).to(device).T
    base, odd, wide, plain = (
        torch.randn(shape).to(device) for shape in ((17, 300), (300, 34), (300, 128), (40, 64))
    )
    pairs = [
        (base[:, :40].T, odd[:, ::2]),
        (plain, wide[:, :64]),  # rows in place, further apart than they are long
        (plain[:, :8], wide[:, 3:11]),  # aligned to four bytes
    ]
    for _ in runs(device):
        for u, i in pairs:
            strided = ax.sampled_adaptive_softmax(u, i, users, positives, 0.2, negatives=negatives)
            contiguous = ax.sampled_adaptive_softmax(
                *(x.contiguous() for x in (u, i)),
                users,
                positives,
                0.2,
                negatives=negatives.contiguous(),
            )
            assert torch.equal(strided, contiguous)


def test_strided_ids() -> None:
    """A batch of pairs has its users and positives as columns."""
    u, i = torch.randn(40, 8), torch.randn(50, 8)
    batch = torch.randint(40, (20, 8))
    users, positives, others = batch[:, 0], batch[:, 1], batch[:, 2::2]
    graph = ax.BipartiteGraph(scipy.sparse.eye_array(40, 50, format="csr"))

    def results(users: Tensor, positives: Tensor, others: Tensor) -> list[Tensor]:
        return [
            ax.sampled_adaptive_softmax(u, i, users, positives, 0.2, negatives=others),
            ax.sampled_scores(u[:20], i, others),
            ax.sampled_adaptive_softmax(u, i, users, positives, 0.2, n_negatives=5, seed=1),
            ax.fused_adaptive_softmax(u[:20], i[:40], 0.2, target=positives),
            ax.fused_adaptive_softmax(u[:20], i[:20], 0.2, item_ids=users),
            *graph.propagate(u, i, 2, users=users, items=positives),
            *graph.layers(u, i, 2, users=users, items=positives),
        ]

    same = results(*(x.contiguous() for x in (users, positives, others)))
    for strided, expected in zip(results(users, positives, others), same, strict=True):
        assert torch.equal(strided, expected)


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
    assert_same_bits(results)


@pytest.mark.parametrize("device", DEVICES)
def test_many_uses_of_one_item(device: str) -> None:
    """Its entries are cut into pieces, which other warps add up."""
    u, i = tables(6, 5, 24)
    negatives = torch.full((6, 400), 3)
    negatives[:, 7] = torch.arange(6) % 5
    compare(
        u, i, None, torch.tensor([3, 3, 1, 0, 4, 3]), torch.full((6,), 0.5), negatives=negatives,
        log_q=torch.randn(5), item_l2=0.01, n_negatives=400, device=device,
    )  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("denominator", ["all", "negatives"])
def test_scores_of_minus_infinity_add_nothing(denominator: str, device: str) -> None:
    """One of a row's negatives, or all of them."""
    u, i = tables(2, 4, 8)
    negatives, log_q = torch.tensor([[0, 3], [0, 0]]), torch.tensor([torch.inf, 0, 0, 0])

    def losses(module: Any, u: Tensor, i: Tensor) -> Tensor:
        found: Tensor = module.sampled_adaptive_softmax(
            u, i, None, torch.tensor([2, 1], device=u.device), 0.5, negatives=negatives.to(u.device),
            log_q=log_q.to(u), denominator=denominator, reduction="none",
        )  # fmt: skip
        return found

    exact = losses(reference, u.double(), i.double())
    assert exact[1] == (0 if denominator == "all" else -torch.inf)
    for _ in runs(device):
        assert_within(losses(ax, u.to(device), i.to(device)).cpu(), exact, 1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_drawn_negatives_are_the_published_stream(device: str) -> None:
    u, i = (x.to(device) for x in tables(5, 100, 8))
    positives = torch.randint(100, (5,)).to(device)
    for _ in runs(device):
        for n_items in (1, 2, 1000, 3 << 29, 2**31 - 1):
            ours = ax.draw_negatives(7, 1030, n_items, seed=2**61 + 17, device=device)
            expected = reference.draw_negatives(7, 1030, n_items, seed=2**61 + 17)
            assert ours.device.type == device and torch.equal(ours.cpu(), expected)
        drawn = ax.sampled_adaptive_softmax(u, i, None, positives, 0.1, n_negatives=40, seed=9)
        negatives = ax.draw_negatives(5, 40, 100, seed=9, device=device)
        given = ax.sampled_adaptive_softmax(u, i, None, positives, 0.1, negatives=negatives)
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


@pytest.mark.parametrize("device", DEVICES)
def test_a_second_backward_pass_gives_the_same_gradient(device: str) -> None:
    tables_, positives = tables(20, 30, 8), torch.randint(30, (20,)).to(device)
    for _ in runs(device):
        u, i = (x.to(device).requires_grad_() for x in tables_)
        loss = ax.sampled_adaptive_softmax(u, i, None, positives, 0.1, n_negatives=64, seed=1)
        loss.backward(retain_graph=True)
        first = i.grad.cpu().clone()
        loss.backward()
        assert_within(i.grad.cpu(), 2 * first.double(), 1e-6 * float(first.abs().max()))
