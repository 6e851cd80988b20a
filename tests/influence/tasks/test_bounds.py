"""Where task influence says something: at a minimum or not, above rounding or not, in the memory that it may take."""

import pytest
import torch

from explainlib.influence import TaskInfluence
from explainlib.influence.tasks import adaptation
from explainlib.influence.tasks.spectrum import spectrum_of_rows
from explainlib.meta import minimise
from tests.influence.tasks.test_influence import graded, quiet
from tests.meta.few_shot import DOUBLE, random_tasks, tanh_maml
from tests.problems import relative_error


@pytest.fixture(scope="module")
def minimum():
    learner, tasks = tanh_maml(hidden=2), random_tasks(8)
    return learner, minimise(learner, tasks, l2=0.5).w, tasks


def test_a_minimum_is_a_millionth_of_one_tasks_gradient(minimum):
    """Another ridge moves the gradient by its difference times w."""
    learner, w, tasks = minimum
    size = float(learner.gradients(w, tasks).norm(dim=1).mean())
    assert not 0.7 < size < 1.42, "in another unit the bound would be another"
    for share in (0.5, 2.0):
        l2 = 0.5 + share * 1e-6 * size / float(w.norm())
        made = lambda l2=l2: TaskInfluence(learner, w, tasks, l2=l2, curvature="identity", strict=True)  # noqa: E731
        if share < 1:
            assert made().gradient_norm == pytest.approx(share * 1e-6 * size, rel=1e-2)
        else:
            with pytest.raises(ValueError, match="not at a minimum"):
                made()


def test_the_identity_is_plain_products_of_gradients(minimum):
    learner, w, tasks = minimum
    found, tests = quiet(learner, w, tasks, curvature="identity"), random_tasks(3, seed=7)
    own = learner.gradients(w, tasks)
    assert torch.equal(found.gradients, own) and torch.equal(found.meta, -own)
    assert relative_error(found.performance(tests), -learner.gradients(w, tests) @ own.T) < 1e-12
    assert found.kept == found.rank == learner.q and found.captured is None and found.negative == (0, 0)
    assert torch.equal(found.eigenvalues, torch.ones_like(w))
    assert repr(found).startswith(
        f"TaskInfluence(M=8, q={learner.q}, identity, {learner.q} eigenvalues inverted, 0 neg"
    )


def test_new_tasks_are_scored_some_at_a_time(minimum, monkeypatch):
    learner, w, tasks = minimum
    found, tests = quiet(learner, w, tasks, curvature="identity"), random_tasks(5, seed=7)
    whole, sizes, made = found.performance(tests), [], type(learner).gradients
    monkeypatch.setattr("explainlib.influence.tasks.influence.GRADIENT_NUMBERS", 2 * learner.q + 1)
    monkeypatch.setattr(
        type(learner), "gradients", lambda self, at, some: sizes.append(len(some)) or made(self, at, some)
    )
    assert relative_error(found.performance(tests), whole) < 1e-12 and sizes == [2, 2, 1]


def test_adaptations_need_two_copies_in_memory_and_none_in_a_file(minimum, monkeypatch, tmp_path):
    learner, w, tasks = minimum
    found, tests, asked = quiet(learner, w, tasks, curvature="identity"), random_tasks(3, seed=7), []
    monkeypatch.setattr(adaptation, "require_memory", lambda what, size, *rest, **more: asked.append((what, size)))
    whole = found.adaptation(tests, training=[1, 4])
    assert asked == [(f"the adaptation of 3 tasks to 2, q = {learner.q} numbers each", 2 * 3 * 2 * learner.q * 8)]
    for numbers in (1, 3 * learner.q):  # of directions at a time
        monkeypatch.setattr(adaptation, "NUMBERS", numbers)
        written = found.adaptation(tests, training=[1, 4], out=tmp_path / f"{numbers}.npy")
        assert relative_error(written, whole) < 1e-12
    assert len(asked) == 1


@pytest.mark.parametrize(("dtype", "remedy"), [(torch.float32, "Use float64, or pass a"), (DOUBLE, "Pass a")])
def test_a_keep_below_rounding_has_a_remedy(dtype, remedy):
    rows, _ = graded(20, 300, dtype)
    spectrum = spectrum_of_rows(rows)
    assert spectrum.unmet(1e-40).endswith(f"{remedy} larger keep.")
    assert spectrum_of_rows(rows, shift=0.1).unmet(1e-40) is None, "of a shifted matrix all eigenvalues are determined"
    assert spectrum.unmet(21).endswith("Pass keep=20 or fewer, or a float such as 1e-9.")


def test_more_than_all_eigenvalues_is_all():
    spectrum = spectrum_of_rows(torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=DOUBLE)))
    assert spectrum.unmet(3) is None and spectrum.unmet(7) is None and spectrum.rank(7) == 3


def test_too_much_compression_is_refused_without_a_buffer(minimum):
    learner, w, tasks = minimum
    with pytest.raises(ValueError, match="fewer than one query example has"):
        quiet(learner, w, tasks, curvature="gauss_newton", compress=1)
