"""Meta-training without groups: the batch of runs against one run at a time."""

import pytest
import torch

from explainlib.meta import leave_out, leave_tasks_out, train
from tests.interrupted import Interrupted
from tests.meta.few_shot import random_tasks, tanh_maml


def test_nothing_removed_is_ordinary_training():
    learner, tasks = tanh_maml(), random_tasks(12)
    options = {"batches": 6, "batch_size": 5, "lr": 0.01, "weight_decay": 0.1, "seed": 2}
    found = leave_tasks_out(learner, tasks, [[0], [3, 4]], **options)
    torch.testing.assert_close(found.whole, train(learner, tasks, **options).w, rtol=1e-11, atol=1e-12)
    assert found.w.shape == (2, learner.q)


def test_full_batches_are_training_on_the_rest():
    learner, tasks = tanh_maml(), random_tasks(6)
    found = leave_tasks_out(learner, tasks, [[1, 4], [0]], batches=5, lr=0.02)
    rest = train(learner, tasks[[0, 2, 3, 5]], batches=5, lr=0.02)
    torch.testing.assert_close(found.w[0], rest.w, rtol=1e-11, atol=1e-12)
    tests = random_tasks(3, seed=8)
    expected = learner.losses(rest.w, tests) - learner.losses(found.whole, tests)
    torch.testing.assert_close(found.loss_change(tests)[:, 0], expected, rtol=1e-9, atol=1e-11)


def test_going_on_from_somewhere():
    learner, tasks = tanh_maml(), random_tasks(6)
    start = learner.w0 + 0.1
    found = leave_tasks_out(learner, tasks, [[0]], batches=1, lr=0.02, start=start)
    assert (found.whole - start).abs().max() <= 0.02 * (1 + 1e-6)


def test_the_store_gives_it_back(tmp_path, monkeypatch):
    learner, tasks = tanh_maml(), random_tasks(6)
    made = leave_tasks_out(learner, tasks, [[0]], batches=2, store=tmp_path / "s")
    monkeypatch.setattr("explainlib.meta.leave_out._gradients", None)
    assert torch.equal(leave_tasks_out(learner, tasks, [[0]], batches=2, store=tmp_path / "s").w, made.w)
    with pytest.raises(ValueError, match="another computation"):
        leave_tasks_out(learner, tasks, [[1]], batches=2, store=tmp_path / "s")


def test_an_interrupted_call_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    learner, tasks = tanh_maml(), random_tasks(6)
    options = {"batches": 7, "batch_size": 4, "lr": 0.01}
    whole = leave_tasks_out(learner, tasks, [[0]], **options)
    monkeypatch.setattr("explainlib.meta.leave_out.SAVE_EVERY", 3)
    gradients = Interrupted(leave_out._gradients, 5)
    monkeypatch.setattr("explainlib.meta.leave_out._gradients", gradients)
    with pytest.raises(KeyboardInterrupt):
        leave_tasks_out(learner, tasks, [[0]], store=tmp_path / "s", **options)
    resumed = leave_tasks_out(learner, tasks, [[0]], store=tmp_path / "s", **options)
    assert torch.equal(resumed.w, whole.w) and torch.equal(resumed.whole, whole.whole)
    assert gradients.calls == 5 + 4, "three batches were done"


def test_large_tasks_one_by_one_give_the_same(monkeypatch):
    learner, tasks = tanh_maml(), random_tasks(6)
    options = {"batches": 4, "batch_size": 3, "lr": 0.01}
    groups = [[0], [1, 2, 3, 4, 5]]
    batched = leave_tasks_out(learner, tasks, groups, **options)
    monkeypatch.setattr(type(learner), "one_by_one", lambda self, tasks: True)
    torch.testing.assert_close(leave_tasks_out(learner, tasks, groups, **options).w, batched.w, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("groups", [[[]], [[0, 0]], [[6]], [list(range(6))]])
def test_bad_groups(groups):
    with pytest.raises(ValueError, match=r"group|index"):
        leave_tasks_out(tanh_maml(), random_tasks(6), groups, batches=1)
