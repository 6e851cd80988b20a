r"""One layer's block of a Fisher matrix: Kronecker factors, their eigenvectors, and corrected eigenvalues.

An example's gradient of a linear layer, bias in the last column, is the matrix G = sum_p g_p a_p^T [o, d]: the
layer's input (with a 1) and the gradient in its output, at each position p (one for a vector; for a convolution one for
each output position).

    A = E[a a^T],  S = E[sum_p g_p g_p^T],     A = U_A diag U_A^T,  S = U_S diag U_S^T
    K-FAC     block ~ S (x) A             eigenvalues  s_i a_j
    EK-FAC    the same eigenvectors       eigenvalues  Lambda_ij = E[(U_S^T G U_A)_ij^2]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from explainlib.layerwise.outer_products import extract_patches
from explainlib.layerwise.recording import OUTER_PRODUCT, LayerCall, ParameterPlan
from explainlib.memory import slices

COVERED = nn.Linear | nn.Conv1d | nn.Conv2d
TILE = 32 * 2**20  # bytes of materialised gradients at a time
Positions = tuple[Float[Tensor, "e P d"], Float[Tensor, "e k P o"]]


@dataclass(frozen=True)
class Layer:
    """A layer whose weight or bias is chosen, and the positions of its parameters in the flat vector.

    Args:
        module: Linear, Conv1d or Conv2d.
        weighted: whether the weight is chosen.
        biased: whether the bias is.
        flat_positions: for each group of channels, the flat positions of [weight, bias] as a matrix.
    """

    module: nn.Module
    weighted: bool
    biased: bool
    flat_positions: tuple[Int[Tensor, "o d"], ...]

    def positions(self, calls: list[LayerCall]) -> list[Positions]:
        """Return, for each group of channels, inputs and output gradients of k cotangents, by position."""
        uses = [self._of_call(call) for call in calls if call.layer is self.module]
        found = []
        for group in zip(*uses, strict=True):
            inputs, gradients = zip(*group, strict=True)
            found.append((torch.cat(inputs, dim=1), torch.cat(gradients, dim=2)) if len(group) > 1 else group[0])
        return found

    def _of_call(self, call: LayerCall) -> list[Positions]:
        e, k = call.gradient.shape[:2]
        if isinstance(self.module, nn.Linear):
            outputs = [call.gradient.reshape(e, k, -1, self.module.out_features)]
            inputs = [call.input.reshape(e, -1, self.module.in_features)]
        else:
            outputs = [part.mT for part in call.gradient.flatten(3).chunk(self.module.groups, dim=2)]
            inputs = [None] * len(outputs)
            if self.weighted:
                inputs = [part.mT for part in extract_patches(self.module, call.input).chunk(self.module.groups, dim=1)]
        return [(self._with_ones(a, g), g) for a, g in zip(inputs, outputs, strict=True)]

    def _with_ones(self, a: Tensor | None, g: Tensor) -> Tensor:
        columns = [a] if self.weighted else []
        if self.biased:
            columns.append(g.new_ones(len(g), g.shape[2], 1))
        return torch.cat(columns, dim=2)


@dataclass(frozen=True)
class Block:
    """The fitted block of one layer (or of one group of channels).

    Attributes:
        flat_positions: flat positions of its parameters.
        inputs: U_A, eigenvectors of A as columns; None is the identity.
        outputs: U_S, of S; None is the identity.
        kfac: the eigenvalues s_i a_j of the plain Kronecker product.
        values: Lambda, the corrected ones.
    """

    flat_positions: Int[Tensor, "o d"]
    inputs: Float[Tensor, "d d"] | None
    outputs: Float[Tensor, "o o"] | None
    kfac: Float[Tensor, "o d"]
    values: Float[Tensor, "o d"]

    def apply_in_eigenbasis(
        self, rows: Float[Tensor, "k p"], change: Callable[[Tensor, Tensor], Tensor]
    ) -> Float[Tensor, "k o d"]:
        """Return this block's part of flat vectors after ``change(rotated, Lambda)`` in the eigenbasis."""
        rotated = _change_basis(rows[:, self.flat_positions], self.outputs, self.inputs)
        back = [None if basis is None else basis.T for basis in (self.outputs, self.inputs)]
        return _change_basis(change(rotated, self.values), *back)


