"""Bayesian networks: the variational objective, training by it, and many of them in one batch."""

from explainlib.training.variational.elbo import (
    ElboRisk,
    expected_cross_entropy,
    fit_variational,
    gaussian_cost,
    sampled_cross_entropy,
)
from explainlib.training.variational.ensembles import fit_variational_ensemble

__all__ = [
    "ElboRisk",
    "expected_cross_entropy",
    "fit_variational",
    "fit_variational_ensemble",
    "gaussian_cost",
    "sampled_cross_entropy",
]
