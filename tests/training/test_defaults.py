"""What the functions of training take where nothing is passed."""

import explainlib as xl
from tests.defaults import defaults_of

DEFAULTS = {
    "ElboRisk": {"kl_weight": 1.0, "prior_variance": 1.0},
    "Plateau": {"factor": 0.1, "patience": 10, "threshold": 1e-4, "least": 0.0},
    "fit": {"lr": 1e-3, "weight_decay": 0.0, "seed": 0, "checkpoints": 0, "record": False},
    "fit_ensemble": {"lr": 1e-3, "l2": 0.0},
    "fit_risks": {"lr": 1e-3},
    "fit_variational": {"kl_weight": 1.0, "prior_variance": 1.0, "lr": 1e-3, "seed": 0, "checkpoints": 0},
    "fit_variational_ensemble": {"lr": 1e-3},
    "fit_without": {"lr": 1e-3, "weight_decay": 0.0, "seed": 0},
    "minimise": {"tolerance": 1e-10, "max_steps": 100},
}


def test_defaults_are_what_results_rely_on():
    assert defaults_of(xl.training) == DEFAULTS
