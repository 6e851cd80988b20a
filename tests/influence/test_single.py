"""Influence of single examples against problems solved again with a little more weight, and against its own laws."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import explainlib as xl
from explainlib.datasets import Examples
from tests.problems import (
    classes,
    derivatives,
    general,
    logistic_risk,
    network_risk,
    normal,
    relative_error,
    resolved,
    ridge_risk,
    targets,
)

influence = xl.influence


def with_extra(risk, j, eps):
    """eps multiplies l_j itself, and R has 1/n: so the weight of example j is 1 + n eps."""
    weights = torch.ones(risk.n, dtype=torch.float64)
    weights[j] += risk.n * eps
    return resolved(risk, weights)


@pytest.mark.parametrize("j", [0, 7])
@pytest.mark.parametrize(
    "make", [logistic_risk, lambda: general(logistic_risk()), ridge_risk], ids=["head", "general", "ridge"]
)
def test_parameter_influence_is_the_derivative_of_the_resolved_minimum(make, j):
    risk = make()
    want, _ = derivatives(lambda eps: with_extra(risk, j, eps), step=1e-3)
    assert relative_error(influence.parameter_influence(risk, [j])[0], want) < 1e-6


def test_loss_influence_is_the_derivative_of_the_resolved_test_loss():
    risk, test = logistic_risk(), classes(6, seed=9)
    for j in (0, 5):
        want, _ = derivatives(lambda eps, j=j: risk.at(with_extra(risk, j, eps)).losses(test), step=1e-3)
        assert relative_error(influence.loss_influence(risk, test)[:, j], want) < 1e-6


def test_a_network_at_its_minimum_too():
    risk = xl.training.minimise(network_risk("tanh", n=40, l2=0.05), tolerance=1e-12)
    want, _ = derivatives(lambda eps: with_extra(risk, 3, eps), step=1e-3)
    assert relative_error(influence.parameter_influence(risk, [3])[0], want) < 1e-5


def test_the_signs_of_the_public_table():
    """More weight on an example lowers its own loss; removing it (minus 1/n) raises it."""
    risk = logistic_risk()
    own = influence.loss_influence(risk, risk.train).diagonal()
    assert (own <= 0).all()
    truth = (
        xl.retraining.leave_out(risk, [[i] for i in range(risk.n)], weighting="plain")
        .loss_change(risk.train)
        .diagonal()
    )
    assert (truth >= 0).all()
    assert torch.equal(torch.sign(-own / risk.n)[own.abs() > 1e-9], torch.sign(truth)[own.abs() > 1e-9])


def test_parameter_and_loss_influence_are_one_thing():
    risk, test = logistic_risk(), classes(5, seed=3)
    through_parameters = risk.loss_gradients(test) @ influence.parameter_influence(risk).T
    assert torch.allclose(through_parameters, influence.loss_influence(risk, test), atol=1e-12)


def test_indices_choose_rows_in_the_callers_order():
    risk = logistic_risk()
    every = influence.parameter_influence(risk)
    assert torch.allclose(influence.parameter_influence(risk, [5, 2, 30]), every[[5, 2, 30]], rtol=1e-10, atol=1e-13)
    assert torch.allclose(
        influence.parameter_influence(risk, torch.tensor([5, 2])), every[[5, 2]], rtol=1e-10, atol=1e-13
    )


@pytest.mark.parametrize("curvature", ["hessian", "gauss_newton", "empirical_fisher", "identity"])
def test_large_damping_leaves_the_gradient_product(curvature):
    risk, test, damping = logistic_risk(), classes(4, seed=5), 1e8
    plain = -risk.loss_gradients(test) @ risk.loss_gradients().T
    got = influence.loss_influence(risk, test, curvature=curvature, damping=damping)
    assert relative_error(got * damping, plain) < 1e-6


def test_small_damping_leaves_the_exact_answer():
    risk, test = logistic_risk(), classes(4, seed=5)
    exact = influence.loss_influence(risk, test)
    errors = [relative_error(influence.loss_influence(risk, test, damping=d), exact) for d in (1e-3, 1e-5, 1e-7)]
    assert errors[0] > 50 * errors[1] > 2500 * errors[2] > 0


def test_curvatures_are_the_matrices_they_name():
    risk = network_risk("tanh")
    test, damping = classes(3, seed=2), 0.3
    g, t = risk.loss_gradients(), risk.loss_gradients(test)
    eye = torch.eye(risk.p, dtype=torch.float64)
    fisher = g.T @ g / risk.n
    for name, matrix in [
        ("gauss_newton", xl.curvature.gauss_newton(risk)), ("empirical_fisher", fisher), ("identity", eye),
    ]:  # fmt: skip
        want = -t @ torch.linalg.solve(matrix + damping * eye, g.T)
        assert relative_error(influence.loss_influence(risk, test, curvature=name, damping=damping), want) < 1e-9


def test_not_at_a_minimum_warns_at_the_callers_line_and_strict_raises():
    risk, test = network_risk("tanh", l2=1.0), classes(3, seed=2)
    with pytest.warns(xl.NotAtMinimumWarning, match=r"\|gradient\| = .*minimise") as caught:
        influence.loss_influence(risk, test, damping=5.0)
    assert caught[0].filename == __file__
    with pytest.raises(ValueError, match="not at a minimum"):
        influence.loss_influence(risk, test, damping=5.0, strict=True)
    with pytest.raises(ValueError, match="not at a minimum"):
        influence.parameter_influence(risk, damping=5.0, strict=True)


@pytest.mark.parametrize("curvature", ["gauss_newton", "empirical_fisher", "identity"])
def test_curvatures_with_a_meaning_anywhere_stay_silent(recwarn, curvature):
    influence.loss_influence(network_risk("tanh"), classes(3, seed=2), curvature=curvature, damping=0.5)
    assert not recwarn.list


def test_damped_gauss_newton_is_the_proximal_response():
    """Bae et al. 2022: argmin 1/n sum D_KL(f, f_s) + d/2 |theta - theta_s|^2 + eps l_m, at any theta_s."""
    risk = network_risk("tanh", l2=0.0)
    frozen, damping, m = risk.outputs().softmax(-1), 0.2, 4

    def response(eps: float) -> torch.Tensor:
        theta = risk.theta.clone()

        def objective(t):
            outputs = risk.parameters.outputs(t, risk.train.x)
            divergence = (frozen * (frozen.log() - outputs.log_softmax(-1))).sum(1).mean()
            extra = risk.loss.value(outputs[m : m + 1], risk.train.y[m : m + 1])[0]
            return divergence + damping / 2 * (t - risk.theta).square().sum() + eps * extra

        for _ in range(30):
            g = torch.func.grad(objective)(theta)
            theta = theta - torch.linalg.solve(torch.func.hessian(objective)(theta), g)
        return theta

    want, _ = derivatives(response, step=1e-3)
    got = influence.parameter_influence(risk, [m], curvature="gauss_newton", damping=damping)[0]
    assert relative_error(got, want) < 1e-6


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 100))
def test_permuting_training_examples_permutes_columns(seed):
    risk, test = logistic_risk(12, l2=0.1), classes(3, seed=4)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    permuted = xl.Risk(risk.model, risk.train[order], l2=risk.l2)
    assert torch.allclose(
        influence.loss_influence(permuted, test), influence.loss_influence(risk, test)[:, order], atol=1e-9
    )


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 50), copies=st.integers(2, 3))
def test_copies_of_the_data_change_nothing(seed, copies):
    """1/n sum l is a mean: with every example there twice theta and each column stay, eps has the same meaning."""
    risk, test = logistic_risk(15, seed=seed, l2=0.1), classes(3, seed=4)
    repeated = xl.Risk(risk.model, risk.train[torch.arange(15).repeat(copies)], l2=risk.l2)
    again = xl.training.minimise(repeated, tolerance=1e-13)
    assert torch.allclose(again.theta, risk.theta, atol=1e-10)
    assert torch.allclose(
        influence.loss_influence(again, test)[:, :15], influence.loss_influence(risk, test), rtol=1e-7, atol=1e-9
    )


@settings(max_examples=6, deadline=None)
@given(c=st.floats(0.1, 10.0))
def test_scaling_loss_and_ridge_scales_only_what_it_should(c):
    """c l and c l2: same minimum, H and gradients times c. dtheta/deps is unchanged, d l_t/d eps is times c."""
    risk, test = ridge_risk(20), targets(3, seed=8)
    scaled = xl.Risk(risk.model, risk.train, loss=lambda f, y: c * (f - y).square().sum(-1), l2=c * risk.l2)
    assert scaled.gradient().norm() < 1e-10
    assert torch.allclose(influence.parameter_influence(scaled), influence.parameter_influence(risk), rtol=1e-8)
    assert torch.allclose(
        influence.loss_influence(scaled, test), c * influence.loss_influence(risk, test), rtol=1e-8, atol=1e-11
    )


@settings(max_examples=8, deadline=None)
@given(
    t=st.integers(1, 4), d=st.integers(1, 4), C=st.integers(2, 4), dtype=st.sampled_from([torch.float32, torch.float64])
)
def test_shapes_and_dtypes_follow_the_inputs(t, d, C, dtype):
    model = xl.models.logistic(d, C, dtype=dtype)
    risk = xl.training.minimise(xl.Risk(model, classes(12, d, C).to(dtype), l2=0.1))
    table = influence.loss_influence(risk, classes(t, d, C, seed=5).to(dtype))
    assert table.shape == (t, 12) and table.dtype == dtype
    moved = influence.parameter_influence(risk, [0, 3])
    assert moved.shape == (2, C * (d + 1)) and moved.dtype == dtype


def test_float32_is_float64_to_its_own_rounding():
    risk, test = logistic_risk(), classes(4, seed=5)
    coarse = xl.training.minimise(xl.Risk(risk.model.float(), risk.train.to(torch.float32), l2=risk.l2))
    got = influence.loss_influence(coarse, test.to(torch.float32)).double()
    assert relative_error(got, influence.loss_influence(risk, test)) < 1e-3


def test_removing_what_pulls_least_is_no_removal():
    """An example whose gradient is zero (here: a perfect fit without noise) has no influence at all."""
    x = normal(10, 2)
    train = Examples(x, x @ normal(2, 1, seed=1))
    risk = xl.training.minimise(xl.Risk(torch.nn.Linear(2, 1, dtype=torch.float64), train, loss="squared_error"))
    assert influence.parameter_influence(risk).abs().max() < 1e-8


def test_weights_of_the_risk_enter_the_curvature_but_not_the_gradient():
    """eps always multiplies l_j, whatever weight example j has already."""
    base = logistic_risk()
    weights = 0.5 + torch.rand(base.n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    risk = xl.training.minimise(base, weights=weights, tolerance=1e-13)

    def curve(eps):
        more = weights.clone()
        more[4] += base.n * eps
        return resolved(base, more)

    want, _ = derivatives(curve, step=1e-3)
    assert relative_error(influence.parameter_influence(risk, [4])[0], want) < 1e-6


@pytest.mark.parametrize("curvature", ["empirical_fisher", "gauss_newton"])
def test_few_rows_and_no_ridge_are_singular_and_the_remedies_work(curvature):
    """Fewer rows than parameters: as for every singular curvature, both ways out are named, and both exist."""
    risk = xl.Risk(network_risk().model, classes(3), l2=0.0)
    with pytest.raises(xl.solvers.SolverError, match=r"rank_deficient.* larger damping.* keep=1e-9"):
        xl.influence.loss_influence(risk, classes(2, seed=1), curvature=curvature, solver="low_rank")
    for remedy in ({"damping": 0.1}, {"keep": 1e-9}):
        table = xl.influence.loss_influence(
            risk, classes(2, seed=1), curvature=curvature, solver="low_rank", on_failure="raise", **remedy
        )
        assert torch.isfinite(table).all()


@pytest.mark.parametrize("solver", ["dense", "low_rank"])
def test_the_sign_and_the_sides_by_every_way_of_multiplying(solver):
    """-grad l(test)^T C^-1 grad l_j with materialised gradients, whichever products the library takes."""
    risk = xl.Risk(network_risk().model, classes(9), l2=0.01)
    test = classes(2, seed=1)
    curvatures = ("ekfac",) if solver == "dense" else ("empirical_fisher", "gauss_newton")
    for curvature in curvatures:
        options = {"curvature": curvature, "damping": 0.1} | ({} if curvature == "ekfac" else {"solver": solver})
        inverse = xl.solvers.inverse_curvature(risk, **options)
        want = -risk.loss_gradients(test) @ inverse(risk.loss_gradients()).value.T
        assert relative_error(influence.loss_influence(risk, test, **options), want) < 1e-8


@pytest.mark.parametrize("curvature", ["gauss_newton", "empirical_fisher"])
def test_gram_matrices_are_used_for_the_low_rank_solver_alone(curvature, monkeypatch):
    risk = xl.Risk(xl.models.mlp([3, 40, 3], "tanh", seed=1, dtype=torch.float64), classes(6))
    options = {"curvature": curvature, "damping": 0.1}
    want = influence.loss_influence(risk, classes(2, seed=1), solver="low_rank", **options)
    monkeypatch.setattr("explainlib.influence.single.GramInverse", lambda *a, **b: pytest.fail("another solver"))
    got = influence.loss_influence(risk, classes(2, seed=1), solver="dense", **options)
    assert relative_error(got, want) < 1e-8
