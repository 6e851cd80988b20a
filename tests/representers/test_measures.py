"""Kernels of a measure: inner products of the gradients of one number an example."""

import pytest
import torch
from torch.func import functional_call, grad

import explainlib as xl
from explainlib.datasets import Examples
from explainlib.influence import loss_influence
from explainlib.representers import kernel
from tests.problems import classes, network_risk, relative_error, ridge_risk, targets

MEASURES = {
    "output": lambda f, y: f[y],
    "margin": lambda f, y: f[y] - torch.logsumexp(f[torch.arange(len(f)) != y], 0),
    "square": lambda f, y: (f**2).sum() + 0.3 * f[y],
}


def square(f, y):
    return f.square().sum(1) + 0.3 * f.gather(1, y[:, None])[:, 0]


def rows_of(model, examples, measure):
    """Gradients of a measure by autograd, an example at a time."""
    parameters = dict(model.named_parameters())

    def one(values, x, y):
        return measure(functional_call(model, values, (x[None],))[0], y)

    found = []
    for x, y in zip(examples.x, examples.y, strict=True):
        slopes = grad(one)({name: value.detach() for name, value in parameters.items()}, x, int(y))
        found.append(torch.cat([slopes[name].flatten() for name in parameters]))
    return torch.stack(found)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", MEASURES)
def test_the_tangent_kernel_is_the_product_of_gradients(name, dtype):
    model = xl.models.mlp([3, 4, 3], "tanh", dtype=torch.float64)
    test, train = classes(5, seed=4), classes(9)
    want = rows_of(model, test, MEASURES[name]) @ rows_of(model, train, MEASURES[name]).T
    model = model.to(dtype)
    test, train = (Examples(e.x.to(dtype), e.y) for e in (test, train))
    got = kernel(model, test, train, measure=square if name == "square" else name)
    assert got.dtype == dtype and got.shape == (5, 9)
    assert relative_error(got.double(), want) < (1e-10 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("curvature", ["hessian", "gauss_newton", "empirical_fisher"])
@pytest.mark.parametrize("n", [8, 24])
def test_the_influence_kernel_is_taken_through_the_inverse(curvature, n):
    risk = network_risk(n=n, l2=0.1)
    test = classes(5, seed=4)
    matrix = getattr(xl.curvature, curvature)(risk) + 5.0 * torch.eye(risk.p, dtype=torch.float64)
    rows = [rows_of(risk.model, e, MEASURES["margin"]) for e in (test, risk.train)]
    want = rows[0] @ torch.linalg.solve(matrix, rows[1].T)
    how = {"kind": "influence", "risk": risk, "curvature": curvature, "damping": 5.0}
    assert relative_error(kernel(risk.model, test, risk.train, measure="margin", **how), want) < 1e-8


def test_the_loss_s_influence_kernel_is_minus_the_influence():
    risk = network_risk(l2=0.1)
    test = classes(5, seed=4)
    how = {"curvature": "gauss_newton", "damping": 0.1}
    got = kernel(risk.model, test, risk.train, kind="influence", risk=risk, measure="loss", **how)
    assert relative_error(got, -loss_influence(risk, test, **how)) < 1e-8


def test_one_output_of_a_regression():
    risk = ridge_risk(o=2)
    examples = targets(6, o=2, seed=3)
    got = kernel(risk.model, examples, examples, measure="output", output=1)
    assert relative_error(got, kernel(risk.model, examples.x, examples.x, output=1)) < 1e-12
    assert relative_error(got, 1 + examples.x @ examples.x.T) < 1e-12


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"measure": "loss"}, "measure=.loss. needs a loss; pass risk="),
        ({"measure": "margin", "kind": "last_layer"}, "features, which no measure changes"),
        ({"measure": "output", "output": "each"}, "kernels without a measure"),
        ({"measure": "margin", "output": 1}, "belongs to measure='output'"),
        ({}, "only a measure reads targets"),
    ],
)
def test_what_has_no_meaning_is_refused(given, said):
    model, data = xl.models.mlp([3, 4, 3], "tanh", dtype=torch.float64), classes(5)
    with pytest.raises((TypeError, ValueError), match=said):
        kernel(model, data, data, **given)


def test_a_measure_wants_targets():
    model, data = xl.models.mlp([3, 4, 3], "tanh", dtype=torch.float64), classes(5)
    for sides in ((data.x, data), (data, data.x)):
        with pytest.raises(TypeError, match=r"reads targets, and [xz] is a Tensor; pass xl\.datasets\.Examples"):
            kernel(model, *sides, measure="margin")
