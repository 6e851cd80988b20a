"""Bilevel influence against the outer problem solved again, and the paper's slips beside what is right."""

import inspect

import pytest
import torch

from explainlib.datasets import class_pool, sample_tasks, spectrum, standardiser, task_features, with_images
from explainlib.influence.bilevel.curvature import EkfacInverse
from explainlib.influence.bilevel.influence import BilevelInfluence
from explainlib.meta.bilevel.learner import Bilevel
from explainlib.meta.bilevel.solve import solve
from explainlib.meta.bilevel.task_weights import TaskWeights
from explainlib.models import logistic
from explainlib.risk import NotAtMinimumWarning
from explainlib.solvers.solution import SolverError, SolverWarning
from tests.meta.bilevel.problems import L2, PROBLEMS, STRENGTH, problem, slope, solved
from tests.meta.few_shot import DOUBLE
from tests.problems import relative_error

TASK, EXAMPLE = 1, 2
WEIGHTED = {"task": "weights", "validation": "validation_weights", "training": "training_weights"}


@pytest.fixture(scope="module", params=PROBLEMS)
def case(request):
    return solved_case(request.param)


_cases = {}


def solved_case(name):
    """Return (learner, lam, tasks, influence) at a stationary point, made once."""
    if name not in _cases:
        learner, tasks = problem(name)
        lam = solved(learner, tasks)
        _cases[name] = learner, lam, tasks, BilevelInfluence(learner, lam, tasks, strict=True)
    return _cases[name]


def weights(tasks, what, eps):
    """Return the problem with one weight 1 + eps."""
    sizes = {
        "task": tasks.group,
        "validation": tasks.query_y[..., 0] if tasks.regression else tasks.query_y,
        "training": tasks.support_y[..., 0] if tasks.regression else tasks.support_y,
    }
    ones = torch.ones(sizes[what].shape, dtype=DOUBLE)
    ones[TASK if what == "task" else (TASK, EXAMPLE)] += eps
    return {WEIGHTED[what]: ones}


def influence_of(influence, what):
    if what == "task":
        return influence.task(TASK)
    return getattr(influence, f"{what}_example")(TASK, EXAMPLE)


_truth = {}


def truth(name_or_case, what):
    """Return dlam/deps by solving the outer problem again."""
    learner, lam, tasks, influence = name_or_case
    key = (id(influence), what)
    if key not in _truth:
        width = min(0.1, 2e-2 / float(influence_of(influence, what).norm()))
        _truth[key] = slope(lambda eps: solved(learner, tasks, start=lam, **weights(tasks, what, eps)), width)
    return _truth[key]


@pytest.mark.parametrize("what", list(WEIGHTED))
def test_influence_is_the_derivative_of_solving_again(case, what):
    assert relative_error(influence_of(case[3], what), truth(case, what)) < 1e-6


def uneven(tasks):
    """Return weights of tasks and examples, none of them 1."""
    spread = lambda shape, at: (0.4 + torch.rand(shape, generator=torch.Generator().manual_seed(at))).double()  # noqa: E731
    training, validation = spread(tasks.support_y.shape, 1), spread(tasks.query_y.shape, 2)
    return {"weights": spread(len(tasks), 0), "training": training, "validation": validation}


