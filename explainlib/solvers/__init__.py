"""Solvers: one a file, all returning a ``Solution`` that tells how it went; ``inverse_curvature`` picks one."""

from explainlib.solvers.cg import cg
from explainlib.solvers.dense import Factor
from explainlib.solvers.inverse import CG, Dense, Lissa, LowRankSolver, inverse_curvature
from explainlib.solvers.lissa import lissa, lissa_batches
from explainlib.solvers.low_rank import LowRank
from explainlib.solvers.preconditioner import preconditioner
from explainlib.solvers.solution import STATUSES, Solution, SolverError, SolverWarning

__all__ = [
    "CG",
    "STATUSES",
    "Dense",
    "Factor",
    "Lissa",
    "LowRank",
    "LowRankSolver",
    "Solution",
    "SolverError",
    "SolverWarning",
    "cg",
    "inverse_curvature",
    "lissa",
    "lissa_batches",
    "preconditioner",
]
