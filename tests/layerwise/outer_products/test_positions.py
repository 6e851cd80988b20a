"""The two routes of the position Gram agree with the sum they stand for, and the cheaper one is taken."""

import pytest
import torch

from explainlib.layerwise import position_gram
from explainlib.layerwise.outer_products.materialised import materialised_gram
from explainlib.layerwise.outer_products.positions import materialising_is_cheaper, product_gram
from tests.problems import normal


@pytest.mark.parametrize("memory", [1, 900, 2**20])
@pytest.mark.parametrize("route", [position_gram, product_gram, materialised_gram])
@pytest.mark.parametrize("n, m, P, Q, d, o", [(5, 7, 3, 2, 4, 6), (4, 3, 1, 1, 5, 2), (1, 6, 4, 4, 1, 1)])
def test_routes(route, n, m, P, Q, d, o, memory):
    a, g, a_, g_ = normal(n, P, d), normal(n, P, o, seed=1), normal(m, Q, d, seed=2), normal(m, Q, o, seed=3)
    want = torch.einsum("ipd,jqd,ipo,jqo->ij", a, a_, g, g_)
    assert torch.allclose(route(a, g, a_, g_, memory=memory), want, rtol=0, atol=1e-12)
    itself = route(a, g, a, g, memory=memory)
    assert torch.allclose(itself, torch.einsum("ipd,jqd,ipo,jqo->ij", a, a, g, g), rtol=0, atol=1e-12)
    assert torch.equal(itself, itself.T)


def test_symmetry_over_several_blocks():
    a, g = normal(1500, 2, 3), normal(1500, 2, 2, seed=1)
    want = torch.einsum("ipd,ipo->ido", a, g).flatten(1)
    for route in (product_gram, materialised_gram):
        assert torch.allclose(route(a, g, a, g), want @ want.T, rtol=0, atol=1e-11)


def test_the_cheaper_route():
    assert materialising_is_cheaper(5000, 5000, 196, 196, 9, 32)  # a small filter at many places
    assert not materialising_is_cheaper(5000, 5000, 1, 1, 1568, 56)  # a linear layer
    assert not materialising_is_cheaper(3, 3, 2, 2, 500, 500)
    assert not materialising_is_cheaper(
        1000, 1, 50, 1, 30, 30
    )  # many gradients to form on one side, for one product each
    assert not materialising_is_cheaper(1, 1000, 1, 50, 30, 30)


def test_the_fused_kernel_takes_over_when_it_is_told_to(monkeypatch):
    """Products of positions go through one dispatch; what would cost less by materialising gradients does not."""
    import explainlib.kernels as kernels

    taken = []

    def seen(*factors):
        taken.append(1)
        return kernels.reference.layer_gram(*factors)

    monkeypatch.setattr(kernels, "runs_on_triton", lambda x, positions: True)
    monkeypatch.setattr(kernels, "layer_gram", seen)
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(3, 2, 50, generator=g, dtype=torch.float64) for _ in range(2))
    torch.testing.assert_close(position_gram(a, b, a, b), torch.einsum("ipd,jqd,ipo,jqo->ij", a, a, b, b))
    assert taken == [1]
    wide = torch.randn(3, 40, 1, generator=g, dtype=torch.float64)
    position_gram(wide, wide, wide, wide)
    assert taken == [1]


def test_no_kernel_is_asked_where_it_cannot_run(monkeypatch):
    """On a CPU, products of positions keep to their memory: nothing goes through the kernels' dispatch."""
    monkeypatch.setattr("explainlib.kernels.layer_gram", None)
    g = torch.Generator().manual_seed(0)
    a = torch.randn(3, 2, 50, generator=g, dtype=torch.float64)
    torch.testing.assert_close(position_gram(a, a, a, a), torch.einsum("ipd,jqd,ipo,jqo->ij", a, a, a, a))
