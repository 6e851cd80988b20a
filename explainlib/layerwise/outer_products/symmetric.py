"""Gram matrices whose blocks below the diagonal are copied from above it instead of computed."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

BLOCK = 512  # rows of a product


def add_gram(out: Float[Tensor, "n m"], left: Float[Tensor, "n c"], right: Float[Tensor, "m c"]) -> None:
    """Return nothing, and add left right^T to out; where right is left, only to the blocks on the diagonal and above.

    Args:
        out: added to in place.
        left: rows.
        right: rows; the very same tensor says that the result is symmetric.
    """
    if right is not left:
        out.addmm_(left, right.T)
        return
    for i in range(0, len(left), BLOCK):
        out[i : i + BLOCK, i:].addmm_(left[i : i + BLOCK], left[i:].T)


def symmetrised(out: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """Return out with its upper triangle copied to the lower one, in place."""
    for i in range(0, len(out), BLOCK):
        block = out[i : i + BLOCK, i : i + BLOCK]
        block.copy_(block.triu() + block.triu(1).T)
        out[i + BLOCK :, i : i + BLOCK] = out[i : i + BLOCK, i + BLOCK :].T
    return out
