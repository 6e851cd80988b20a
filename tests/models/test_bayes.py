"""Bayesian networks: moments against sampling, the divergence against torch.distributions, counts, and bad input.

What is exact (a linear map, a mean pooling) is held to 100,000 samples' own error; what is first order (ReLU, softmax,
the unit that a max pooling picks) has its error measured, and the number asserted from both sides.
"""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from explainlib.models.bayes import bayesian, bayesian_lenet, bayesian_mlp, bayesian_vgg13, layer_moments
from explainlib.models.bayes_layers import rho_of, variance_of
from explainlib.models.lenet import lenet
from explainlib.models.moments import DERIVATIVES, require_variance, softmax_moments
from explainlib.models.vgg13 import vgg13
from tests.problems import normal

SAMPLES = 100_000
D = torch.float64


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def uneven(net):
    """Give every variance its own value, so that no formula can pass by symmetry."""
    for k, (name, parameter) in enumerate(net.named_parameters()):
        if name.endswith("_rho"):
            parameter.data = -2 + 0.7 * normal(*parameter.shape, seed=50 + k)
    return net


def sampled(mean, variance, seed):
    """Return SAMPLES draws of independent Gaussians, [SAMPLES, *shape]."""
    return mean + variance.sqrt() * normal(SAMPLES, *mean.shape, seed=seed)


def deviations(samples, mean, variance):
    """Return how many of its standard errors each sample mean and each sample variance is away."""
    centred = samples - samples.mean(0)
    square = centred.square()
    of_mean = (samples.mean(0) - mean) / (samples.std(0) / SAMPLES**0.5)
    of_variance = (square.mean(0) - variance) / (square.std(0) / SAMPLES**0.5)
    return of_mean.abs().max(), of_variance.abs().max()


@pytest.mark.parametrize("random_input", [False, True])
def test_linear_moments_are_exact(random_input):
    layer = uneven(bayesian(nn.Sequential(nn.Linear(4, 3)).to(D)))[0]
    mean, variance = normal(1, 4, seed=1), normal(1, 4, seed=2).square() if random_input else None
    got = layer_moments(layer, mean, variance)
    x = sampled(mean[0], variance[0], 3) if random_input else mean[0].expand(SAMPLES, 4)
    (mu_w, var_w), (mu_b, var_b) = layer.gaussians()
    y = (sampled(mu_w.detach(), var_w.detach(), 4) @ x[..., None])[..., 0] + sampled(mu_b.detach(), var_b.detach(), 5)
    of_mean, of_variance = deviations(y, got[0][0].detach(), got[1][0].detach())
    assert of_mean < 4 and of_variance < 4
    wrong = layer_moments(layer, mean, None)[1][0] if random_input else 2 * got[1][0]  # eq. (7) where (12) is needed
    assert deviations(y, got[0][0].detach(), wrong.detach())[1] > 20


def test_convolution_moments_are_those_of_the_linear_map_it_is():
    """On a picture as large as the kernel a convolution is a linear layer; elsewhere the same at every place."""
    plain = nn.Conv2d(2, 3, 3, dtype=D)
    layer = uneven(bayesian(nn.Sequential(plain)))[0]
    linear = bayesian(nn.Sequential(nn.Linear(18, 3, dtype=D)))[0]
    for name, part in layer.named_parameters():
        getattr(linear, name).data = part.data.reshape(getattr(linear, name).shape)
    mean, variance = normal(5, 2, 3, 3, seed=1), normal(5, 2, 3, 3, seed=2).square()
    for spread in (None, variance):
        want = layer_moments(linear, mean.flatten(1), None if spread is None else spread.flatten(1))
        got = layer_moments(layer, mean, spread)
        assert all(torch.allclose(g.flatten(1), w) for g, w in zip(got, want, strict=True))
    wide, spread = normal(1, 2, 5, 5, seed=3), normal(1, 2, 5, 5, seed=4).square()
    whole = layer_moments(layer, wide, spread)
    corner = layer_moments(layer, wide[..., 1:4, 2:5], spread[..., 1:4, 2:5])
    assert all(torch.allclose(w[..., 1:2, 2:3], c) for w, c in zip(whole, corner, strict=True))


def test_mean_pooling_is_exact_and_max_pooling_takes_the_winner():
    mean, variance = normal(1, 1, 2, 2, seed=1), normal(1, 1, 2, 2, seed=2).square()
    draws = sampled(mean[0, 0], variance[0, 0], 3)
    got = layer_moments(nn.AvgPool2d(2), mean, variance)
    assert max(deviations(draws.mean((1, 2))[:, None], got[0].flatten(), got[1].flatten())) < 4
    largest, spread = layer_moments(nn.MaxPool2d(2), mean, variance)
    winner = mean.flatten().argmax()
    assert largest.item() == mean.flatten()[winner] and spread.item() == variance.flatten()[winner]
    below = draws.amax((1, 2)).mean() - largest.item()
    assert 0.05 < below < 1.0  # the largest of four uncertain units is larger than the likeliest winner


