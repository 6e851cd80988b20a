"""Derivatives of arbitrary models: batched maps, decompositions, batch statistics."""

from explainlib.derivatives.batching import vmap
from explainlib.derivatives.decompositions import Constants, DecompositionMode, renormalise
from explainlib.derivatives.norms import with_batch_statistics

__all__ = ["Constants", "DecompositionMode", "renormalise", "vmap", "with_batch_statistics"]
