"""Normalisation layers: the same values as torch's, and third derivatives that finite differences confirm."""

import copy

import pytest
import torch
from torch import nn
from torch.func import grad, jacrev

from explainlib.norms import BatchStatistics

DOUBLE = torch.float64
LAYERS = {
    "batch": (lambda: nn.BatchNorm1d(3, track_running_stats=False, dtype=DOUBLE), (5, 3)),
    "batch without weights": (lambda: nn.BatchNorm1d(3, affine=False, dtype=DOUBLE), (5, 3)),
    "batch of images": (lambda: nn.BatchNorm2d(2, track_running_stats=False, dtype=DOUBLE), (3, 2, 2, 2)),
    "layer": (lambda: nn.LayerNorm(4, dtype=DOUBLE), (2, 4)),
    "layer over two": (lambda: nn.LayerNorm((2, 3), bias=False, dtype=DOUBLE), (2, 2, 3)),
    "group": (lambda: nn.GroupNorm(2, 4, dtype=DOUBLE), (2, 4, 2)),
    "group without weights": (lambda: nn.GroupNorm(2, 4, affine=False, dtype=DOUBLE), (2, 4)),
}


def made(name):
    make, shape = LAYERS[name]
    layer, g = make(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=g, dtype=DOUBLE))
    exact = make_differentiable(copy.deepcopy(layer), batch_statistics=True)
    return layer, exact, torch.randn(shape, generator=g, dtype=DOUBLE), torch.randn(shape, generator=g, dtype=DOUBLE)


def third(layer, x, c):
    """The second derivative at a few places moved along one direction: by autograd, and by differences."""
    pick = torch.arange(3)
    base = x.flatten()

    def curve(part):
        moved = base.index_add(0, pick, part - base[pick]).view(x.shape)
        return (torch.tanh(layer(moved)) * c).sum()

    second = jacrev(grad(curve))
    at, h = base[pick].clone(), 1e-4
    eye = torch.eye(3, dtype=DOUBLE) * h
    differences = torch.stack([(second(at + e) - second(at - e)) / (2 * h) for e in eye], dim=-1)
    return jacrev(second)(at), differences


@pytest.mark.parametrize("name", LAYERS)
def test_values_are_torchs_own(name):
    layer, exact, x, _ = made(name)
    torch.testing.assert_close(exact(x), layer(x), rtol=1e-12, atol=1e-13)
    assert [n for n, _ in exact.named_parameters()] == [n for n, _ in layer.named_parameters()]


@pytest.mark.parametrize("name", LAYERS)
def test_third_derivatives_are_right(name):
    _, exact, x, c = made(name)
    found, differences = third(exact, x, c)
    assert (found - differences).abs().max() < 1e-6 * differences.abs().max()


@pytest.mark.parametrize("name", ["batch", "layer"])
def test_why_they_are_written_out(name):
    """torch's fused layers are wrong at the third derivative; when this fails, torch has mended them or refuses."""
    layer, _, x, c = made(name)
    found, differences = third(layer, x, c)
    assert (found - differences).abs().max() > 0.05 * differences.abs().max()


def test_evaluation_batch_norm_stays_and_wrong_shapes_are_told():
    layer = nn.BatchNorm1d(3).eval()
    assert type(make_differentiable(nn.Sequential(layer))[0]) is nn.BatchNorm1d
    with pytest.raises(ValueError, match="3 features"):
        make_differentiable(nn.BatchNorm1d(3), batch_statistics=True)(torch.ones(2, 4))
    assert type(make_differentiable(nn.BatchNorm1d(3), batch_statistics=True)) is BatchStatistics
