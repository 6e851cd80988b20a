"""Agreement with the truth: fidelity in order and size, and whether a score knows its own."""

from explainlib.metrics.agreement import Estimate, Fidelity, LossChange, average_ranks, fidelity, two_pictures
from explainlib.metrics.ranks import ProperOrder, proper_order, self_rank

__all__ = [
    "Estimate",
    "Fidelity",
    "LossChange",
    "ProperOrder",
    "average_ranks",
    "fidelity",
    "proper_order",
    "self_rank",
    "two_pictures",
]
