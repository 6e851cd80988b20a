"""Gradients made shorter: the same Gram matrix to float32 rounding, and nothing left out where that would be more."""

import pytest
import torch
from torch import nn

from explainlib.layerwise import gradients
from explainlib.layerwise import gram as engine_gram
from explainlib.layerwise.outer_products import compressed_factors, compression
from explainlib.layerwise.outer_products.compression import _saves_time
from explainlib.params import Parameters
from tests.layerwise.nets import seeded
from tests.problems import normal


@pytest.fixture(autouse=True)
def always_worth_it(monkeypatch):
    monkeypatch.setattr(compression, "_saves_time", lambda left, right: left[0].dtype == torch.float32)


def factors(n, *, seed=0, rank=3, noise=0.0, P=4, d=12, o=8):
    """Gradients in ``rank`` directions on both sides, and a little outside them."""
    a = normal(n, P, rank, seed=seed) @ normal(rank, d, seed=90) + noise * normal(n, P, d, seed=seed + 1)
    g = normal(n, P, rank, seed=seed + 2) @ normal(rank, o, seed=91) + noise * normal(n, P, o, seed=seed + 3)
    return a.float(), g.float()


def gram(left, right):
    M, M_ = (torch.einsum("npd,npo->nod", a.double(), g.double()).flatten(1) for a, g in (left, right))
    return M @ M_.T, M.norm(dim=1)[:, None] * M_.norm(dim=1)


@pytest.mark.parametrize("noise", [0.0, 1e-5])
def test_the_directions_that_are_used_are_kept(noise):
    left, right = factors(300, noise=noise), factors(40, seed=5, noise=noise)
    for pair in ((left, left), (left, right)):
        (a, g), (a_, g_) = made = compressed_factors(*pair)
        assert a.shape[2] == a_.shape[2] == 3 and g.shape[2] == g_.shape[2] == 3
        want, scale = gram(*pair)
        assert ((gram(*made)[0] - want).abs() / scale).max() < 2e-6
    one, same = compressed_factors(left, left)
    assert one[0] is same[0] and one[1] is same[1]


def test_nothing_is_left_out_of_the_one_example_that_is_different(monkeypatch):
    """It is not in the sample, so only the check on every example sees it."""
    a, g = factors(300)
    a[7] = normal(4, 12, seed=50).float()
    monkeypatch.setattr(compression, "SAMPLE", 5)
    made = compressed_factors((a, g), (a, g))[0]
    assert made[0] is a and made[1] is g


def test_small_gradients_count_like_large_ones():
    """Each example is judged by its own length: one a million times smaller in its own direction is kept whole."""
    a, g = factors(300)
    a[::3] = 1e-6 * normal(100, 4, 2, seed=51).float() @ normal(2, 12, seed=52).float()
    made = compressed_factors((a, g), (a, g))[0]
    want, scale = gram((a, g), (a, g))
    assert made[0].shape[2] == 5
    assert ((gram(made, made)[0] - want).abs() / scale).max() < 2e-6


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_rows_whose_squares_leave_float32_are_judged_too(monkeypatch, size):
    """The square of the length of one row is 0 or inf in float32, its products with the others are not."""
    a, g = factors(300)
    a[7] = size * normal(4, 12, seed=50).float()
    monkeypatch.setattr(compression, "SAMPLE", 5)
    (made, _), _ = compressed_factors((a, g), (a, g))
    assert made is a


def test_zero_gradients_and_full_rank_and_float64():
    a, g = factors(300)
    g[3:9] = 0
    made, short = compressed_factors((a, g), (a, g))[0]
    assert made.shape[2] == 3 and not short[3:9].any()
    full = normal(300, 4, 12).float(), normal(300, 4, 8, seed=1).float()
    assert compressed_factors(full, full)[0] is full
    exact = tuple(side.double() for side in factors(300))
    assert compressed_factors(exact, exact)[0] is exact


def test_only_large_problems_are_worth_it(monkeypatch):
    monkeypatch.undo()
    small = factors(300)
    assert compressed_factors(small, small)[0] is small
    wide = factors(3000, P=64, d=64, o=64)
    assert compressed_factors(wide, wide)[0][0].shape[2] == 3


def test_the_engine_in_float32_with_shorter_gradients(monkeypatch):
    """A net whose second convolution sees three of twelve directions; both Gram matrices against float64."""
    used = []
    within = compression._within_tolerance
    monkeypatch.setattr(compression, "_within_tolerance", lambda *args: used.append(args[2]) or within(*args))
    layers = (lambda: nn.Conv2d(1, 12, 1)), (lambda: nn.Conv2d(12, 6, 2))
    net = seeded(lambda: nn.Sequential(*(one() for one in layers), nn.Tanh(), nn.Flatten(), nn.Linear(24, 3)))
    x, c = normal(60, 1, 3, 3), normal(60, 3, seed=1)
    double, single = Parameters(net), Parameters(net.float())
    exact = gradients(double, double.theta, x, c)
    quick = gradients(single, single.theta, x.float(), c.float())
    other = gradients(single, single.theta, x[:9].float(), c[:9].float())
    want = engine_gram(exact, exact)
    scale = want.diagonal().sqrt()
    assert ((engine_gram(quick, quick) - want).abs() / scale[:, None] / scale).max() < 5e-6
    assert ((engine_gram(other, quick) - want[:9]).abs() / scale[:9, None] / scale).max() < 5e-6
    assert used and used[0] < 48


def test_where_it_saves_time():
    def side(n, P, d, o, dtype=torch.float32):
        one = torch.zeros(1, dtype=dtype)
        return one.expand(n, P, d), one.expand(n, P, o)

    wide, linear = (5000, 49, 32, 64), (5000, 1, 1568, 56)
    for shape, dtype, saves in (
        (wide, torch.float32, True), (wide, torch.float64, False), (linear, torch.float32, False),
        ((20, 49, 32, 64), torch.float32, False),
    ):  # fmt: skip
        left = side(*shape, dtype)
        assert _saves_time(left, left) == saves
