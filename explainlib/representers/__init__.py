"""Generalized representers: a training example's contribution as global importance times kernel."""

from explainlib.representers import axioms
from explainlib.representers.baselines import gradient_cosine, random_scores, representer_points, surrogate_points
from explainlib.representers.descent import descent_importance, stopping_ridge
from explainlib.representers.factors import AxiomError, RepresenterFactors, representer_factors
from explainlib.representers.importance import (
    null_weights,
    surrogate_importance,
    target_importance,
    tracking_importance,
)
from explainlib.representers.kernels import kernel
from explainlib.representers.scores import representer_scores

__all__ = [
    "AxiomError",
    "RepresenterFactors",
    "axioms",
    "descent_importance",
    "gradient_cosine",
    "kernel",
    "null_weights",
    "random_scores",
    "representer_factors",
    "representer_points",
    "representer_scores",
    "stopping_ridge",
    "surrogate_importance",
    "surrogate_points",
    "target_importance",
    "tracking_importance",
]
