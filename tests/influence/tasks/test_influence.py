"""Task influence against the problem itself, minimised again with one task's weight changed."""

import warnings

import pytest
import torch

from explainlib.datasets import Tasks
from explainlib.influence import TaskInfluence
from explainlib.influence.tasks.spectrum import spectrum_of_rows
from explainlib.meta import Maml, gauss_newton_rows, meta_hessian, minimise
from explainlib.meta.hessian import hessian_operator
from explainlib.risk import NotAtMinimumWarning
from explainlib.solvers import SolverWarning
from tests.meta.few_shot import DOUBLE, bn_maml, linear_protonet, random_tasks, smooth_protonet, tanh_maml
from tests.problems import normal

STEP = 4e-3  # how far the minimum moves at the widest


def curvature(learner, tasks, w, l2, weights):
    rows = hessian_operator(learner, w, tasks, weights / len(tasks))(torch.eye(learner.q, dtype=DOUBLE))
    return torch.linalg.eigh((rows + rows.T) / 2 + l2 * torch.eye(learner.q, dtype=DOUBLE))


def not_flat(values, flat):
    """All but the ``flat`` eigenvalues nearest zero."""
    return values.abs() >= values.abs().sort().values[flat]


def moved(learner, tasks, w, l2, j, eps, flat):
    """The minimum after task j weighs 1 + M eps (the objective is a mean over M), by pseudo-inverse Newton from w."""
    weights = torch.ones(len(tasks), dtype=DOUBLE)
    weights[j] += len(tasks) * eps
    for _ in range(7):
        gradient = weights @ learner.gradients(w, tasks) / len(tasks) + l2 * w
        values, vectors = curvature(learner, tasks, w, l2, weights)
        kept = not_flat(values, flat)
        w = w - vectors[:, kept] @ ((gradient @ vectors[:, kept]) / values[kept])
    assert gradient.norm() < 1e-13
    return w


def resolved(learner, tasks, w, l2, j, size, flat):
    """dw/deps_j by central differences of three widths, Richardson-extrapolated twice; ``size`` is |dw/deps_j|."""
    widths = [STEP / size / 2**k for k in range(3)]
    ends = [[moved(learner, tasks, w, l2, j, sign * h, flat) for sign in (1, -1)] for h in widths]
    slopes = [(plus - minus) / (2 * h) for (plus, minus), h in zip(ends, widths, strict=True)]
    first = [(4 * fine - coarse) / 3 for coarse, fine in zip(slopes, slopes[1:], strict=False)]
    return (16 * first[1] - first[0]) / 15


OVERLAPPING = {"m": 6, "features": 2, "ways": 2, "shots": 10, "queries": 60}  # or tanh runs off without a ridge
EIGHT = {"m": 8, "queries": 8}


@pytest.mark.parametrize(
    ("make", "sizes", "l2", "flat", "bound"),
    [
        (lambda: tanh_maml(1), EIGHT, 0.02, 0, 1e-7),
        (lambda: tanh_maml(3), EIGHT, 0.02, 0, 1e-7),
        (lambda: tanh_maml(1), EIGHT, 0.0, 5, 1e-7),  # the softmax shift: one for each of 4 units and the bias
        (lambda: tanh_maml(3, 0.1, 2, 2, hidden=2), OVERLAPPING, 0.0, 3, 1e-7),
        (smooth_protonet, EIGHT, 0.05, 1, 1e-6),  # a rotation of the plane that the classes lie in
        (linear_protonet, EIGHT, 0.0, 3, 1e-6),  # and its two shifts
    ],
)
def test_meta_influence_is_the_derivative_of_the_minimum(make, sizes, l2, flat, bound):
    """The implicit function theorem, with the third derivative of the support loss in H."""
    learner, tasks = make(), random_tasks(spread=2.5, **sizes)
    w = minimise(learner, tasks, l2=l2).w
    influence = TaskInfluence(learner, w, tasks, l2=l2, strict=True)
    values, vectors = curvature(learner, tasks, w, l2, torch.ones(len(tasks), dtype=DOUBLE))
    assert influence.kept == learner.q - flat
    space = vectors[:, not_flat(values, flat)]
    for j in (0, 5):
        truth = resolved(learner, tasks, w, l2, j, influence.meta[j].norm(), flat) @ space
        assert (influence.meta[j] @ space - truth).norm() < bound * truth.norm()
    wrong = TaskInfluence(learner, w, tasks, l2=l2, curvature="gauss_newton").meta[0]
    assert (wrong - influence.meta[0]).norm() > 0.01 * influence.meta[0].norm(), "any curvature would pass"


