"""Adap-tau's closed forms: Lambert's function, w0, and the users' temperatures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import torch

from adaptau_ext.data import read_lightgcn
from adaptau_ext.errors import TrainingError
from adaptau_ext.temperature import (
    AdaptiveTemperature,
    FixedTemperature,
    LearnedTemperature,
    lambert_w,
)
from tests.conftest import real_data

# Inverse temperatures at epoch 0 of the published runs.
PUBLISHED_W0 = {"yelp2018": 8.61997251, "gowalla": 9.17942389, "ml-1m": 3.20996}


@pytest.mark.parametrize("name", PUBLISHED_W0)
def test_published_w0_to_six_digits(name: str) -> None:
    data = read_lightgcn(real_data(name))
    temperature = AdaptiveTemperature(*data.pairs(), data.n_users, data.n_items)
    assert temperature.inv_tau0 == pytest.approx(PUBLISHED_W0[name], rel=1e-6)


@pytest.mark.parametrize(
    ("name", "n_users", "n_items", "n_active", "n_pairs"),
    [
        ("yelp2018", 31668, 38048, 24537, 1118404),
        ("gowalla", 29858, 40981, 22490, 746347),
        ("ml-1m", 6022, 3043, 4775, 768063),
    ],
)
def test_published_w0_of_their_counts(
    name: str, n_users: int, n_items: int, n_active: int, n_pairs: int
) -> None:
    """The same without the data: active users and their pairs, as counted in it; others have one pair."""
    degree = torch.ones(n_users, dtype=torch.int64)
    degree[:n_active] = n_pairs // n_active
    degree[: n_pairs % n_active] += 1
    users = torch.repeat_interleave(torch.arange(n_users), degree)
    temperature = AdaptiveTemperature(users, torch.zeros_like(users), n_users, n_items)
    assert temperature.inv_tau0 == pytest.approx(PUBLISHED_W0[name], rel=1e-6)


def test_lambert_w_is_scipys() -> None:
    x = np.concatenate(
        [-1 / math.e + np.logspace(-12, -0.5, 3000), np.logspace(-12, 3, 3000), [0.0, 1.0, 1e8]]
    )
    exact = scipy.special.lambertw(x).real
    # Conditioning: dW/dx = W / (x (1 + W)); x itself is only known to a rounding.
    sensitivity = 1 / ((1 + exact) * np.exp(exact))
    budget = 8 * np.finfo(float).eps * (np.abs(exact) + sensitivity * np.maximum(np.abs(x), 1 / math.e))
    ours = lambert_w(torch.from_numpy(x)).numpy()
    assert (np.abs(ours - exact) <= budget).all()


def test_lambert_w_at_the_branch_point_and_beyond() -> None:
    edge = torch.tensor([-1 / math.e], dtype=torch.float64)
    assert lambert_w(edge).item() == pytest.approx(-1, abs=1e-7)  # W is vertical there
    assert lambert_w(torch.nextafter(edge, edge - 1)).item() == pytest.approx(-1, abs=1e-7)
    assert lambert_w(edge - 1e-3).isnan()
    for dtype in (torch.float32, torch.bfloat16):
        rounded = edge.to(dtype)
        assert lambert_w(rounded).item() == pytest.approx(-1, abs=3 * torch.finfo(dtype).eps ** 0.5)
        assert lambert_w(rounded - 0.01).isnan()
    above = torch.nextafter(edge.float(), torch.tensor(0.0))  # not taken for the branch point
    assert lambert_w(above).item() == pytest.approx(scipy.special.lambertw(above.item()).real, abs=1e-6)
    infinite, nothing = lambert_w(torch.tensor([math.inf, math.nan])).tolist()
    assert infinite == math.inf and math.isnan(nothing)
    assert lambert_w(torch.tensor([0.5], dtype=torch.float32)).dtype == torch.float32


def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """6 users x 40 items; user u has u + 2 items."""
    users = torch.repeat_interleave(torch.arange(6), torch.arange(6) + 2)
    return users, torch.arange(users.numel()) % 40


def test_w0_leaves_out_the_least_active_users() -> None:
    temperature = AdaptiveTemperature(*pairs(), 6, 40)
    # degrees 2..7, 0.2-quantile 3: users 2..5 stay, with 4 + 5 + 6 + 7 pairs
    assert temperature.inv_tau0 == pytest.approx(math.log(4 * 40 / (2 * 22)) / 0.7)


def test_cosine_gap_and_the_end_of_warm_up() -> None:
    users, items = pairs()
    u, i = torch.randn(6, 8), torch.randn(40, 8)
    u += 3 * torch.stack([i[items[users == user]].mean(0) for user in range(6)])
    temperature = AdaptiveTemperature(users, items, 6, 40, warmup_epochs=2)
    unit_u = u.double() / u.double().norm(dim=1, keepdim=True)
    unit_i = i.double() / i.double().norm(dim=1, keepdim=True)
    cosine = unit_u @ unit_i.T
    kept = users >= 2
    gap = float(cosine[users[kept], items[kept]].mean() - cosine[2:].mean())
    assert temperature.cosine_gap(u, i) == pytest.approx(gap, rel=1e-5)
    temperature.start_epoch(1, u, i)
    assert temperature.inv_tau0 == pytest.approx(math.log(160 / 44) / 0.7)
    temperature.start_epoch(2, u, i)
    assert temperature.inv_tau0 == pytest.approx(math.log(160 / 44) / gap, rel=1e-5)
    with pytest.raises(TrainingError, match="mu\\+ - mu = .* at epoch 3; train longer"):
        temperature.start_epoch(3, -u, i)


@pytest.mark.parametrize(
    ("strategy", "t1"), [("weight_mean", 1.0), ("weight_ratio", 0.9), ("weight_ratio", 0.3)]
)
def test_users_temperatures_are_the_closed_form(strategy: str, t1: float) -> None:
    u, i = torch.randn(6, 8), torch.randn(40, 8)
    temperature = AdaptiveTemperature(*pairs(), 6, 40, strategy=strategy, t1=t1, t2=0.5)
    temperature.start_epoch(0, u, i)
    assert (temperature.inv_tau == temperature.inv_tau0).all()
    losses = {0: [1.0, 3.0], 1: [2.5], 2: [4.0, 4.0, 7.0], 3: [0.5], 4: [3.0]}  # user 5: no sample
    for user, values in losses.items():
        temperature.record(torch.full((len(values),), user), torch.tensor(values))
    temperature.start_epoch(1, u, i)
    mean = np.array([np.mean(v) for v in losses.values()])
    centre = mean.mean() if strategy == "weight_mean" else np.quantile(mean, t1)
    x = np.clip((mean - centre) / 0.5, -1 / math.e, 1000)
    w = scipy.special.lambertw(x).real
    w[x == -1 / math.e] = -1  # SciPy has NaN in the branch point, whose rounding lies just below it
    expected = temperature.inv_tau0 * np.exp(-w)
    np.testing.assert_allclose(temperature.inv_tau[:5].numpy(), expected, rtol=1e-6)
    assert temperature.inv_tau[5] == temperature.inv_tau0
    np.testing.assert_allclose(
        temperature.of(torch.tensor([3, 0])).numpy(), 1 / expected[[3, 0]], rtol=1e-6
    )
    # losses are of one epoch only
    temperature.start_epoch(2, u, i)
    assert (temperature.inv_tau == temperature.inv_tau0).all()


def test_weight_v0_is_one_temperature_for_all() -> None:
    temperature = AdaptiveTemperature(*pairs(), 6, 40, strategy="weight_v0")
    temperature.record(torch.arange(6), torch.arange(6.0))
    temperature.start_epoch(1, torch.randn(6, 8), torch.randn(40, 8))
    assert (temperature.inv_tau == temperature.inv_tau0).all()
    assert temperature.tau0 == 1 / temperature.inv_tau0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "best"}, 'mode must be "official" or "paper", got \'best\''),
        ({"strategy": "v1"}, "strategy must be .* got 'v1'"),
        ({"t1": 1.5}, r"t1 must be a quantile in \[0, 1\], got 1.5"),
        ({"t2": 0.0}, "t2 must be > 0, got 0.0"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdaptiveTemperature(*pairs(), 6, 40, **options)  # type: ignore[arg-type]


def test_data_without_a_temperature() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match="users must hold at least one training pair"):
        AdaptiveTemperature(none, none, 3, 3)
    dense = torch.ones(4, 5).nonzero()
    with pytest.raises(
        ValueError,
        match="fewer than half of all user-item pairs .* got 20 pairs of 4 users x 5 .* tau=0.1",
    ):
        AdaptiveTemperature(dense[:, 0], dense[:, 1], 4, 5)


def dense_form(users: torch.Tensor, items: torch.Tensor, u: torch.Tensor, i: torch.Tensor) -> float:
    """tau0 with variances, as the paper has it, from all pairs."""
    cosine = torch.nn.functional.normalize(u.double()) @ torch.nn.functional.normalize(i.double()).T
    positive = cosine[users, items]
    gap = float(positive.mean() - cosine.mean())
    spread = float(positive.var(correction=0) - cosine.var(correction=0))
    log_ratio = math.log(cosine.numel() / (2 * len(users)))
    return spread / (-gap + math.sqrt(gap**2 + 2 * spread * log_ratio))


def test_the_papers_mode() -> None:
    users, items = pairs()
    u, i = torch.randn(6, 8), torch.randn(40, 8)
    u += 3 * torch.stack([i[items[users == user]].mean(0) for user in range(6)])
    temperature = AdaptiveTemperature(users, items, 6, 40, mode="paper", warmup_epochs=1)
    assert temperature.denominator == "all" and temperature.t2 == 2
    assert temperature.of_positives(users) is None  # the negatives' temperature
    assert temperature.inv_tau0 == pytest.approx(math.log(240 / (2 * 27)) / 0.7)  # all users count
    cosine = torch.nn.functional.normalize(u.double()) @ torch.nn.functional.normalize(i.double()).T
    temperature.start_epoch(1, u, i)
    gap = float(cosine[users, items].mean() - cosine.mean())
    assert temperature.inv_tau0 == pytest.approx(math.log(240 / 54) / gap, rel=1e-5)

    varied = AdaptiveTemperature(users, items, 6, 40, mode="paper", warmup_epochs=1, variance=True)
    varied.start_epoch(1, u, i)
    assert varied.tau0 == pytest.approx(dense_form(users, items, u, i), rel=1e-5)
    assert varied.tau0 != pytest.approx(temperature.tau0, rel=1e-2)


def test_official_positives_have_tau0() -> None:
    temperature = AdaptiveTemperature(*pairs(), 6, 40)
    assert temperature.denominator == "negatives"
    positives = temperature.of_positives(torch.arange(3))
    assert positives is not None
    assert positives.tolist() == pytest.approx([temperature.tau0] * 3)


def test_state_is_all_there_is() -> None:
    """Restored in a new object, the next epoch has the same temperatures."""
    u, i = torch.randn(6, 8), torch.randn(40, 8)
    one, other = (AdaptiveTemperature(*pairs(), 6, 40) for _ in range(2))
    one.start_epoch(0, u, i)
    one.record(torch.arange(6), torch.arange(6.0))
    other.load_state_dict(one.state_dict())
    assert other.inv_tau0 == one.inv_tau0
    for temperature in (one, other):
        temperature.start_epoch(1, u, i)
    assert torch.equal(one.inv_tau, other.inv_tau) and one.inv_tau.std() > 0


def test_learned_temperatures_have_gradients() -> None:
    users = torch.tensor([0, 2, 2])
    shared, own = LearnedTemperature(initial=0.2), LearnedTemperature(3, initial=0.2)
    for temperature in (shared, own):
        assert temperature.of(users).tolist() == pytest.approx([0.2] * 3)
        temperature.of(users).sum().backward()
    assert shared.log_tau.grad.tolist() == pytest.approx([0.6])
    assert own.log_tau.grad.tolist() == pytest.approx([0.2, 0.0, 0.4])
    for make in (lambda: LearnedTemperature(initial=0), lambda: FixedTemperature(-1)):
        with pytest.raises(ValueError, match="must be > 0, got"):
            make()
