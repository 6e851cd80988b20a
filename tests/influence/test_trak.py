"""TRAK against the dense formula without projection, and what random projections keep."""

import sys
from decimal import Decimal

import pytest
import torch

import explainlib as xl
from explainlib.influence.trak import PROJECTIONS, log_error_probability, log_odds_gradients, random_projection, trak
from explainlib.solvers import SolverError
from tests.problems import (
    classes,
    convolution,
    generator,
    images,
    logistic_risk,
    network_risk,
    relative_error,
    ridge_risk,
)

trak_room = sys.modules["explainlib.influence.trak"]  # the package's attribute of that name is the function


def log_odds(risk, theta, x, y):
    p = risk.parameters.outputs(theta, x[None]).softmax(1)[0, y]
    return torch.log(p / (1 - p))


def jacobian(risk, examples):
    """Return the gradients of log p/(1 - p), one backward pass at a time."""
    rows = [
        torch.autograd.functional.jacobian(lambda theta, i=i: log_odds(risk, theta, examples.x[i], examples.y[i]), risk.theta)
        for i in range(len(examples))
    ]  # fmt: skip
    return torch.stack(rows)


def parts(risk, test, damping):
    """Return phi (Phi^T Phi + damping)^-1 Phi^T and 1 - p, dense."""
    train, tests = jacobian(risk, risk.train), jacobian(risk, test)
    gram = train.T @ train + damping * torch.eye(risk.p, dtype=train.dtype)
    p = risk.outputs().softmax(1)[torch.arange(risk.n), risk.train.y]
    return tests @ torch.linalg.solve(gram, train.T), 1 - p


@pytest.mark.parametrize("make", [network_risk, logistic_risk, lambda: xl.Risk(convolution(), images())])
def test_the_gradients_are_those_of_the_log_odds(make):
    risk = make()
    got = xl.layerwise.per_example(log_odds_gradients(risk, risk.train))
    assert relative_error(got, jacobian(risk, risk.train)) < 1e-9


def test_a_sure_model_gives_finite_gradients():
    """p = 1 in floating point, and log p/(1 - p) infinite; its slope is not."""
    risk = network_risk()
    sure = risk.at(60 * risk.theta)
    assert (sure.outputs().softmax(1).max(1).values == 1).any()
    assert torch.isfinite(xl.layerwise.per_example(log_odds_gradients(sure, sure.train))).all()
    assert torch.isfinite(trak(sure, classes(3), features=5, damping=1e-3)).all()


@pytest.mark.parametrize("make", [network_risk, logistic_risk])
def test_without_projection_it_is_the_dense_formula(make):
    risk, test = make(), classes(5, seed=3)
    kernel, doubt = parts(risk, test, 0.01)
    got = trak(risk, test, features=None, damping=0.01)
    assert got.shape == (5, risk.n) and relative_error(got, -kernel * doubt) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sure_model_keeps_every_column(dtype):
    """Margins of 20 to 60: 1 - p from 1e-26 to 1e-9, against the softmax of two in 60 digits."""
    n = 40
    x = torch.randn(n, 2, generator=generator(0), dtype=torch.float64)
    sign = torch.where(x[:, 0] > 0, 1.0, -1.0)
    x[:, 0] = sign * (0.5 + torch.arange(n) / n)
    train = xl.datasets.Examples(x.to(dtype), (sign > 0).long())
    model = torch.nn.Linear(2, 2)
    model.weight.data, model.bias.data = torch.tensor([[-20.0, 0.0], [20.0, 0.0]]), torch.zeros(2)
    risk = xl.Risk(model.to(dtype), train)
    doubt = log_error_probability(risk.outputs(), train.y)
    margins = [Decimal(float(40 * v)) for v in train.x[:, 0].abs().double()]
    want = torch.tensor([float((1 / (1 + m.exp())).ln()) for m in margins], dtype=torch.float64)
    assert relative_error(doubt.double(), want) < 20 * torch.finfo(dtype).eps
    scores = trak(risk, train[[0, 1]], features=None, damping=1e-3)
    assert (scores != 0).all(0).all()
    phi = jacobian_of_two(train.x.double())
    kernel = phi[:2] @ torch.linalg.solve(phi.T @ phi + 1e-3 * torch.eye(6).double(), phi.T)
    assert relative_error((scores.double() / want.exp()), -kernel) < 1e5 * torch.finfo(dtype).eps


def jacobian_of_two(x):
    """Return the gradients of f = z_y - z_other of a linear model with two outputs, y the sign of the first feature."""
    sign = torch.where(x[:, :1] > 0, 1.0, -1.0)
    return torch.cat([-sign * x, sign * x, -sign, sign], 1)


def test_what_the_dtype_cannot_hold_is_said():
    risk = network_risk()
    with pytest.warns(UserWarning, match="underflows for .* of 24 training labels"):
        trak(risk.at(1e4 * risk.theta), classes(3), features=5, damping=1e-3)


