"""The input patches of a convolution, a matrix row per position: unfolded for some examples, projected for all.

A convolution with other filters is a projection of its patches: with the columns of Q [d, r] as r filters, it puts out
Q^T a_p at every position p. The patches themselves, many times larger than the images, are not materialised.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from explainlib.memory import slices

CHUNK = 512  # images that are convolved at a time


@dataclass(frozen=True)
class Patches:
    """The input patches [n, P, d] of a convolution without groups, not yet unfolded.

    Args:
        layer: the convolution.
        x: its input [n, c, *space].
    """

    layer: nn.Conv1d | nn.Conv2d
    x: Float[Tensor, "n c *space"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The sizes n, P and d."""
        _, d, P = extract_patches(self.layer, self.x[:1]).shape
        return len(self.x), P, d

    @property
    def dtype(self) -> torch.dtype:
        """The input's."""
        return self.x.dtype

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Tensor | slice) -> Float[Tensor, "k P d"]:
        """Return the patches of some examples."""
        return extract_patches(self.layer, self.x[rows]).mT

    def __matmul__(self, Q: Float[Tensor, "d r"]) -> Float[Tensor, "n P r"]:
        """Return the projections of all patches onto the columns of Q, by a convolution."""
        filters = Q.T.unflatten(1, (-1, *self.layer.kernel_size))
        n, P, _ = self.shape
        out = self.x.new_empty(n, Q.shape[1], P)
        for rows in slices(n, CHUNK):
            out[rows] = self.layer._conv_forward(self.x[rows], filters, None).flatten(2)
        return out.mT


def extract_patches(layer: nn.Conv1d | nn.Conv2d, a: Float[Tensor, "n c *space"]) -> Float[Tensor, "n d P"]:
    """Return the input patches of a convolution, one a column (im2col)."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    amounts = layer._reversed_padding_repeated_twice  # the last dimension first
    even = mode == "constant" and amounts[::2] == amounts[1::2]  # then unfold pads, without a copy
    if any(amounts) and not even:
        a = functional.pad(a, amounts, mode=mode)
    geometry = (layer.kernel_size, layer.dilation, layer.stride)
    padding = tuple(amounts[::2][::-1]) if even else (0,) * (a.ndim - 2)
    if isinstance(layer, nn.Conv1d):  # an image of height 1
        a, geometry, padding = a.unsqueeze(2), tuple((1, *one) for one in geometry), (0, *padding)
    return functional.unfold(a, geometry[0], dilation=geometry[1], padding=padding, stride=geometry[2])
