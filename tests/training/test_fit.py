"""Ordinary training against a loop written by hand, and what it leaves behind."""

import copy

import pytest
import torch
from torch import nn

import explainlib as xl
from explainlib.training import Trajectory, fit
from tests.problems import classes, images, targets


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def small():
    return xl.models.mlp([3, 4, 3], "tanh", dtype=torch.float64)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize(("weight_decay", "batch_size"), [(0.0, None), (0.1, 5)])
def test_it_is_the_loop_one_would_write(optimizer, weight_decay, batch_size):
    train = classes(12)
    got = fit(
        small(), train, epochs=3, lr=0.05, optimizer=optimizer, weight_decay=weight_decay, batch_size=batch_size, seed=4
    )
    model = small()
    stepper = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer](model.parameters(), lr=0.05)
    assert len(got.batches) == (3 if batch_size is None else 9)
    for batch in got.batches:
        stepper.zero_grad()
        loss = nn.functional.cross_entropy(model(train.x[batch]), train.y[batch])
        (loss + weight_decay / 2 * sum(p.square().sum() for p in model.parameters())).backward()
        stepper.step()
    assert torch.allclose(flat(got.model), flat(model), atol=1e-12)


def test_full_batch_sgd_descends_the_risk_with_the_same_l2():
    train = targets(10, d=3)
    model = nn.Linear(3, 1).double()
    risk = xl.Risk(model, train, loss="squared_error", l2=0.2)
    got = fit(model, train, epochs=1, loss="squared_error", lr=0.1, optimizer="sgd", weight_decay=0.2)
    assert torch.allclose(flat(got.model), risk.theta - 0.1 * risk.gradient(), atol=1e-14)


def test_every_epoch_takes_every_example_once():
    got = fit(small(), classes(12), epochs=3, batch_size=5)
    for epoch in range(3):
        seen = torch.cat(got.batches[3 * epoch : 3 * epoch + 3])
        assert sorted(seen.tolist()) == list(range(12))
    assert got.batches[0].tolist() != got.batches[3].tolist()
    assert len(got.losses) == 3 and got.losses[-1] < got.losses[0]


def test_leaving_examples_out_keeps_every_batch_but_them():
    train, gone = classes(12), [0, 4, 7]
    options = {"epochs": 3, "lr": 0.05, "optimizer": "sgd", "batch_size": 5, "seed": 4}
    whole, got = fit(small(), train, **options), fit(small(), train, without=gone, record=True, **options)
    assert [b.tolist() for b in got.batches] == [[i for i in b.tolist() if i not in gone] for b in whole.batches]
    model = small()
    stepper = torch.optim.SGD(model.parameters(), lr=0.05)
    for batch in got.batches:
        stepper.zero_grad()
        nn.functional.cross_entropy(model(train.x[batch]), train.y[batch]).backward()
        stepper.step()
    assert torch.allclose(flat(got.model), flat(model), atol=1e-12)
    assert got.importance[gone].abs().max() == 0 and got.importance[[1, 2]].abs().min() > 0


def test_a_batch_without_anybody_makes_no_step():
    options = {"epochs": 1, "lr": 0.05, "optimizer": "sgd", "batch_size": 1, "checkpoints": 4}
    train = classes(3)
    got = fit(small(), train, without=[1], **options)
    assert len(got.batches) == 2 and len(got.checkpoints) == 4


def test_the_seed_decides_and_nothing_else():
    class Dropping(nn.Sequential):
        pass

    model = Dropping(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    torch.manual_seed(1)
    first = fit(model, classes(12), epochs=2, batch_size=4, seed=3)
    torch.manual_seed(2)
    again = fit(model, classes(12), epochs=2, batch_size=4, seed=3)
    other = fit(model, classes(12), epochs=2, batch_size=4, seed=5)
    assert torch.equal(flat(first.model), flat(again.model)) and not torch.equal(flat(first.model), flat(other.model))


def test_the_callers_model_and_generators_stay():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8, 3)
    ).double()
    model.train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    got = fit(model, images(), epochs=3, batch_size=5, swa=1)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training and not got.model.training and all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("count", [0, 2, 3, 7])
def test_checkpoints_are_that_many_with_first_and_last(count):
    got = fit(small(), classes(12), epochs=3, batch_size=4, checkpoints=count, lr=0.02)  # nine steps
    assert got.checkpoints.shape == (count, 31) and got.learning_rates.tolist() == [0.02] * count
    if count:
        assert torch.equal(got.checkpoints[0], flat(small())) and torch.equal(got.checkpoints[-1], flat(got.model))
    if count == 3:
        assert not torch.equal(got.checkpoints[1], got.checkpoints[0])


def test_swa_is_the_mean_of_the_epoch_ends():
    got = fit(small(), classes(12), epochs=4, batch_size=4, checkpoints=13, swa=2, lr=0.05)  # every step is kept
    ends = got.checkpoints[[9, 12]]
    assert torch.allclose(flat(got.model), ends.mean(0), atol=1e-14)


def test_swa_refreshes_batch_statistics():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    got = fit(model, images(), epochs=3, swa=1, lr=0.1)
    seen = got.model[1](images().x.flatten(1))
    assert torch.allclose(got.model[2].running_mean, seen.mean(0), atol=1e-12)


def test_float32_and_frozen_parameters():
    model = xl.models.mlp([3, 4, 3])
    model.linear1.requires_grad_(False)
    got = fit(model, classes(12).to(torch.float32), epochs=2, lr=0.1)
    assert torch.equal(got.model.linear1.weight, model.linear1.weight)
    assert not torch.equal(got.model.linear2.weight, model.linear2.weight)


def test_a_loss_that_explodes_stops():
    with pytest.raises(ValueError, match="epoch .*lower lr"):
        fit(nn.Linear(4, 1).double(), targets(10), epochs=500, loss="squared_error", lr=1e6, optimizer="sgd")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"epochs": 0}, "epochs"), ({"lr": 0.0}, "lr"), ({"lr": -1.0}, "lr"), ({"weight_decay": -0.1}, "weight_decay"),
        ({"batch_size": 13}, "batch_size=13.*12"), ({"batch_size": 0}, "batch_size"), ({"swa": 2}, "swa=2"),
        ({"checkpoints": 1}, "checkpoints=1"), ({"checkpoints": 9}, "checkpoints=9.*2 steps"),
        ({"optimizer": "lbfgs"}, "optimizer.*'adam', 'sgd'"), ({"loss": "hinge"}, "loss"),
        ({"record": True}, "plain gradient descent"),
    ],
)  # fmt: skip
def test_bad_options(options, match):
    with pytest.raises(ValueError, match=match):
        fit(small(), classes(12), **{"epochs": 2, **options})


def test_somebody_elses_checkpoints():
    model = small()
    got = Trajectory(model, torch.zeros(2, 31), torch.ones(2))
    assert got.batches == ()
    with pytest.raises(ValueError, match=r"\[2, 30\], expected \[c, 31\]"):
        Trajectory(model, torch.zeros(2, 30), torch.ones(2))
