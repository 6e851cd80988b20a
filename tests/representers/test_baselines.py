"""Baselines against their definitions."""

import pytest
import torch

from explainlib import Risk
from explainlib.datasets import Examples
from explainlib.models import logistic, mlp
from explainlib.representers import gradient_cosine, random_scores, representer_points, surrogate_points
from explainlib.training import minimise

D = torch.float64
G = torch.Generator().manual_seed(1)
TRAIN = Examples(torch.randn(12, 4, generator=G, dtype=D), torch.arange(12) % 3)
TEST = Examples(torch.randn(5, 4, generator=G, dtype=D), torch.arange(5) % 3)


def test_representer_points_add_up_to_the_output_of_a_trained_last_layer():
    risk = minimise(Risk(mlp([4, 6, 3], "tanh", dtype=D), TRAIN, l2=0.1, parameters="last"))
    for c in range(3):
        scores = representer_points(risk, TEST, output=c)
        torch.testing.assert_close(scores.sum(1), risk.outputs(TEST)[:, c], rtol=1e-7, atol=1e-8)
    away = risk.at(risk.theta + 0.3)
    assert (representer_points(away, TEST, output=0).sum(1) - away.outputs(TEST)[:, 0]).abs().max() > 0.1
    with pytest.raises(ValueError, match="l2 > 0"):
        representer_points(Risk(logistic(4, 3, dtype=D), TRAIN), TEST, output=0)


def test_cosines_are_cosines():
    risk = Risk(mlp([4, 6, 3], "tanh", dtype=D), TRAIN)
    left, right = risk.loss_gradients(TEST), risk.loss_gradients()
    expected = -torch.nn.functional.cosine_similarity(left[:, None], right[None], dim=-1)
    torch.testing.assert_close(gradient_cosine(risk, TEST), expected, rtol=1e-10, atol=1e-12)
    own = gradient_cosine(risk, TRAIN).diagonal()
    torch.testing.assert_close(own, -torch.ones(12, dtype=D))


def test_a_vanished_gradient_is_near_nothing():
    train = Examples(torch.zeros(2, 1, dtype=D), torch.zeros(2, 1, dtype=D))
    risk = Risk(torch.nn.Linear(1, 1, bias=False, dtype=D), train, loss="squared_error")
    assert (gradient_cosine(risk, train) == 0).all()


def test_chance_is_reproducible():
    assert torch.equal(random_scores(2, 3, seed=4), random_scores(2, 3, seed=4))
    assert not torch.equal(random_scores(2, 3, seed=4), random_scores(2, 3, seed=5))
    drawn = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=D)
    assert torch.equal(random_scores(2, 3), drawn)
    for sizes, name in (((0, 3), "t=0"), ((2, 0), "n=0")):
        with pytest.raises(ValueError, match=name):
            random_scores(*sizes)
    assert random_scores(1, 1).shape == (1, 1)
    with pytest.raises(ValueError, match="seed=-1"):
        random_scores(2, 3, seed=-1)


def test_a_last_layer_with_something_after_it_gives_no_output():
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh()).double()
    risk = Risk(model, TRAIN, l2=0.1)
    for points in (representer_points, surrogate_points):
        with pytest.raises(ValueError, match="something follows the last nn.Linear '0'.*kind='ntk'.*output=1"):
            points(risk, TEST, output=1)
