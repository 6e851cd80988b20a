"""Inverses fitted once: the numbers of the options by name, for many calls, in memory and from a folder."""

import pytest
import torch

import explainlib as xl
from explainlib.curvature import Ekfac
from explainlib.influence import loss_influence, parameter_influence, removal_effect, removal_loss_change
from explainlib.solvers import CG, Arnoldi, FittedInverse, Lissa, LowRankSolver, inverse_curvature
from explainlib.storage import Store
from tests.problems import classes, network_risk, relative_error

SOLVERS = ["dense", "low_rank", "arnoldi", "cg", CG(tolerance=1e-8), Lissa(tolerance=1e-4), "neumann"]


@pytest.fixture(scope="module")
def problem():
    return network_risk(l2=0.1), classes(5, seed=4)


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_a_fitted_inverse_gives_what_its_options_give(problem, solver):
    risk, test = problem
    options = {"curvature": "gauss_newton", "solver": solver, "damping": 0.05}
    fitted = inverse_curvature(risk, **options)
    assert isinstance(fitted, FittedInverse) and fitted.curvature == "gauss_newton"
    rows = risk.loss_gradients(test)
    want = inverse_curvature(risk, **options)(rows).value
    assert torch.equal(fitted(rows).value, want)
    want = -want @ risk.loss_gradients().T
    assert relative_error(loss_influence(risk, test, curvature=fitted), want) < 1e-10
    assert torch.equal(parameter_influence(risk, [2], curvature=fitted), parameter_influence(risk, [2], **options))
    groups = [[0], [1, 2]]
    for call in (
        lambda **how: removal_loss_change(risk, groups, test, **how),
        lambda **how: removal_effect(risk, groups, **how).theta,
    ):
        assert relative_error(call(curvature=fitted), call(**options)) < 1e-10


def test_the_fit_is_made_once(problem, monkeypatch):
    risk, test = problem
    made = []
    whole = Arnoldi.prepare
    monkeypatch.setattr(Arnoldi, "prepare", lambda *args, **more: made.append(1) or whole(*args, **more))
    fitted = inverse_curvature(risk, curvature="gauss_newton", solver="arnoldi", damping=0.1)
    for k in range(3):
        loss_influence(risk, test[[k]], curvature=fitted)
    assert len(made) == 1


def test_the_hessian_of_a_fit_still_wants_a_minimum(problem):
    risk, test = problem
    away = risk.at(risk.theta + 0.1)
    fitted = inverse_curvature(away, damping=5.0)
    with pytest.warns(xl.NotAtMinimumWarning):
        loss_influence(away, test, curvature=fitted)


@pytest.mark.parametrize(
    "changed", [{"damping": 0.2}, {"solver": "cg"}, {"keep": 3}, {"solver": Arnoldi(k=3)}], ids=str
)
def test_options_of_a_fit_cannot_be_changed(problem, changed):
    risk, test = problem
    fitted = inverse_curvature(risk, curvature="gauss_newton", damping=0.1)
    name = next(iter(changed))
    with pytest.raises(ValueError, match=rf"{name}=.* cannot change .* fitted .*inverse_curvature\(risk, ..., {name}="):
        loss_influence(risk, test, curvature=fitted, **changed)
    loss_influence(risk, test, curvature=fitted, damping=0.1)  # the same is no change