@pytest.mark.parametrize("name", ["softmax", "head"])
def test_influence_under_weights_is_the_derivative_of_solving_again(name):
    """Everything weighted unevenly: each eps is added to one weight, and all numbers follow the re-solved problem."""
    learner, lam, tasks, _ = solved_case(name)
    given = uneven(tasks)
    again = lambda lam, w: solved(  # noqa: E731
        learner, tasks, start=lam, weights=w["weights"], training_weights=w["training"], validation_weights=w["validation"]
    )  # fmt: skip
    lam = again(lam, given)
    influence = BilevelInfluence(learner, lam, tasks, weights=TaskWeights.of(tasks, **given), strict=True)
    for what, key in (("task", "weights"), ("training", "training"), ("validation", "validation")):
        place = TASK if what == "task" else (TASK, EXAMPLE)

        def curve(eps, key=key, place=place):
            moved = given[key].clone()
            moved[place] += eps
            return again(lam, given | {key: moved})

        found = influence_of(influence, what)
        assert relative_error(found, slope(curve, min(0.1, 2e-2 / float(found.norm())))) < 1e-6
        edited = influence.without_task(TASK) if what == "task" else influence.without_example(TASK, EXAMPLE, what)
        assert torch.allclose(edited, lam - given[key][place] * found)
        left = given | {key: given[key].clone().index_put_(_index(place), torch.tensor(0.0).double())}
        rest = TaskWeights.of(tasks, **left)
        gradient = rest.tasks @ learner.total_gradients(lam, tasks, weights=rest) + L2 * lam
        system = learner.total_hessian(lam, tasks, weights=rest) + L2 * torch.eye(learner.q, dtype=DOUBLE)
        if what == "task":
            newton = influence.without_task(TASK, newton=True)
        else:
            newton = influence.without_example(TASK, EXAMPLE, what, newton=True)
        assert relative_error(newton - lam, -torch.linalg.solve(system, gradient)) < 1e-8
    new = tasks[[2, 0]]
    other = BilevelInfluence(learner, lam, tasks, weights=TaskWeights.of(tasks, **given), solver="cg", tolerance=1e-10)
    assert relative_error(other.performance(new), influence.performance(new)) < 1e-7
    edited = influence.without_example(TASK, EXAMPLE, newton=True) - lam
    assert relative_error(other.without_example(TASK, EXAMPLE, newton=True) - lam, edited) < 1e-6


def _index(place):
    return tuple(torch.tensor(k) for k in (place if isinstance(place, tuple) else (place,)))


@pytest.mark.parametrize("options", [{}, {"hessian": "gamma"}, {"hessian": "gamma", "solver": "cg"}])
@pytest.mark.parametrize("name", ["softmax", "head"])
def test_a_weight_of_two_is_the_task_twice_and_of_zero_never(name, options):
    learner, lam, tasks, _ = solved_case(name)
    counts = torch.tensor([1.0, 2.0, 0.0, 1.0, 1.0, 1.0], dtype=DOUBLE)
    listed = tasks[[0, 1, 1, 3, 4, 5]]
    lam = solved(learner, listed, start=lam)
    twice = BilevelInfluence(learner, lam, listed, strict=True, **options)
    once = BilevelInfluence(learner, lam, tasks, weights=TaskWeights.of(tasks, weights=counts), strict=True, **options)
    places = [0, 1, 1, 3, 4, 5]
    assert relative_error(once.tasks()[places], twice.tasks()) < 1e-7
    assert relative_error(once.direct_tasks()[places], twice.direct_tasks()) < 1e-7 or name == "softmax"
    if name == "softmax" and not options:
        assert relative_error(once.first_order_tasks()[places], twice.first_order_tasks()) < 1e-7
    both = twice.training_example(1, 0) + twice.training_example(2, 0)  # the example stands in both copies
    assert relative_error(once.training_example(1, 0), both) < 1e-7
    assert torch.allclose(once.without_task(1), twice.without_tasks([1, 2]))
    if not options:
        assert torch.allclose(once.without_task(1, newton=True), twice.without_tasks([1, 2], newton=True))


def test_weights_of_another_kind_are_refused():
    learner, lam, tasks, _ = solved_case("softmax")
    with pytest.raises(TypeError, match=r"TaskWeights\.of"):
        inspect.unwrap(BilevelInfluence.__init__)(object.__new__(BilevelInfluence), learner, lam, tasks, weights=[1.0])
    with pytest.raises(ValueError, match="weights has shape"):
        BilevelInfluence(learner, lam, tasks, weights=TaskWeights.of(tasks[[0, 1]]))
    weighted = TaskWeights.of(tasks, weights=torch.arange(6, dtype=DOUBLE))
    with pytest.raises(ValueError, match=r"weights=xl\.meta\.TaskWeights\.of"):
        BilevelInfluence(learner, solved(learner, tasks, weights=weighted.tasks), tasks, strict=True)


