"""What is taken where nothing is said: another number would change everyone's results."""

import pytest

from explainlib import influence
from explainlib.influence.proximal import responses
from tests.defaults import number_defaults

PLAIN = {"damping": 0.0, "strict": False}
SEEDED = {"seed": 0, **PLAIN}
DEFAULTS = {
    influence.BilevelInfluence: {"seed": 0, "strict": False},
    influence.BilevelInfluence.performance: {"shortcut": False},
    influence.BilevelInfluence.without_example: {"newton": False},
    influence.BilevelInfluence.without_task: {"newton": False},
    influence.BilevelInfluence.without_tasks: {"newton": False},
    influence.Removal.loss_change: {"evaluate": True},
    influence.Removal.measure_change: {"evaluate": True},
    influence.TaskInfluence: {"keep": 1e-9, "l2": 0.0, "processes": 1, **PLAIN},
    influence.TaskInfluence.stored: {"keep": 1e-9},
    influence.influential_group: SEEDED,
    influence.loss_influence: PLAIN,
    influence.parameter_influence: PLAIN,
    influence.printed_weights: PLAIN,
    influence.proximal_derivative: {"step": 1e-4},
    influence.proximal_response: {"tolerance": 1e-11},
    responses: {"tolerance": 1e-11, "max_steps": 100},
    influence.random_projector_scores: {"seed": 0},
    influence.removal_effect: {"order": 1, "third_derivative": False, **PLAIN},
    influence.removal_loss_change: PLAIN,
    influence.second_order_influence: PLAIN,
    influence.series_trust: {"damping": 0.0},
    influence.token_influence: PLAIN,
    influence.trak: {"features": 512, "seed": 0},
}


@pytest.mark.parametrize(("function", "defaults"), DEFAULTS.items(), ids=lambda f: getattr(f, "__qualname__", ""))
def test_defaults(function, defaults):
    assert number_defaults(function) == defaults
