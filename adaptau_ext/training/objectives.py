"""From a configuration to the loss of a batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from adaptau_ext import losses
from adaptau_ext.distributed import World, in_batch_softmax
from adaptau_ext.models import Rows
from adaptau_ext.ops import (
    as_pair,
    draw_negatives,
    fused_adaptive_softmax,
    sampled_adaptive_softmax,
    sampled_scores,
)
from adaptau_ext.temperature import Temperature
from adaptau_ext.training.config import POINTWISE, TrainConfig

# (rows, users [B], items [B], temperature, seed of the negatives) -> loss, losses at temperature 1 [B]
Objective = Callable[[Rows, Tensor, Tensor, Temperature, int], tuple[Tensor, Tensor | None]]


def objective(config: TrainConfig) -> Objective:
    """The loss that `config` names, regulariser included.

    ::

        loss(batch) + l2 / (2 B) * |rows used|^2
    """
    name = config.loss
    if name == "softmax":
        return partial(_sampled if config.negatives == "sampled" else _dense, config)
    if name == "direct_au":
        return partial(_direct_au, config)
    if name == "bsl":
        return partial(_bilateral, config)
    return partial(_pointwise, config)


def splits_batches(config: TrainConfig) -> bool:
    """Whether a batch's loss is a mean over rows that several processes can share."""
    return config.loss == "softmax" or (config.loss in POINTWISE and config.negatives == "sampled")


def _regulariser(config: TrainConfig, rows: Rows) -> Tensor:
    squares = rows.user_squares
    if rows.item_squares is not None:
        squares = squares + rows.item_squares
    return config.l2 / max(rows.u.shape[0], 1) * squares


def _sampled(
    config: TrainConfig, rows: Rows, users: Tensor, items: Tensor, temperature: Temperature, seed: int
) -> tuple[Tensor, Tensor | None]:
    loss, unit_loss = as_pair(
        sampled_adaptive_softmax(
            rows.u,
            rows.i,
            None,
            items,
            temperature.of(users),
            positive_tau=temperature.of_positives(users),
            n_negatives=config.n_negatives,
            seed=seed,
            denominator=temperature.denominator,
            normalize=config.normalize,
            item_l2=config.l2 if rows.item_squares is None else 0.0,
            return_unit_loss=temperature.needs_unit_loss,
        )
    )
    return loss + _regulariser(config, rows), unit_loss


def _dense(
    config: TrainConfig, rows: Rows, users: Tensor, items: Tensor, temperature: Temperature, _: int
) -> tuple[Tensor, Tensor | None]:
    options: dict[str, Any] = {
        "positive_tau": temperature.of_positives(users),
        "denominator": temperature.denominator,
        "normalize": config.normalize,
        "precision": config.precision,
        "return_unit_loss": temperature.needs_unit_loss,
    }
    tau = temperature.of(users)
    if config.negatives == "full":
        loss, unit_loss = as_pair(fused_adaptive_softmax(rows.u, rows.i, tau, target=items, **options))
    elif World.current().size > 1:  # candidates of all ranks, a mean over this one's rows
        loss, unit_loss = as_pair(in_batch_softmax(rows.u, rows.i, tau, reduction="sum", **options))
        loss = loss / max(len(users), 1)
    else:
        loss, unit_loss = as_pair(fused_adaptive_softmax(rows.u, rows.i, tau, **options))
    return loss + _regulariser(config, _with_item_squares(rows, items)), unit_loss


def _with_item_squares(rows: Rows, positives: Tensor, drawn: Tensor | None = None) -> Rows:
    """Where the catalogue is a parameter: the positives' rows, and drawn negatives' as often as drawn.

    Of a softmax over the whole catalogue the positives' alone.
    """
    if rows.item_squares is not None:
        return rows
    squares = rows.i[positives].square().sum()
    if drawn is not None:  # not row by row: [B, N, d] would be large
        uses = drawn.flatten().bincount(minlength=len(rows.i))
        squares = squares + (uses * rows.i.square().sum(1)).sum()
    return rows._replace(item_squares=squares / 2)


def _pointwise(
    config: TrainConfig, rows: Rows, users: Tensor, items: Tensor, temperature: Temperature, seed: int
) -> tuple[Tensor, None]:
    n, drawn = len(rows.u), None
    if config.negatives == "in_batch":
        u = normalize(rows.u, dim=1) if config.normalize in ("both", "user") else rows.u
        i = normalize(rows.i, dim=1) if config.normalize in ("both", "item") else rows.i
        positive, own = (u * i).sum(1), torch.eye(n, dtype=torch.bool, device=u.device)
        negatives = (u @ i.T)[~own].view(n, -1)
    else:
        drawn = draw_negatives(n, config.n_negatives, len(rows.i), seed, device=rows.u.device)
        both = torch.cat([items[:, None], drawn], 1)
        scores = sampled_scores(rows.u, rows.i, both, normalize=config.normalize)
        positive, negatives = scores[:, 0], scores[:, 1:]
    if config.loss == "ccl":
        loss = losses.cosine_contrastive(
            positive, negatives, margin=config.margin, negative_weight=config.negative_weight
        )
    elif config.loss == "mse":
        loss = losses.mse(positive, negatives)
    else:
        tau = temperature.of(users)
        function = losses.bpr if config.loss == "bpr" else losses.bce
        loss = function(positive / tau, negatives / tau[:, None])
    return loss + _regulariser(config, _with_item_squares(rows, items, drawn)), None


def _direct_au(
    config: TrainConfig, rows: Rows, users: Tensor, items: Tensor, temperature: Temperature, _: int
) -> tuple[Tensor, None]:
    loss = losses.direct_au(rows.u, rows.i, gamma=config.gamma)
    return loss + _regulariser(config, rows), None


def _bilateral(
    config: TrainConfig, rows: Rows, users: Tensor, items: Tensor, temperature: Temperature, _: int
) -> tuple[Tensor, None]:
    tau = float(temperature.of(users[:1]))
    loss = losses.bilateral_softmax(rows.u, rows.i, users, tau=tau, positive_tau=config.positive_tau)
    return loss + _regulariser(config, rows), None