@pytest.mark.parametrize("steps", [1, 3])
def test_adaptation_and_performance_are_derivatives_along_meta(steps):
    learner, tasks, tests = tanh_maml(steps), random_tasks(6, spread=2.5), random_tasks(3, seed=7)
    w = minimise(learner, tasks, l2=0.02).w
    influence = TaskInfluence(learner, w, tasks, l2=0.02)
    adaptation, performance = influence.adaptation(tests), influence.performance(tests)
    assert adaptation.shape == (3, 6, learner.q) and performance.shape == (3, 6)
    for j in range(6):
        h = 1e-3 / influence.meta[j].norm()

        def central(f, h=h, j=j):
            return (f(w + h * influence.meta[j]) - f(w - h * influence.meta[j])) / (2 * h)

        def extrapolated(f, h=h):
            return (4 * central(f, h / 2) - central(f, h)) / 3

        truth = extrapolated(lambda v: learner.adapted(v, tests))
        assert (adaptation[:, j] - truth).norm() < 1e-7 * truth.norm()
        truth = extrapolated(lambda v: learner.losses(v, tests))
        assert (performance[:, j] - truth).norm() < 1e-7 * truth.norm()


def quiet(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotAtMinimumWarning)
        return TaskInfluence(*args, **options)


def test_removal_is_minus_one_mth():
    """A leave-one-task-out retraining follows the sign and the size."""
    learner, tasks = tanh_maml(), random_tasks(24, spread=2.5, queries=8)
    tests = random_tasks(10, spread=2.5, seed=5)
    w = minimise(learner, tasks, l2=0.05).w
    predicted = -TaskInfluence(learner, w, tasks, l2=0.05).performance(tests)[:, 3] / 24
    weights = torch.ones(24, dtype=DOUBLE).index_fill(0, torch.tensor(3), 0.0)
    there = minimise(learner, tasks, l2=0.05, weights=weights, start=w).w
    truth = learner.losses(there, tests) - learner.losses(w, tests)
    assert torch.corrcoef(torch.stack([predicted, truth]))[0, 1] > 0.98
    assert 0.7 < float(predicted @ truth / truth.square().sum()) < 1.4


def test_groups_are_sums_and_copies_belong_to_their_origin():
    learner, tasks, tests = bn_maml(), random_tasks(4), random_tasks(3, seed=3)
    copies = Tasks.concat([tasks, tasks[[1, 2]]])
    influence = quiet(learner, learner.w0, copies, l2=0.1)
    single = influence.performance(tests)
    listed = influence.performance(tests, groups=[[0], [1, 4], [2, 5], [3]])
    torch.testing.assert_close(listed[:, 1], single[:, 1] + single[:, 4])
    assert copies.group.tolist() == [0, 1, 2, 3, 1, 2]
    torch.testing.assert_close(influence.performance(tests, groups=copies.group), listed)
    torch.testing.assert_close(influence.meta[1], influence.meta[4])


def test_own_influence_is_helpful_under_any_positive_inverse():
    learner, tasks = bn_maml(), random_tasks(9)
    for options in ({"keep": "positive"}, {"keep": 5}, {"curvature": "gauss_newton"}, {"curvature": "identity"}):
        own = quiet(learner, learner.w0, tasks, **options).performance(tasks).diagonal()
        assert (own <= 0).all(), options


def test_pruning_again_is_the_same_as_pruning_at_once():
    learner, tasks, tests = bn_maml(), random_tasks(9), random_tasks(2, seed=4)
    base = quiet(learner, learner.w0, tasks)
    for keep in (3, 1e-2, "positive", 1e-9):
        direct = quiet(learner, learner.w0, tasks, keep=keep)
        assert torch.equal(base.pruned(keep).meta, direct.meta)
        assert torch.equal(base.pruned(keep).performance(tests), direct.performance(tests))
        torch.testing.assert_close(direct.performance(tests), learner.gradients(learner.w0, tests) @ direct.meta.T)
    assert base.keep == 1e-9 and base.pruned(3).kept == 3