def _change_basis(matrices: Tensor, outputs: Tensor | None, inputs: Tensor | None) -> Tensor:
    """Return outputs^T M inputs for each matrix M, as two large products."""
    k, o, d = matrices.shape
    if outputs is None:
        return matrices if inputs is None else (matrices.reshape(k * o, d) @ inputs).view(k, o, d)
    left = outputs.T @ matrices.movedim(1, 0).reshape(o, -1)
    return (left if inputs is None else left.view(o * k, d) @ inputs).view(o, k, d).movedim(0, 1)


class UncoveredError(ValueError):
    """Parameters that EK-FAC does not cover.

    Args:
        outside: their names.
        covered: the other names.
        learner: the call that chooses the parameters, with "..." in it.
        otherwise: another remedy.
    """

    def __init__(
        self, outside: list[str], covered: list[str], *, learner: str = "Risk(...)", otherwise: str = ""
    ) -> None:
        self.outside, self.covered = outside, covered
        chosen = f"choose others with {learner[:-1]}, parameters={covered})" if covered else ""
        remedy = ", or ".join(clause for clause in (chosen, otherwise) if clause)
        super().__init__(f"{COVERAGE}, and {', '.join(outside)} {verb(outside)} none{remedy and '; ' + remedy}.")


COVERAGE = (
    "EK-FAC covers the parameters of Linear, Conv1d, Conv2d, Embedding, attention and normalisation layers that one "
    "layer holds alone"
)


def verb(names: Sequence[str]) -> str:
    """Return "is" for one name, "are" for several."""
    return "is" if len(names) == 1 else "are"


def kronecker_layers(recorded: Sequence[ParameterPlan]) -> list[Layer]:
    """Return the Linear and convolution layers that hold some of the parameters.

    Args:
        recorded: parameters of one layer each.
    """
    found: dict[int, dict[str, slice]] = {}
    modules: dict[int, nn.Module] = {}
    for parameter in recorded:
        ((module, attribute),) = parameter.sites
        if isinstance(module, COVERED):
            modules[id(module)] = module
            place = "weight" if parameter.kind == OUTER_PRODUCT else attribute
            found.setdefault(id(module), {})[place] = parameter.span
    return [_layer(modules[key], parts) for key, parts in found.items()]


def _layer(module: nn.Module, parts: dict[str, slice]) -> Layer:
    out, groups = module.weight.shape[0], getattr(module, "groups", 1)
    columns = []
    if "weight" in parts:
        columns.append(torch.arange(parts["weight"].start, parts["weight"].stop).view(out, -1))
    if "bias" in parts:
        columns.append(torch.arange(parts["bias"].start, parts["bias"].stop).view(out, 1))
    positions = torch.cat(columns, dim=1).to(module.weight.device)
    return Layer(module, "weight" in parts, "bias" in parts, positions.chunk(groups))


def squares_in_basis(
    a: Float[Tensor, "e P d"], g: Float[Tensor, "e k P o"], inputs: Float[Tensor, "d d"], outputs: Float[Tensor, "o o"]
) -> Float[Tensor, "o d"]:
    """Return the sum over examples and cotangents of (U_S^T G U_A)^2, G = sum_p g_p a_p^T.

    Args:
        a: inputs of the layer.
        g: output gradients for k cotangents.
        inputs: U_A.
        outputs: U_S.

    Returns:
        [o, d]. Gradients are materialised for a few examples at a time; the factors or the gradients are rotated first,
        whichever costs less.
    """
    (e, P, d), (k, o) = a.shape, (g.shape[1], g.shape[3])
    turn_factors = P == 1 or P * (d * d + k * o * o) < k * o * d * (d + o)
    if turn_factors:
        a, g = a @ inputs, g @ outputs
    if P == 1:
        return g.square().sum((1, 2)).T @ a[:, 0].square()
    total = a.new_zeros(k * o, d)
    for part in slices(e, TILE // (k * o * d * a.element_size())):
        formed = g[part].mT.flatten(1, 2) @ a[part]  # [e, k o, d]
        if not turn_factors:
            formed = (outputs.T @ (formed @ inputs).unflatten(1, (k, o))).flatten(1, 2)
        total += formed.square_().sum(0)
    return total.view(k, o, d).sum(0)
