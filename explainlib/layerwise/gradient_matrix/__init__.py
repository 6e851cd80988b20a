"""The matrix G [n, p] of all gradients of n examples, in memory or recorded tile by tile, and products with it."""

from explainlib.layerwise.gradient_matrix.capture import Capture, GradientSource, capture, gradients
from explainlib.layerwise.gradient_matrix.products import combination, gram, norms, per_example, product
from explainlib.layerwise.gradient_matrix.self_check import checked_plan

__all__ = [
    "Capture",
    "GradientSource",
    "capture",
    "checked_plan",
    "combination",
    "gradients",
    "gram",
    "norms",
    "per_example",
    "product",
]
