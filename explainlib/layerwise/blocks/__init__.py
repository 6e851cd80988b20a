"""The gradients of one parameter for n examples, a block of columns of the matrix G [n, p], and products with them.

Each block holds its gradients in the form that is cheapest for its layer: as factors of outer products, as the rows
of an embedding table that are not zero, or as dense rows.
"""

from explainlib.layerwise.blocks.assembly import GradientBlock, affine_gradients, embedding_block, gradient_blocks

__all__ = ["GradientBlock", "affine_gradients", "embedding_block", "gradient_blocks"]
