"""Products of the training losses' gradients with parameter vectors, and their weighted sums, without a matrix [n, p].

A trained final layer alone has grad l_j = (dl/df)_j x phi_j, phi its features; recorded layers give the product from
their inputs and output gradients (``layerwise.product``); any other gradients are taken some examples at a time.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad

from explainlib.datasets import Examples
from explainlib.gate import GRADIENT
from explainlib.influence.measures import measure_gradients
from explainlib.layerwise import GradientSource, combination, product
from explainlib.layerwise.gradient_matrix import checked_plan
from explainlib.memory import slices
from explainlib.risk import PART, Risk

BLOCK = 2**26  # bytes of gradients at a time


def training_gradients(risk: Risk, *, memory: int | float | None = None) -> GradientSource:
    """Return the gradients of the training losses as layer inputs and output gradients.

    Args:
        risk: with its theta; weights and ridge play no part.
        memory: as in ``measure_gradients``.
    """
    return measure_gradients(risk.parameters, risk.theta, risk.train, risk.loss, memory=memory)


def training_products(
    risk: Risk, vectors: Float[Tensor, "k p"], *, memory: int | float | None = None
) -> Float[Tensor, "k n"]:
    """Return v . grad l_j for each vector and training example.

    Args:
        risk: with its theta; weights and ridge play no part.
        vectors: in the order of the chosen parameters.
        memory: bytes to work with beside vectors and result; None is a quarter of what is free.
    """
    if risk.head is not None:
        return _head_products(risk, vectors)
    if not checked_plan(risk.parameters, risk.theta, risk.train.x, warn=False).fallback:
        return product(training_gradients(risk, memory=memory), vectors, memory=memory).T
    out = vectors.new_empty(len(vectors), risk.n)
    for part in slices(risk.n, BLOCK // (risk.p * vectors.element_size())):
        out[:, part] = vectors @ risk.loss_gradients(risk.train[part]).T
    return out


def member_sums(
    risk: Risk, weights: Float[Tensor, "g n"], *, memory: int | float | None = None
) -> Float[Tensor, "g p"]:
    """Return sum_i w_gi grad l_i for each of g weightings; only examples with a weight are read, once for all groups.

    Args:
        risk: with its theta; its own weights and ridge play no part.
        weights: mostly zero.
        memory: bytes to work with beside the result; None is a quarter of what is free.
    """
    members = (weights != 0).any(0).nonzero()[:, 0]
    own, examples = weights[:, members], risk.train[members]
    if risk.head is not None:
        slope = risk.loss.gradient(risk.outputs(), risk.train.y)[members]
        matrices = torch.einsum("gm,mc,md->gcd", own, slope, risk.features()[members])
        return risk.head.flat(matrices)
    if not checked_plan(risk.parameters, risk.theta, risk.train.x, warn=False).fallback:
        source = measure_gradients(risk.parameters, risk.theta, examples, risk.loss, memory=memory)
        return combination(source, own, memory=memory)
    out = weights.new_zeros(len(weights), risk.p)
    for part in slices(len(members), BLOCK // (risk.p * weights.element_size())):
        out += own[:, part] @ risk.loss_gradients(examples[torch.arange(len(members))[part]])
    return out


def mean_gradient(risk: Risk, examples: Examples) -> Float[Tensor, " p"]:
    """Return the gradient of the examples' mean loss, without ridge, one backward pass a part of the examples.

    Args:
        risk: with its theta; weights and ridge play no part.
        examples: any that fit the risk.
    """
    risk.require_derivatives(GRADIENT)
    total = torch.zeros_like(risk.theta)
    for part in slices(len(examples), PART):
        x, y = examples.x[part], examples.y[part]
        total += grad(lambda theta, x=x, y=y: risk.loss.value(risk.parameters.outputs(theta, x), y).sum())(risk.theta)
    return total / len(examples)


def _head_products(risk: Risk, vectors: Float[Tensor, "k p"]) -> Float[Tensor, "k n"]:
    """Return the products for a trained final layer, its gradients or its outputs along v materialised in blocks."""
    slope, features = risk.loss.gradient(risk.outputs(), risk.train.y), risk.features()
    matrices = risk.head.matrix(vectors)  # [k, C, d]
    (k, C, d), out = matrices.shape, vectors.new_empty(len(vectors), risk.n)
    for part in slices(risk.n, BLOCK // (min(k, d) * C * vectors.element_size())):
        if k <= d:
            along = features[part] @ matrices.flatten(0, 1).T
            out[:, part] = (along.unflatten(1, (k, C)) * slope[part, None]).sum(2).T
        else:
            rows = slope[part, :, None] * features[part, None]
            out[:, part] = matrices.flatten(1) @ rows.flatten(1).T
    return out
