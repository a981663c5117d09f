"""The assertions themselves: each must be able to fail."""

import pytest
import torch

from tests.budget import LossBudget, assert_same_ranking, assert_within


def test_assert_within_sees_errors_shapes_and_nan() -> None:
    exact = torch.tensor([1.0, 2.0])
    assert_within(exact + 0.9e-3, exact, 1e-3)
    with pytest.raises(AssertionError, match="within"):
        assert_within(exact + 1.1e-3, exact, 1e-3)
    with pytest.raises(AssertionError, match="shape"):
        assert_within(exact[:1], exact, 1.0)
    with pytest.raises(AssertionError, match="NaN"):
        assert_within(torch.tensor([1.0, torch.nan]), exact, 1.0)
    halves = torch.tensor([1.0, torch.inf], dtype=torch.float16)
    assert_within(halves, torch.tensor([1.0, 1e6]), 0)
    with pytest.raises(AssertionError, match="65504 is not 2 within"):
        assert_within(halves, exact, 1.0)


def test_assert_same_ranking_sees_wrong_orders_but_not_near_ties() -> None:
    exact = torch.tensor([[3.0, 2.0, 2.0 + 1e-9, 1.0]])
    allowed = torch.ones(1, 4, dtype=torch.bool)

    def check(ids: list[int], allowed: torch.Tensor = allowed) -> None:
        index = torch.tensor([ids])
        assert_same_ranking(index, exact.gather(1, index), exact, allowed, 1e-6)

    check([0, 1])
    check([0, 2])  # as good as [0, 1]
    for wrong in ([0, 3], [1, 0], [0, 0]):
        with pytest.raises(AssertionError):
            check(wrong)
    with pytest.raises(AssertionError, match="excluded"):
        check([0, 1], torch.tensor([[False, True, True, True]]))


def test_budget_grows_with_what_it_should() -> None:
    u, i = torch.randn(4, 64), torch.randn(9, 64)
    base = LossBudget.of(torch.float32, u, i, torch.full((4,), 0.1), "both", 9)
    sharp = LossBudget.of(torch.float32, u, i, torch.full((4,), 0.01), "both", 9)
    plain = LossBudget.of(torch.float32, u, i, torch.full((4,), 0.1), "none", 9)
    exact = LossBudget.of(torch.float64, u, i, torch.full((4,), 0.1), "both", 9)
    assert exact.loss < base.loss < sharp.loss < plain.loss
    assert exact.gradient < base.gradient < sharp.gradient