@pytest.mark.parametrize(
    ("dtype", "scale", "remedy"),
    [(torch.float32, 90.0, "convert model and data to float64"), (torch.float64, 720.0, "l2")],
)
def test_what_underflows_is_counted(dtype, scale, remedy):
    """Margins of that scale and of ten: 1 - p is exp(-margin) and underflows for two of three."""
    x = torch.tensor([[1.0], [-1.0], [10 / scale]], dtype=dtype)
    model = torch.nn.Linear(1, 2, bias=False, dtype=dtype)
    model.weight.data = scale / 2 * torch.tensor([[-1.0], [1.0]], dtype=dtype)
    risk = xl.Risk(model, xl.datasets.Examples(x, (x[:, 0] > 0).long()))
    power = round(-scale / 2.302585)
    with pytest.warns(UserWarning, match=rf"underflows for 2 of 3 training labels \(down to 10\^{power}\).*{remedy}"):
        scores = trak(risk, risk.train[[2]], features=None, damping=1e-3)
    assert scores[0, 2] != 0


@pytest.mark.parametrize("damping", [0.0, 0.01])
def test_a_weight_of_two_is_the_example_twice_and_of_zero_never(damping):
    risk, test = logistic_risk(), classes(5, seed=3)
    weights = torch.ones(risk.n, dtype=torch.float64)
    weights[3], weights[7] = 2, 0
    kept = [i for i in range(risk.n) if i != 7]
    twice = xl.Risk(risk.model, risk.train[[*kept, 3]])
    want = trak(twice, test, features=4, seed=3, damping=damping)
    got = trak(risk.reweighted(weights), test, features=4, seed=3, damping=damping)
    assert relative_error(got[:, kept], want[:, :-1]) < 1e-9 and relative_error(got[:, 3], want[:, -1]) < 1e-9
    assert relative_error(got, trak(risk, test, features=4, seed=3, damping=damping)) > 1e-3
    with pytest.raises(ValueError, match="negative weight"):
        trak(risk.reweighted(-weights), test, features=4)
    with pytest.raises(ValueError, match="features of at most 3"):
        trak(risk.reweighted((torch.arange(risk.n) < 3).double()), test, features=4)


def test_an_ensemble_averages_kernels_and_weights_apart():
    risks, test = [network_risk(seed=seed) for seed in (0, 0, 0)], classes(5, seed=3)
    risks = [risk.at(risk.theta + 0.3 * m) for m, risk in enumerate(risks)]
    each = [parts(risk, test, 0.01) for risk in risks]
    kernel, doubt = (sum(part) / 3 for part in zip(*each, strict=True))
    assert relative_error(trak(risks, test, features=None, damping=0.01), -kernel * doubt) < 1e-10


def test_positive_is_harmful():
    """A training example with a wrong label sits on top of the test example: it lowers the log-odds of the truth."""
    clean = classes(40)
    x = torch.cat([clean.x, clean.x[:1], clean.x[:1]])
    y = torch.cat([clean.y, clean.y[:1], (clean.y[:1] + 1) % 3])
    risk = xl.training.minimise(xl.Risk(xl.models.logistic(3, 3, dtype=x.dtype), xl.datasets.Examples(x, y), l2=0.05))
    scores = trak(risk, clean[[0]], features=None, damping=1e-3)[0]
    influence = xl.influence.loss_influence(risk, clean[[0]])[0]
    assert scores[40] < 0 < scores[41] and influence[40] < 0 < influence[41]
    assert torch.corrcoef(torch.stack([scores, influence]))[0, 1] > 0.5


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_projections_keep_inner_products_in_expectation(projection):
    risk, draws, k = network_risk(), 200, 40
    source, want = log_odds_gradients(risk, risk.train), jacobian(risk, risk.train)
    want = want @ want.T
    grams = []
    for seed in range(draws):
        (phi,) = random_projection([source], k, projection, generator(seed), memory=10**8)
        assert phi.shape == (risk.n, k)
        grams.append(phi @ phi.T)
    grams = torch.stack(grams)
    z = (grams.mean(0) - want) / (grams.std(0) / draws**0.5)
    assert z.abs().max() < 5 and relative_error(grams.mean(0), want) < 0.05
    assert relative_error(grams[0], want) > 0.05


def test_more_features_come_closer_to_no_projection():
    risk, test = network_risk(n=60), classes(8, seed=3)
    want = trak(risk, test, features=None, damping=0.05).flatten()
    agreement = []
    for k in (3, 20, 2000):
        scores = [trak(risk, test, features=k, damping=0.05, seed=seed).flatten() for seed in range(5)]
        agreement.append(sum(float(torch.corrcoef(torch.stack([s, want]))[0, 1]) for s in scores) / 5)
    assert agreement == sorted(agreement) and agreement[-1] > 0.99 and agreement[0] < 0.9


