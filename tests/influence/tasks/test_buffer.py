"""Task influence by a Gauss-Newton buffer: against the whole matrix, in float32, compressed, to and from disk."""

import warnings

import numpy as np
import pytest
import torch

from explainlib.datasets import Tasks, rotation_augmentation, turned_copies
from explainlib.influence import TaskInfluence
from explainlib.meta import Maml, ProtoNet, gauss_newton_buffer, gauss_newton_rows, train
from explainlib.models import cnn4
from explainlib.risk import NotAtMinimumWarning
from tests.meta.few_shot import DOUBLE, random_tasks, tanh_maml
from tests.meta.test_gauss_newton import cnn_maml, cnn_protonet, images, one_by_one


def influence(learner, tasks, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotAtMinimumWarning)
        return TaskInfluence(learner, learner.w0, tasks, curvature="gauss_newton", **options)


def off_diagonal_pearson(one, other):
    apart = ~torch.eye(len(one), dtype=torch.bool)
    return float(torch.corrcoef(torch.stack([one[apart].double(), other[apart].double()]))[0, 1])


@pytest.mark.parametrize("make", [cnn_maml, cnn_protonet])
def test_a_buffer_of_the_rank_is_the_whole_matrix(monkeypatch, make):
    one_by_one(monkeypatch)
    learner, tasks, tests = make(), images(6), images(2, seed=5)
    rows = gauss_newton_rows(learner, learner.w0, tasks)
    matrix = rows.T @ rows / 6
    gradients = learner.gradients(learner.w0, tasks)
    expected = -gradients @ torch.linalg.pinv(matrix, rtol=1e-9, hermitian=True)
    found = influence(learner, tasks, buffer=len(rows))
    scale = float(expected.abs().max())
    torch.testing.assert_close(found.meta, expected, rtol=1e-6, atol=1e-6 * scale)
    table = learner.gradients(learner.w0, tests) @ expected.T
    torch.testing.assert_close(found.performance(tests), table, rtol=1e-6, atol=1e-6 * float(table.abs().max()))
    assert found.captured == pytest.approx(1, abs=1e-9) and found.rank == int(torch.linalg.matrix_rank(rows))


def test_a_smaller_buffer_errs_by_the_trace_it_discards(capsys):
    """Of the exact matrix with its k leading eigenvalues; the bound is Davis and Kahan's, with the discarded trace."""
    learner, tasks = tanh_maml(), random_tasks(12)
    rows = gauss_newton_rows(learner, learner.w0, tasks) / 12**0.5
    values, vectors = torch.linalg.eigh(rows.T @ rows)
    for k in (2, 4, 6):
        found = influence(learner, tasks, buffer=k)
        lost = (1 - found.captured) * float(values.sum())
        exact = vectors[:, -k:] @ torch.diag(1 / values[-k:]) @ vectors[:, -k:].T
        spectrum = found.spectrum
        ours = spectrum.vectors @ torch.diag(1 / spectrum.values) @ spectrum.vectors.T
        error = float(torch.linalg.matrix_norm(ours - exact, 2) / torch.linalg.matrix_norm(exact, 2))
        with capsys.disabled():
            print(f"\nbuffer of {k}: captured {found.captured:.3f}, its inverse is {error:.2e} off the exact top {k}")
        assert (values.flip(0)[:k] - found.eigenvalues).abs().max() <= lost * (1 + 1e-9)
        gap = float(values[-k] - values[-k - 1])
        assert error <= 1 or lost > gap / 2, "an inverse can only be far off where the discarded share is large"


def test_a_buffer_above_the_rank_names_its_own_option():
    learner, tasks = tanh_maml(), random_tasks(12)
    rank = influence(learner, tasks).rank
    with pytest.warns(UserWarning, match=rf"buffer={rank + 1} rows .*only {rank} .*Pass a smaller buffer\.$"):
        influence(learner, tasks, buffer=rank + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        influence(learner, tasks, processes=2)  # no size was asked for


def test_compression_and_buffer_tell_what_they_hold():
    learner, tasks = tanh_maml(), random_tasks(12)
    shares = [influence(learner, tasks, buffer=12, compress=r).captured for r in (2, 6, 12, 24)]
    assert shares[0] < shares[1] < shares[2] <= shares[3] + 0.02 and 0.5 < shares[3] <= 1
    assert influence(learner, tasks).captured == 1.0
    whole = influence(learner, tasks, compress=6)
    assert whole.rank <= learner.q and 0.5 < whole.captured < 1.05
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotAtMinimumWarning)
        exact = TaskInfluence(learner, learner.w0, tasks)
    assert exact.captured is None and exact.rank == learner.q


