"""The patches that a convolution reads, as a matrix a position: unfolded for some examples, projected for all.

A convolution with other filters is a projection of its patches: with the columns of Q [d, r] as r filters, it puts out
Q^T a_p at every position p, and the patches themselves, many times larger than the pictures, never lie in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from explainlib.layerwise.positions import slices

PART = 512  # pictures that are convolved at a time


@dataclass(frozen=True)
class Patches:
    """What a convolution without groups reads at each position, [n, P, d], before it is unfolded.

    Args:
        layer: the convolution.
        x: its input [n, c, *space].
    """

    layer: nn.Conv1d | nn.Conv2d
    x: Float[Tensor, "n c *space"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The sizes n, P and d."""
        _, d, P = unfolded(self.layer, self.x[:1]).shape
        return len(self.x), P, d

    @property
    def dtype(self) -> torch.dtype:
        """The input's."""
        return self.x.dtype

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Tensor | slice) -> Float[Tensor, "k P d"]:
        """Return the patches of some examples."""
        return unfolded(self.layer, self.x[rows]).mT

    def __matmul__(self, Q: Float[Tensor, "d r"]) -> Float[Tensor, "n P r"]:
        """Return the patches in other directions, by a convolution."""
        filters = Q.T.unflatten(1, (-1, *self.layer.kernel_size))
        n, P, _ = self.shape
        out = self.x.new_empty(n, Q.shape[1], P)
        for rows in slices(n, PART):
            out[rows] = self.layer._conv_forward(self.x[rows], filters, None).flatten(2)
        return out.mT


def unfolded(layer: nn.Conv1d | nn.Conv2d, a: Float[Tensor, "n c *space"]) -> Float[Tensor, "n d P"]:
    """Return the patches that a convolution reads, one a column."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    around = layer._reversed_padding_repeated_twice  # the last dimension first
    even = mode == "constant" and around[::2] == around[1::2]  # then unfold does it, without a copy
    if any(around) and not even:
        a = functional.pad(a, around, mode=mode)
    geometry = (layer.kernel_size, layer.dilation, layer.stride)
    padding = tuple(around[::2][::-1]) if even else (0,) * (a.ndim - 2)
    if isinstance(layer, nn.Conv1d):  # a picture of height 1
        a, geometry, padding = a.unsqueeze(2), tuple((1, *one) for one in geometry), (0, *padding)
    return functional.unfold(a, geometry[0], dilation=geometry[1], padding=padding, stride=geometry[2])
