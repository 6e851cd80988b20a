"""Gradients of a weight that meets its input as a matrix: linear and convolution layers, sums of outer products.

What is kept is the layer's raw input and its output gradient; the input at each position (a convolution's unfolded
patches, many times larger) is made again whenever it is needed, one layer at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from explainlib.layerwise.compression import Side, compressed
from explainlib.layerwise.patches import Patches, unfolded
from explainlib.layerwise.positions import ELEMENTWISE, formed, position_gram, slices

Factors = tuple[Tensor, Tensor]  # inputs [n, P, d] and output gradients [n, P, o]


@dataclass(frozen=True)
class Outer:
    """The gradients of one weight, from one or several uses of layers of one kind.

    Args:
        place: the weight's flat positions.
        layers: the layer of each use.
        inputs: what each read, [e, ...].
        gradients: of each output, [n, ...].
        several: rows of a gradient per row of its input (several cotangents share an example).
    """

    place: slice
    layers: tuple[nn.Module, ...]
    inputs: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]
    several: int

    @property
    def n(self) -> int:
        """The number of gradients."""
        return len(self.gradients[0])

    def held(self) -> int:
        """Return the bytes kept."""
        return sum(tensor.nbytes for tensor in (*self.inputs, *self.gradients))

    def working(self) -> int:
        """Return the bytes that one row takes while it is worked with, beside those kept."""
        copies = 1 + (self.several > 1) + (self.gradients[0].dtype == torch.float32)  # repeated; compressed
        return sum(copies * (a[0].nbytes + g[0].nbytes) for a, g in self.part(slice(0, 1)).factors())

    def part(self, rows: slice) -> Outer:
        """Return some of the rows, as views; whole examples."""
        examples = slice(rows.start // self.several, -(-rows.stop // self.several))
        inputs, gradients = (tuple(t[at] for t in ts) for ts, at in ((self.inputs, examples), (self.gradients, rows)))
        return Outer(self.place, self.layers, inputs, gradients, self.several)

    def tensors(self) -> tuple[Tensor, ...]:
        """Return what is kept."""
        return (*self.inputs, *self.gradients)

    def holding(self, tensors: Sequence[Tensor]) -> Outer:
        """Return the same with other tensors in the order of ``tensors``."""
        uses = len(self.layers)
        return Outer(self.place, self.layers, tuple(tensors[:uses]), tuple(tensors[uses:]), self.several)

    def factors(self) -> list[Factors]:
        """Return, per group of channels, the inputs and output gradients at each position."""
        uses = [
            _read(layer, a, g) for layer, a, g in zip(self.layers, self.inputs, self.gradients, strict=True)
        ]  # fmt: skip
        found = []
        for group in zip(*uses, strict=True):
            a, g = (torch.cat(side, dim=1) if len(side) > 1 else side[0] for side in zip(*group, strict=True))
            found.append((a.repeat_interleave(self.several, dim=0)[: len(g)] if self.several > 1 else a, g))
        return found

    def gram(self, other: Outer, *, memory: int) -> Float[Tensor, "n m"]:
        """Return all inner products."""
        mine = self.sides()
        theirs = mine if other is self else other.sides()
        pairs = [compressed(*pair) for pair in zip(mine, theirs, strict=True)]
        del mine, theirs  # the unfolded inputs, where shorter ones took their place
        parts = [position_gram(*left, *right, memory=memory) for left, right in pairs]
        return parts[0] if len(parts) == 1 else sum(parts)

    def sides(self) -> list[Side]:
        """Return the factors; patches that may never have to be unfolded where one convolution read them."""
        layer, g = self.layers[0], self.gradients[0]
        simple = len(self.layers) == self.several == 1 and isinstance(layer, nn.Conv1d | nn.Conv2d)
        if not simple or layer.groups > 1 or g.device.type != "cpu":  # elsewhere a convolution may round to ten bits
            return self.factors()
        return [(Patches(layer, self.inputs[0]), g.flatten(2).mT)]

    def norms(self, *, memory: int) -> Float[Tensor, " n"]:
        """Return the squared lengths."""
        return sum(_norms(a, g, memory) for a, g in self.factors())

    def product(self, vectors: Float[Tensor, "k p"], *, memory: int) -> Float[Tensor, "n k"]:
        """Return the inner products with rows of flat parameter vectors: sum_p g_p . (V a_p)."""
        out = vectors.new_zeros(self.n, len(vectors))
        factors = self.factors()
        for (a, g), V in zip(factors, self._matrices(vectors, factors), strict=True):
            if _directly(len(V), a.shape[1]):
                for to, v in zip(out.T, V, strict=True):
                    to += (torch.matmul(a, v.T) * g).sum((1, 2))
            else:
                for columns, rows in _parts(a, g, memory):
                    out[rows] += formed(a[rows, :, columns], g[rows]).flatten(1) @ V[:, :, columns].flatten(1).T
        return out

    def add_combination(self, out: Float[Tensor, "k p"], weights: Float[Tensor, "k n"], *, memory: int) -> None:
        """Add the weighted sums of the gradients to flat vectors: sum_i w_i sum_p g_ip a_ip^T."""
        factors = self.factors()
        for (a, g), V in zip(factors, self._matrices(out, factors), strict=True):
            if _directly(len(V), a.shape[1]):
                flat = a.flatten(0, 1)
                for v, w in zip(V, weights, strict=True):
                    v += (g * w[:, None, None]).flatten(0, 1).T @ flat
            else:
                for columns, rows in _parts(a, g, memory):
                    part = formed(a[rows, :, columns], g[rows])
                    V[:, :, columns] += (weights[:, rows] @ part.flatten(1)).view(len(V), *part.shape[1:])

    def write(self, out: Float[Tensor, "n p"]) -> None:
        """Write the gradients into rows of flat vectors."""
        factors = self.factors()
        for (a, g), V in zip(factors, self._matrices(out, factors), strict=True):
            V.copy_(formed(a, g))

    def _matrices(self, vectors: Tensor, factors: list[Factors]) -> list[Tensor]:
        """Return this weight's part of flat vectors, as a matrix [k, o, d] per group; views."""
        a, g = factors[0]
        return list(vectors[:, self.place].unflatten(1, (len(factors), g.shape[2], a.shape[2])).unbind(1))


