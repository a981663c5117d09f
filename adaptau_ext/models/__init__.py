"""Embedding models: anything with `embeddings()` trains and evaluates with this package."""

from adaptau_ext.models.mf import MF

__all__ = ["MF"]
