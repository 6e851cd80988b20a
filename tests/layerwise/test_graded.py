"""Whole-number products: exact for their digits, as near to float64 as a float32 product, and given up where not."""

import pytest
import torch

from explainlib.layerwise import compression, graded, gradients
from explainlib.layerwise import gram as engine_gram
from explainlib.layerwise.compression import compressed
from explainlib.layerwise.positions import formed_gram
from explainlib.params import Parameters
from tests.layerwise.nets import picture_net, seeded
from tests.problems import normal

MEMORY = 2**22


def spread(n, *, seed=0, P=4, d=40, o=24):
    """Gradients whose energy falls off over all directions of the input and of the output, none of them empty."""
    fall = lambda size: 0.7 ** torch.arange(size).double() + 1e-3  # noqa: E731
    turn = lambda size: torch.linalg.qr(normal(size, size, seed=size))[0]  # noqa: E731
    a = (normal(n, P, d, seed=seed) * fall(d)) @ turn(d)
    g = (normal(n, P, o, seed=seed + 1) * fall(o)) @ turn(o)
    return a.float(), g.float()


def error(got, left, right):
    """Return the largest error in units of the two gradients' lengths."""
    M, M_ = (torch.einsum("npd,npo->nod", a.double(), g.double()).flatten(1) for a, g in (left, right))
    return float(((got - M @ M_.T).abs() / M.norm(dim=1)[:, None] / M_.norm(dim=1)).max())


@pytest.fixture
def shorten(monkeypatch):
    """Compress whatever its size, and say whether float32 had to do all."""
    monkeypatch.setattr(compression, "_pays", lambda left, right: left[0].dtype == torch.float32)
    monkeypatch.setattr(compression, "FAR", 1e-6)  # few numbers: their roundings cancel less than in a real layer
    gave_up = []
    monkeypatch.setattr(graded, "formed_gram", lambda *args, **kw: gave_up.append(1) or formed_gram(*args, **kw))
    return lambda left, right: compressed(left, right, core=True), gave_up


@pytest.mark.parametrize("memory", [MEMORY, 60_000])
@pytest.mark.parametrize("same", [True, False])
def test_as_exact_as_float32(shorten, same, memory):
    short, gave_up = shorten
    left = spread(600)
    right = left if same else spread(70, seed=5)
    made = short(left, right)
    r, s = made.core
    d, o = made.left[0].shape[2], made.left[1].shape[2]
    assert r < made.near[0] < d and s < made.near[1] <= o  # something is outside the core, and far outside it
    got = graded.graded_gram(made, memory=memory)
    plain = error(formed_gram(*left, *right), left, right)
    assert error(got, left, right) < 4 * plain and plain < 1e-6
    assert not gave_up and (not same or torch.equal(got, got.T))


@pytest.mark.parametrize("two", [True, False])
def test_products_of_digits_are_exact(two):
    factors = spread(50)
    M = torch.bmm(factors[1].mT, factors[0]).flatten(1)
    digits, exact = graded._rounded(factors, M[:3], two, torch.empty(0, dtype=torch.int8))
    torch.testing.assert_close(exact, M[:3] @ M.T)
    numbers = digits.digits[0].long()
    if two:
        high, low, both = digits.digits
        numbers = 128 * numbers + low.long()
        assert torch.equal(both.long(), high.long() + low.long())
    scale = digits.scale.double()
    want = (numbers.double() @ numbers.double().T) * scale[:, None] * scale
    assert torch.allclose(graded._whole(digits, digits).double(), want, rtol=0, atol=3e-7 * want.abs().max())
    assert numbers.abs().max(1).values.eq(graded.TOP if two else 127).all()
    assert ((numbers * scale[:, None] - M).abs() <= 0.5001 * scale[:, None]).all()


def test_what_would_be_rounded_too_much_is_done_in_float32(shorten, monkeypatch):
    """A core that leaves out most of the energy."""
    short, gave_up = shorten
    monkeypatch.setattr(compression, "OUTSIDE", 0.9)
    left = spread(300)
    got = graded.graded_gram(short(left, left), memory=MEMORY)
    assert gave_up == [1] and error(got, left, left) < 1e-6


def test_zero_gradients(shorten):
    short, gave_up = shorten
    a, g = spread(300)
    g[3:9] = 0
    got = graded.graded_gram(short((a, g), (a, g)), memory=MEMORY)
    assert not got[3:9].any() and torch.isfinite(got).all() and not gave_up


@pytest.mark.parametrize("units", [True, False])
def test_the_engine_with_and_without_matrix_units(monkeypatch, units):
    used = []
    whole = graded._whole
    monkeypatch.setattr(compression, "_pays", lambda left, right: left[0].dtype == torch.float32)
    monkeypatch.setattr(compression, "SMALL", 1.1)
    monkeypatch.setattr(graded, "available", lambda x: units and x.dtype == torch.float32)
    monkeypatch.setattr(graded, "_whole", lambda *args: used.append(1) or whole(*args))
    net = seeded(picture_net(padding=1))
    x, c = normal(60, 2, 7, 6), normal(60, 3, seed=1)
    double = Parameters(net)
    exact = gradients(double, double.theta, x, c)
    want = engine_gram(exact, exact)
    assert not used  # float64 is left alone
    single = Parameters(net.float())
    quick = gradients(single, single.theta, x.float(), c.float())
    scale = want.diagonal().sqrt()
    assert ((engine_gram(quick, quick) - want).abs() / scale[:, None] / scale).max() < 2e-6
    assert bool(used) == units
