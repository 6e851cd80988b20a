"""Per-example gradients through ``torch.func``, for the parameters that are not recorded layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad

from explainlib.derivatives import vmap
from explainlib.params import Parameters

CHUNK = 32  # examples in one batched pass


def per_example_gradients(
    parameters: Parameters,
    theta: Float[Tensor, " p"],
    x: Tensor,
    cotangents: Float[Tensor, "e k C"],
    names: Sequence[str],
    *,
    batched: bool = True,
) -> Float[Tensor, "n c"]:
    """Return the gradients of c . f(x) in some parameters, one row per example and cotangent.

    Args:
        parameters: of the model.
        theta: where.
        x: e examples.
        cotangents: k of them for each example.
        names: the parameters, side by side in this order.
        batched: False takes the examples one by one.
    """
    fixed = parameters.named(theta.detach())
    free = {name: fixed[name] for name in names}

    def value(parts: dict[str, Tensor], example: Tensor, cotangent: Tensor) -> Tensor:
        outputs = parameters.call({**fixed, **parts}, example[None])
        return (outputs[0] * cotangent).sum()

    def row(example: Tensor, cotangent: Tensor) -> Tensor:
        gradients = grad(value)(free, example, cotangent)
        return torch.cat([gradients[name].flatten() for name in names])

    k = cotangents.shape[1]
    examples, cotangents = x.repeat_interleave(k, dim=0), cotangents.flatten(0, 1)
    if batched:
        return vmap(row, chunk_size=CHUNK)(examples, cotangents)
    return torch.stack([row(*pair) for pair in zip(examples, cotangents, strict=True)])
