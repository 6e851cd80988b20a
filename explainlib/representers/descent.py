"""Kernel gradient descent, whose steps add up to global importances, and the ridge that stopping it early resembles.

    f_t(x) = f_0(x) + sum_i alpha_i K(x_i, x),       alpha_i <- alpha_i - lr/|B| dL(f(x_i), target_i)/df   for i in B

Full-batch descent on squared error from 0 and ridge regression scale each eigenvector of K, with eigenvalue k, by

    descent   1 - (1 - 2 lr k/n)^steps              ridge   k / (k + n l2/2)

With l2 = 1/(lr steps) both are 2 lr steps k/n where that is small, and 1 where it is large. In between descent is ahead
of the ridge, where 2 lr k/n <= 1: up to 2 times in one step, 1.30 times in many small ones.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib import compute
from explainlib.checks import (
    require_choice,
    require_count,
    require_finite,
    require_positive,
    require_shape,
    require_tensor,
)
from explainlib.representers.importance import LOSSES, mean_loss, probabilities, require_gram
from explainlib.training.fit import epoch_batches


@compute.entry
def descent_importance(
    gram: Float[Tensor, "n n"],
    targets: Float[Tensor, "n C"],
    *,
    loss: str,
    lr: float,
    epochs: int,
    batch_size: int | None = None,
    seed: int = 0,
    start: Float[Tensor, "n C"] | None = None,
) -> Float[Tensor, "n C"]:
    """Return alpha tracked while kernel gradient descent learns the model's outputs, without a ridge.

    Of a linear model trained by ``training.fit`` with the same rate, batches and targets, these are the importances
    that ``record=True`` tracks, K the last-layer kernel: eq. (10) is then no approximation.

    Args:
        gram: K over the training examples, symmetric positive semi-definite within rounding; fixed during the descent.
        targets: as in ``surrogate_importance``.
        loss: "cross_entropy" or "squared_error".
        lr: learning rate, > 0.
        epochs: passes over the data, >= 1.
        batch_size: None takes all examples in every step.
        seed: of the batch order, which is that of ``training.fit``.
        start: f_0 on the training examples; None is 0.

    Returns:
        alpha [n, C]: rate times loss per output. f_0(x) + K(x, .) alpha are the descent's outputs at any x.

    Raises:
        ValueError: a gram that is no kernel, shapes, or a rate at which the loss rises.

    Source: Tsai et al. 2023, Definition 11, eqs (8) and (9). Deviation: the update printed above eq. (8) has the sum
    over the batch inside alpha_it; it belongs before alpha_it K(x_i, x).

    Example: one point, K = 2, one step of squared error from 0 towards 3: alpha = .1 * 2 * 3.

        >>> k, f = torch.tensor([[2.0]]).double(), torch.tensor([[3.0]]).double()
        >>> round(descent_importance(k, f, loss="squared_error", lr=0.1, epochs=1).item(), 9)
        0.6
    """
    require_choice("loss", loss, LOSSES)
    require_positive("lr", float(lr)), require_count("epochs", epochs)
    gram, targets = require_gram(gram), require_finite("targets", require_tensor("targets", targets))
    n = len(gram)
    require_shape("targets", targets, [n, None], meaning="(the model's outputs on the training examples)")
    if batch_size is not None and require_count("batch_size", batch_size) > n:
        raise ValueError(f"batch_size={batch_size} exceeds the {n} training examples; pass None for full batches.")
    first = torch.zeros_like(targets) if start is None else require_finite("start", require_tensor("start", start))
    require_shape("start", first, list(targets.shape), meaning="(like targets)")
    wanted = probabilities(targets) if loss == "cross_entropy" else targets
    generator, alpha = torch.Generator().manual_seed(seed), torch.zeros_like(targets)
    for _ in range(epochs):
        for batch in epoch_batches(n, batch_size, generator):
            f = first[batch] + gram[batch] @ alpha
            slope = probabilities(f) - wanted[batch] if loss == "cross_entropy" else 2 * (f - wanted[batch])
            alpha[batch] -= lr / len(batch) * slope  # eq. (9)
    before, after = (float(mean_loss(f, wanted, loss)) for f in (first, first + gram @ alpha))
    if not after <= before * (1 + 1e-6):
        raise ValueError(
            f"the loss went from {before:.3g} to {after:.3g}: lr={lr:g} is too large for this kernel; pass a smaller "
            f"lr, below {n / float(torch.linalg.eigvalsh(gram)[-1]):.2g} for full batches of squared error."
        )
    return alpha


def stopping_ridge(lr: float, steps: int) -> float:
    """Return l2 = 1/(lr steps), the ridge that this many steps of descent from 0 resemble, for any loss.

    To first order in lr steps the importances are equal: both are -1/(n l2) dL/df at 0. Under squared error, with lr
    <= n/2 over the largest eigenvalue of K, no eigenvector is fitted less than by the ridge and none more than twice as
    much. A ridge is equal to later steps only where K has a single eigenvalue k, and then l2 = 2k/n q/(1 - q), q = (1 -
    2 lr k/n)^steps.

    Args:
        lr: learning rate, > 0.
        steps: >= 1.

    Source: Tsai et al. 2023, section 4.3, which names the correspondence (Suggala et al. 2018); Ali et al. 2019 for the
    factor 1.30 of gradient flow.

    Example:
        >>> stopping_ridge(0.1, 50)
        0.2
    """
    return 1 / (require_positive("lr", float(lr)) * require_count("steps", steps))
