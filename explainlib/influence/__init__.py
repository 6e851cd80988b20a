"""Influence: of single examples, and of groups."""

from explainlib.influence.group import removal_effect
from explainlib.influence.removal import Removal
from explainlib.influence.single import loss_influence, parameter_influence

__all__ = ["Removal", "loss_influence", "parameter_influence", "removal_effect"]
