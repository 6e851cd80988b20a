"""Bayesian networks on Iris by cost and weight of the divergence, and how right their moments are.

The truth is the last layer solved again, without damping on either side, as for the networks with a ridge beside them:
same splits, seeds, epochs and rates. The moments are compared with draws of the weights in the trained network.
"""

from __future__ import annotations

from dataclasses import replace

import pandas
import torch
from torch import nn

from explainlib.datasets import Split, load
from explainlib.models import bayesian_mlp
from explainlib.models.bayes_layers import variance_of
from explainlib.studies.fragility.bench import BAYESIAN, L2, SCHEDULE, Training, evaluate_network
from explainlib.studies.fragility.design.factors import trained
from explainlib.studies.fragility.design.settings import Bayes, Shape
from explainlib.studies.place import placed
from explainlib.training import ElboRisk, fit_variational_ensemble
from explainlib.training.variational import sampled_cross_entropy

RIDGE = "L2"  # what stands in the column "cost" for the networks with a ridge


def evaluate_bayes(settings: Bayes, shape: Shape, cost: str, kl_weight: float) -> pandas.DataFrame:
    """Return a row for each seed: agreement, collapse, and the propagated moments beside sampled ones.

    Args:
        settings: seeds and draws.
        shape: of the networks.
        cost: of ``ElboRisk``, or "L2" for networks with a ridge of .005.
        kl_weight: of the divergence.
    """
    split, seeds = placed(load("iris").double()), list(range(settings.seeds))
    how = replace(Training(), epochs=shape.epochs, lr=shape.lr)
    if cost == RIDGE:
        risks, kind = trained(shape, split.train, how.l2, seeds), L2
    else:
        widths = [split.train.x.shape[1], *[shape.width] * shape.depth, len(split.train.classes)]
        model = placed(bayesian_mlp(widths, shape.activation, dtype=torch.float64))
        bound, kind = ElboRisk(model, split.train, loss=cost, kl_weight=kl_weight), BAYESIAN
        options = {"epochs": shape.epochs, "lr": shape.lr, "schedule": SCHEDULE, "seeds": seeds}
        risks = [bound.at(theta) for theta in fit_variational_ensemble(bound, **options).theta]
    rows = []
    for seed, risk in zip(seeds, risks, strict=True):
        row = {"shape": shape.name, "cost": cost, "kl_weight": kl_weight, "seed": seed}
        row |= evaluate_network(how, risk, kind, split)
        rows.append(row if cost == RIDGE else row | moments(risk, split, settings.draws, seed))
    return pandas.DataFrame(rows)


def moments(risk: ElboRisk, split: Split, draws: int, seed: int) -> dict[str, float]:
    """Return how far the propagated moments of the test flowers' logits are from those of sampled weights.

    ``spread`` is the mean standard deviation of a logit, propagated; ``spread_ratio`` propagated over sampled;
    ``mean_error`` the root mean square error of the means in units of the sampled deviation; ``cost`` the expected
    cross-entropy as the objective has it (nan for the Gaussian cost, which is another quantity), and ``cost_sampled``
    with sampled weights.

    Args:
        risk: a trained network.
        split: whose tests are taken.
        draws: of the weights.
        seed: of the draws.
    """
    x, y = split.test.x, split.test.y
    mean, variance = (part.detach() for part in risk.model.moments(x))
    logits = _sampled_logits(risk, x, draws, seed)
    deviation = logits.std(0)
    found = {"spread": float(variance.sqrt().mean()), "spread_ratio": float((variance.sqrt() / deviation).mean())}
    found["mean_error"] = float(((mean - logits.mean(0)) / deviation).square().mean().sqrt())
    both = torch.cat([mean, variance], 1)
    found["elbo_cost"] = float("nan") if risk.cost == "gaussian" else float(risk.loss.value(both, y).mean())
    found["cost_by_logits"] = float(sampled_cross_entropy(both, y).mean())
    own = y.expand(draws, -1).flatten()
    found["cost_by_weights"] = float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), own))
    return found


def _sampled_logits(risk: ElboRisk, x: torch.Tensor, draws: int, seed: int) -> torch.Tensor:
    """Return logits [draw, n, C] of networks whose weights are drawn from the posterior, layer by layer."""
    generator = torch.Generator().manual_seed(seed)
    named = {name.removeprefix("net."): part.detach() for name, part in risk.named(risk.theta).items()}
    values = x.flatten(1).expand(draws, -1, -1)

    def drawn(name: str) -> torch.Tensor:
        noise = torch.randn(draws, *named[name].shape, generator=generator, dtype=x.dtype).to(x)
        return named[name] + variance_of(named[f"{name}_rho"]).sqrt() * noise

    for name, layer in risk.model.named_children():
        if f"{name}.weight" in named:
            values = values @ drawn(f"{name}.weight").mT + drawn(f"{name}.bias")[:, None]
        elif not isinstance(layer, nn.Flatten):
            values = layer(values)
    return values