def test_it_is_its_seed_and_not_its_memory():
    risk, test = network_risk(), classes(5, seed=3)
    base = trak(risk, test, features=12, seed=1)
    assert torch.equal(base, trak([risk], test, features=12, seed=1))
    assert relative_error(trak(risk, test, features=12, seed=1, memory=200_000), base) < 1e-8
    assert not torch.equal(base, trak(risk, test, features=12, seed=2))
    both = trak([risk, risk], test, features=12, seed=1)  # the second model has a projection of its own
    assert relative_error(both, base) > 1e-3


def test_bad_arguments():
    risk, test = network_risk(), classes(5, seed=3)
    with pytest.raises(ValueError, match="empty"):
        trak([], test)
    with pytest.raises(ValueError, match="squared_error.*tracin"):
        trak(ridge_risk(), test)
    with pytest.raises(ValueError, match="features of at most 24"):
        trak(risk, test)
    with pytest.raises(ValueError, match="different training sets"):
        trak([risk, network_risk(n=30)], test, features=5)
    with pytest.raises(ValueError, match="different training sets"):
        trak([risk, xl.Risk(risk.model, xl.datasets.Examples(risk.train.x, risk.train.y.flip(0)))], test, features=5)
    with pytest.raises(ValueError, match="features=None gives 31 columns to 24 gradients of 31 parameters.*at most 24"):
        trak(risk, test, features=None)
    with pytest.raises(ValueError, match="projection"):
        trak(risk, test, features=5, projection="sparse")
    with pytest.raises(ValueError, match="features"):
        trak(risk, test, features=0)
    with pytest.raises(ValueError, match=r"x has shape"):
        trak(risk, images(), features=5)
    twins = xl.datasets.Examples(classes(24).x[:1].repeat(24, 1), classes(24).y)
    with pytest.raises(SolverError, match="rank_deficient"):
        trak(xl.Risk(risk.model, twins), test, features=20, damping=0.0)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_the_projection_is_drawn_in_parts_that_fit(projection, monkeypatch):
    """Columns of P never take more than a third of the memory, and no fewer than fit are drawn at a time."""
    risk, test = network_risk(), classes(5, seed=3)
    counts, drawn = [], trak_room._draw_rows
    monkeypatch.setattr(trak_room, "_draw_rows", lambda count, *rest: counts.append(count) or drawn(count, *rest))
    whole = trak(risk, test, features=200, damping=0.1, projection=projection)
    assert counts == [200]
    for memory in (100_000, 50_000, 30_000):
        counts.clear()
        got = trak(risk, test, features=200, damping=0.1, projection=projection, memory=memory)
        fit = memory // 3 // (8 * risk.p)
        assert sum(counts) == 200 and max(counts) == fit < 200 and len(counts) == -(-200 // fit)
        assert relative_error(got, whole) < 1e-8


def test_by_default_few_columns_of_the_projection_are_in_memory(monkeypatch):
    """A third of the default is 64 MiB, or for large networks 128 columns, of which the free memory has enough."""
    risk, test = network_risk(), classes(5, seed=3)
    options = {"features": 200, "damping": 0.1}
    whole = trak(risk, test, **options)
    counts, drawn = [], trak_room._draw_rows
    monkeypatch.setattr(trak_room, "_draw_rows", lambda count, *rest: counts.append(count) or drawn(count, *rest))
    for work, columns, want in ((50 * 8 * risk.p, 30, [50] * 4), (1, 80, [80, 80, 40])):
        counts.clear()
        monkeypatch.setattr(trak_room, "WORK", work)
        monkeypatch.setattr(trak_room, "COLUMNS", columns)
        got = trak(risk, test, **options)
        assert counts == want and relative_error(got, whole) < 1e-8


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_by_default_a_singular_matrix_gives_the_limit_of_damping_to_zero(dtype):
    """Two of three inputs are zero: gradients of 12 parameters span fewer dimensions."""
    risk, test = logistic_risk(), classes(5, seed=3)
    flat = xl.datasets.Examples(risk.train.x * torch.tensor([1.0, 0.0, 0.0]).double(), risk.train.y)
    model = risk.model.to(dtype)
    singular = xl.Risk(model, xl.datasets.Examples(flat.x.to(dtype), flat.y))
    seen = xl.datasets.Examples(test.x.to(dtype), test.y)
    options = {"features": singular.p}
    with pytest.raises(SolverError, match="rank_deficient"):
        trak(singular, seen, damping=0.0, **options)
    with pytest.warns(UserWarning, match=r"span 4 of 12 features.*pseudo-inverse.*damping"):
        got = trak(singular, seen, **options)
    exact = xl.Risk(risk.model, flat)
    near = trak(exact, test, damping=1e-7, **options)
    assert relative_error(got.double(), near) < (1e-5 if dtype == torch.float64 else 1e-3)
    regular = logistic_risk()
    assert torch.equal(trak(regular, test, features=6), trak(regular, test, features=6, damping=0.0))
