"""Derivatives of arbitrary models: batched maps, decompositions, batch statistics."""

from explainlib.derivatives.batching import vmap
from explainlib.derivatives.decompositions import Constants, DecompositionMode, renormalise
from explainlib.derivatives.fused_norms import second_order_norms
from explainlib.derivatives.norms import with_batch_statistics
from explainlib.derivatives.reverse import grad

__all__ = [
    "Constants",
    "DecompositionMode",
    "grad",
    "renormalise",
    "second_order_norms",
    "vmap",
    "with_batch_statistics",
]
