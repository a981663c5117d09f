"""Interactions: who took what, split into train and test, with integer ids."""

from adaptau_ext.data.interactions import DataError, Interactions
from adaptau_ext.data.lightgcn import read_lightgcn
from adaptau_ext.data.noise import add_noise
from adaptau_ext.data.synthetic import synthetic

__all__ = ["DataError", "Interactions", "add_noise", "read_lightgcn", "synthetic"]
