"""Kernels: the similarity of a training example and the explained one in the features of the model.

last layer   K(x, z) = phi(x) . phi(z),                     phi: input of the last Linear, and 1 for its bias
ntk          K_c(x, z) = grad f_c(x) . grad f_c(z)          over all parameters
influence    K_c(x, z) = grad f_c(x)^T H^+ grad f_c(z)      H: curvature of the risk and damping; its ridge is in the
             Hessian and the Gauss-Newton matrix; the empirical Fisher matrix needs a damping

Between outputs, K_cd(x, z) = grad f_c(x) . grad f_d(z), the other two alike: the kernel of a vector of outputs, where
an example moves one output through another. The last layer's is 0 for c != d.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from explainlib import compute
from explainlib.checks import require_choice, require_nonnegative, require_tensor
from explainlib.datasets import Examples
from explainlib.gate import admit
from explainlib.influence.measures import measure_gradients, require_measure
from explainlib.layerwise import GradientSource, gradients, gram, per_example, product
from explainlib.losses import LossFunction
from explainlib.memory import alternatives
from explainlib.modules import last_linear
from explainlib.params import Parameters
from explainlib.risk import Risk
from explainlib.solvers import GramInverse, inverse_curvature

KINDS = ("last_layer", "ntk", "influence")


class NoReadoutError(ValueError):
    """A model without the last layer that a kernel needs.

    Args:
        found: what was found instead.
        remedy: for the message.
    """

    def __init__(self, found: str, *, remedy: str = "use kind='ntk'") -> None:
        self.found = found
        super().__init__(f"{found}, so there is no last-layer kernel; {remedy}.")


@alternatives("take kind='ntk' or 'last_layer', fewer x, or for kind='influence' a Risk(..., parameters='last')")
@compute.entry
def kernel(
    model: nn.Module,
    x: Tensor | Examples,
    z: Tensor | Examples,
    *,
    kind: str = "ntk",
    output: int | str | None = None,
    measure: str | LossFunction | None = None,
    risk: Risk | None = None,
    curvature: str = "gauss_newton",
    damping: float = 0.0,
    parameters: str | Sequence[str] = "all",
) -> Float[Tensor, "t n"] | Float[Tensor, "t n C"] | Float[Tensor, "t n C C"]:
    """Return K between every explained example x and every training example z.

    Args:
        model: any module without randomness; not changed. For kind "influence" it is ignored: the risk has its own.
        x: t explained inputs; with ``measure`` examples, whose targets it reads.
        z: n training inputs, or examples.
        kind: "last_layer", "ntk" or "influence".
        output: an int gives that output's kernel [t, n]; None the sum over outputs; "each" all of them [t, n, C];
            "cross" those between all outputs [t, n, C, C], first x's, then z's. The last-layer kernel is the same for
            every output: None and an int give it once, "each" repeats it, "cross" has it on the diagonal.
        measure: None for the outputs; "output" (its own label's, or ``output``), "margin", for kind "influence" "loss",
            or a callable, as in ``loss_influence``: K = grad m(x) . grad m(z), or grad m(x)^T H^+ grad m(z) [t, n].
        risk: for "influence": its theta, chosen parameters, weights and curvature are used.
        curvature: for "influence": "hessian", "gauss_newton" (both with the ridge) or "empirical_fisher" (without).
        damping: for "influence": added to the curvature, >= 0.
        parameters: for "ntk": "all" (those that require a gradient), "last" or a list of names.

    Returns:
        K, in squared outputs per squared parameter (ntk), squared features (last_layer), or squared outputs over loss
        (influence). Cost: the layer-wise products of ``explainlib.layerwise``; gradients are not materialised. For
        "influence" t C gradients are materialised and solved for.

    Raises:
        ValueError: no risk for "influence" or one for another kind, an output outside the model's, no last Linear, a
            singular curvature (add damping, or l2 to the first two).

    Source: Tsai et al. 2023, eqs (11) (last layer), (13) (NTK), (15) (influence function kernel).

    Example: a linear model's NTK is the inner product of its inputs plus 1 for the bias.

        >>> model = nn.Linear(2, 1).double()
        >>> x, z = torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[3.0, 4.0]]).double()
        >>> kernel(model, x, z).item()
        12.0
    """
    require_choice("kind", kind, KINDS)
    if (kind == "influence") != (risk is not None):
        raise ValueError("kind='influence' needs risk=, which says of what H is the curvature; other kinds take none.")
    if kind == "influence":
        require_nonnegative("damping", float(damping))
    if measure is not None:
        network = Parameters(model, parameters, x=_with_targets(x, "x").x) if risk is None else risk.parameters
        return _of_measures(network, (x, _with_targets(z, "z")), measure, output, kind, risk, curvature, float(damping))
    if isinstance(x, Examples) or isinstance(z, Examples):
        raise TypeError(
            "only a measure reads targets; pass measure=, or the inputs alone, kernel(model, test.x, train.x)."
        )
    if kind == "influence":
        return _influence(risk, x, z, output, curvature, float(damping))
    require_tensor("x", x), require_tensor("z", z)
    if kind == "last_layer" and isinstance(model, nn.Module) and last_linear(model) is None:
        raise NoReadoutError("the model has no nn.Linear")
    network = Parameters(model, parameters, x=x)
    outputs = admit(network, z, name="z")
    if x.shape[1:] != z.shape[1:] or x.dtype != z.dtype:
        admit(network, x, name="x")
    chosen = chosen_outputs(output, outputs)
    if kind == "last_layer":
        same = last_layer_features(network, x) @ last_layer_features(network, z).T
        if output == "cross":
            return same[..., None, None] * torch.eye(outputs, dtype=same.dtype, device=same.device)
        return same[..., None].expand(*same.shape, outputs).clone() if output == "each" else same
    theta, sides = network.theta, [x] if z is x else [x, z]

    if output == "cross":
        made = [gradients(network, theta, each, every_cotangent(len(each), (outputs, theta))) for each in sides]
        return _by_outputs(gram(made[0], made[-1]), outputs)

    def one(c: int) -> Float[Tensor, "t n"]:
        made = [gradients(network, theta, each, one_hot_cotangents(c, len(each), (outputs, theta))) for each in sides]
        return gram(made[0], made[-1])

    return combine_outputs([one(c) for c in chosen], output)


def one_hot_cotangents(c: int, n: int, like: Risk | tuple[int, Tensor]) -> Float[Tensor, "n C"]:
    """Return the cotangents of output c: a one there, for each of n examples.

    Args:
        c: one of the outputs.
        n: examples.
        like: a risk, or the number of outputs and a tensor of the right dtype and device.
    """
    outputs, tensor = (like.n_outputs, like.theta) if isinstance(like, Risk) else like
    return torch.zeros(n, outputs, dtype=tensor.dtype, device=tensor.device).index_fill_(
        1, torch.tensor([c], device=tensor.device), 1.0
    )


def every_cotangent(n: int, like: Risk | tuple[int, Tensor]) -> Float[Tensor, "n C C"]:
    """Return the cotangents of all outputs, one after the other, for each of n examples.

    Args:
        n: examples.
        like: see ``one_hot_cotangents``.
    """
    outputs, tensor = (like.n_outputs, like.theta) if isinstance(like, Risk) else like
    return torch.eye(outputs, dtype=tensor.dtype, device=tensor.device).repeat(n, 1, 1)


def _by_outputs(rows: Float[Tensor, "tC nC"], outputs: int) -> Float[Tensor, "t n C C"]:
    """Return products of the rows of all examples and outputs as K[x, z, output of x, output of z]."""
    return rows.unflatten(0, (-1, outputs)).unflatten(2, (-1, outputs)).transpose(1, 2).contiguous()


def chosen_outputs(output: int | str | None, outputs: int) -> list[int]:
    """Return the outputs that ``output`` names.

    Raises:
        ValueError: an int outside the outputs, or another string than "each" and "cross".
    """
    if output is None or output in ("each", "cross"):
        return list(range(outputs))
    if isinstance(output, bool) or not isinstance(output, int) or not 0 <= output < outputs:
        raise ValueError(f"output={output!r} has to be None, 'each', 'cross' or one of the outputs 0 to {outputs - 1}.")
    return [output]


def combine_outputs(parts: list[Float[Tensor, "t n"]], output: int | str | None) -> Tensor:
    """Return the parts stacked for "each", otherwise summed."""
    return torch.stack(parts, dim=-1) if output == "each" else torch.stack(parts).sum(0)


def last_layer_features(network: Parameters, x: Tensor) -> Float[Tensor, "n d"]:
    """Return the inputs of the last layer, with a column of ones if it has a bias.

    Args:
        network: a private copy of the model, admitted.
        x: n inputs.

    Raises:
        NoReadoutError: a model without a Linear layer, or with a last layer that is not called exactly once on rows [n,
            d].
    """
    found = network.readout(x)
    if found is None:
        raise NoReadoutError("no nn.Linear of the model runs")
    name, layer, _ = found
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach().clone()))
    try:
        with torch.no_grad():
            network.run(x)
    finally:
        hook.remove()
    if len(seen) != 1 or seen[0].ndim != 2 or len(seen[0]) != len(x):
        raise NoReadoutError(f"the read-out {name!r} does not read one row an example")
    phi = seen[0]
    return phi if layer.bias is None else torch.cat([phi, phi.new_ones(len(phi), 1)], dim=1)


def _influence(
    risk: Risk, x: Tensor, z: Tensor, output: int | str | None, curvature: str, damping: float
) -> Float[Tensor, "t n"] | Float[Tensor, "t n C"] | Float[Tensor, "t n C C"]:
    sides = [x] if z is x else [x, z]
    between = _between(risk, curvature, damping)
    chosen = chosen_outputs(output, risk.n_outputs)
    if output == "cross":
        made = [gradients(risk.parameters, risk.theta, each, every_cotangent(len(each), risk)) for each in sides]
        return _by_outputs(between(made[0], made[-1]), risk.n_outputs)

    def one(c: int) -> Float[Tensor, "t n"]:
        made = [gradients(risk.parameters, risk.theta, each, one_hot_cotangents(c, len(each), risk)) for each in sides]
        return between(made[0], made[-1])

    return combine_outputs([one(c) for c in chosen], output)


def _between(
    risk: Risk, curvature: str, damping: float
) -> Callable[[GradientSource, GradientSource], Float[Tensor, "t n"]]:
    """Return (G, G') -> G H^+ G'^T, through Gram matrices where that is less work."""
    require_choice("curvature", curvature, ("hessian", "gauss_newton", "empirical_fisher"))
    offers = ("curvature", "damping")
    if curvature != "hessian" and risk.p > risk.n * risk.n_outputs:
        return GramInverse(risk, curvature=curvature, damping=damping, offers=offers).between
    solve = inverse_curvature(risk, curvature=curvature, damping=damping, offers=offers)
    return lambda left, right: product(right, solve(per_example(left)).require_converged("raise").value).T


def _of_measures(
    network: Parameters,
    sides: tuple[Examples, Examples],
    measure: str | LossFunction,
    output: int | str | None,
    kind: str,
    risk: Risk | None,
    curvature: str,
    damping: float,
) -> Float[Tensor, "t n"]:
    """Return the kernel of one number an example, from its gradient alone."""
    if kind == "last_layer":
        raise ValueError("the last-layer kernel is of features, which no measure changes; pass kind='ntk'.")
    if isinstance(output, str):
        raise ValueError(
            f"output={output!r} is of kernels without a measure; pass an output's number, or measure=None."
        )
    theta = network.theta if risk is None else risk.theta
    made = []
    for name, side in zip(("x", "z"), sides, strict=True):
        admit(network, side.x, name=name) if risk is None else risk.require_examples(side, name)
        how = {"loss": None if risk is None else risk.loss, "parameters": network, "theta": theta, "test": side}
        made.append(measure_gradients(network, theta, side, require_measure(measure, output, **how)))
    return gram(*made) if risk is None else _between(risk, curvature, damping)(*made)


def _with_targets(examples: Tensor | Examples, name: str) -> Examples:
    if not isinstance(examples, Examples):
        raise TypeError(
            f"a measure reads targets, and {name} is a {type(examples).__name__}; pass xl.datasets.Examples(x, y)."
        )
    return examples
