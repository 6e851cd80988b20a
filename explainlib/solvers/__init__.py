"""Solvers: one a file, all returning a ``Solution`` that tells how it went; ``inverse_curvature`` picks one."""

from explainlib.solvers.arnoldi import DominantEigenpairs, dominant_eigenpairs
from explainlib.solvers.cg import cg
from explainlib.solvers.dense import Factor
from explainlib.solvers.eigenbasis import ekfac_solve
from explainlib.solvers.grams import GramInverse
from explainlib.solvers.inverse import CG, Arnoldi, Dense, Lissa, LowRankSolver, Neumann, inverse_curvature
from explainlib.solvers.lissa import lissa, lissa_batches
from explainlib.solvers.low_rank import LowRank
from explainlib.solvers.neumann import neumann, neumann_sums
from explainlib.solvers.preconditioner import preconditioner
from explainlib.solvers.solution import STATUSES, Solution, SolverError, SolverWarning

__all__ = [
    "CG",
    "STATUSES",
    "Arnoldi",
    "Dense",
    "DominantEigenpairs",
    "Factor",
    "GramInverse",
    "Lissa",
    "LowRank",
    "LowRankSolver",
    "Neumann",
    "Solution",
    "SolverError",
    "SolverWarning",
    "cg",
    "dominant_eigenpairs",
    "ekfac_solve",
    "inverse_curvature",
    "lissa",
    "lissa_batches",
    "neumann",
    "neumann_sums",
    "preconditioner",
]
