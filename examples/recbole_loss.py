"""RecBole: its matrix factorisation with adaptive temperatures, beside the same with BPR's loss.

    pip install recbole==1.2.1 'numpy<2' 'pandas<3' 'pyarrow<25' 'setuptools<81'
    python examples/recbole_loss.py path/to/ml-100k        # the folder with ml-100k.inter

RecBole reads, splits, trains and measures; what changes is `calculate_loss`, one call before each
epoch, and cosines as scores. Negatives are drawn inside the operator, so RecBole samples none. Where it
runs, it leaves the folders saved/ and log_tensorboard/.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.model.general_recommender import BPR
from recbole.trainer import Trainer
from recbole.utils import InputType, init_seed
from torch import Tensor
from torch.nn.functional import normalize

from adaptau_ext import sampled_adaptive_softmax
from adaptau_ext.temperature import AdaptiveTemperature


class AdapTauMF(BPR):
    """RecBole's BPR with another loss."""

    input_type = InputType.POINTWISE  # a user and a positive a row

    def __init__(self, config: Config, dataset: Dataset) -> None:
        super().__init__(config, dataset)
        pairs = (dataset.inter_feat[name] - 1 for name in (self.USER_ID, self.ITEM_ID))
        self.tau = AdaptiveTemperature(*pairs, self.n_users - 1, self.n_items - 1)
        self.n_negatives = config["n_negatives"]

    def tables(self) -> tuple[Tensor, Tensor]:
        """Embeddings without RecBole's row 0: padding is neither drawn nor counted."""
        return self.user_embedding.weight[1:], self.item_embedding.weight[1:]

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """What RecBole's trainer calls for each batch."""
        users, items = interaction[self.USER_ID] - 1, interaction[self.ITEM_ID] - 1
        loss, unit_loss = sampled_adaptive_softmax(
            *self.tables(),
            users,
            items,
            self.tau.of(users),
            positive_tau=self.tau.of_positives(users),
            denominator=self.tau.denominator,
            n_negatives=self.n_negatives,
            return_unit_loss=True,
        )
        self.tau.record(users, unit_loss)
        return loss

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Cosines, which the loss is of, of all items."""
        u = normalize(self.user_embedding(interaction[self.USER_ID]))
        return (u @ normalize(self.item_embedding.weight).T).view(-1)


class AdaptiveTrainer(Trainer):
    """RecBole's trainer; temperatures are set before each epoch."""

    def _train_epoch(self, train_data: Any, epoch_idx: int, *others: Any, **options: Any) -> float:
        with torch.no_grad():
            self.model.tau.start_epoch(epoch_idx, *self.model.tables())
        return super()._train_epoch(train_data, epoch_idx, *others, **options)


def settings(arguments: argparse.Namespace, model: type[BPR]) -> Config:
    """RecBole's configuration: both models have the same but for the sampling of negatives."""
    values = {
        "data_path": str(arguments.data.resolve().parent),
        "embedding_size": 64,
        "n_negatives": 256,
        "epochs": arguments.epochs,
        "learning_rate": 5e-3,
        "eval_step": 0,  # measured once, after the last epoch: nothing is saved or loaded
        "eval_batch_size": 1 << 22,  # scores, not users
        "metrics": ["Recall", "NDCG"],
        "topk": [20],
        "valid_metric": "Recall@20",
        "use_gpu": torch.cuda.is_available(),
        "show_progress": False,
    }
    if model.input_type == InputType.POINTWISE:
        values["train_neg_sample_args"] = None
    return Config(model=model, dataset=arguments.data.resolve().name, config_dict=values)


def main(argv: Sequence[str] | None = None) -> None:
    """Trains and measures both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a folder NAME with NAME.inter")
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args(argv)
    getLogger().setLevel(ERROR)
    for model_class, trainer_class in ((BPR, Trainer), (AdapTauMF, AdaptiveTrainer)):
        config = settings(arguments, model_class)
        init_seed(config["seed"], reproducibility=True)
        train, _, test = data_preparation(config, create_dataset(config))
        model = model_class(config, train.dataset).to(config["device"])
        trainer = trainer_class(config, model)
        trainer.fit(train, saved=False, verbose=False)
        result = trainer.evaluate(test, load_best_model=False)
        print(f"{model_class.__name__:10s} " + ", ".join(f"{k} {v:.4f}" for k, v in result.items()))


if __name__ == "__main__":
    main()
