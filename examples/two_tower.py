"""Your own model: two towers over features, trained with the adaptive temperatures of this package.

    python examples/two_tower.py

Users have tastes, items have categories, and a tenth of the items are new: nobody has them in train.
What matrix factorisation cannot know of them, a tower over their features can. A model has to say two
things, `rows` of a batch and `embeddings` of everything; Trainer, losses, temperatures and evaluation
are the same as for the built-in models.
"""

from __future__ import annotations

import argparse

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from adaptau_ext.data import Interactions
from adaptau_ext.evaluation import evaluate
from adaptau_ext.models import MF, Recommender, Rows
from adaptau_ext.models.recommender import half_squares
from adaptau_ext.training import TrainConfig, Trainer


class TwoTower(Recommender):
    """A small network over users' features, another over items'."""

    user_features: Tensor
    item_features: Tensor

    def __init__(self, user_features: Tensor, item_features: Tensor, dim: int) -> None:
        super().__init__()
        self.register_buffer("user_features", user_features)
        self.register_buffer("item_features", item_features)

        def tower(features: Tensor) -> nn.Module:
            return nn.Sequential(nn.Linear(features.shape[1], 128), nn.ReLU(), nn.Linear(128, dim))

        self.user_tower, self.item_tower = tower(user_features), tower(item_features)

    def rows(
        self,
        users: Tensor,
        items: Tensor,
        *,
        catalogue: bool,
        generator: torch.Generator | None = None,
    ) -> Rows:
        """Of a batch, with gradients."""
        u = self.user_tower(self.user_features[users])
        i = self.item_tower(self.item_features if catalogue else self.item_features[items])
        return Rows(u, i, half_squares(u), half_squares(i[items] if catalogue else i))

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Of everything."""
        return self.user_tower(self.user_features), self.item_tower(self.item_features)


def made_up(
    n_users: int, n_items: int, n_categories: int = 20
) -> tuple[Interactions, scipy.sparse.csr_array, Tensor, Tensor]:
    """Interactions without new items; those with new items; features of users and of items."""
    rng = np.random.default_rng(0)
    taste = rng.dirichlet(np.full(n_categories, 0.1), n_users)
    category = rng.integers(n_categories, size=n_items)
    new = np.arange(n_items) % 10 == 9
    wanted = np.log(taste[:, category] + 1e-3) + rng.gumbel(size=(n_users, n_items))
    taken = np.argsort(-wanted, axis=1)[:, :40]
    users, items = np.repeat(np.arange(n_users), 40), taken.ravel()
    is_new = new[items]
    held_out = ~is_new & (rng.random(users.size) < 0.2)
    train = users[~is_new & ~held_out], items[~is_new & ~held_out]

    data = Interactions.from_pairs(
        "made up", train, (users[held_out], items[held_out]), n_users=n_users, n_items=n_items
    )
    ones = np.ones(is_new.sum())
    with_new = scipy.sparse.csr_array((ones, (users[is_new], items[is_new])), shape=(n_users, n_items))
    noise = rng.normal(size=(n_items, n_categories))
    item_features = np.eye(n_categories)[category] + 0.3 * noise
    user_features = taste + 0.05 * rng.normal(size=taste.shape)
    features = [torch.from_numpy(x).float() for x in (user_features, item_features)]
    return data, with_new, features[0], features[1]


def main() -> None:
    """Trains matrix factorisation and the two towers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--users", type=int, default=4000)
    parser.add_argument("--items", type=int, default=2000)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    data, new, user_features, item_features = made_up(arguments.users, arguments.items)
    is_new = np.diff(new.tocsc().indptr) > 0
    for name, model in {
        "matrix factorisation": MF(data.n_users, data.n_items, 32, seed=0),
        "two towers": TwoTower(user_features, item_features, 32),
    }.items():
        config = TrainConfig(tau="weight_mean", epochs=arguments.epochs, lr=3e-3, n_negatives=256)
        trainer = Trainer(config, data, model)
        for _ in trainer.run():
            pass
        trainer.load_best()
        u, i = trainer.embeddings()
        test = trainer.evaluate_test().means()["recall@20"]
        among_new = evaluate(u, i[torch.from_numpy(is_new)], new[:, is_new], normalize="both")[
            "recall@20"
        ]
        print(f"{name:20s} recall@20 {test:.3f}, among new items {among_new:.3f}")


if __name__ == "__main__":
    main()
