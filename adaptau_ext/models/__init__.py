"""Embedding models: what `Recommender` asks for trains and evaluates with this package."""

from adaptau_ext.models.lightgcn import LightGCN
from adaptau_ext.models.mf import MF
from adaptau_ext.models.recommender import Recommender, Rows

__all__ = ["MF", "LightGCN", "Recommender", "Rows"]
