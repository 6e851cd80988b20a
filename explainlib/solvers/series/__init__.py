"""Inverses by the Neumann series: on all examples, and on random batches (LiSSA)."""

from explainlib.solvers.series.lissa import lissa, lissa_batches
from explainlib.solvers.series.neumann import MARGIN, SCALE_TOLERANCE, neumann, neumann_sums

__all__ = ["MARGIN", "SCALE_TOLERANCE", "lissa", "lissa_batches", "neumann", "neumann_sums"]
