"""Moments of Gaussian layers: the plain formula against sampling elsewhere, here the kernel's rules and the kernel."""

import pytest
import torch
from torch import nn
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

from explainlib.kernels import agreement, linear_moments, unfolded_moments
from explainlib.kernels.moments import layer, plain, program
from explainlib.models.moments import convolution_moments
from tests.kernels.builds import builds_neither_spill_nor_add_atomically, interpreted_comparisons_hold
from tests.kernels.test_triton import needs_triton
from tests.problems import normal

D = torch.float64


def operands(n=3, d=2, o=2, seed=0):
    """Return mean, variance, W, S, and mean and variance of the biases."""
    shapes = ((n, d), (n, d), (o, d), (o, d), (o,), (o,))
    drawn = [normal(*shape, seed=seed + k) for k, shape in enumerate(shapes)]
    return tuple(x.square() if k % 2 else x for k, x in enumerate(drawn))


def written_out(m, v, w, s, b, t):
    """Return both moments, output by output and input by input: E y and E y^2 - (E y)^2 of independent products."""
    means = torch.einsum("...nd,...od->...no", m, w) + b[..., None, :]
    second = torch.einsum("...nd,...od->...no", m.square() + v, w.square() + s)
    return torch.stack([means, second - torch.einsum("...nd,...od->...no", m.square(), w.square()) + t[..., None, :]])


def moments(m, v, w, s, b, t):
    return torch.stack(linear_moments(m, v, (w, s), (b, t)))


def same(got, want, tolerance=1e-11):
    got, want = (each if isinstance(each, tuple) else (each,) for each in (got, want))
    assert all(each.abs().sum() > 0 for each in want), "a comparison with nothing"
    for g, w in zip(got, want, strict=True):
        assert g.shape == w.shape and (g - w).abs().max() <= tolerance * w.abs().max()


@pytest.fixture
def kernel(monkeypatch):
    """Send everything through the kernel's rules, to a kernel that autograd cannot look into."""
    calls = []

    def opaque(mean, variance, weight, spread, bias, bias_spread, *, precision):
        calls.append(len(mean))
        given = [
            None if x is None else torch.from_numpy(x.detach().numpy().copy())  # a dual or mapped one would not convert
            for x in (mean, variance, weight, spread, bias, bias_spread)
        ]
        return plain.linear_moments(*given[:2], tuple(given[2:4]), None if bias is None else tuple(given[4:]))

    monkeypatch.setattr(program, "launch", opaque)
    monkeypatch.setattr(layer, "runs_on_triton", lambda x, positions: True)
    monkeypatch.setattr(agreement, "_agreed", {})
    moments(*operands())  # the trial
    calls.clear()
    yield calls
    assert calls, "the kernel was never asked"


def scalar(function):
    """A scalar with every derivative."""

    def value(*given):
        y = function(*given)
        return (torch.sin(0.3 * y) * torch.cos(torch.arange(y.numel(), dtype=D)).view(y.shape)).sum()

    return value


ALL = tuple(range(6))


@pytest.mark.parametrize("shape", [(3, 2, 2), (1, 4, 3), (5, 1, 1)])
def test_first_derivatives_of_the_kernel(kernel, shape):
    given, tangents = operands(*shape), operands(*shape, seed=9)
    same(moments(*given), written_out(*given))
    same(grad(scalar(moments), ALL)(*given), grad(scalar(written_out), ALL)(*given))
    same(jvp(moments, given, tangents), jvp(written_out, given, tangents))
    for k in ALL:
        only = lambda f, k=k: lambda x: f(*given[:k], x, *given[k + 1 :])  # noqa: E731
        same(jvp(only(moments), (given[k],), (tangents[k],)), jvp(only(written_out), (given[k],), (tangents[k],)))


def test_second_derivatives_of_the_kernel_in_any_order(kernel):
    given = operands()
    orders = [hessian, lambda f, k: jacrev(jacrev(f, k), k), lambda f, k: jacrev(jacfwd(f, k), (k + 2) % 6),
              lambda f, k: jacfwd(jacfwd(f, k), k)]  # fmt: skip
    for k in ALL:
        for twice in orders:
            same(twice(scalar(moments), k)(*given), twice(scalar(written_out), k)(*given))


