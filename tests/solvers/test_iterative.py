"""CG and LiSSA against direct solves, on easy, stiff, indefinite and noisy systems; and slip 13."""

import sys

import pytest
import torch

import explainlib as xl
from explainlib.solvers import CG, Lissa, SolverError, SolverWarning, cg, inverse_curvature, lissa, preconditioner
from explainlib.solvers.series import lissa_batches
from tests.problems import classes, general, logistic_risk, network_risk, normal, relative_error
from tests.solvers.test_direct import symmetric


def product_of(matrix):
    return lambda v: v @ matrix


def test_cg_solves_every_row():
    matrix, _ = symmetric(torch.linspace(0.5, 20, 30))
    rhs = normal(40, 30, seed=2)
    rhs[3] = 0.0
    rhs[4] *= 1e-12
    rhs[5] *= 1e12
    solution = cg(product_of(matrix), rhs)
    assert solution.converged and solution.residual.shape == (40,) and solution.residual.max() < 1e-9
    assert torch.equal(solution.value[3], torch.zeros(30, dtype=torch.float64))
    want = torch.linalg.solve(matrix, rhs.T).T
    for got, exact in zip(solution.value, want, strict=True):
        assert (got - exact).norm() <= 1e-8 * exact.norm()


def test_cg_on_an_ill_conditioned_system_and_with_a_preconditioner():
    matrix, _ = symmetric(torch.logspace(-6, 0, 40))
    rhs = normal(3, 40)
    plain = cg(product_of(matrix), rhs, max_steps=4000)
    want = torch.linalg.solve(matrix, rhs.T).T
    assert plain.converged and relative_error(plain.value, want) < 1e-3
    nearly = torch.linalg.inv(matrix + 1e-8 * torch.eye(40, dtype=torch.float64))
    fast = cg(product_of(matrix), rhs, preconditioner=product_of(nearly))
    assert fast.converged and fast.steps < 10 < plain.steps and relative_error(fast.value, want) < 1e-3


def test_cg_out_of_steps_says_so():
    matrix, _ = symmetric(torch.logspace(-8, 0, 40))
    solution = cg(product_of(matrix), normal(3, 40), max_steps=5)
    assert solution.status == "max_steps" and solution.steps == 5
    with pytest.raises(SolverError, match="allow more max_steps, or add a multiple of the identity"):
        solution.require_converged()


def test_cg_meets_negative_curvature():
    matrix, _ = symmetric([-1.0, 1.0, 2.0, 3.0])
    assert cg(product_of(matrix), normal(3, 4)).status == "not_positive_definite"
    zero, _ = symmetric([0.0, 1.0, 2.0, 3.0])
    assert not cg(product_of(zero), normal(3, 4)).converged


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_cg_says_nonfinite(value):
    matrix, _ = symmetric([1.0, 2.0, 3.0])
    rhs = normal(2, 3)
    rhs[0, 1] = value
    assert cg(product_of(matrix), rhs).status == "nonfinite"
    assert cg(lambda v: v * float("nan"), normal(2, 3)).status == "nonfinite"


def test_cg_tolerance_by_row():
    matrix, _ = symmetric(torch.logspace(-3, 0, 30))
    tolerance = torch.tensor([1e-1, 1e-10], dtype=torch.float64)
    solution = cg(product_of(matrix), normal(2, 30), tolerance=tolerance)
    assert solution.residual[0] <= 1e-1 and solution.residual[1] <= 1e-9


def test_lissa_full_batch():
    matrix, _ = symmetric(torch.linspace(0.1, 5, 12))
    rhs = normal(6, 12)
    solution = lissa(product_of(matrix), rhs, scale=5.5, damping=0.05)
    want = torch.linalg.solve(matrix + 0.05 * torch.eye(12, dtype=torch.float64), rhs.T).T
    assert solution.converged and relative_error(solution.value, want) < 1e-4 and solution.residual.max() <= 1e-6


def test_lissa_diverges_exactly_below_half_the_top_eigenvalue():
    matrix, _ = symmetric(torch.linspace(0.5, 5, 12))
    rhs = normal(2, 12)
    assert lissa(product_of(matrix), rhs, scale=2.6).converged
    diverged = lissa(product_of(matrix), rhs, scale=2.4)
    assert diverged.status == "diverged"
    with pytest.raises(SolverError, match="pass scale=5.5"):
        diverged.require_converged()


def test_lissa_on_negative_curvature_names_that_cause():
    matrix, _ = symmetric([-0.5, 1.0, 2.0])
    with pytest.raises(SolverError, match="negative eigenvalue"):
        lissa(product_of(matrix), normal(2, 3), scale=3.0).require_converged()


def test_lissa_out_of_steps():
    matrix, _ = symmetric([1e-6, 1.0, 2.0])
    assert lissa(product_of(matrix), normal(2, 3), scale=3.0, max_steps=50).status == "max_steps"


