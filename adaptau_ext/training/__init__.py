"""Training: a configuration, a trainer, checkpoints."""

from adaptau_ext.training.adam import DeferredAdam
from adaptau_ext.training.config import TrainConfig, make_config
from adaptau_ext.training.trainer import EpochResult, Trainer

__all__ = ["DeferredAdam", "EpochResult", "TrainConfig", "Trainer", "make_config"]