@pytest.mark.parametrize("dims", [(0, 0, None, None, None, None), (None, None, 1, 1, 0, 0), (0, 0, 0, 0, 0, 0)])
def test_mapped_over(kernel, dims):
    given = operands()
    stacks = [x if k is None else torch.stack([x, 2 * x, x + 1], k) for x, k in zip(given, dims, strict=True)]
    same(vmap(moments, dims)(*stacks), vmap(written_out, dims)(*stacks))
    assert kernel == [3], "one launch for the whole map"
    same(vmap(grad(scalar(moments), ALL), dims)(*stacks), vmap(grad(scalar(written_out), ALL), dims)(*stacks))


def test_leading_dimensions_are_networks(kernel):
    """Inputs shared by all networks, parameters of each; and two leading dimensions."""
    m, v, *rest = operands()
    stacks = [torch.stack([x, 2 * x]) for x in rest]
    for given in ((m, v, *stacks), (m.expand(2, *m.shape), v, *stacks), (m, v, *(x[:, None] for x in stacks))):
        same(moments(*given), written_out(*given))
    known = linear_moments(m, None, (rest[0], rest[1]), None)
    same(torch.stack(known), written_out(m, 0 * v, *rest[:2], *(0 * x for x in rest[2:])))


def test_plain_autograd_both_ways(kernel):
    given = [x.requires_grad_() for x in operands()]
    assert torch.autograd.gradcheck(moments, given, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(moments, given, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("random", [True, False])
@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": (1, 2)}, {"dilation": (2, 1), "padding": 1}])
def test_an_unfolded_convolution_is_the_convolution(random, options):
    m, v = normal(2, 3, 6, 7, seed=1), normal(2, 3, 6, 7, seed=2).square() if random else None
    weight, bias = (normal(4, 3, 3, 2, seed=3), normal(4, 3, 3, 2, seed=4).square()), (normal(4), normal(4).square())
    want = convolution_moments(m, v, weight, bias, lambda x, w, b: nn.functional.conv2d(x, w, b, **options))
    same(unfolded_moments(m, v, weight, bias, **options), want)


def test_a_kernel_that_is_wrong_is_not_used(monkeypatch):
    monkeypatch.setattr(layer, "runs_on_triton", lambda x, positions: True)
    monkeypatch.setattr(agreement, "_agreed", {})
    wrong = lambda m, v, w, s, b, t, precision: plain.linear_moments(m, v, (w, 2 * s), (b, t))  # noqa: E731
    monkeypatch.setattr(program, "launch", wrong)
    with pytest.warns(UserWarning, match="for moments of Gaussian layers does not agree with plain PyTorch on cpu"):
        same(moments(*operands()), written_out(*operands()))


M, V, W, S, B, T = operands()
WRONG = {
    "two dtypes": ((M, V.float(), (W, S), (B, T)), TypeError, "variance has dtype torch.float32, mean torch.float64"),
    "another device": ((M, V, (W.to("meta"), S), None), ValueError, "weight is on meta, mean on cpu"),
    "a variance of other weights": ((M, V, (W, S[:1]), (B, T)), ValueError, r"a variance has shape \[1, 1, 2\]"),
    "another width": ((M, V, (W[:, :1], S[:, :1]), None), ValueError, r"pass \[n, d\], \[n, d\], \[o, d\] and \[o\]"),
    "other biases": ((M, V, (W, S), (B[:1], T[:1])), ValueError, r"pass \[n, d\], \[n, d\], \[o, d\] and \[o\]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_operands(name, monkeypatch):
    given, error, message = WRONG[name]
    monkeypatch.setattr(layer, "runs_on_triton", lambda x, positions: True)
    monkeypatch.setattr(layer, "_agrees", lambda x, precision: True)
    with pytest.raises(error, match=message):
        getattr(linear_moments, "__wrapped__", linear_moments)(*given)
    with pytest.raises(ValueError, match="precision='fast' is unknown"):
        linear_moments(M, V, (W, S), (B, T), precision="fast")


@needs_triton(interpreted=True)
def test_interpreted_kernel_on_ragged_layers(tmp_path):
    interpreted_comparisons_hold("moment_comparisons", 9, tmp_path)


@needs_triton(interpreted=False)
@pytest.mark.parametrize("sm", [80, 90, 100])
def test_no_build_spills_or_adds_atomically(tmp_path, sm):
    builds_neither_spill_nor_add_atomically("moments", "build_moments", sm, tmp_path)
