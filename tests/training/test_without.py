"""Networks trained without groups, in one batch, against the loop."""

import pytest
import torch
from torch import nn

from explainlib.datasets import Examples
from explainlib.models import cnn2, mlp
from explainlib.training import fit, fit_without

HOW = {"epochs": 3, "batch_size": 5, "lr": 0.2, "seed": 3}
GROUPS = [[0, 3, 4], [], [7], list(range(1, 17))]


def examples(*shape, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    return Examples(torch.randn(17, *shape, generator=g, dtype=dtype), torch.arange(17) % 3)


def loop(model, train, groups, **how):
    nets = [fit(model, train, optimizer="sgd", without=group, **how).model for group in groups]
    return torch.stack([torch.cat([p.detach().flatten() for p in net.parameters()]) for net in nets])


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_batch_equals_the_loop(weight_decay, dtype):
    model, train = cnn2(1, 3, seed=1).to(dtype), examples(1, 8, 8, dtype=dtype)
    how = {**HOW, "weight_decay": weight_decay}
    got, want = fit_without(model, train, GROUPS, **how), loop(model, train, GROUPS, **how)
    assert (got - want).abs().max() < 1e3 * torch.finfo(dtype).eps
    assert (want[0] - want[1]).abs().max() > 1e-3  # the groups make a difference


def test_more_networks_than_one_batch_and_full_batches(monkeypatch):
    monkeypatch.setattr("explainlib.training.without.TOGETHER", 3)
    model, train = mlp([4, 5, 3], "tanh", dtype=torch.float64), examples(4)
    how = {"epochs": 4, "lr": 0.1}
    groups = [[i] for i in range(7)]
    assert torch.allclose(fit_without(model, train, groups, **how), loop(model, train, groups, **how), atol=1e-12)


def test_a_batch_that_loses_all_its_examples_makes_no_step():
    model, train = mlp([4, 5, 3], "tanh", dtype=torch.float64), examples(4)
    how = {"epochs": 2, "batch_size": 1, "lr": 0.1, "weight_decay": 0.5}
    assert torch.allclose(fit_without(model, train, GROUPS, **how), loop(model, train, GROUPS, **how), atol=1e-12)


def test_the_start_is_not_changed():
    model, train = mlp([4, 5, 3], "tanh", dtype=torch.float64), examples(4)
    before = [p.clone() for p in model.parameters()]
    fit_without(model, train, GROUPS, **HOW)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("model", "groups", "options", "said"),
    [
        (nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 3)), [[0]], {}, "training mode"),
        (nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)), [[0]], {}, "training mode"),
        (nn.Linear(4, 3), [], {}, "groups is empty"),
        (nn.Linear(4, 3), [list(range(17))], {}, "names all 17"),
        (nn.Linear(4, 3), [[0, 0]], {}, "twice"),
        (nn.Linear(4, 3), [[99]], {}, "99"),
        (nn.Linear(4, 3), [[0]], {"lr": 1e9, "epochs": 60, "weight_decay": 1.0}, "lower lr"),
        (nn.Linear(4, 3), [[0]], {"batch_size": 40}, "batch_size=40"),
    ],
)
def test_bad_input(model, groups, options, said):
    with pytest.raises((ValueError, TypeError), match=said):
        fit_without(model.double(), examples(4), groups, **{**HOW, **options})
