"""Patches projected by a convolution against patches that are unfolded."""

import pytest
import torch
from torch import nn

from explainlib.layerwise.outer_products import Patches
from tests.problems import normal

LAYERS = {
    "plain": lambda: nn.Conv2d(3, 5, 3),
    "stride, padding": lambda: nn.Conv2d(3, 5, (3, 2), stride=(2, 1), padding=(1, 2)),
    "dilation": lambda: nn.Conv2d(3, 5, 2, dilation=(2, 3)),
    "same": lambda: nn.Conv2d(3, 5, 4, padding="same"),
    "circular": lambda: nn.Conv2d(3, 5, 3, padding=1, padding_mode="circular"),
    "one dimension": lambda: nn.Conv1d(3, 5, 3, padding=1),
    "one dimension, reflected": lambda: nn.Conv1d(3, 5, 4, padding="same", padding_mode="reflect"),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("part", [512, 4])
def test_a_projection_is_a_convolution(monkeypatch, name, part):
    monkeypatch.setattr("explainlib.layerwise.outer_products.patches.CHUNK", part)
    layer = LAYERS[name]().double()
    patches = Patches(layer, normal(9, 3, *((8, 7) if isinstance(layer, nn.Conv2d) else (8,))))
    whole = patches[:]
    assert patches.shape == whole.shape and len(patches) == 9 and patches.dtype == torch.float64
    Q = normal(whole.shape[2], 4, seed=1)
    torch.testing.assert_close(patches @ Q, whole @ Q, rtol=0, atol=1e-12)
    assert torch.equal(patches[torch.tensor([2, 5])], whole[[2, 5]])
    weight = layer.weight.detach().flatten(1).T  # the layer itself is such a projection
    torch.testing.assert_close((patches @ weight + layer.bias).mT, layer(patches.x).flatten(2).detach())
