"""Matrices that have to fit, and passes that keep to the memory they are given."""

import warnings

import pytest
import torch
from torch import nn

import explainlib as xl
from explainlib.curvature import ekfac
from explainlib.curvature.ekfac import Ekfac, UncoveredWarning
from explainlib.curvature.gauss_newton import gauss_newton_blocks, gauss_newton_factor
from explainlib.curvature.spectrum import lanczos
from tests.curvature.test_ekfac import Positions, convolutional, relative_error, words
from tests.fits import fits_to_the_byte
from tests.problems import classes, network_risk, normal, targets

D = torch.float64
NET = network_risk(n=12)
SQUARE = 3 * 8 * NET.p**2
NEEDS = {
    "hessian": (lambda: xl.curvature.hessian(NET), SQUARE),
    "gauss_newton": (lambda: xl.curvature.gauss_newton(NET), SQUARE),
    "empirical_fisher": (lambda: xl.curvature.empirical_fisher(NET), SQUARE),
    "ekfac": (lambda: Ekfac(NET, memory=2**20).matrix(), SQUARE),
    "blocks": (lambda: gauss_newton_blocks(network_risk(n=12, parameters="last")), 3 * 8 * 15**2),
    "factor": (lambda: gauss_newton_factor(NET), 2 * 8 * 12 * 2 * NET.p),
}


@pytest.mark.parametrize("name", NEEDS)
def test_a_matrix_and_its_copies_have_to_fit(name, monkeypatch):
    """Three squares of p numbers; twice the rows of a factor, of which a softmax of three classes has two an example."""
    call, needed = NEEDS[name]
    fits_to_the_byte(call, needed, monkeypatch, r"p = \d+ parameters")


def deep(n=40):
    """Many equal layers, so that no single one needs much of what all of them record."""
    layers = [part for _ in range(8) for part in (nn.Linear(3, 3), nn.Tanh())]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return xl.Risk(nn.Sequential(*layers, nn.Linear(3, 3)).double(), classes(n), l2=0.1)


@pytest.mark.parametrize("make", [deep, lambda: convolutional(40), lambda: words(40)], ids=["deep", "images", "text"])
def test_ekfac_s_passes_keep_to_their_memory(make, monkeypatch):
    """Inputs and output gradients of all layers, as often as a pass needs them; all examples at once where they fit."""
    risk, sizes, recorded = make(), [], []
    forward = ekfac.forward_pass

    def seen(parameters, theta, x, layers, **options):
        made = forward(parameters, theta, x, layers, **options)
        sizes.append(len(x)), recorded.append(made.nbytes)
        return made

    monkeypatch.setattr(ekfac, "forward_pass", seen)
    whole = Ekfac(risk, memory=2**26).eigenvalues
    assert sizes == [1, 40, 40], "one example tells what the others need"
    one = recorded[0]
    for given in (20 * one, 100 * one):
        sizes.clear(), recorded.clear()
        assert relative_error(Ekfac(risk, memory=given).eigenvalues, whole) < 1e-10
        assert max(recorded) <= given / 2 and sum(sizes) == 1 + 2 * 40
    assert max(sizes) > 1
    monkeypatch.setattr(ekfac, "PASS", 7)
    sizes.clear()
    Ekfac(risk, memory=2**26)
    assert max(sizes) == 7


def test_what_ekfac_leaves_out_is_said_once():
    risk = xl.Risk(Positions().double(), classes(20), l2=0.1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        Ekfac(risk, uncovered="warn")
    assert [one.category for one in said] == [UncoveredWarning]


@pytest.mark.parametrize(("C", "labels"), [(17, "exact"), (18, "sampled")])
@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_up_to_sixteen_passes_labels_are_exact(C, labels, loss):
    """A softmax of C classes takes C - 1, a regression as many as it has outputs."""
    outputs = C if loss == "cross_entropy" else C - 1
    data = classes(20, 3, C) if loss == "cross_entropy" else targets(20, 3, outputs)
    model = xl.models.logistic(3, outputs, dtype=D)
    assert Ekfac(xl.Risk(model, data, loss=loss)).labels == labels


@pytest.mark.parametrize(("up_to", "dense"), [(8, True), (7, False)])
def test_the_block_of_a_norm_is_a_matrix_up_to_a_size(up_to, dense, monkeypatch):
    monkeypatch.setattr("explainlib.curvature.blocks.DENSE_UP_TO", up_to)
    norms = [block for block in Ekfac(words()).blocks if block.values.shape == (8, 1)]
    assert len(norms) == 3 and all((block.outputs is not None) == dense for block in norms)


@pytest.mark.parametrize("k", [1, 35, 36, 70])
def test_any_number_of_eigenvalues_of_a_matrix_that_is_not_small(k):
    values = normal(70).sort(descending=True).values
    turn = torch.linalg.qr(normal(70, 70, seed=1))[0]
    matrix = turn @ torch.diag(values) @ turn.T
    assert torch.allclose(lanczos(lambda v: v @ matrix, values, k), values[:k], rtol=1e-8)
    single = lanczos(lambda v: v @ matrix.float(), values.float(), k)
    assert single.dtype == torch.float32 and torch.allclose(single.double(), values[:k], rtol=1e-4, atol=1e-5)


def test_half_of_a_large_matrix_is_never_formed():
    """Above 64 parameters and below half of them, products are taken row by row."""
    values, rows = torch.linspace(0.0, 1.0, 65, dtype=D), []
    lanczos(lambda v: rows.append(len(v)) or v * values, values, 2)
    assert set(rows) == {1}


def test_a_small_matrix_is_formed_whole():
    values, rows = torch.linspace(0.0, 1.0, 64, dtype=D), []
    lanczos(lambda v: rows.append(len(v)) or v * values, values, 2)
    assert rows == [64]
