"""What the functions of meta-learning take where nothing is passed."""

import explainlib as xl
from tests.defaults import defaults_of

DEFAULTS = {
    "Bilevel": {"outer_proximity": False},
    "Bilevel.hessian_operator": {"third_order": True},
    "Bilevel.total_hessian": {"third_order": True},
    "Maml": {"steps": 1, "first_order": False},
    "gauss_newton_buffer": {"block": 8, "processes": 1},
    "leave_tasks_out": {"batch_size": 32, "lr": 1e-3, "weight_decay": 0.0, "seed": 0},
    "meta_hessian": {"l2": 0.0, "processes": 1},
    "minimise": {"l2": 0.0, "tolerance": 1e-12, "max_steps": 500},
    "solve": {"tolerance": 1e-8},
    "train": {"batch_size": 32, "lr": 1e-3, "weight_decay": 0.0, "seed": 0},
}


def test_defaults_are_what_results_rely_on():
    assert defaults_of(xl.meta) == DEFAULTS
