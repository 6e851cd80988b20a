"""Models that keep what they see, work under no_grad, or bound their rows: the right number, or a sentence that is true."""

import copy

import pytest
import torch
from torch import nn

import explainlib as xl
from explainlib.datasets import Examples
from tests.gate.nets import Recurrent
from tests.problems import classes, normal, relative_error


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().double().eval()


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_forgets_the_parameters_it_was_called_with(kind):
    """It keeps references to its weights; those of a mapped call cannot be copied afterwards."""
    risk = xl.Risk(seeded(lambda: Recurrent(kind, 2)), Examples(normal(6, 4, 3), torch.arange(6) % 3), l2=0.5)
    risk.loss_gradients()
    kept = risk.parameters.module.cell._flat_weights
    assert all(a is b for a, b in zip(kept, risk.parameters.module.cell.parameters(), strict=True))
    copy.deepcopy(risk.parameters.module)
    removed = xl.influence.removal_effect(risk, [[0, 3]], order=2, third_derivative=True)
    assert torch.isfinite(removed.theta).all()


class Held(nn.Module):
    """One layer's output is a constant, with or without something after it in the block."""

    def __init__(self, bare: bool) -> None:
        super().__init__()
        self.bare, self.held, self.read = bare, nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, x):
        with torch.no_grad():
            h = self.held(x) if self.bare else self.held(x).tanh()
        return self.read(h * x.sum(1, keepdim=True))


@pytest.mark.parametrize("bare", [True, False])
def test_layers_under_no_grad_have_no_gradient(bare):
    net, data = seeded(lambda: Held(bare)), classes(6)
    found = xl.representers.kernel(net, data.x, data.x, kind="ntk")
    rows = []
    for c in range(3):
        grads = [torch.autograd.grad(net(x[None])[0, c], [*net.read.parameters()]) for x in data.x]
        rows.append(torch.stack([torch.cat([g.flatten() for g in each]) for each in grads]))
    assert relative_error(found, sum(row @ row.T for row in rows)) < 1e-12


class Bounded(nn.Module):
    def __init__(self, max_norm: float) -> None:
        super().__init__()
        self.table, self.read = nn.Embedding(5, 2, max_norm=max_norm), nn.Linear(2, 3)

    def forward(self, x):
        return self.read(self.table(x).mean(1).tanh())


def test_rows_at_their_max_norm_are_named():
    x = torch.randint(0, 5, (6, 4), generator=torch.Generator().manual_seed(0))
    data = Examples(x, torch.arange(6) % 3)
    risk = xl.Risk(seeded(lambda: Bounded(0.1)), data)
    with pytest.raises(ValueError, match="'table' .* as long as its max_norm .* set max_norm=None"):
        risk.loss_gradients()
    net = seeded(lambda: Bounded(0.1))
    net(x)  # shortens the rows
    net.table.max_norm = None
    assert torch.isfinite(xl.Risk(net, data).loss_gradients()).all()  # the remedy
    assert xl.Risk(seeded(lambda: Bounded(0.1)), data, parameters=["read.weight"]).loss_gradients().shape == (6, 6)
    assert torch.isfinite(xl.Risk(seeded(lambda: Bounded(50.0)), data).loss_gradients()).all()
