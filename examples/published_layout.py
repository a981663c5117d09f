"""From the layout of published code to this package: the same training loop, with one loss replaced.

    python examples/published_layout.py path/to/gowalla --loss gathered --steps 5
    python examples/published_layout.py path/to/gowalla --loss fused --steps 5

Published code of Adap-tau is a loop over batches of users, positives and negatives. The model gathers
their embeddings and hands them to `create_loss`, which makes one logsumexp of scores times a w_u for
each user; once an epoch, w_u is set from the last epoch's losses. `Gathered` is written that way.
`Fused` replaces the gathering and the loss by one call; `AdaptiveTemperature` sets w_0 and w_u for
both, and the two come to the same loss on the same batches. `in_batch` is the call for LightGCN.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from adaptau_ext import fused_adaptive_softmax, sampled_adaptive_softmax
from adaptau_ext.data import Interactions, read_lightgcn
from adaptau_ext.evaluation import evaluate
from adaptau_ext.temperature import AdaptiveTemperature

Batch = dict[str, Tensor]  # users [B], positives [B], negatives [B, N]
Losses = tuple[Tensor, Tensor]  # to minimise; [B] at temperature 1


class Gathered(nn.Module):
    """Matrix factorisation in the published layout: memory grows with B x N x d."""

    def __init__(self, n_users: int, n_items: int, dim: int, l2: float) -> None:
        super().__init__()
        self.users, self.items = (nn.Parameter(torch.empty(n, dim)) for n in (n_users, n_items))
        for table in (self.users, self.items):
            nn.init.xavier_uniform_(table)
        self.l2 = l2

    def forward(self, batch: Batch, tau: AdaptiveTemperature) -> Losses:
        """Embeddings of the batch, and their loss."""
        users, positives, negatives = batch["users"], batch["positives"], batch["negatives"]
        rows = self.users[users], self.items[positives], self.items[negatives]
        return self.create_loss(*rows, tau.inv_tau0, tau.inv_tau[users].float())

    def create_loss(self, u: Tensor, pos: Tensor, neg: Tensor, w_0: float, w_u: Tensor) -> Losses:
        """Of [B, d], [B, d], [B, N, d]."""
        pos_score = (normalize(u, dim=1) * normalize(pos, dim=1)).sum(1)
        neg_score = (normalize(neg, dim=2) @ normalize(u, dim=1)[:, :, None])[..., 0]
        loss = -w_0 * pos_score + torch.logsumexp(w_u[:, None] * neg_score, dim=1)
        unit_loss = -pos_score + torch.logsumexp(neg_score, dim=1)
        squares = sum(rows.square().sum() for rows in (u, pos, neg)) / 2
        return loss.mean() + self.l2 * squares / len(u), unit_loss.detach()


def adaptive(tau: AdaptiveTemperature, users: Tensor) -> dict[str, Any]:
    """What the operators take of Adap-tau: tau_u = 1 / w_u, tau_0 of positives."""
    return {
        "tau": tau.of(users),
        "positive_tau": tau.of_positives(users),
        "denominator": tau.denominator,
        "return_unit_loss": True,
    }


class Fused(Gathered):
    """The drop-in: ids of negatives go into the operator, no rows of theirs are gathered."""

    def forward(self, batch: Batch, tau: AdaptiveTemperature) -> Losses:
        """Takes the negatives of the batch; `seed=` in their place draws them inside the operator."""
        users, positives, negatives = batch["users"], batch["positives"], batch["negatives"]
        u, options = self.users[users], {**adaptive(tau, users), "negatives": negatives}
        loss, unit_loss = sampled_adaptive_softmax(
            u, self.items, None, positives, item_l2=self.l2, **options
        )
        return loss + self.l2 / 2 * u.square().sum() / len(u), unit_loss


def in_batch(u: Tensor, i: Tensor, users: Tensor, tau: AdaptiveTemperature) -> Losses:
    """The drop-in for LightGCN: rows of users and positives, [B, d] each; others' are the negatives."""
    return fused_adaptive_softmax(u, i, **adaptive(tau, users))


def batches(data: Interactions, size: int, n_negatives: int) -> Iterator[Batch]:
    """The training pairs in random order, with negatives of all items alike."""
    users, items = data.pairs()
    for chosen in torch.randperm(len(users)).split(size):
        negatives = torch.randint(data.n_items, (len(chosen), n_negatives))
        yield {"users": users[chosen], "positives": items[chosen], "negatives": negatives}


def main(argv: Sequence[str] | None = None) -> None:
    """Trains and measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a folder with train.txt and test.txt")
    parser.add_argument("--loss", choices=("gathered", "fused"), default="fused")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, help="of an epoch; default: all")
    parser.add_argument("--negatives", type=int, default=1024)
    parser.add_argument("--lr", type=float, default=1e-3)
    arguments = parser.parse_args(argv)
    torch.manual_seed(0)
    data = read_lightgcn(arguments.data, cold_users="drop")
    model = (Fused if arguments.loss == "fused" else Gathered)(data.n_users, data.n_items, 64, 1e-7)
    tau = AdaptiveTemperature(*data.pairs(), data.n_users, data.n_items)
    optimizer = torch.optim.Adam(model.parameters(), lr=arguments.lr)
    losses, started = [], time.perf_counter()
    for epoch in range(arguments.epochs):
        tau.start_epoch(epoch, model.users.detach(), model.items.detach())  # w_0 and w_u
        for batch in islice(batches(data, 2048, arguments.negatives), arguments.steps):
            loss, unit_loss = model(batch, tau)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            tau.record(batch["users"], unit_loss)  # for the next epoch's w_u
            losses.append(loss.item())
    milliseconds = (time.perf_counter() - started) / len(losses) * 1e3
    embeddings = model.users.detach(), model.items.detach()
    recall = evaluate(*embeddings, data.test, exclude=data.train, normalize="both")["recall@20"]
    print(
        f"{arguments.loss}: loss {losses[0]:.5f} -> {losses[-1]:.5f}, recall@20 {recall:.4f}, "
        f"{milliseconds:.0f} ms a step"
    )


if __name__ == "__main__":
    main()
