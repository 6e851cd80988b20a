"""``vmap`` with a loop where torch has no batching rule."""

import warnings

import pytest
import torch
from torch import nn
from torch.func import grad

import explainlib as xl
from explainlib.datasets import Examples
from explainlib.derivatives.batching import LoopWarning, vmap

DOUBLE = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def masked(x, y):
    return x[x > 0].sum() * y, {"sum": x.sum()}  # a Boolean mask has no batching rule


def test_a_loop_gives_what_vmap_would():
    x, y = normal(4, 3), normal(4)
    with pytest.warns(LoopWarning, match="one by one"):
        got, beside = vmap(masked)(x, y)
    torch.testing.assert_close(got, x.clamp(min=0).sum(1) * y)
    torch.testing.assert_close(beside["sum"], x.sum(1))
    with pytest.warns(LoopWarning):
        got, _ = vmap(masked, (0, None), chunk_size=2)(x, y[0])
    torch.testing.assert_close(got, x.clamp(min=0).sum(1) * y[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(vmap(lambda a: a.sin().sum())(x), x.sin().sum(1))


def test_what_is_wrong_otherwise_is_raised():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        vmap(lambda a: a @ torch.ones(5, 2, dtype=DOUBLE))(normal(4, 3))
    with pytest.raises(ValueError, match="ours"):
        vmap(lambda a: (_ for _ in ()).throw(ValueError("ours")))(normal(4, 3))


class Last(nn.Module):
    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.r, self.o = kind(3, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.o(self.r(x)[0][:, -1])


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.o = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, x):
        h = torch.tanh(self.a(x))
        return self.o(torch.stack([row[kept].mean(0) for row, kept in zip(h, x[..., 0] > -9, strict=True)]))


@pytest.mark.parametrize(
    "make",
    [lambda: Last(nn.LSTM), lambda: Last(nn.GRU), lambda: Last(nn.RNN), Masked],
    ids=["lstm", "gru", "rnn", "mask"],
)
@pytest.mark.filterwarnings("ignore::explainlib.derivatives.batching.LoopWarning")
def test_recurrent_nets_and_masks(make):
    e = Examples(normal(6, 5, 3), torch.arange(6) % 3)
    risk = xl.Risk(make().double(), e, l2=0.1)
    want = torch.stack([grad(risk._loss_of_one)(risk.theta, x, y) for x, y in zip(e.x, e.y, strict=True)])
    torch.testing.assert_close(risk.loss_gradients(), want)
    solved = xl.training.minimise(risk, tolerance=1e-7)
    assert solved.gradient().norm() < 1e-7
    H = xl.curvature.hessian(solved)
    u = normal(risk.p)
    across = (solved.at(solved.theta + 1e-5 * u).gradient() - solved.at(solved.theta - 1e-5 * u).gradient()) / 2e-5
    torch.testing.assert_close(H @ u, across, rtol=1e-5, atol=1e-7)
    G = solved.loss_gradients()
    want = -G @ torch.linalg.solve(H + 0.5 * torch.eye(risk.p, dtype=DOUBLE), G.T)
    torch.testing.assert_close(xl.influence.loss_influence(solved, e, damping=0.5), want)
    moved = xl.influence.removal_effect(solved, [[0], [1, 2]], order=2, weighting="plain", damping=0.5)
    assert torch.isfinite(moved.change).all() and moved.loss_change(e).shape == (6, 2)
    tasks = xl.datasets.Tasks(*(t for _ in "sq" for t in (normal(2, 6, 5, 3), (torch.arange(6) % 3).expand(2, -1))))
    learner = xl.meta.Maml(make().double(), inner_lr=0.1)
    across = (learner.losses(learner.w0 + 1e-5 * u, tasks) - learner.losses(learner.w0 - 1e-5 * u, tasks)) / 2e-5
    torch.testing.assert_close(learner.gradients(learner.w0, tasks) @ u, across, rtol=1e-5, atol=1e-8)
