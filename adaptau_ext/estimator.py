"""Three lines from interactions to recommendations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import scipy.sparse

from adaptau_ext.data import Interactions, Log, read_log
from adaptau_ext.errors import InputError
from adaptau_ext.fitted import FittedModel
from adaptau_ext.training import EpochResult, TrainConfig, Trainer, make_config
from adaptau_ext.training.config import with_recipe

# Settings of a run that say where things are or how it is measured, not what is fitted.
_NOT_OURS = (
    "data",
    "protocol",
    "split",
    "test_fraction",
    "output",
    "noise",
    "noise_by",
    "cold_users",
    "duplicates",
    "shard",
)


class AdapTau:
    """An embedding model with adaptive temperatures, after scikit-learn's conventions.

    ::

        model = AdapTau(model="lightgcn", epochs=30).fit(frame)
        model.recommend(["alice", "bob"], k=10).to_pandas()
        model.similar_items(["casablanca"], k=5).to_pandas()
        model.save("my-model")                      # FittedModel.load("my-model"), adaptau recommend

    Args:
        settings: of `TrainConfig`, by name: model, dim, loss, tau, lr, l2, epochs, batch_size, seed;
            `recipe` for published ones, its epochs and patience included; without one 20 epochs and no
            patience are the defaults. `min_rating`, `k_core` and columns' names are for frames and
            files. With `patience`, `valid_fraction` of every user's items is held out, and the best
            epoch on them is kept; without, all items are trained on for all epochs.

    Attributes:
        fitted_: the FittedModel, after `fit`.
        history_: an EpochResult for each epoch, after `fit`.

    Raises:
        ConfigError: for a setting that is none, or does not fit.
    """

    def __init__(self, **settings: Any) -> None:
        self._settings = settings
        self._config()

    def _config(self) -> TrainConfig:
        for name in _NOT_OURS:
            if name in self._settings:
                raise InputError(f"{name} is no setting of AdapTau: it fits what it is given")
        if "threads" in self._settings:
            raise InputError("threads is no setting of AdapTau: call torch.set_num_threads")
        short = {"epochs": 20, "patience": None} if self._settings.get("recipe") is None else {}
        config = make_config({**with_recipe({**short, **self._settings}), "protocol": "clean"})
        if config.patience is not None:
            return config
        if config.valid_fraction is not None:
            raise InputError("valid_fraction is held out to stop by: give patience, too")
        return config.model_copy(update={"protocol": "paper"})

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The settings that were given."""
        return dict(self._settings)

    def set_params(self, **settings: Any) -> AdapTau:
        """Other settings, from the next `fit` on."""
        self._settings = AdapTau(**{**self._settings, **settings})._settings
        return self

    def __repr__(self) -> str:
        return f"AdapTau({', '.join(f'{name}={value!r}' for name, value in self._settings.items())})"

    def fit(self, X: Any, y: None = None) -> AdapTau:
        """Trains on all of X.

        Args:
            X: interactions, a pandas, polars or Arrow table; a SciPy matrix `[n_users, n_items]`;
                a file's path; a `Log`; or `Interactions`, whose train part is fitted.
            y: ignored.

        Raises:
            DataError: for data that cannot be used.
        """
        config = self._config()
        data = _interactions(X, config)
        trainer = Trainer(config, data)
        self.history_ = [event for event in trainer.run() if isinstance(event, EpochResult)]
        trainer.load_best()
        self.fitted_ = trainer.fitted()
        return self

    def recommend(self, users: Any = None, k: int = 10, *, exclude_seen: bool = True) -> Any:
        """See `FittedModel.recommend`."""
        return self._model.recommend(users, k, exclude_seen=exclude_seen)

    def similar_items(self, items: Any, k: int = 10) -> Any:
        """See `FittedModel.similar_items`."""
        return self._model.similar_items(items, k)

    def save(self, folder: str | Path) -> Path:
        """See `FittedModel.save`."""
        return self._model.save(folder)

    @staticmethod
    def load(folder: str | Path) -> FittedModel:
        """What `save` wrote: it recommends, and is not fitted again."""
        return FittedModel.load(folder)

    @property
    def _model(self) -> FittedModel:
        if not hasattr(self, "fitted_"):
            raise InputError("this AdapTau is not fitted yet: call fit(interactions) first")
        return self.fitted_


def _interactions(X: Any, config: TrainConfig) -> Interactions:
    if isinstance(X, Interactions):
        return replace(X, test=scipy.sparse.csr_array(X.train.shape, dtype=X.train.dtype))
    preparation = config.preparation
    if isinstance(X, Log):
        log = X
    elif isinstance(X, (str, Path)):
        log = read_log(
            X,
            preparation.columns,
            delimiter=preparation.delimiter,
            look_for=preparation.look_for,
        )
    elif scipy.sparse.issparse(X):
        log = Log.from_csr(X)
    else:
        log = Log.from_frame(X, preparation.columns, look_for=preparation.look_for)
    log = preparation.filtered(log).merged()
    shape = len(log.user_ids), len(log.item_ids)
    train = scipy.sparse.csr_array(([1] * len(log), (log.users, log.items)), shape=shape)
    train.sort_indices()
    empty = scipy.sparse.csr_array(shape, dtype=train.dtype)
    return Interactions(
        log.name, train, empty, user_ids=log.user_ids, item_ids=log.item_ids, notes=log.notes
    )
