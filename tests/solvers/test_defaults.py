"""What the functions of solvers take where nothing is passed."""

import explainlib as xl
from tests.defaults import defaults_of

DEFAULTS = {
    "Arnoldi": {"k": 50, "seed": 0},
    "Factor": {"damping": 0.0},
    "Lissa": {"repeats": 10, "tolerance": 1e-6, "seed": 0},
    "LowRank": {"square": False},
    "Neumann": {"tolerance": 1e-6, "max_steps": 20_000},
    "dominant_eigenpairs": {"seed": 0},
    "ekfac_solve": {"damping": 0.0},
    "inverse_curvature": {"damping": 0.0},
    "lissa": {"damping": 0.0, "tolerance": 1e-6, "max_steps": 20_000},
    "lissa_batches": {"seed": 0},
    "neumann": {"damping": 0.0, "tolerance": 1e-6, "max_steps": 20_000},
    "neumann_sums": {"damping": 0.0},
    "preconditioner": {"damping": 0.0, "up_to": 4000},
}


def test_defaults_are_what_results_rely_on():
    assert defaults_of(xl.solvers) == DEFAULTS
