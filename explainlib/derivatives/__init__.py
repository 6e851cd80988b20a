"""Derivatives of models as people have them: batched maps, plain operations, statistics of a batch."""

from explainlib.derivatives.batching import vmap
from explainlib.derivatives.decompositions import Constants, DecompositionMode, renormalise
from explainlib.derivatives.norms import with_batch_statistics

__all__ = ["Constants", "DecompositionMode", "renormalise", "vmap", "with_batch_statistics"]