@pytest.mark.parametrize("kind", DERIVATIVES)
def test_derivatives_are_autograds(kind):
    z = normal(50, seed=3).requires_grad_()
    want = torch.autograd.grad(kind()(z).sum(), z)[0]
    assert torch.allclose(DERIVATIVES[kind](z), want, atol=1e-12)


@pytest.mark.parametrize("kind", DERIVATIVES)
def test_a_small_spread_leaves_an_activation_times_the_slope_squared(kind):
    mean, variance = torch.tensor([[0.8, -1.2]], dtype=D), torch.tensor([[1e-4, 4e-4]], dtype=D)
    first, spread = layer_moments(kind(), mean, variance)
    draws = kind()(sampled(mean[0], variance[0], 11))
    assert (draws.mean(0) - first[0]).abs().max() < 1e-3
    assert torch.allclose(draws.var(0), spread[0], rtol=0.02, atol=1e-9)


def test_first_order_error_of_relu():
    """Far from the kink nothing is lost; at the kink the mean lacks sd/sqrt(2 pi) = .399 sd, and all variance."""

    def errors(mean, sd):
        z = sampled(torch.tensor([mean], dtype=D), torch.tensor([sd**2], dtype=D), 7).relu()
        first, spread = layer_moments(nn.ReLU(), torch.tensor([[mean]], dtype=D), torch.tensor([[sd**2]], dtype=D))
        return float(z.mean() - first) / sd, float(z.var() - spread) / sd**2

    far, near, kink = errors(3.0, 0.5), errors(0.5, 1.0), errors(0.0, 1.0)
    assert max(map(abs, far)) < 0.02
    assert 0.18 < near[0] < 0.22 and -0.50 < near[1] < -0.40  # E relu = .698 for .5; variance .546 for 1
    assert 0.39 < kink[0] < 0.41 and 0.33 < kink[1] < 0.35  # variance (1 - 1/pi)/2 = .341 for 0


def test_first_order_error_of_softmax():
    """The whole Jacobian is right for small spreads; the diagonal alone, as printed, is not right for any."""
    mean = torch.tensor([1.0, 0.0, -1.0], dtype=D)

    def relative(variance):
        variance = torch.tensor(variance, dtype=D)
        p, first = softmax_moments(mean, variance)
        draws = sampled(mean, variance, 9).softmax(-1)
        diagonal = (p * (1 - p)).square() * variance  # eq. (14) as printed, with p in the place of the logits' mean
        return (
            float((draws.mean(0) - p).abs().max()),
            float((first / draws.var(0) - 1).abs().max()),
            float((diagonal / draws.var(0) - 1).abs().max()),
        )

    small, large = relative([0.01, 0.02, 0.005]), relative([1.0, 2.0, 0.5])
    assert small[0] < 2e-3 and small[1] < 0.04 and small[2] > 0.3
    assert 0.03 < large[0] < 0.12 and 0.25 < large[1] < 1.5


def test_whole_network_against_sampled_networks():
    """Small variances: 2,000 drawn networks agree with the propagated moments to the error of two roots."""
    net = bayesian_mlp([4, 6, 3], "tanh", initial_variance=1e-3, seed=1, dtype=D)
    x = normal(5, 4, seed=2)
    mean, variance = (part.detach() for part in net.moments(x))
    names = [name for name, _ in net.named_parameters() if not name.endswith("_rho")]
    parameters = {name: part.detach() for name, part in net.named_parameters()}
    drawn = {
        name: parameters[name] + variance_of(parameters[f"{name}_rho"]).sqrt() * normal(2000, *parameters[name].shape,
                                                                                      seed=20 + k)
        for k, name in enumerate(names)
    }  # fmt: skip
    rhos = {name: part for name, part in parameters.items() if name.endswith("_rho")}
    outputs = torch.vmap(lambda own: torch.func.functional_call(net, {**own, **rhos}, (x,)))(drawn)
    assert (outputs.mean(0) - mean).abs().max() < 0.02
    assert (outputs.var(0) / variance - 1).abs().max() < 0.15