def test_eigenvalues_and_the_two_counts():
    learner, tasks = bn_maml(), random_tasks(9)
    influence = quiet(learner, learner.w0, tasks)
    values = torch.linalg.eigvalsh(meta_hessian(learner, learner.w0, tasks))
    torch.testing.assert_close(influence.eigenvalues, values.flip(0))
    assert influence.negative.plain == int((values < 0).sum())
    assert influence.negative.certain == int((values < -1e-9 * values.abs().max()).sum())
    assert influence.negative.certain <= influence.negative.plain
    assert "eigenvalues inverted" in repr(influence)


@pytest.mark.parametrize("damping", [0.0, 0.3])
@pytest.mark.parametrize("m", [1, 9])
def test_gauss_newton_without_forming_its_null_space(damping, m):
    learner, tasks, tests = tanh_maml(), random_tasks(m, queries=2), random_tasks(2, seed=4)
    influence = quiet(learner, learner.w0, tasks, curvature="gauss_newton", damping=damping)

    rows = gauss_newton_rows(learner, learner.w0, tasks)
    matrix = rows.T @ rows / m + damping * torch.eye(learner.q, dtype=DOUBLE)
    inverse = torch.linalg.pinv(matrix, rtol=1e-9, hermitian=True)
    expected = -learner.gradients(learner.w0, tasks) @ inverse
    torch.testing.assert_close(influence.meta, expected, rtol=1e-6, atol=1e-9 * float(expected.abs().max()))
    table = learner.gradients(learner.w0, tests) @ expected.T
    torch.testing.assert_close(influence.performance(tests), table, rtol=1e-6, atol=1e-9 * float(table.abs().max()))


def test_a_store_scores_new_tasks_without_the_training_data(tmp_path):
    learner, tasks, tests = bn_maml(), random_tasks(7), random_tasks(3, seed=2)
    made = quiet(learner, learner.w0, tasks, l2=0.1, store=tmp_path / "s")
    opened = TaskInfluence.stored(learner, tmp_path / "s")
    same = {"rtol": 1e-12, "atol": 1e-13}  # not bit for bit: where a tensor lies in memory decides the order of sums
    torch.testing.assert_close(opened.performance(tests), made.performance(tests), **same)
    torch.testing.assert_close(opened.pruned(4).meta, made.pruned(4).meta, **same)
    torch.testing.assert_close(opened.adaptation(tests), made.adaptation(tests), **same)
    again = quiet(learner, learner.w0, tasks, l2=0.1, store=tmp_path / "s")
    torch.testing.assert_close(again.meta, made.meta, **same)


def test_a_store_of_something_else_is_refused(tmp_path):
    learner, tasks = bn_maml(), random_tasks(7)
    quiet(learner, learner.w0, tasks, store=tmp_path / "s")
    with pytest.raises(ValueError, match="l2"):
        quiet(learner, learner.w0, tasks, l2=0.1, store=tmp_path / "s")
    with pytest.raises(ValueError, match="query_x"):
        quiet(learner, learner.w0, random_tasks(7, seed=1), store=tmp_path / "s")
    with pytest.raises(ValueError, match="another learner"):
        TaskInfluence.stored(Maml(learner.model_at(learner.w0), inner_lr=0.9), tmp_path / "s")
    with pytest.raises(ValueError, match="holds no influence"):
        TaskInfluence.stored(learner, tmp_path / "nothing")


def test_not_at_a_minimum_is_said_and_can_be_refused():
    learner, tasks = tanh_maml(), random_tasks()
    with pytest.warns(NotAtMinimumWarning, match="not at a minimum"):
        influence = TaskInfluence(learner, learner.w0, tasks)
    assert influence.gradient_norm == pytest.approx(float(learner.gradients(learner.w0, tasks).mean(0).norm()))
    with pytest.raises(ValueError, match="strict=False"):
        TaskInfluence(learner, learner.w0, tasks, strict=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"curvature": "fisher"}, "curvature"),
        ({"keep": 0}, "keep"),
        ({"l2": -1.0}, "l2"),
        ({"damping": float("nan")}, "damping"),
        ({"keep": None}, "singular"),
    ],
)
def test_bad_options(change, message):
    with pytest.raises(ValueError, match=message):
        quiet(bn_maml(), bn_maml().w0, random_tasks(), **change)