def test_a_batch_is_its_members(case):
    influence = case[3]
    assert torch.equal(influence.tasks()[TASK], influence.task(TASK))
    whole = influence.validation_examples(TASK).sum(0)
    apart = relative_error(whole, influence.task(TASK))  # f is the sum over its validation examples, and its proximity
    assert apart > 0.1 if influence.bilevel.problem.outer_proximity else apart < 1e-10


def test_performance_is_the_derivative_of_new_losses(case):
    learner, lam, tasks, influence = case
    new = problem("softmax")[1] if tasks.support_x.shape[-1] == 4 and not tasks.regression else tasks[[2, 0]]

    def losses(eps):
        return learner.outer_losses(solved(learner, tasks, start=lam, **weights(tasks, "task", eps)), new)

    found = slope(losses, min(0.1, 2e-2 / float(influence.task(TASK).norm())))
    assert relative_error(influence.performance(new)[:, TASK], found) < 1e-6


@pytest.mark.parametrize("solver", ["cg", "neumann"])
def test_iterative_solvers_agree_with_the_factor(solver):
    learner, lam, tasks, influence = solved_case("head" if solver == "cg" else "softmax")
    other = BilevelInfluence(learner, lam, tasks, solver=solver, tolerance=1e-9)
    assert relative_error(other.tasks(), influence.tasks()) < 1e-7
    assert relative_error(other.training_example(1, 2), influence.training_example(1, 2)) < 1e-7
    edited = influence.without_example(1, 2, newton=True)
    assert relative_error(other.without_example(1, 2, newton=True) - lam, edited - lam) < 1e-6
    assert other.solution.status == "converged" and other.solution.steps > 0


@pytest.mark.parametrize("what", list(WEIGHTED))
def test_the_newton_step_edits_better_than_the_formula(case, what):
    learner, lam, tasks, influence = case
    assert torch.allclose(
        influence.without_task(TASK) if what == "task" else influence.without_example(TASK, EXAMPLE, what),
        lam - influence_of(influence, what),
    )
    if learner.problem.linear is None:
        return  # without one of six tasks a network ends in another valley
    gone = solved(learner, tasks, start=lam, **weights(tasks, what, -1.0)) - lam

    def error(newton):
        if what == "task":
            return relative_error(influence.without_task(TASK, newton=newton) - lam, gone)
        return relative_error(influence.without_example(TASK, EXAMPLE, what, newton=newton) - lam, gone)

    if learner.inner == "proximal":
        assert error(True) < min(0.15, error(False))
    assert error(True) < 1.0 and error(False) < 1.0


def test_many_at_once_is_the_sum():
    _, lam, _, influence = solved_case("softmax")
    both = influence.without_tasks([1, 4])
    assert torch.allclose(both - lam, -(influence.task(1) + influence.task(4)))


def glyph_tasks(pool, count, seed):
    scale = standardiser(spectrum(pool.x, size=4))
    tasks = sample_tasks(pool, count, shots=2, queries=3, seed=seed)
    return task_features(with_images(pool, tasks), lambda images: spectrum(images, size=4, standardise=scale))


