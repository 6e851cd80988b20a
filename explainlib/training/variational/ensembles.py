"""Ensembles of Bayesian perceptrons: m networks under m weightings, trained full-batch in one batched call.

Network j minimises  1/n sum_i w_ji l_i(theta) + kl_weight/n KL(q_theta || p),  ``ElboRisk``'s very objective. The
moments of all networks run through the layers together, as products of [m, out, in] with [m, in, n].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from explainlib.models.bayes import RESHAPING
from explainlib.models.bayes_layers import BayesianLinear, variance_of
from explainlib.models.moments import DERIVATIVES, elementwise_moments, linear_moments
from explainlib.training.ensembles import Ensemble, fit_in_batches
from explainlib.training.stacked import Stacked
from explainlib.training.starts import starts_or_fresh
from explainlib.training.steps import Plateau
from explainlib.training.variational.elbo import ElboRisk

NUMBERS = 2**21  # moments in memory for one batch of networks


class StackedBayesian(Stacked):
    """m Bayesian perceptrons, their parameters as rows [m, p].

    Args:
        risk: the bound whose weights are replaced.
        weights: [m, n].

    Raises:
        TypeError: a network with layers other than linear ones and activations.
    """

    def __init__(self, risk: ElboRisk, weights: Float[Tensor, "m n"]) -> None:
        self.risk, self.weights = risk, weights
        self.layers = list(risk.parameters.module.net.named_children())
        for name, layer in self.layers:
            if not isinstance(layer, (BayesianLinear, *RESHAPING, *DERIVATIVES)):
                raise TypeError(
                    f"layer {name!r} is a {type(layer).__name__}; an ensemble takes Bayesian perceptrons. Train one "
                    "network after the other with fit_variational."
                )

    @staticmethod
    def numbers(risk: ElboRisk) -> int:
        """Return roughly how many numbers one network needs in memory."""
        linear = [layer for layer in risk.parameters.module.modules() if isinstance(layer, BayesianLinear)]
        return 2 * risk.n * sum(layer.out_features for layer in linear)

    def values(self, packed: Float[Tensor, "m p"]) -> Float[Tensor, " m"]:
        """Return R [m], differentiable."""
        named = {name.removeprefix("net."): part for name, part in self.risk.named(packed).items()}
        mean, variance = self.risk.train.x.flatten(1), None
        for name, layer in self.layers:
            if isinstance(layer, BayesianLinear):
                mean, variance = linear_moments(mean, variance, *_gaussians(name, layer, named))
            elif not isinstance(layer, RESHAPING):
                mean, variance = elementwise_moments(layer, mean, variance)
        losses = self.risk.loss.value(torch.cat([mean, variance], -1), self.risk.train.y)
        return (self.weights * losses).sum(1) / self.risk.n + self.risk.kl_per_example * self.risk.kl(packed)

    def gradients(self, packed: Float[Tensor, "m p"]) -> Float[Tensor, "m p"]:
        """Return grad R, network by network."""
        leaf = packed.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self.values(leaf).sum(), leaf)[0]


def _gaussians(name: str, layer: nn.Module, named: dict[str, Tensor]) -> tuple[tuple, tuple | None]:
    """Return ``layer.gaussians`` for stacked parameters."""
    weight = (named[f"{name}.weight"], variance_of(named[f"{name}.weight_rho"]))
    if layer.bias is None:
        return weight, None
    return weight, (named[f"{name}.bias"], variance_of(named[f"{name}.bias_rho"]))


def fit_variational_ensemble(
    risk: ElboRisk,
    *,
    epochs: int,
    starts: Float[Tensor, "m p"] | None = None,
    seeds: Sequence[int] | None = None,
    weights: Float[Tensor, "m n"] | None = None,
    lr: float = 1e-3,
    optimizer: str = "adam",
    schedule: Plateau | None = None,
) -> Ensemble:
    """Return m Bayesian perceptrons trained full-batch from their starts; parameters not chosen by the risk are frozen.

    Args:
        risk: the bound; with weights given, these replace its own.
        epochs: steps, >= 1; each sees all examples.
        starts: [m, p], in the order of ``risk.theta``. Either this or ``seeds``.
        seeds: m numbers; seed s starts from the network that ``bayesian_mlp(..., seed=s)`` builds.
        weights: [m, n], a weight per network and example, 1 = as is, 0 = removed while n in 1/n stays; None is the
            risk's own for every network.
        lr: learning rate.
        optimizer: "adam" or "sgd".
        schedule: None, or a ``Plateau`` that lowers each network's own rate.

    Returns:
        Ensemble, as ``fit_ensemble`` gives it; ``ensemble[j]`` is an ``ElboRisk`` at network j's parameters.

    Raises:
        TypeError, ValueError: bad options, or a network with other layers than linear ones and activations.

    Cost: each step is one forward and one backward pass of all networks together.
    """
    size = max(1, NUMBERS // StackedBayesian.numbers(risk))
    how = {"epochs": epochs, "lr": lr, "optimizer": optimizer, "schedule": schedule}
    return fit_in_batches(StackedBayesian, risk, starts_or_fresh(risk, starts, seeds), weights, batch=size, **how)
