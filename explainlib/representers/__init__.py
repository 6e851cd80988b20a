"""Generalized representers: a training example's contribution as global importance times kernel."""

from explainlib.representers import axioms
from explainlib.representers.baselines import gradient_cosine, random_scores, representer_points
from explainlib.representers.factors import AxiomError, RepresenterFactors, representer_factors
from explainlib.representers.importance import surrogate_importance, target_importance, tracking_importance
from explainlib.representers.kernels import kernel
from explainlib.representers.scores import representer_scores

__all__ = [
    "AxiomError",
    "RepresenterFactors",
    "axioms",
    "gradient_cosine",
    "kernel",
    "random_scores",
    "representer_factors",
    "representer_points",
    "representer_scores",
    "surrogate_importance",
    "target_importance",
    "tracking_importance",
]