def test_removal_on_a_hundred_tasks_of_glyphs():
    """Error of the edited parameters, and correlation of new tasks' loss changes, against solving again."""
    pool = class_pool("glyphs").double()
    tasks, new = glyph_tasks(pool, 100, 0), glyph_tasks(pool, 20, 1)
    learner = Bilevel(logistic(16, 5, dtype=DOUBLE), strength=10.0, l2=5.0)
    lam = solve(learner, tasks, tolerance=1e-8).w
    influence, gamma = (BilevelInfluence(learner, lam, tasks, hessian=h) for h in ("exact", "gamma"))
    removed = range(4)
    keep = 1 - torch.eye(100, dtype=DOUBLE)
    right = torch.stack([solve(learner, tasks, tolerance=1e-8, weights=keep[k], start=lam).w - lam for k in removed])
    edits = {
        "exact": [influence.without_task(k) for k in removed],
        "newton": [influence.without_task(k, newton=True) for k in removed],
        "gamma": [gamma.without_task(k) for k in removed],
        "first order": [lam - influence.first_order(k) for k in removed],
    }
    now = learner.outer_losses(lam, new)
    changes = lambda moves: torch.cat([learner.outer_losses(lam + move, new) - now for move in moves])  # noqa: E731
    true = changes(right)
    error, pearson = {}, {}
    for name, rows in edits.items():
        moves = torch.stack(rows) - lam
        error[name] = float(((moves - right).norm(dim=1) / right.norm(dim=1)).median())
        pearson[name] = float(torch.corrcoef(torch.stack([changes(moves), true]))[0, 1])
    assert error["exact"] <= 0.08 and pearson["exact"] >= 0.99
    assert error["newton"] <= 0.02 and pearson["newton"] >= pearson["exact"]
    assert error["first order"] > 4 * error["exact"] and error["gamma"] > 0.98
    assert max(pearson["gamma"], pearson["first order"]) < pearson["exact"]
    far = right.norm(dim=1) / (torch.stack(edits["gamma"]) - lam).norm(dim=1)
    assert 20 < float(far.median()) < 400  # how many times too small the step of Gamma is


def test_slip_4_the_direct_form_is_zero_and_first_order_is_what_is_run():
    learner, lam, tasks, influence = solved_case("softmax")
    assert influence.direct(TASK).abs().max() == 0  # eq. (2): partial_lam f = 0 in the main text's problem
    s = learner.total_hessian(lam, tasks) + L2 * torch.eye(learner.q, dtype=DOUBLE)
    printed = -torch.linalg.solve(s, learner.partial_gradients(lam, tasks)[1][TASK])
    assert relative_error(influence.first_order(TASK), printed) < 1e-12
    right = truth(solved_case("softmax"), "task")
    assert relative_error(printed, right) > 0.3 and relative_error(influence.task(TASK), right) < 1e-6
    assert solved_case("head")[3].direct(TASK).norm() > 0.01


def test_slip_5_gamma_ranks_and_cannot_edit():
    learner, lam, tasks, influence = solved_case("softmax")
    gamma = BilevelInfluence(learner, lam, tasks, hessian="gamma")
    shift = L2 + learner.partial_gradients(lam, tasks)[1].abs().sum()
    assert torch.allclose(gamma.tasks(), -learner.total_gradients(lam, tasks) / shift)  # a multiple of I
    right = truth(solved_case("softmax"), "task")
    assert relative_error(gamma.task(TASK), right) > 0.8 and right.norm() / gamma.task(TASK).norm() > 5
    head, at, few, _ = solved_case("head")
    kept = BilevelInfluence(head, at, few, hessian="gamma")
    assert relative_error(BilevelInfluence(head, at, few, hessian="gamma", solver="cg").tasks(), kept.tasks()) < 1e-7


def test_slip_6_signs_and_the_lost_ridge():
    """Main text: lam - IF. Appendix: lam + IF, right for IF = -H^-1 D P; and H there has lost the outer ridge."""
    learner, lam, tasks, influence = solved_case("softmax")
    h = learner.total_hessian(lam, tasks)
    s = h + L2 * torch.eye(learner.q, dtype=DOUBLE)
    of_p = s @ influence.training_example(TASK, EXAMPLE)  # D_lam P
    gone = (solved(learner, tasks, start=lam, **weights(tasks, "training", -0.02)) - lam) / 0.02  # a fiftieth of it
    printed = -torch.linalg.solve(s, of_p)
    assert relative_error(-printed, gone) > 1.9  # the main text's sign
    assert relative_error(printed, gone) < 0.05  # the appendix's
    right = truth(solved_case("softmax"), "training")
    assert relative_error(torch.linalg.solve(h, of_p), right) > 0.05  # without the ridge
    assert relative_error(torch.linalg.solve(s, of_p), right) < 1e-6


