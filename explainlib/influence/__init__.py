"""Influence of single examples, of groups, and of training tasks; its baselines."""

from explainlib.influence.automatic import choose_method
from explainlib.influence.bilevel import BilevelInfluence
from explainlib.influence.groups import (
    Removal,
    SeriesWarning,
    Trust,
    influential_group,
    printed_weights,
    removal_effect,
    removal_loss_change,
    second_order_influence,
    series_trust,
)
from explainlib.influence.proximal import proximal_derivative, proximal_response
from explainlib.influence.single import loss_influence, parameter_influence
from explainlib.influence.tasks import TaskInfluence, cosine_scores, random_projector_scores
from explainlib.influence.tokens import token_influence
from explainlib.influence.tracin import tracin
from explainlib.influence.trak import trak

__all__ = [
    "BilevelInfluence",
    "Removal",
    "SeriesWarning",
    "TaskInfluence",
    "Trust",
    "choose_method",
    "cosine_scores",
    "influential_group",
    "loss_influence",
    "parameter_influence",
    "printed_weights",
    "proximal_derivative",
    "proximal_response",
    "random_projector_scores",
    "removal_effect",
    "removal_loss_change",
    "second_order_influence",
    "series_trust",
    "token_influence",
    "tracin",
    "trak",
]
