"""TracIn: the effect of training steps on one example on another's loss, summed over checkpoints.

tracin(t, j) = - sum_c lr_c grad l_t(theta_c) . grad l_j(theta_c)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib import compute
from explainlib.datasets import Examples
from explainlib.layerwise import GradientSource, gradients, gram
from explainlib.losses import Loss, LossFunction, require_loss, require_targets
from explainlib.params import Parameters
from explainlib.training import Trajectory


@compute.entry
def tracin(
    trajectory: Trajectory,
    train: Examples,
    test: Examples,
    *,
    loss: str | LossFunction | Loss = "cross_entropy",
    parameters: str | Sequence[str] = "all",
) -> Float[Tensor, "t n"]:
    """Return TracInCP scores; positive means that training on j raised the loss of t: harmful.

    Args:
        trajectory: with checkpoints, from ``training.fit`` or wrapped.
        train: n examples.
        test: t examples.
        loss: as in ``Risk``.
        parameters: "all" (those that require a gradient), "last" (the last layer: TracInCPFast), or a list of names.

    Returns:
        [t, n], in the test loss's unit; no factor 1/batch. Per-example gradients are not materialised.

    Raises:
        ValueError: a trajectory without checkpoints, of another architecture, or without the running statistics of its
            BatchNorm layers.

    Source: Pruthi et al. 2020, section 3; Tsai et al. 2023, eq. (14), with the opposite sign.

    Example: one checkpoint of a one-parameter model, gradients 2 (f - y) x = -4 and -2.

        >>> model = torch.nn.Linear(1, 1, bias=False).double()
        >>> at = Trajectory(model, torch.ones(1, 1).double(), torch.tensor([0.5]).double())
        >>> one = lambda y: Examples(torch.ones(1, 1).double(), torch.tensor([[y]]).double())
        >>> tracin(at, one(3.0), one(2.0), loss="squared_error").item()
        -4.0
    """
    if len(trajectory.checkpoints) == 0:
        raise ValueError("the trajectory holds no checkpoints; train with checkpoints=... or wrap some in Trajectory.")
    criterion = require_loss(loss)
    chosen = Parameters(trajectory.model, parameters, x=train.x)
    total = torch.zeros(len(test), len(train), dtype=chosen.theta.dtype, device=chosen.theta.device)
    for c, rate in enumerate(trajectory.learning_rates):
        state = {name: value.to(total.device) for name, value in trajectory.state(c).items()}
        chosen.place(state)  # other parameters and buffers are the checkpoint's too
        at = torch.cat([chosen.module.get_parameter(name).reshape(-1) for name in chosen.names])
        left, right = (_loss_gradients(chosen, at, part, criterion) for part in (test, train))
        total -= float(rate) * gram(left, left if test is train else right)
    return total


def _loss_gradients(
    parameters: Parameters, theta: Float[Tensor, " p"], examples: Examples, criterion: Loss
) -> GradientSource:
    def slope(outputs: Float[Tensor, "n C"]) -> Float[Tensor, "n C"]:
        require_targets(criterion, "y", examples.y, outputs.shape[1])
        return criterion.gradient(outputs, examples.y)

    return gradients(parameters, theta, examples.x, slope)
