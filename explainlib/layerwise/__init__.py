"""What one forward and backward pass knows layer by layer, and what follows from it without forming a gradient.

The gradient of a linear layer's weight for one example is an outer product of what the layer read and of the gradient
of what it put out; for a convolution it is a sum of them over positions. Inner products, norms and weighted sums of
gradients follow from those two factors.
"""

from explainlib.layerwise.capture import Capture, GradientSource, capture, gradients
from explainlib.layerwise.positions import position_gram
from explainlib.layerwise.products import combination, gram, norms, per_example, product
from explainlib.layerwise.trial import FallbackWarning

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
