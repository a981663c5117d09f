"""What training asks of temperatures, and the ones that need no closed form."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from adaptau_ext.ops import Denominator


class Temperature(nn.Module, ABC):
    """Temperatures of a softmax loss, which divide the scores; a strategy sets or learns them.

    Attributes:
        denominator: whether the loss has its positive in the denominator ("all") or not ("negatives").
        needs_unit_loss: whether `record` wants every batch's losses at temperature 1.
    """

    denominator: Denominator = "all"
    needs_unit_loss = False

    @abstractmethod
    def of(self, users: Tensor) -> Tensor:
        """Temperatures `[B]` float32 of users `[B]`, of the negatives' scores and, but for an override
        of `of_positives`, the positives'."""

    def of_positives(self, users: Tensor) -> Tensor | None:
        """Temperatures `[B]` of the positives' scores; None: those of `of`."""
        return None

    def start_epoch(self, epoch: int, user_embeddings: Tensor, item_embeddings: Tensor) -> None:
        """Called before each epoch with all embeddings, `[n_users, d]` and `[n_items, d]`."""

    def record(self, users: Tensor, unit_loss: Tensor) -> None:
        """Called after each batch with its losses at temperature 1, `[B]` each."""


class FixedTemperature(Temperature):
    """One number for all users and epochs; what a grid search tunes.

    Args:
        tau: the temperature, > 0.
        denominator: as of every `Temperature`.
    """

    def __init__(self, tau: float, *, denominator: Denominator = "all") -> None:
        super().__init__()
        if not tau > 0:
            raise ValueError(f"tau must be > 0, got {tau}")
        self.tau, self.denominator = tau, denominator

    def of(self, users: Tensor) -> Tensor:
        """tau for everyone."""
        return torch.full(users.shape, self.tau, device=users.device)


class LearnedTemperature(Temperature):
    r"""Temperatures learned by gradient descent together with the embeddings.

    ::

        tau_u = exp(theta_u)      # Cu-tau: a parameter for each user; C-tau: one for all

    Args:
        n_users: a parameter for each of them; None: one for all.
        initial: tau before training.
        denominator: as of every `Temperature`.
    """

    def __init__(
        self,
        n_users: int | None = None,
        *,
        initial: float = 0.1,
        denominator: Denominator = "all",
    ) -> None:
        super().__init__()
        if not initial > 0:
            raise ValueError(f"initial must be > 0, got {initial}")
        self.denominator = denominator
        self.log_tau = nn.Parameter(torch.full((n_users or 1,), math.log(initial)))

    def of(self, users: Tensor) -> Tensor:
        """exp(theta), with gradients."""
        if self.log_tau.numel() == 1:
            return self.log_tau.exp().expand(users.shape)
        return self.log_tau[users].exp()