def test_a_fit_of_another_problem_is_refused(problem):
    risk, test = problem
    fitted = inverse_curvature(risk, curvature="gauss_newton", damping=0.1)
    others = {
        "other parameters": [risk.at(risk.theta * 1.01), network_risk(l2=0.1, parameters="last")],
        "another loss or ridge": [network_risk(l2=0.2)],
        "other training examples": [risk.subset(torch.arange(risk.n // 2)), network_risk(n=25, l2=0.1)],
        "other weights": [risk.reweighted(torch.linspace(0.5, 1.5, risk.n, dtype=torch.float64))],
    }
    for said, risks in others.items():
        for other in risks:
            with pytest.raises(ValueError, match=f"fitted with {said} than this risk has; fit it again"):
                loss_influence(other, test, curvature=fitted)
    again = network_risk(l2=0.1)  # the same problem, made anew
    assert torch.equal(loss_influence(again, test, curvature=fitted), loss_influence(risk, test, curvature=fitted))


@pytest.mark.parametrize("n", [8, 24])
@pytest.mark.parametrize("solver", ["dense", LowRankSolver(), Arnoldi(k=5)], ids=str)
def test_a_stored_fit_is_read_without_a_pass_over_the_data(tmp_path, monkeypatch, n, solver):
    risk, test = network_risk(n=n, l2=0.1), classes(5, seed=4)
    options = {"curvature": "gauss_newton", "solver": solver, "damping": 0.1}
    rows = risk.loss_gradients(test)
    first = inverse_curvature(risk, **options, store=tmp_path)(rows).value
    assert torch.equal(first, inverse_curvature(risk, **options)(rows).value)
    used = []
    for name in ("MATRICES", "OPERATORS"):
        before = getattr(xl.solvers.configured, name)["gauss_newton"]

        def watched(risk, before=before):
            made = before(risk)
            return (lambda v: used.append(1) or made(v)) if callable(made) else used.append(1) or made

        monkeypatch.setitem(getattr(xl.solvers.configured, name), "gauss_newton", watched)
    monkeypatch.setattr("explainlib.solvers.configured.gauss_newton_factor", lambda risk: used.append(1))
    found = inverse_curvature(risk, **options, store=tmp_path)
    assert not used
    assert torch.equal(found(rows).value, first)
    with pytest.raises(ValueError, match="another computation"):
        inverse_curvature(risk, **{**options, "damping": 0.2}, store=tmp_path)


@pytest.mark.parametrize("solver", ["cg", Lissa(), "neumann"], ids=str)
def test_a_solver_without_a_fit_has_no_store(problem, tmp_path, solver):
    with pytest.raises(ValueError, match="computes nothing in advance .*loss_influence"):
        inverse_curvature(problem[0], curvature="gauss_newton", solver=solver, damping=0.1, store=tmp_path)
    with pytest.raises(ValueError, match=r"the identity computes nothing"):
        inverse_curvature(problem[0], curvature="identity", store=tmp_path)
    with pytest.raises(ValueError, match=r"xl\.curvature\.Ekfac\(risk, store="):
        inverse_curvature(problem[0], curvature="ekfac", damping=0.1, store=tmp_path)


def test_scores_of_a_fit_are_stored_and_another_fit_is_refused(problem, tmp_path):
    risk, test = problem
    fits = [inverse_curvature(risk, curvature="gauss_newton", damping=damping) for damping in (0.1, 0.2)]
    first = loss_influence(risk, test, curvature=fits[0], store=tmp_path / "scores")
    assert relative_error(first, loss_influence(risk, test, curvature=fits[0])) < 1e-12
    assert torch.equal(first, loss_influence(risk, test, curvature=fits[0], store=tmp_path / "scores"))
    with pytest.raises(ValueError, match="another computation"):
        loss_influence(risk, test, curvature=fits[1], store=tmp_path / "scores")


def test_an_interrupted_arnoldi_iteration_goes_on(problem, tmp_path, monkeypatch):
    risk, _ = problem
    monkeypatch.setattr("explainlib.solvers.arnoldi.EVERY", 4)
    operators = xl.solvers.configured.OPERATORS
    product, used = operators["gauss_newton"], []

    def counted(risk, stop=None):
        inner = product(risk)

        def run(v):
            used.append(1)
            if stop is not None and len(used) > stop:
                raise KeyboardInterrupt
            return inner(v)

        return run

    options = {"curvature": "gauss_newton", "solver": Arnoldi(k=5, steps=18), "damping": 0.1}
    rows = risk.loss_gradients()[:3]
    whole = inverse_curvature(risk, **options)(rows).value
    monkeypatch.setitem(operators, "gauss_newton", lambda risk: counted(risk, stop=10))
    with pytest.raises(KeyboardInterrupt):
        inverse_curvature(risk, **options, store=tmp_path)
    used.clear()
    monkeypatch.setitem(operators, "gauss_newton", counted)
    fitted = inverse_curvature(risk, **options, store=tmp_path)
    assert len(used) == 10, "steps 8 to 17"
    assert torch.equal(fitted(rows).value, whole)


def test_an_interrupted_ekfac_goes_on_in_either_pass(problem, tmp_path, monkeypatch):
    risk, test = problem
    monkeypatch.setattr("explainlib.curvature.ekfac.KEPT_EVERY", -1.0)
    monkeypatch.setattr("explainlib.curvature.ekfac.PASS", 4)
    rows = risk.loss_gradients(test)
    whole = Ekfac(risk).inverse_product(rows, damping=0.1)
    forward = xl.curvature.ekfac.forward_pass
    used, stops = [], [4, 6, 3]

    def counted(*args, **more):
        used.append(1)
        if stops and len(used) == stops[0]:
            raise KeyboardInterrupt
        return forward(*args, **more)

    monkeypatch.setattr("explainlib.curvature.ekfac.forward_pass", counted)
    while stops:
        with pytest.raises(KeyboardInterrupt):
            Ekfac(risk, store=tmp_path)
        stops.pop(0)
        used.clear()
    again = Ekfac(risk, store=tmp_path, memory=1)  # the slices of the first call, whatever the memory
    assert torch.equal(again.inverse_product(rows, damping=0.1), whole)
    assert len(used) == 2 * (risk.n // 4) - (2 + 5 + 2), "the rest of the twelve passes"
    used.clear()
    assert torch.equal(Ekfac(risk, store=tmp_path).inverse_product(rows, damping=0.1), whole) and not used
    with pytest.raises(ValueError, match="another computation"):
        Ekfac(risk, labels="data", store=tmp_path)


def test_an_iteration_that_restarted_goes_on_with_the_next_draw(tmp_path, monkeypatch):
    """A matrix of three eigenvalues spans three vectors from each start; the fourth comes from the generator again."""
    monkeypatch.setattr("explainlib.solvers.arnoldi.EVERY", 2)
    values = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).repeat_interleave(5)
    like, used = torch.zeros(15, dtype=torch.float64), []

    def product(v, stop=None):
        used.append(1)
        if stop is not None and len(used) > stop:
            raise KeyboardInterrupt
        return v * values

    whole = xl.solvers.dominant_eigenpairs(product, like, 5, steps=12)
    for stop in (7, 3):
        used.clear()
        with pytest.raises(KeyboardInterrupt):
            xl.solvers.dominant_eigenpairs(
                lambda v, stop=stop: product(v, stop), like, 5, steps=12, saved=Store(tmp_path, {"what": "test"})
            )
    found = xl.solvers.dominant_eigenpairs(product, like, 5, steps=12, saved=Store(tmp_path, {"what": "test"}))
    assert torch.equal(found.vectors, whole.vectors) and torch.equal(found.values, whole.values)
