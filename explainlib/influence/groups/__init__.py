"""Influence of groups: first and second order, one Newton step, and the most influential group (Basu et al.)."""

from explainlib.influence.groups.effect import SeriesWarning, removal_effect
from explainlib.influence.groups.first_order import removal_loss_change
from explainlib.influence.groups.quadratic import second_order_influence
from explainlib.influence.groups.removal import WEIGHTINGS, Removal, removal_weights
from explainlib.influence.groups.selection import influential_group, printed_weights
from explainlib.influence.groups.trust import Trust, series_trust

__all__ = [
    "WEIGHTINGS",
    "Removal",
    "SeriesWarning",
    "Trust",
    "influential_group",
    "printed_weights",
    "removal_effect",
    "removal_loss_change",
    "removal_weights",
    "second_order_influence",
    "series_trust",
]
