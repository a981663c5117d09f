"""Lightning: matrix factorisation with negatives drawn inside the loss and adaptive temperatures.

    pip install lightning
    python examples/lightning_mf.py                          # the built-in data set
    python examples/lightning_mf.py path/to/gowalla --epochs 100

Lightning owns the loop, the device and checkpoints. The temperatures are a submodule, so checkpoints
hold them; they need one call before an epoch and one after a batch. Validation ranks all items.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from adaptau_ext import sampled_adaptive_softmax
from adaptau_ext.data import Interactions, load, synthetic
from adaptau_ext.evaluation import evaluate
from adaptau_ext.temperature import AdaptiveTemperature


class MF(lightning.LightningModule):
    """User and item tables, trained on cosines."""

    def __init__(self, data: Interactions, dim: int, n_negatives: int, lr: float, l2: float) -> None:
        super().__init__()
        self.users = nn.Parameter(torch.empty(data.n_users, dim))
        self.items = nn.Parameter(torch.empty(data.n_items, dim))
        for table in (self.users, self.items):
            nn.init.xavier_uniform_(table)
        self.tau = AdaptiveTemperature(*data.pairs(), data.n_users, data.n_items)
        self.data, self.n_negatives, self.lr, self.l2 = data, n_negatives, lr, l2

    def on_train_epoch_start(self) -> None:
        """Temperatures from the embeddings and the last epoch's losses."""
        self.tau.start_epoch(self.current_epoch, self.users.detach(), self.items.detach())

    def training_step(self, batch: Sequence[Tensor], _: int) -> Tensor:
        """Of users `[B]` and their positives `[B]`."""
        users, positives = batch
        u = self.users[users]
        loss, unit_loss = sampled_adaptive_softmax(
            u,
            self.items,
            None,
            positives,
            self.tau.of(users),
            positive_tau=self.tau.of_positives(users),
            denominator=self.tau.denominator,
            n_negatives=self.n_negatives,
            item_l2=self.l2,
            return_unit_loss=True,
        )
        self.tau.record(users, unit_loss)
        self.log("loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        return loss + self.l2 / 2 * u.square().sum() / len(u)

    def validation_step(self, batch: Tensor, _: int) -> None:
        """All users at once: the evaluation streams over them itself."""

    def on_validation_epoch_end(self) -> None:
        """Test items among all that are not in train; nothing is chosen by them."""
        metrics = evaluate(
            self.users, self.items, self.data.test, exclude=self.data.train, normalize="both"
        )
        self.log_dict({k: metrics[k] for k in ("recall@20", "ndcg@20")}, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam; the temperatures have no parameters."""
        return torch.optim.Adam(self.parameters(), lr=self.lr, fused=True)


def batches(data: Interactions, size: int) -> DataLoader:
    """Random batches of training pairs, each cut from the tensors at once."""
    pairs = TensorDataset(*data.pairs())
    return DataLoader(
        pairs, sampler=BatchSampler(RandomSampler(pairs), size, drop_last=False), batch_size=None
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Trains and prints what was logged last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", help="a file or a folder of interactions")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--negatives", type=int, default=256)
    parser.add_argument("--lr", type=float, default=5e-3)
    arguments = parser.parse_args(argv)
    lightning.seed_everything(0, verbose=False)
    data = load(arguments.data) if arguments.data else synthetic()
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    trainer = lightning.Trainer(
        max_epochs=arguments.epochs,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    model = MF(data, 64, arguments.negatives, arguments.lr, 1e-7)
    trainer.fit(model, batches(data, 2048), DataLoader([0]))
    print(", ".join(f"{name} {float(value):.4f}" for name, value in trainer.callback_metrics.items()))


if __name__ == "__main__":
    main()
