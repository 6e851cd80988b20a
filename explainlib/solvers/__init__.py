"""Solvers: one a file, all returning a ``Solution`` that tells how it went; ``inverse_curvature`` picks one."""

from explainlib.solvers.arnoldi import DominantEigenpairs, dominant_eigenpairs
from explainlib.solvers.cg import cg
from explainlib.solvers.configured import CG, Arnoldi, Dense, Lissa, LowRankSolver, Neumann
from explainlib.solvers.dense import Factor
from explainlib.solvers.eigenbasis import ekfac_solve
from explainlib.solvers.grams import GramInverse
from explainlib.solvers.inverse import FittedInverse, inverse_curvature
from explainlib.solvers.low_rank import LowRank
from explainlib.solvers.preconditioner import preconditioner
from explainlib.solvers.series import lissa, lissa_batches, neumann, neumann_sums
from explainlib.solvers.solution import STATUSES, Solution, SolverError, SolverWarning

__all__ = [
    "CG",
    "STATUSES",
    "Arnoldi",
    "Dense",
    "DominantEigenpairs",
    "Factor",
    "FittedInverse",
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