def test_theorem_4_5_needs_the_total_gradient():
    learner, lam, tasks, influence = solved_case("softmax")
    s = learner.total_hessian(lam, tasks) + L2 * torch.eye(learner.q, dtype=DOUBLE)
    theta = learner.inner_solution(lam, tasks)[TASK].requires_grad_()
    outputs = learner.problem.outputs(lam, theta, tasks.query_x[TASK])
    loss = torch.nn.functional.cross_entropy(outputs, tasks.query_y[TASK], reduction="none")[EXAMPLE]
    printed = -torch.linalg.solve(s, torch.autograd.grad(loss, theta)[0])
    right = truth(solved_case("softmax"), "validation")
    assert relative_error(printed, right) > 0.3
    assert relative_error(influence.validation_example(TASK, EXAMPLE), right) < 1e-6


def test_slip_7_the_fixed_point_of_algorithm_4():
    """I <- I - delta I + S I + T rests at (delta I - H)^-1 T; corrected and scaled, at minus the task-IF."""
    learner, lam, tasks, influence = solved_case("softmax")
    h, t = learner.total_hessian(lam, tasks), learner.total_gradients(lam, tasks)[TASK]
    eye = torch.eye(learner.q, dtype=DOUBLE)
    printed = torch.linalg.solve(L2 * eye - h, t)
    assert relative_error(printed - L2 * printed + h @ printed + t, printed) < 1e-10  # it is at rest
    right = truth(solved_case("softmax"), "task")
    assert relative_error(-printed, right) > 2 and relative_error(printed, right) > 0.2
    scale = 1.1 * float(torch.linalg.eigvalsh(h)[-1] + L2)
    moving = t / scale
    for _ in range(2000):
        moving = moving + (t - L2 * moving - h @ moving) / scale
    assert relative_error(moving, -right) < 1e-6  # lam - output would go the wrong way


def test_slip_8_strength_and_l2_are_two_numbers():
    learner, lam, tasks, influence = solved_case("softmax")
    right = truth(solved_case("softmax"), "task")
    h, t = learner.total_hessian(lam, tasks), learner.total_gradients(lam, tasks)[TASK]
    one_delta = -torch.linalg.solve(h + STRENGTH * torch.eye(learner.q, dtype=DOUBLE), t)
    assert relative_error(one_delta, right) > 0.01 and relative_error(influence.task(TASK), right) < 1e-6


def test_the_shortcut_drops_the_adaptation():
    _, _, tasks, influence = solved_case("softmax")
    assert relative_error(influence.performance(tasks, shortcut=True), influence.performance(tasks)) > 0.2
    with pytest.raises(ValueError, match="only inner='proximal'"):
        solved_case("head")[3].performance(solved_case("head")[2], shortcut=True)
    with pytest.raises(ValueError, match="only inner='proximal'"):
        solved_case("head")[3].first_order(0)


