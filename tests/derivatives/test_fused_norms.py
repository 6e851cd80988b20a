"""The fused BatchNorm: its first two derivatives are those of plain operations, and the third is refused."""

import pytest
import torch
from torch.func import grad, vmap

from explainlib.derivatives import second_order_norms
from explainlib.derivatives.fused_norms import fused_batch_norm
from explainlib.derivatives.norms import batch_norm
from tests.problems import normal

SHAPES = [(5, 3), (4, 3, 2), (3, 2, 2, 3)]


def inputs(shape):
    parts = normal(*shape), 0.5 + normal(shape[1], seed=1).abs(), normal(shape[1], seed=2)
    return [part.requires_grad_() for part in parts]


@pytest.mark.parametrize("shape", SHAPES)
def test_two_derivatives_are_those_of_differences(shape):
    given = inputs(shape)
    assert torch.autograd.gradcheck(lambda *parts: fused_batch_norm(*parts, 1e-3), given)
    assert torch.autograd.gradgradcheck(lambda *parts: fused_batch_norm(*parts, 1e-3), given)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("affine", [True, False])
def test_a_hessian_product_is_that_of_plain_operations(shape, affine):
    x, w, b = inputs(shape)
    w, b = (w, b) if affine else (None, None)
    v = normal(*shape, seed=3)

    def product(norm):
        value = norm(x.sin(), w, b, 1e-3).exp().sum()
        (first,) = torch.autograd.grad(value, x, create_graph=True)
        return first, torch.autograd.grad(first, x, v)[0]

    for ours, theirs in zip(product(fused_batch_norm), product(batch_norm), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_the_context_decides_and_maps():
    x, w, b = (part.detach() for part in inputs((5, 3)))
    scales = normal(4, seed=5)

    def first(scale):
        return grad(lambda z: (scale * batch_norm(z, w, b, 1e-3).exp()).sum())(x)

    plain = vmap(first)(scales)
    with second_order_norms():
        torch.testing.assert_close(vmap(first)(scales), plain, rtol=1e-10, atol=1e-12)
        assert "_BatchNorm" in str(batch_norm(x.requires_grad_(), w, b, 1e-3).grad_fn)


def test_a_third_derivative_is_an_error():
    x, w, b = inputs((5, 3))
    (first,) = torch.autograd.grad(fused_batch_norm(x, w, b, 1e-3).exp().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no third derivative; leave second_order_norms"):
        torch.autograd.grad(second.sum(), x)