@pytest.mark.parametrize("prior_variance", [1.0, 0.3])
def test_kl_is_torch_distributions(prior_variance):
    net = uneven(bayesian_mlp([4, 5, 3], seed=3, dtype=D))
    prior = Normal(torch.zeros((), dtype=D), torch.tensor(prior_variance, dtype=D).sqrt())
    want = 0.0
    for layer in (net.linear1, net.linear2):
        for mean, variance in layer.gaussians():
            want += kl_divergence(Normal(mean, variance.sqrt()), prior).sum()
    assert torch.allclose(net.kl(prior_variance), want, rtol=1e-12)


def test_forward_is_the_plain_network_and_moments_begin_there():
    for plain, x in (
        (lenet(1, 10, seed=2), torch.rand(2, 1, 28, 28)),
        (vgg13(3, 10, width=4), torch.rand(2, 3, 32, 32)),
    ):
        net = bayesian(plain)
        mean, variance = net.moments(x)
        assert torch.equal(net(x), plain(x)) and torch.allclose(mean, plain(x), atol=1e-6)
        assert mean.shape == variance.shape == (2, 10) and (variance > 0).all()
        assert torch.equal(net[0].weight, plain[0].weight) and net[0].weight is not plain[0].weight


def test_gradients_reach_every_parameter():
    net = bayesian_mlp([4, 5, 3], "tanh", dtype=D)
    mean, variance = net.moments(normal(6, 4))
    (mean.square().mean() + variance.mean() + net.kl()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())
    assert torch.autograd.gradcheck(lambda x: net.moments(x), normal(2, 4, seed=4).requires_grad_())


def test_parameter_counts():
    assert count(lenet(1, 10)) == 61_706 and count(lenet(3, 10, side=32)) == 83_126
    assert count(vgg13(3, 10)) == 9_410_122 and count(vgg13(3, 10, width=4)) == 37_342
    assert count(bayesian_mlp([4, 5, 3])) == 2 * 43 and count(bayesian_lenet(1, 10)) == 2 * 61_706
    assert count(bayesian_vgg13(3, 10, width=4)) == 2 * 37_342
    assert lenet(3, 4, side=32)(torch.rand(2, 3, 32, 32)).shape == (2, 4)


def test_one_seed_is_one_network():
    for build in (lambda s: lenet(1, 3, side=12, seed=s), lambda s: vgg13(1, 3, width=1, seed=s)):
        first, same, other = (torch.nn.utils.parameters_to_vector(build(s).parameters()) for s in (0, 0, 1))
        assert torch.equal(first, same) and not torch.equal(first, other)
    vgg = vgg13(3, 10, width=8)
    signal = vgg[:-1](torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert 0.1 < signal.std() < 10  # PyTorch's own draw leaves 1e-3 of it


def test_variance_that_turns_negative_is_an_error():
    net = bayesian_mlp([4, 5, 3], dtype=D)
    x = normal(2, 4)
    bad = torch.ones_like(x)
    bad[1, 2] = -0.5
    with pytest.raises(ValueError, match=r"variance is -0.5 at \[1, 2\].*zero or more"):
        net.moments(x, bad)
    with pytest.raises(ValueError, match="one variance for each number"):
        net.moments(x, torch.ones(4, dtype=D))
    with pytest.raises(ValueError, match="nan"):
        require_variance("v", torch.tensor([0.0, math.nan]))
    with pytest.raises(ValueError, match="prior_variance=0"):
        net.kl(0.0)
    with pytest.raises(ValueError, match="initial_variance=-1"):
        bayesian_mlp([4, 5, 3], initial_variance=-1.0)
    assert variance_of(torch.tensor(rho_of(1e-4), dtype=D)).item() == pytest.approx(1e-4, rel=1e-6)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda: bayesian(nn.Linear(2, 2)), TypeError, "Sequential"),
        (lambda: bayesian(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))), TypeError, "'1', LayerNorm.*no rule"),
        (lambda: bayesian(nn.Sequential(nn.Linear(2, 2), nn.AvgPool2d(2, padding=1))), TypeError, "without padding"),
        (lambda: bayesian(nn.Sequential(nn.ReLU())), ValueError, "no linear"),
        (lambda: bayesian(nn.Sequential(nn.Conv2d(1, 1, 3, padding_mode="circular"))), ValueError, "circular"),
        (lambda: lenet(1, 10, side=8), ValueError, "side=8"),
        (lambda: lenet(0, 10), ValueError, "channels_in=0"),
        (lambda: vgg13(3, 1), ValueError, "C=1"),
        (lambda: vgg13(3, 10, width=0), ValueError, "width=0"),
    ],
)
def test_bad_input(wrong, error, message):
    with pytest.raises(error, match=message):
        wrong()
