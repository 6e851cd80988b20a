"""The tangent kernel of a CNN in float32 against float64, where one example is unlike the sample that bases come from."""

import copy

import pytest
import torch
from torch import nn

import explainlib as xl
from explainlib.layerwise.outer_products import compression

N, ROW = 300, 77
SAMPLE = torch.linspace(0, N - 1, 64).long()


def images(factor):
    """Digits, one of them times a factor."""
    x = nn.functional.interpolate(
        xl.datasets.load("digits").train.x[:N].view(-1, 1, 8, 8).float(), size=14, mode="bilinear"
    )
    x[ROW] *= factor
    return x


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("factor", [30, -30, 1e-3])
def test_every_entry_is_right_to_float32(monkeypatch, factor, compress):
    """A negative image activates other filters of the ReLU layers than all others do."""
    checks, within = [], compression._within_tolerance
    monkeypatch.setattr(compression, "_within_tolerance", lambda *args: checks.append(1) or within(*args))
    monkeypatch.setattr(compression, "_saves_time", lambda left, right: compress and left[1].dtype == torch.float32)
    monkeypatch.setattr(compression, "SAMPLE", len(SAMPLE))
    assert ROW not in SAMPLE
    x, net = images(factor), xl.models.cnn3(1, 10)
    got = xl.representers.kernel(net, x, x, output=0).double()
    want = xl.representers.kernel(copy.deepcopy(net).double(), x.double(), x.double(), output=0)
    lengths = want.diagonal().sqrt()
    assert ((got.diagonal() - want.diagonal()) / want.diagonal()).abs().max() < 3e-6
    assert ((got - want).abs() / lengths / lengths[:, None]).max() < 3e-6
    assert bool(checks) == compress
