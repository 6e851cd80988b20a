"""Influence of tasks and instances in bilevel optimisation (Ren et al.)."""

from explainlib.influence.bilevel.influence import BilevelInfluence

__all__ = ["BilevelInfluence"]
