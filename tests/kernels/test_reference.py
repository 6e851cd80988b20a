"""The plain Gram is the sum it stands for, in any tiling; its cotangent is what autograd finds."""

import pytest
import torch

from explainlib.kernels import layer_gram, reference
from tests.kernels.factors import SHAPES, factors, summed


@pytest.mark.parametrize("memory", [1, 900, 2**20])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_sum(shape, memory):
    given = factors(*shape)
    assert torch.allclose(reference.layer_gram(*given, memory=memory), summed(*given), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_both_routes_of_the_cotangent(shape):
    a_i, g_i, a_j, g_j = (x.requires_grad_() for x in factors(*shape))
    v = torch.randn(shape[0], shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    want = torch.autograd.grad((v * summed(a_i, g_i, a_j, g_j)).sum(), (a_i, g_i, a_j, g_j))
    for memory in (1, 2**20):
        got = (
            reference.pulled_back(v, g_i, a_j, g_j, memory=memory),
            reference.pulled_back(v, a_i, g_j, a_j, memory=memory),
            reference.pulled_back(v.mT, g_j, a_i, g_i, memory=memory),
            reference.pulled_back(v.mT, a_j, g_i, a_i, memory=memory),
        )
        assert all(torch.allclose(x, y, rtol=0, atol=1e-12) for x, y in zip(got, want, strict=True))


def test_the_shapes_take_both_routes():
    """(n + m) o d numbers of formed gradients against n P m Q products."""
    assert {(n + m) * o * d <= n * P * m * Q for n, m, P, Q, d, o in SHAPES} == {True, False}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    """A thousand positions of one: half precision would stop growing."""
    ones = torch.ones(1, 60, 1, dtype=dtype)
    got = layer_gram(ones, ones, ones[:, :1], ones[:, :1])
    assert got.dtype == dtype and got.item() == 60
    given = [x.to(dtype) for x in factors(3, 4, 5, 2, 6, 3)]
    want = summed(*(x.double() for x in given))
    assert torch.allclose(layer_gram(*given).double(), want, rtol=torch.finfo(dtype).eps, atol=1e-5)


def test_dispatch_on_the_cpu_is_plain_and_differentiable():
    given = [x.requires_grad_() for x in factors(3, 2, 2, 2, 3, 2)]
    assert torch.autograd.gradcheck(layer_gram, given) and torch.autograd.gradgradcheck(layer_gram, given)
