"""The result of meta-training."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Trained:
    """Meta-trained parameters.

    Attributes:
        w: [q].
        history: the meta-objective's loss of every meta-batch (or step), ridge excluded.
        gradient_norm: |grad L(w) + l2 w| over all training tasks; 0 at a stationary point.
        status: "trained" after a fixed number of batches, "converged" at a stationary point, or why not.
    """

    w: Float[Tensor, " q"]
    history: tuple[float, ...] = field(repr=False)
    gradient_norm: float
    status: str = "trained"