def _directly(k: int, P: int) -> bool:
    """Whether k vectors one by one cost less than forming the gradients: k P against P + k, in units of d o."""
    return k * P <= P + k


def _norms(a: Tensor, g: Tensor, memory: int) -> Tensor:
    (n, P, d), o = a.shape, g.shape[2]
    if P == 1:
        return a.square().sum((1, 2)) * g.square().sum((1, 2))
    out = a.new_zeros(n)
    if P * (d + o + ELEMENTWISE) < d * o:
        for rows in slices(n, memory // (2 * P * P * a.element_size())):
            out[rows] = (a[rows] @ a[rows].mT * (g[rows] @ g[rows].mT)).sum((1, 2))
        return out
    for columns, rows in _parts(a, g, memory):
        out[rows] += formed(a[rows, :, columns], g[rows]).square().sum((1, 2))
    return out


def _parts(a: Tensor, g: Tensor, memory: int) -> list[tuple[slice, slice]]:
    """Return column and row slices whose formed gradients fit into the memory: all columns of few rows."""
    d, column = a.shape[2], g.shape[2] * a.element_size()
    width = max(1, min(d, memory // column))
    return [(c, r) for c in slices(d, width) for r in slices(len(a), memory // (column * width))]


def _read(layer: nn.Module, a: Tensor, g: Tensor) -> list[Factors]:
    """Return what a use says at its positions, per group of channels."""
    if isinstance(layer, nn.Linear):
        return [(a.reshape(len(a), -1, a.shape[-1]), g.reshape(len(g), -1, g.shape[-1]))]
    patches = unfolded(layer, a)
    d = patches.shape[1] // layer.groups
    outputs = g.flatten(2).split(g.shape[1] // layer.groups, dim=1)
    return [(p.mT, o.mT) for p, o in zip(patches.split(d, dim=1), outputs, strict=True)]