def test_slip_13_the_usual_form_solves_another_system():
    """h <- v + (1 - d) h - H h / scale has its fixed point at (H + scale d I)^-1 v, not (H + d I)^-1 v."""
    matrix, _ = symmetric(torch.linspace(0.1, 5, 12))
    v, scale, damping = normal(1, 12), 10.0, 0.01
    h = v.clone()
    for _ in range(4000):
        h = v + (1 - damping) * h - h @ matrix / scale
    eye = torch.eye(12, dtype=torch.float64)
    meant = torch.linalg.solve(matrix + damping * eye, v.T).T
    solved = torch.linalg.solve(matrix + scale * damping * eye, v.T).T
    assert relative_error(h / scale, solved) < 1e-6
    assert relative_error(h / scale, meant) > 0.1
    assert relative_error(lissa(product_of(matrix), v, scale=scale, damping=damping).value, meant) < 1e-4


@pytest.mark.parametrize("make", [logistic_risk, lambda: general(logistic_risk())], ids=["head", "general"])
@pytest.mark.parametrize("curvature", ["hessian", "gauss_newton", "empirical_fisher"])
@pytest.mark.parametrize("share", [1e-2, 1e-4])
def test_all_solvers_agree(make, curvature, share):
    """Damping well below the top eigenvalue: with a large one any method looks right."""
    risk, test = make(), classes(6, seed=8)
    top = float(torch.linalg.eigvalsh(xl.curvature.hessian(risk)).max())
    options = {"curvature": curvature, "damping": share * top}
    want = xl.influence.loss_influence(risk, test, **options)
    solvers = ["cg", "low_rank"] if curvature != "hessian" or risk.head is not None else ["cg"]
    for solver in solvers:
        assert relative_error(xl.influence.loss_influence(risk, test, solver=solver, **options), want) < 1e-6, solver
    if share == 1e-2:
        assert relative_error(xl.influence.loss_influence(risk, test, solver="lissa", **options), want) < 1e-4


def test_low_rank_agrees_on_both_sides_of_n():
    for n in (4, 40):  # 8 rows < 12 parameters, and 80 > 12
        risk = logistic_risk(n)
        rhs = normal(3, risk.p)
        for keep in (None, 1e-9, 5):
            options = {"curvature": "gauss_newton", "damping": 0.01, "keep": keep}
            want, got = (inverse_curvature(risk, solver=s, **options)(rhs).value for s in ("dense", "low_rank"))
            assert relative_error(got, want) < 1e-7, (n, keep)


@pytest.mark.parametrize(
    ("make", "damping", "steps"),
    [(logistic_risk, 0.15, 80), (lambda: general(logistic_risk()), 1.0, 12)],
    ids=["head", "general"],
)
def test_lissa_on_batches_is_within_three_standard_errors(make, damping, steps):
    risk, rhs = make(), normal(2, 12)
    solver = Lissa(batch_size=10, scale=2.0, steps=steps, repeats=10)
    solution = inverse_curvature(risk, solver=solver, damping=damping)(rhs)
    want = inverse_curvature(risk, damping=damping)(rhs).value
    z = (solution.value - want) / solution.standard_error
    assert solution.converged and (z.abs() < 3).float().mean() > 0.9 and z.abs().max() < 6
    assert relative_error(solution.value, want) < 0.2


def test_lissa_on_batches_is_its_seed():
    risk, rhs = logistic_risk(), normal(2, 12)
    values = [
        inverse_curvature(risk, solver=Lissa(batch_size=10, steps=8, repeats=2, seed=seed))(rhs).value
        for seed in (0, 0, 7)
    ]
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])


def test_the_residual_of_lissa_on_batches_is_its_relative_standard_error():
    risk, rhs = logistic_risk(), normal(2, 12)
    several, one = (
        inverse_curvature(risk, solver=Lissa(batch_size=10, scale=2.0, steps=8, repeats=repeats))(rhs)
        for repeats in (3, 1)
    )
    want = several.standard_error.norm(dim=1) / several.value.norm(dim=1)
    assert torch.allclose(several.residual, want) and (want > 0).all()
    assert one.standard_error is None and (one.residual == 0).all(), "one repeat has no error to tell"


def test_lissa_on_batches_that_diverges_says_so():
    risk = logistic_risk()
    with pytest.raises(SolverError, match="diverged.*on batches"):
        inverse_curvature(risk, solver=Lissa(batch_size=5, scale=0.05, steps=500))(
            normal(1, risk.p)
        ).require_converged()


def test_lissa_without_an_end_is_refused():
    base = logistic_risk()
    flat = xl.Risk(base.model, base.train)
    with pytest.raises(ValueError, match=r"damping > 0, or .*Lissa\(steps"):
        inverse_curvature(flat, solver=Lissa(batch_size=5))


def test_one_parameter_is_enough_for_every_solver():
    train = xl.datasets.Examples(torch.tensor([[1.0], [2.0]]).double(), torch.tensor([[2.0], [2.0]]).double())
    risk = xl.Risk(torch.nn.Linear(1, 1, bias=False).double(), train, loss="squared_error")
    risk = xl.training.minimise(risk)
    for solver in ("dense", "cg", "lissa", "low_rank"):  # H = 2 mean(x^2) = 5
        assert inverse_curvature(risk, solver=solver)(torch.tensor([[1.0]]).double()).value.item() == pytest.approx(0.2)


