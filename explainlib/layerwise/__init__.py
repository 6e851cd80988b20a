"""What one forward and backward pass gives layer by layer, and products of per-example gradients made from it.

The gradient of a linear layer's weight for one example is the outer product of the layer's input and its output
gradient; for a convolution it is a sum of them over positions. Inner products, norms and weighted sums of gradients
follow from those two factors, and no gradient is materialised.
"""

from explainlib.layerwise.gradient_matrix import (
    Capture,
    GradientSource,
    capture,
    combination,
    gradients,
    gram,
    norms,
    per_example,
    product,
)
from explainlib.layerwise.outer_products import position_gram
from explainlib.layerwise.recording import FallbackWarning

__all__ = [
    "Capture",
    "FallbackWarning",
    "GradientSource",
    "capture",
    "combination",
    "gradients",
    "gram",
    "norms",
    "per_example",
    "position_gram",
    "product",
]