def test_float32_scores_are_those_of_float64(monkeypatch):
    one_by_one(monkeypatch)
    tasks = images(16)
    tables = []
    for dtype in (DOUBLE, torch.float32):
        learner = cnn_maml(dtype=dtype)
        tables.append(influence(learner, tasks.to(dtype), buffer=24, compress=8).performance(tasks.to(dtype)))
    assert off_diagonal_pearson(*tables) > 0.999


def test_processes_change_nothing():
    learner, tasks = tanh_maml(), random_tasks(20)
    alone = gauss_newton_buffer(learner, learner.w0, tasks, size=10, compress=6)
    shared = gauss_newton_buffer(learner, learner.w0, tasks, size=10, compress=6, processes=2)
    torch.testing.assert_close(shared.T @ shared, alone.T @ alone, rtol=1e-10, atol=1e-12)


def test_chosen_adaptations_go_to_a_file(tmp_path):
    learner, tasks, tests = tanh_maml(), random_tasks(8), random_tasks(3, seed=4)
    found = influence(learner, tasks, buffer=12)
    whole = found.adaptation(tests)
    some = found.adaptation(tests, training=[5, 1], out=tmp_path / "adaptation.npy")
    torch.testing.assert_close(some, whole[:, [5, 1]], rtol=1e-12, atol=1e-13)
    assert np.array_equal(np.load(tmp_path / "adaptation.npy"), some.numpy())
    with pytest.raises(ValueError, match="training"):
        found.adaptation(tests, training=[8])


def test_a_buffered_store_scores_new_tasks(tmp_path):
    learner, tasks, tests = tanh_maml(), random_tasks(20), random_tasks(3, seed=4)
    made = influence(learner, tasks, buffer=10, compress=6, store=tmp_path)
    opened = TaskInfluence.stored(learner, tmp_path)
    assert torch.equal(opened.performance(tests), made.performance(tests))
    assert opened.captured == made.captured and opened.rank == made.rank == 10
    for other in ({"buffer": 9, "compress": 6}, {"buffer": 10, "compress": 7}, {"buffer": 10}):
        with pytest.raises(ValueError, match="buffer was 10, expected 9|compress was 6|buffer|compress"):
            influence(learner, tasks, store=tmp_path, **other)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"buffer": 145}, "larger than the 144 rows that 6 tasks give"),
        ({"buffer": 5, "compress": 1}, "fewer than one query example has"),
        ({"buffer": 5, "curvature": "hessian"}, "are for the Gauss-Newton matrix"),
        ({"compress": 5, "curvature": "identity"}, "are for the Gauss-Newton matrix"),
        ({"curvature": "hessian", "processes": "tcp://127.0.0.1:1"}, "pass a number of processes, or curvature='gauss"),
        ({"buffer": 5, "processes": "tcp://127.0.0.1:1"}, "no dask scheduler answers|needs dask.distributed"),
    ],
)
def test_bad_options(options, says):
    learner = tanh_maml()
    given = {"curvature": "gauss_newton", **options}
    with pytest.raises((ValueError, ConnectionError, ImportError), match=says), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotAtMinimumWarning)
        TaskInfluence(learner, learner.w0, random_tasks(6), **given)


def test_dropout_is_refused():
    with pytest.raises(ValueError, match="(?i)dropout"):
        learner = Maml(torch.nn.Sequential(torch.nn.Dropout(0.2), torch.nn.Linear(3, 3, dtype=DOUBLE)), inner_lr=0.1)
        influence(learner, random_tasks(6), buffer=5)


def test_tasks_of_other_kinds_are_refused():
    few, many = random_tasks(3, queries=2), random_tasks(3, queries=4)
    with pytest.raises(ValueError, match="the parts have different sizes"):
        influence(tanh_maml(), Tasks.concat([few, many]), buffer=5)
    with pytest.raises(ValueError, match="query_y"):
        Tasks(few.support_x, few.support_y, few.query_x, few.query_y.double())


def test_an_augmentation_is_remembered():
    tasks = images(4)
    learner = ProtoNet(cnn4(1, 16, None, filters=2, dtype=DOUBLE))
    trained = train(learner, tasks, batches=1, batch_size=2, augment=rotation_augmentation)
    with pytest.warns(NotAtMinimumWarning, match="rotation_augmentation changed in every batch.*another objective"):
        TaskInfluence(learner, trained.w, tasks[:2], curvature="identity")
    copies = turned_copies(tasks, 2, seed=0)
    for w, given in ((trained.w, copies), (learner.w0, tasks)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "the learner is not at a minimum")
            TaskInfluence(learner, w, given, curvature="identity")


def test_groups_by_origin_add_up():
    learner, copies, tests = cnn_maml(), turned_copies(images(4), 3, seed=1), images(2, seed=7)
    found = influence(learner, copies, buffer=20, compress=6)
    each = found.performance(tests)
    by_origin = found.performance(tests, groups=copies.group)
    torch.testing.assert_close(by_origin, each.view(2, 3, 4).sum(1), rtol=1e-10, atol=1e-12)