def test_identity_divides_by_one_plus_damping():
    risk, rhs = logistic_risk(), normal(2, 12)
    assert torch.allclose(inverse_curvature(risk, curvature="identity", damping=3.0)(rhs).value, rhs / 4)


@pytest.mark.parametrize("solver", ["cg", "lissa"])
def test_keep_needs_eigenvalues(solver):
    with pytest.raises(ValueError, match="eigenvalues.*dense"):
        inverse_curvature(logistic_risk(), solver=solver, keep=3)


def test_low_rank_has_no_hessian_of_a_network():
    with pytest.raises(ValueError, match="gauss_newton"):
        inverse_curvature(network_risk(), solver="low_rank")


@pytest.mark.parametrize("solver", ["dense", "low_rank", CG(max_steps=30)], ids=["dense", "low_rank", "cg"])
def test_a_failed_solve_raises_by_default_and_warns_on_request(solver):
    base = logistic_risk()
    flat = xl.Risk(base.model, base.train)  # without ridge the shift of the softmax is free: singular
    test = classes(3, seed=8)
    rhs_outside = torch.ones(1, flat.p, dtype=torch.float64)
    solution = inverse_curvature(flat, solver=solver)(rhs_outside)
    assert not solution.converged
    if solver in ("dense", "low_rank"):
        with pytest.warns(xl.NotAtMinimumWarning), pytest.raises(SolverError, match="rank_deficient"):
            xl.influence.loss_influence(flat, test, solver=solver)
        with pytest.warns(SolverWarning, match="rank_deficient") as caught:
            table = xl.influence.loss_influence(flat, test, solver=solver, on_failure="warn")
        assert torch.isfinite(table).all()
        assert any(w.filename == __file__ for w in caught)
        assert torch.isfinite(xl.influence.loss_influence(flat, test, keep=1e-9)).all()


def test_preconditioner_is_the_inverse_hessian_or_nothing():
    risk, rhs = logistic_risk(), normal(3, 12)
    want = torch.linalg.solve(xl.curvature.hessian(risk) + 0.2 * torch.eye(12, dtype=torch.float64), rhs.T).T
    assert relative_error(preconditioner(risk, damping=0.2)(rhs), want) < 1e-10
    assert preconditioner(general(risk), up_to=5) is None  # nothing cheap without a recognised final layer
    saddle = network_risk("tanh", n=12, l2=0.0)
    assert preconditioner(saddle.at(3 * normal(saddle.p, seed=8))) is None


@pytest.mark.parametrize("weighted", [False, True])
def test_without_room_for_the_matrix_its_diagonal_blocks_are_inverted(weighted):
    risk, rhs = logistic_risk(), normal(3, 12)
    risk = risk.reweighted(torch.linspace(0.5, 2, risk.n).double()) if weighted else risk
    as_matrix = risk.head.matrix(torch.arange(12.0).double()).long()  # [C, d]: where output c's parameters stand
    damped = xl.curvature.gauss_newton(risk) + 0.2 * torch.eye(12).double()
    want = torch.zeros_like(rhs)
    for place in as_matrix:
        block = damped[place][:, place]
        want[:, place] = torch.linalg.solve(block, rhs[:, place].T).T
    assert torch.allclose(preconditioner(risk, damping=0.2, up_to=5)(rhs), want)
    product = xl.curvature.hessian_product
    solution = cg(lambda v: product(risk, v) + 0.2 * v, rhs, preconditioner=preconditioner(risk, damping=0.2, up_to=5))
    assert solution.converged and relative_error(solution.value, torch.linalg.solve(damped, rhs.T).T) < 1e-9


def test_memory_never_mixes_options():
    risk, rhs = logistic_risk(), normal(2, 12)
    first = inverse_curvature(risk, damping=0.1)(rhs).value
    for options in ({"damping": 0.2}, {"damping": 0.1, "keep": 3}, {"damping": 0.1, "curvature": "empirical_fisher"}):
        assert relative_error(inverse_curvature(risk, **options)(rhs).value, first) > 1e-3
    assert torch.equal(inverse_curvature(risk, damping=0.1)(rhs).value, first)
    weights = torch.ones(risk.n, dtype=torch.float64)
    weights[:20] = 3
    for other in (risk.reweighted(weights), risk.at(2 * risk.theta), risk.subset(list(range(9)))):
        assert relative_error(inverse_curvature(other, damping=0.1)(rhs).value, first) > 1e-3


@pytest.mark.parametrize("every", [1, 8, 1000])
def test_batches_that_diverge_are_told_however_seldom_the_iterate_is_looked_at(every, monkeypatch):
    """On a GPU the iterate is looked at every few steps, and after the last one."""
    module = sys.modules["explainlib.solvers.series.lissa"]  # a function has its name
    monkeypatch.setattr(module, "steps_between_checks", lambda rhs: every)
    grows = lambda seed: iter(lambda: lambda v: -0.5 * v, None)  # noqa: E731
    found = lissa_batches(grows, torch.ones(1, 3, dtype=torch.float64), scale=1.0, damping=0.0, steps=20, repeats=1)
    assert found.status == "diverged"
