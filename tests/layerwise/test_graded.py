"""Whole-number products: exact for their digits, as near to float64 as a float32 product, and given up where not."""

import pytest
import torch

from explainlib.layerwise import compression, graded, grades, gradients
from explainlib.layerwise import gram as engine_gram
from explainlib.layerwise.compression import compressed
from explainlib.layerwise.grades import ONE, TWO, Tile
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
    """Grade whatever its size, and say whether float32 had to do all."""
    monkeypatch.setattr(compression, "_pays", lambda left, right: left[0].dtype == torch.float32)
    monkeypatch.setattr(compression, "WHOLE", float("inf"))
    gave_up = []
    monkeypatch.setattr(graded, "formed_gram", lambda *args, **kw: gave_up.append(1) or formed_gram(*args, **kw))
    return lambda left, right: compressed(left, right, whole=True), gave_up


@pytest.mark.parametrize("memory", [MEMORY, 60_000, 1])
@pytest.mark.parametrize("same", [True, False])
def test_as_exact_as_float32(shorten, same, memory):
    short, gave_up = shorten
    left = spread(600)
    right = left if same else spread(70, seed=5)
    made = short(left, right)
    assert all(made.grades)  # something is in the core, has two digits, has one, and is left out
    got = graded.graded_gram(made, memory=memory)
    plain = error(formed_gram(*left, *right), left, right)
    assert error(got, left, right) < 8 * plain and plain < 1e-6
    assert not gave_up and (not same or torch.equal(got, got.T))


@pytest.mark.parametrize("two", [True, False])
def test_products_of_digits_are_exact(two):
    a, g = spread(50)
    tiles = [Tile(slice(0, 25), slice(3, 24)), Tile(slice(25, 40), slice(0, 24))]
    M = torch.bmm(g.mT, a)
    M = torch.cat([M[:, tile.outputs, tile.inputs].flatten(1) for tile in tiles], dim=1)
    digits, exact = graded._rounded((a, g), tiles, two, M[:3], graded._room([(tiles, two)], 50))
    torch.testing.assert_close(exact, M[:3] @ M.T)
    numbers = digits.digits[0].long()
    if two:
        high, low, both = digits.digits
        numbers = 128 * numbers + low.long()
        assert torch.equal(both.long(), high.long() + low.long())
    scale = digits.scale.double()
    want = (numbers.double() @ numbers.double().T) * scale[:, None] * scale
    assert torch.allclose(graded._whole(digits, digits).double(), want, rtol=0, atol=3e-7 * want.abs().max())
    assert numbers.abs().max(1).values.eq(TWO if two else ONE).all()
    assert ((numbers * scale[:, None] - M).abs() <= 0.5001 * scale[:, None]).all()


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("limit", ["NOISE", "LEFT_OUT"])
def test_what_would_be_off_by_too_much_is_done_in_float32(shorten, monkeypatch, limit, same):
    """Grades that were found for far coarser limits: the check sees what was rounded, and what was left out."""
    short, gave_up = shorten
    monkeypatch.setattr(grades, limit, 1e-3)
    left = spread(300)
    right = left if same else spread(70, seed=5)
    got = graded.graded_gram(short(left, right), memory=MEMORY)
    assert gave_up == [1] and error(got, left, right) < 1e-6


@pytest.mark.parametrize("same", [True, False])
def test_the_error_that_is_measured_is_the_error(shorten, monkeypatch, same):
    """Coarse grades, so that it stands out of float32's own; where it was not seen, it counts as nothing."""
    short, _ = shorten
    monkeypatch.setattr(grades, "NOISE", 1e-4)
    monkeypatch.setattr(grades, "LEFT_OUT", -1.0)
    left = spread(300)
    right = left if same else spread(70, seed=5)
    kept = []
    monkeypatch.setattr(graded._Check, "passes", lambda self, *args: kept.append(self) or True)
    got = graded.graded_gram(short(left, right), memory=MEMORY)
    M, M_ = (torch.einsum("npd,npo->nod", a.double(), g.double()).flatten(1) for a, g in (left, right))
    (check,) = kept
    off = (M @ M_.T - got)[check.rows]
    assert check.seen.any() and (check.seen.all() or same)
    assert (check.error - off)[check.seen].abs().max() < 0.02 * off.abs().max()


def test_zero_gradients(shorten):
    short, gave_up = shorten
    a, g = spread(300)
    g[3:9] = 0
    got = graded.graded_gram(short((a, g), (a, g)), memory=MEMORY)
    assert not got[3:9].any() and torch.isfinite(got).all() and not gave_up
    none = short((a, 0 * g), (a, g))
    assert not graded.graded_gram(none, memory=MEMORY).any()
    empty = short((a, 0 * g), (a, 0 * g))
    assert empty.grades is None or not graded.graded_gram(empty, memory=MEMORY).any()


@pytest.mark.parametrize("units", [True, False])
def test_the_engine_with_and_without_matrix_units(monkeypatch, units):
    used = []
    whole = graded._whole
    monkeypatch.setattr(compression, "_pays", lambda left, right: left[0].dtype == torch.float32)
    monkeypatch.setattr(compression, "WHOLE", float("inf"))
    monkeypatch.setattr(grades, "NOISE", 1e-6)  # few numbers: their roundings cancel less than in a real layer
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
