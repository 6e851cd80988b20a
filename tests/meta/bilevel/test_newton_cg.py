"""Inner problems by products alone: the same solutions and inverses as by dense Hessians, and none is formed."""

import pytest
import torch

from explainlib.influence.bilevel.influence import BilevelInfluence
from explainlib.memory import TooLargeError
from explainlib.meta.bilevel import inner, newton_cg
from explainlib.meta.bilevel.inner import InnerError
from explainlib.meta.bilevel.learner import Bilevel
from explainlib.meta.bilevel.task_weights import TaskWeights
from explainlib.models import mlp
from explainlib.solvers.solution import SolverError
from tests.meta.bilevel.problems import L2, solved
from tests.meta.few_shot import DOUBLE, random_tasks
from tests.problems import normal, relative_error


def pair(strength=2.0, dtype=DOUBLE, activation="tanh", **options):
    """The same learner with dense inner Hessians and without, and six tasks."""
    model = mlp([2, 4, 2], activation, dtype=dtype)
    learners = [Bilevel(model, strength=strength, l2=L2, inner_solver=how, **options) for how in ("dense", "cg")]
    return *learners, random_tasks(6, features=2, ways=2).to(dtype)


@pytest.mark.parametrize("strength", [0.3, 2.0, 20.0])
def test_solutions_are_those_of_dense_newton(strength):
    dense, free, tasks = pair(strength)
    assert free.problem.matrix_free and not dense.problem.matrix_free
    lam = dense.lam0
    want, found = dense.inner_solution(lam, tasks), free.inner_solution(lam, tasks)
    for k in range(len(tasks)):  # a small strength may have several minima; each is one
        batch = TaskWeights.of(tasks).batch(tasks, slice(k, k + 1))
        slope = newton_cg.gradients_and_products(free.problem, lam, found[k : k + 1], batch)[0]
        assert float(slope.norm()) < 1e-12 * max(1.0, float(found[k].norm()))
    if strength > 1:
        assert relative_error(found, want) < 1e-11


def test_float32_ends_at_its_rounding():
    dense, free, tasks = pair(dtype=torch.float32)
    want = pair()[0].inner_solution(pair()[0].lam0, pair()[2])
    assert relative_error(free.inner_solution(free.lam0, tasks).double(), want) < 2e-6


def test_weights_of_examples_enter():
    dense, free, tasks = pair()
    given = TaskWeights.of(
        tasks, training=torch.arange(tasks.support_y.numel(), dtype=DOUBLE).view(tasks.support_y.shape)
    )
    found, want = (learner.inner_solution(learner.lam0, tasks, weights=given) for learner in (free, dense))
    assert relative_error(found, want) < 1e-11


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_the_inverse_is_the_dense_one(k, preconditioned):
    dense, free, tasks = pair()
    lam, rows = dense.lam0, normal(6, k, dense.p, seed=4)
    theta, batch = dense.inner_solution(lam, tasks), TaskWeights.of(tasks).batch(tasks, slice(None))
    exact = inner.inner_inverse(dense.problem, lam, theta, batch)
    found = newton_cg.CgInverse(free.problem, lam, theta, batch, exact if preconditioned else None)
    assert relative_error(found.solve(rows), exact.solve(rows)) < 1e-9
    assert found.steps == 1 if preconditioned else found.steps > 1


def test_influence_is_that_of_the_dense_learner(monkeypatch):
    dense, free, tasks = pair(20.0)
    lam, new, parts = solved(dense, tasks), random_tasks(2, features=2, ways=2, seed=7), ("training", "validation")
    want = BilevelInfluence(dense, lam, tasks)
    expected, tables = want.tasks(), [want.example_performance(new, part=part) for part in parts]
    monkeypatch.setattr(inner, "_hessians", lambda *given: pytest.fail("a dense Hessian was formed"))
    found = BilevelInfluence(free, lam, tasks, solver="cg", strict=True)
    assert relative_error(found.tasks(), expected) < 1e-7
    for part, table in zip(parts, tables, strict=True):
        assert relative_error(found.example_performance(new, part=part), table) < 1e-7


def test_networks_above_a_size_are_taken_without_matrices():
    large = Bilevel(mlp([40, 40, 5], "tanh", dtype=torch.float32), strength=1.0, l2=0.1)
    assert large.p > 300 and large.problem.matrix_free
    assert not Bilevel(mlp([2, 4, 2], "tanh"), strength=1.0, l2=0.1).problem.matrix_free


def test_dense_hessians_that_do_not_fit_name_the_way_out(monkeypatch):
    dense, _, tasks = pair()
    monkeypatch.setattr("explainlib.memory.SMALL", 0)
    monkeypatch.setattr("explainlib.memory.free_memory", lambda device: 1000)
    with pytest.raises(TooLargeError, match="inner_solver='cg'"):
        dense.inner_solution(dense.lam0, tasks)


def test_a_total_hessian_that_does_not_fit_names_the_solver(monkeypatch):
    free, tasks = pair(20.0)[1:]
    influence = BilevelInfluence(free, free.lam0, tasks)
    monkeypatch.setattr("explainlib.memory.SMALL", 0)
    monkeypatch.setattr("explainlib.memory.free_memory", lambda device: 1000)
    with pytest.raises(TooLargeError, match="total Hessian of q = 22 .*solver='cg'"):
        influence.tasks()


def test_a_kink_is_told():
    _, free, tasks = pair(0.01, activation="relu")
    with pytest.raises(InnerError, match="did not converge"):
        free.inner_solution(10 * free.lam0 + 0.1, random_tasks(6, features=2, ways=2, shots=9, spread=0.0))


def test_a_saddle_is_no_solution():
    """At zero weights a network's gradient vanishes, with as many examples of each class, and nothing is learned."""
    dense, free, tasks = pair(0.01)
    for learner in (dense, free):
        with pytest.raises(InnerError, match="did not converge to a minimum"):
            learner.inner_solution(torch.zeros_like(learner.lam0), tasks)


def test_an_indefinite_hessian_is_told():
    _, free, tasks = pair(0.01)
    batch = TaskWeights.of(tasks).batch(tasks, slice(None))
    inverse = newton_cg.CgInverse(free.problem, free.lam0, normal(6, free.p, seed=2) * 3, batch)
    with pytest.raises(SolverError, match="make the Bilevel's strength larger"):
        inverse.solve(normal(6, 2, free.p, seed=3))


def test_bad_input():
    with pytest.raises(ValueError, match="inner_solver='lu' is unknown"):
        Bilevel(mlp([2, 4, 2], "tanh"), strength=1.0, l2=0.1, inner_solver="lu")
