"""The fused Gram's own rules, with a kernel that autograd cannot look into: all agree with plain differentiation.

The kernel is replaced by one that computes in numpy, so that a rule left out shows as an error or a wrong number. The
Triton kernel itself goes through the same rules in ``test_triton``.
"""

import numpy as np
import pytest
import torch
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

from explainlib.kernels import gram, gram_triton, layer_gram, transforms
from tests.kernels.factors import SHAPES, factors, summed

calls = []


def opaque(a_i, g_i, a_j, g_j, *, symmetric, precision):
    """The batched Gram in numpy. A dual or mapped tensor would not convert."""
    calls.append(symmetric)
    if symmetric:
        assert torch.equal(a_i, a_j) and torch.equal(g_i, g_j), "told to leave half of it out, with unequal sides"
    arrays = [x.detach().numpy() for x in (a_i, a_j, g_i, g_j)]
    return torch.from_numpy(np.einsum("bipd,bjqd,bipo,bjqo->bij", *arrays))


@pytest.fixture(autouse=True)
def kernel(monkeypatch):
    """Send everything through the kernel's rules, and see that it was called."""
    monkeypatch.setattr(gram_triton, "launch", opaque)
    monkeypatch.setattr(gram, "runs_on_triton", lambda x, positions: True)
    calls.clear()
    yield
    assert calls, "the kernel was never asked"


def same(got, want):
    got, want = (x if isinstance(x, tuple) else (x,) for x in (got, want))
    assert all(x.abs().sum() > 0 for x in want), "a comparison with nothing"
    assert all(torch.allclose(x, y, rtol=1e-12, atol=1e-12) for x, y in zip(got, want, strict=True))


def nonlinear_scalar(function):
    """A scalar with every derivative: the Gram is linear in each argument, its square root's like is not."""
    return lambda *given: torch.sin(0.3 * function(*given)).sum()


ALL = (0, 1, 2, 3)


@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_first_derivatives(shape):
    given = factors(*shape)
    tangents = tuple(factors(*shape, seed=7))
    same(layer_gram(*given), summed(*given))
    same(grad(nonlinear_scalar(layer_gram), ALL)(*given), grad(nonlinear_scalar(summed), ALL)(*given))
    same(jvp(layer_gram, tuple(given), tangents), jvp(summed, tuple(given), tangents))
    same(jacrev(layer_gram, ALL)(*given), jacrev(summed, ALL)(*given))
    same(jacfwd(layer_gram, ALL)(*given), jacfwd(summed, ALL)(*given))


@pytest.mark.parametrize("argument", ALL)
def test_a_tangent_in_one_argument_alone_is_not_lost(argument):
    given = factors(3, 2, 4, 5, 2, 3)
    only = lambda f: lambda x: f(*given[:argument], x, *given[argument + 1 :])  # noqa: E731
    tangent = torch.ones_like(given[argument])
    same(jvp(only(layer_gram), (given[argument],), (tangent,)), jvp(only(summed), (given[argument],), (tangent,)))
    same(
        grad(nonlinear_scalar(only(layer_gram)))(given[argument]), grad(nonlinear_scalar(only(summed)))(given[argument])
    )


def test_second_derivatives_in_any_order():
    given = factors(2, 2, 2, 3, 2, 1)
    for argument in ALL:
        for twice in (hessian, lambda f, k: jacrev(jacrev(f, k), k), lambda f, k: jacfwd(jacfwd(f, k), k),
                      lambda f, k: jacrev(jacfwd(f, k), k)):  # fmt: skip
            same(
                twice(nonlinear_scalar(layer_gram), argument)(*given), twice(nonlinear_scalar(summed), argument)(*given)
            )
    mixed = lambda f: jacfwd(jacrev(f, 0), 3)(*given)  # noqa: E731
    same(mixed(nonlinear_scalar(layer_gram)), mixed(nonlinear_scalar(summed)))


def test_two_forward_modes_of_two_factors_take_the_plain_route():
    """There torch loses the tangents of what a custom function saved; the kernel's own rule would be wrong."""
    a, g = factors(3, 2, 4, 5, 2, 3)[:2]
    both = lambda f: lambda x: nonlinear_scalar(f)(x, g, x, g)  # noqa: E731
    want = jacfwd(jacfwd(both(summed)))(a)
    rule = lambda *x: transforms.FusedGram.apply(*(each[None] for each in x), False, "ieee")[0]  # noqa: E731
    assert (jacfwd(jacfwd(both(rule)))(a) - want).abs().max() > 0.1 * want.abs().max()
    same(jacfwd(jacfwd(both(layer_gram)))(a), want)


