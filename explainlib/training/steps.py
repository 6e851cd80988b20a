"""One optimiser step for many networks at once: the steps of ``torch.optim``, on one packed tensor.

Adam and gradient descent work number by number, so one call serves any number of networks; a rate may be one number or
one for each parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_count, require_nonnegative

Step = Callable[[Tensor, float | Tensor], object]
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Plateau:
    """Lower a network's rate when its objective no longer falls, as ``torch.optim.lr_scheduler.ReduceLROnPlateau``.

    Args:
        factor: the rate is multiplied by it, above 0 and below 1.
        patience: epochs without a better objective before the rate is lowered, >= 0.
        threshold: better means below (1 - threshold) times the best so far, >= 0.
        least: lowest rate, >= 0.

    Raises:
        ValueError: a number outside these limits.
    """

    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    least: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 0 < self.factor < 1:
            raise ValueError(f"factor={self.factor} has to lie above 0 and below 1, or the rate would not fall.")
        require_count("patience", self.patience, least=0)
        require_nonnegative("threshold", self.threshold)
        require_nonnegative("least", self.least)

    def watch(self, rates: Float[Tensor, " m"]) -> Watch:
        """Return the state of m networks that start with these rates."""
        return Watch(self, rates)


class Watch:
    """The best objective, the epochs since, and the rate of each of m networks.

    Args:
        plateau: when to lower a rate.
        rates: [m], initial.
    """

    def __init__(self, plateau: Plateau, rates: Float[Tensor, " m"]) -> None:
        self.plateau, self.rates = plateau, rates.clone()
        self.best = torch.full_like(rates, torch.inf)
        self.idle = torch.zeros_like(rates)

    def update(self, values: Float[Tensor, " m"]) -> bool:
        """Update with the objectives after an epoch; return whether a rate was lowered."""
        better = values < self.best * (1 - self.plateau.threshold)
        self.best = torch.where(better, values, self.best)
        self.idle = torch.where(better, 0.0, self.idle + 1)
        exhausted = self.idle > self.plateau.patience
        if not exhausted.any():
            return False
        self.idle = torch.where(exhausted, 0.0, self.idle)
        lower = (self.rates * self.plateau.factor).clamp(min=self.plateau.least)
        lowered = exhausted & (self.rates - lower > EPSILON)  # as torch: smaller changes are skipped
        self.rates = torch.where(lowered, lower, self.rates)
        return bool(lowered.any())


def stepper(optimizer: str, packed: Tensor) -> Step:
    """Return (gradient, rates) -> one step, in place on ``packed``; rates are a number or a tensor like packed.

    Args:
        optimizer: "adam", or "sgd" without momentum.
        packed: the parameters of all networks.
    """
    return _Adam(packed) if optimizer == "adam" else lambda gradient, rates: _descend(packed, gradient, rates)


def adam_state(step: Step, state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return the state of an Adam step; ``state``, from an earlier call, is loaded into it first.

    Raises:
        TypeError: a step that is not Adam's.
    """
    if not isinstance(step, _Adam):
        raise TypeError("only Adam's step remembers anything; pass stepper('adam', ...).")
    if state is not None:
        step.mean.copy_(state["mean"])
        step.square.copy_(state["square"])
        step.epoch = int(state["epoch"])
    return {"mean": step.mean, "square": step.square, "epoch": torch.tensor(step.epoch)}


def _descend(packed: Tensor, gradient: Tensor, rates: float | Tensor) -> None:
    if isinstance(rates, Tensor):
        packed.addcmul_(gradient, rates, value=-1)
    else:
        packed.add_(gradient, alpha=-rates)


class _Adam:
    """Kingma & Ba 2015, algorithm 1, in the order of operations of ``torch.optim.Adam``."""

    def __init__(self, packed: Tensor) -> None:
        self.packed, self.epoch = packed, 0
        self.mean, self.square = torch.zeros_like(packed), torch.zeros_like(packed)

    def __call__(self, gradient: Tensor, rates: float | Tensor) -> None:
        self.epoch += 1
        self.mean.lerp_(gradient, 1 - BETA1)
        self.square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        unbias1, unbias2 = 1 - BETA1**self.epoch, 1 - BETA2**self.epoch
        scale = self.square.sqrt().div_(unbias2**0.5).add_(EPSILON)
        if isinstance(rates, Tensor):
            self.packed.addcdiv_(self.mean * rates, scale, value=-1 / unbias1)
        else:
            self.packed.addcdiv_(self.mean, scale, value=-rates / unbias1)