def test_ekfac_stands_in_for_the_inner_hessian():
    """Exact for one training example, whose Fisher block is a Kronecker product; else near, and never silent."""
    learner = Bilevel(logistic(3, 2, dtype=DOUBLE), strength=STRENGTH, l2=L2)
    tasks = problem("head")[1]
    tasks = type(tasks)(tasks.support_x, tasks.support_y % 2, tasks.query_x, tasks.query_y % 2)
    single = torch.zeros(tasks.support_y.shape[:2], dtype=DOUBLE)
    single[:, 0] = 1
    chosen = TaskWeights.of(tasks, training=single)
    rows = torch.randn(6, 4, learner.q, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    exact = next(iter(learner.inner_states(learner.lam0, tasks, weights=chosen)))[1]
    near = next(iter(learner.inner_states(learner.lam0, tasks, weights=chosen, inverse=EkfacInverse)))[1]
    assert relative_error(near.inverse.solve(rows), exact.inverse.solve(rows)) < 1e-10
    for name in ("softmax", "head"):
        made, lam, few, influence = solved_case(name)
        approximate = BilevelInfluence(made, lam, few, inner_hessian="ekfac").tasks()
        assert 1e-3 < relative_error(approximate, influence.tasks()) < 1.0


def test_bad_input():
    learner, lam, tasks, influence = solved_case("softmax")
    with pytest.warns(NotAtMinimumWarning, match="not a stationary point"):
        assert BilevelInfluence(learner, learner.lam0, tasks).status == "not_stationary"
    with pytest.raises(ValueError, match=r"xl\.meta\.solve"):
        BilevelInfluence(learner, learner.lam0, tasks, strict=True)
    with pytest.raises(ValueError, match="outside the 3 training examples of task 1"):
        influence.training_example(1, 3)
    with pytest.raises(ValueError, match="outside the 12 validation examples of task 0"):
        influence.without_example(0, 12, "validation")
    with pytest.raises(ValueError, match="outside the 6 training tasks"):
        influence.task(6)
    with pytest.raises(ValueError, match="all 6 training tasks"):
        influence.without_tasks(list(range(6)))
    with pytest.raises(ValueError, match="hessian='exact'"):
        BilevelInfluence(learner, lam, tasks, hessian="gamma").without_task(0, newton=True)
    with pytest.raises(ValueError, match="'lissa'"):
        BilevelInfluence(learner, lam, tasks, solver="lissa")


def test_a_long_series_is_given_up_for_conjugate_gradients():
    learner, lam, tasks, exact = solved_case("softmax")
    long = BilevelInfluence(learner, lam, tasks, solver="neumann", scale=1e4)  # as short steps as a stiff S would need
    with pytest.raises(SolverError, match=r"max_steps.*solver='cg', which needs far fewer products"):
        long.tasks()
    assert long.solution.steps == 1000
    assert BilevelInfluence(learner, lam, tasks, solver="cg").tasks().allclose(exact.tasks(), rtol=1e-6, atol=1e-9)


def test_a_diverging_series_is_stopped_with_its_spectrum():
    learner, lam, tasks, _ = solved_case("softmax")
    with pytest.raises(SolverError, match="diverged") as caught:
        BilevelInfluence(learner, lam, tasks, solver="neumann", scale=1.0).tasks()
    assert caught.value.solution.status == "diverged" and "eigenvalue" in caught.value.solution.detail
    with pytest.warns(SolverWarning, match="max_steps"):
        BilevelInfluence(learner, lam, tasks, solver="neumann", max_steps=2, on_failure="warn").tasks()


@pytest.mark.filterwarnings("ignore::explainlib.risk.NotAtMinimumWarning")
@pytest.mark.parametrize("name", ["head", "network"])
def test_an_indefinite_curvature_says_so(name):
    """At the start S has eigenvalues of both signs; the dense solve of a saddle was once called converged."""
    learner, tasks = problem(name)
    lam = learner.lam0
    matrix = learner.total_hessian(lam, tasks) + L2 * torch.eye(learner.q, dtype=DOUBLE)
    assert torch.linalg.eigvalsh(matrix)[0] < -1
    dense = BilevelInfluence(learner, lam, tasks)
    with pytest.warns(SolverWarning, match="not_positive_definite.*lowest eigenvalue is -.*saddle"):
        found = dense.tasks()
    assert dense.solution.status == "not_positive_definite"
    want = -torch.linalg.solve(matrix, learner.total_gradients(lam, tasks).T).T
    assert relative_error(found, want) < 1e-9  # of the stationary point that a Newton step would take
    with pytest.warns(SolverWarning, match="not_positive_definite"):
        dense.without_task(0, newton=True)
    for solver, status in (("cg", "not_positive_definite"), ("neumann", "diverged")):
        with pytest.raises(SolverError, match=status):
            BilevelInfluence(learner, lam, tasks, solver=solver).tasks()


@pytest.mark.parametrize("solver", ["dense", "cg", "neumann"])
def test_a_minimum_is_called_converged(case, solver, recwarn):
    learner, lam, tasks, _ = case
    influence = BilevelInfluence(learner, lam, tasks, solver=solver)
    influence.tasks()
    assert influence.solution.status == "converged"
    assert not [caught for caught in recwarn if issubclass(caught.category, SolverWarning)]