def test_zeros_that_forward_mode_keeps_without_memory():
    """The tangent of a factor that forward mode did not touch; nested in another one, the plain route is taken."""
    given, at = factors(2, 2, 2, 3, 2, 1), torch.tensor(0.7, dtype=torch.float64)
    scaled = lambda f: lambda c: nonlinear_scalar(f)(c * given[0], given[1], *given[2:])  # noqa: E731
    same(jacfwd(scaled(layer_gram))(at), jacfwd(scaled(summed))(at))
    asked = len(calls)
    same(jacfwd(jacfwd(scaled(layer_gram)))(at), jacfwd(jacfwd(scaled(summed)))(at))
    assert asked and len(calls) == asked


@pytest.mark.parametrize("both", [False, True])
def test_the_same_tensor_on_both_sides(both):
    """Half the tiles may be left out in the value, never in a tangent."""
    a, g = factors(3, 2, 4, 5, 2, 3)[:2]
    itself = lambda f: lambda x: f(x, g, x, g) if not both else f(x, x, x, x)  # noqa: E731
    same(itself(layer_gram)(a), itself(summed)(a))
    assert calls == [True]
    same(jvp(itself(layer_gram), (a,), (a + 1,)), jvp(itself(summed), (a,), (a + 1,)))
    same(grad(nonlinear_scalar(itself(layer_gram)))(a), grad(nonlinear_scalar(itself(summed)))(a))
    same(hessian(nonlinear_scalar(itself(layer_gram)))(a), hessian(nonlinear_scalar(itself(summed)))(a))
    stack = torch.stack([a, 2 * a, a - 1])
    same(vmap(itself(layer_gram))(stack), vmap(itself(summed))(stack))


DIMS = [
    (0, None, None, None),
    (1, 0, None, None),
    (None, None, 2, 0),
    (None, None, None, 3),
    (0, 1, 2, 3),
    (0, None, None, 0),
]


@pytest.mark.parametrize("dims", DIMS)
def test_mapped_over(dims):
    """One side alone becomes more examples, both become more batches; one launch each."""
    given = factors(3, 2, 4, 5, 2, 3)
    stacks = [x if k is None else torch.stack([x, -2 * x, x + 1], k) for x, k in zip(given, dims, strict=True)]
    same(vmap(layer_gram, dims)(*stacks), vmap(summed, dims)(*stacks))
    assert len(calls) == 1
    slope = lambda f: vmap(grad(nonlinear_scalar(f), ALL), dims)(*stacks)  # noqa: E731
    same(slope(layer_gram), slope(summed))
    tangents = tuple(0.5 * x for x in given)
    push = lambda f: lambda *x: jvp(f, x, tangents)[1]  # noqa: E731
    same(vmap(push(layer_gram), dims)(*stacks), vmap(push(summed), dims)(*stacks))


def test_mapped_twice():
    given = factors(3, 2, 4, 5, 2, 3)
    stacks = [x.expand(2, 3, *x.shape) * torch.arange(1.0, 7.0).view(2, 3, 1, 1, 1) for x in given]
    same(vmap(vmap(layer_gram))(*stacks), vmap(vmap(summed))(*stacks))

    def crossed(f):
        rows = vmap(vmap(f, (0, 0, None, None)), (None, None, 0, 0))
        return rows(*(x[0] for x in stacks[:2]), *(x[:, 0] for x in stacks[2:]))

    same(crossed(layer_gram), crossed(summed))


def test_plain_autograd_both_ways():
    given = [x.requires_grad_() for x in factors(2, 3, 2, 1, 2, 2)]
    assert torch.autograd.gradcheck(layer_gram, given, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(layer_gram, given, check_fwd_over_rev=True)


def test_only_what_is_asked_for_is_computed(monkeypatch):
    asked = []
    plain = transforms.factor_cotangent
    monkeypatch.setattr(transforms, "factor_cotangent", lambda *x: asked.append(1) or plain(*x))
    given = factors(2, 3, 2, 1, 2, 2)
    given[1].requires_grad_()
    layer_gram(*given).sum().backward()
    assert len(asked) == 1 and given[0].grad is None and given[1].grad.abs().sum() > 0
