"""Gradients of one weight that are sums of outer products over positions: their Gram matrices and norms.

For n examples the layer inputs a [n, P, d] and the output gradients g [n, P, o] are the factors of n gradients
sum_p g_p a_p^T [o, d].
"""

from explainlib.layerwise.outer_products.compression import FactoredGradients, compressed_factors
from explainlib.layerwise.outer_products.materialised import TILE, column_and_row_slices, materialised_gradients
from explainlib.layerwise.outer_products.patches import Patches, extract_patches
from explainlib.layerwise.outer_products.positions import position_gram, squared_norms
from explainlib.layerwise.outer_products.symmetric import add_gram, symmetrised

__all__ = [
    "TILE",
    "FactoredGradients",
    "Patches",
    "add_gram",
    "column_and_row_slices",
    "compressed_factors",
    "extract_patches",
    "materialised_gradients",
    "position_gram",
    "squared_norms",
    "symmetrised",
]