def test_bad_groups_and_learners():
    learner, tasks = tanh_maml(), random_tasks()
    influence = quiet(learner, learner.w0, tasks)
    with pytest.raises(ValueError, match="training tasks"):
        influence.performance(tasks, groups=[[0, 6]])
    with pytest.raises(ValueError, match="one per task"):
        influence.performance(tasks, groups=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="this learner's parameters"):
        quiet(learner, bn_maml().w0, tasks)
    first = Maml(learner.model_at(learner.w0), inner_lr=0.1, first_order=True)
    with pytest.raises(ValueError, match="first-order"):
        quiet(first, first.w0, tasks)


def graded(rows, q, dtype):
    """Rows of which the eigenvalues of V^T V fall from 1 to 1e-8, and these eigenvalues, upwards."""
    values = torch.logspace(-8, 0, rows, dtype=DOUBLE)
    turned = torch.linalg.qr(normal(rows, rows, seed=1))[0] @ torch.diag(values.sqrt())
    return (turned @ torch.linalg.qr(normal(q, rows))[0].T).to(dtype), values


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("q", [40, 30_000])
def test_the_spectrum_of_rows_does_not_depend_on_their_length(dtype, q):
    """A cut at max(m, q) eps lost what was below 0.4% of the top eigenvalue at q = 30,000 in float32."""
    rows, values = graded(20, q, dtype)
    spectrum = spectrum_of_rows(rows)
    assert spectrum.values.dtype == dtype and spectrum.rank(1e-9) == len(spectrum.values) == 20
    torch.testing.assert_close(spectrum.values.double(), values, rtol=1e-2, atol=0.0)
    b = (normal(3, 20, seed=5) @ rows.double()).to(dtype)  # on the span
    got = spectrum.solve(b, spectrum.coordinates(b), 1e-7)
    top = values > 1e-7
    assert spectrum.rank(1e-7) == int(top.sum()) and spectrum.unmet(1e-7) is None and spectrum.unmet(20) is None
    pruned = torch.linalg.eigh(rows.double() @ rows.double().T)
    u = (pruned.eigenvectors / pruned.eigenvalues.sqrt()).T @ rows.double()
    want = ((b.double() @ u[top].T) / pruned.eigenvalues[top]) @ u[top]
    assert float((got.double() - want).norm() / want.norm()) < 1e-2


@pytest.mark.parametrize("rows", [4, 5, 6])
def test_the_spectrum_of_about_as_many_rows_as_columns(rows):
    v = normal(rows, 5, seed=3)
    spectrum, matrix = spectrum_of_rows(v, shift=0.1), v.T @ v + 0.1 * torch.eye(5, dtype=DOUBLE)
    torch.testing.assert_close(spectrum.solve(v, spectrum.coordinates(v), 1e-9), torch.linalg.solve(matrix, v.T).T)


def test_a_keep_that_cannot_be_met_is_said():
    rows, _ = graded(20, 300, torch.float32)
    spectrum = spectrum_of_rows(torch.cat([rows, rows[:4]]))
    assert spectrum.rank(24) == 20 and "only 20 are inverted" in spectrum.unmet(24)
    assert spectrum.unmet(20) is None and spectrum.unmet(1e-9) is None and spectrum.unmet("positive") is None
    assert "keep=1e-12 reaches below" in spectrum.unmet(1e-12)
    assert spectrum_of_rows(rows.double()).unmet(1e-12) is None


def test_task_influence_warns_of_a_keep_it_cannot_meet():
    learner, tasks = tanh_maml(), random_tasks(3)
    rank = int(torch.linalg.matrix_rank(gauss_newton_rows(learner, learner.w0, tasks)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotAtMinimumWarning)
        with pytest.warns(SolverWarning, match=f"keep={learner.q} .* only {rank} are inverted"):
            found = TaskInfluence(learner, learner.w0, tasks, curvature="gauss_newton", keep=learner.q)
        assert found.kept == rank
        warnings.simplefilter("error", SolverWarning)
        assert found.pruned(3).kept == 3
