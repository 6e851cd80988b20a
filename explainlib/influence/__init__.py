"""Influence: of single examples, of groups, and of training tasks, inner and outer."""

from explainlib.influence.bilevel import BilevelInfluence
from explainlib.influence.group import SeriesWarning, removal_effect
from explainlib.influence.proximal import proximal_derivative, proximal_response
from explainlib.influence.quadratic import second_order_influence
from explainlib.influence.removal import Removal
from explainlib.influence.selection import influential_group, printed_weights
from explainlib.influence.single import loss_influence, parameter_influence
from explainlib.influence.task_controls import cosine_scores, random_projector_scores
from explainlib.influence.tasks import TaskInfluence
from explainlib.influence.tracin import tracin
from explainlib.influence.trak import trak
from explainlib.influence.trust import Trust, series_trust

__all__ = [
    "BilevelInfluence",
    "Removal",
    "SeriesWarning",
    "TaskInfluence",
    "Trust",
    "cosine_scores",
    "influential_group",
    "loss_influence",
    "parameter_influence",
    "printed_weights",
    "proximal_derivative",
    "proximal_response",
    "random_projector_scores",
    "removal_effect",
    "second_order_influence",
    "series_trust",
    "tracin",
    "trak",
]
