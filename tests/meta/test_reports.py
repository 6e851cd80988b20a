"""What meta-learning tells beside its parameters: histories, counts, causes of failure; and its options at their limits."""

import inspect

import pytest
import torch
from torch import nn

from explainlib.meta import (
    Bilevel,
    Maml,
    ProtoNet,
    gauss_newton_buffer,
    gauss_newton_rows,
    leave_tasks_out,
    meta_hessian,
    minimise,
    train,
)
from explainlib.meta import learner as learner_room
from explainlib.meta.gauss_newton import Buffer, buffer_size, filled_buffer, require_buffer
from explainlib.meta.lbfgs import lbfgs
from explainlib.meta.learner import query_accuracy, require_learned, require_learner
from explainlib.meta.task_map import map_blocks, width_of
from explainlib.meta.train import batch_rows
from explainlib.models import logistic
from tests.fits import fits_to_the_byte
from tests.meta.few_shot import DOUBLE, random_tasks, smooth_protonet, tanh_maml
from tests.problems import normal


def test_the_history_holds_each_batch_s_mean_loss_before_its_step():
    learner, tasks = tanh_maml(), random_tasks(8)
    found = train(learner, tasks, batches=2, batch_size=3, lr=0.05, seed=4)
    first = learner.losses(learner.w0, tasks[batch_rows(8, 3, 4, 0)]).mean()
    one = train(learner, tasks, batches=1, batch_size=3, lr=0.05, seed=4)
    second = learner.losses(one.w, tasks[batch_rows(8, 3, 4, 1)]).mean()
    assert found.history == pytest.approx((float(first), float(second)), rel=1e-12)
    assert found.status == "trained"


def test_batches_are_distinct_tasks_of_their_seed_and_number():
    assert batch_rows(3, 3, 0, 0).tolist() == batch_rows(3, 9, 1, 5).tolist() == [0, 1, 2]
    drawn = batch_rows(9, 8, 1, 2)
    assert len(set(drawn.tolist())) == 8 and torch.equal(drawn, batch_rows(9, 8, 1, 2))
    assert not torch.equal(drawn, batch_rows(9, 8, 1, 3)) and not torch.equal(drawn, batch_rows(9, 8, 2, 2))


def test_a_run_in_a_store_goes_on_but_not_back(tmp_path):
    learner, tasks = tanh_maml(), random_tasks(6)
    made = train(learner, tasks, batches=3, store=tmp_path / "run")
    again = train(learner, tasks, batches=3, store=tmp_path / "run")
    assert torch.equal(again.w, made.w) and again.history == made.history
    whole, longer = (train(learner, tasks, batches=5, store=store) for store in (None, tmp_path / "run"))
    assert torch.equal(longer.w, whole.w) and len(longer.history) == 5
    with pytest.raises(ValueError, match="has done 5 batches, batches=4 is fewer .* pass batches=5 or more"):
        train(learner, tasks, batches=4, store=tmp_path / "run")


def test_what_augments_gets_the_batch_and_a_number_of_its_own():
    learner, tasks, seen = tanh_maml(), random_tasks(6), []

    def shifted(batch, number):
        seen.append((len(batch), number))
        return type(batch)(batch.support_x + number, batch.support_y, batch.query_x, batch.query_y)

    w = train(learner, tasks, batches=3, batch_size=4, seed=7, augment=shifted).w
    assert seen == [(4, 7), (4, 8), (4, 9)]
    assert learner.augmentation_of(w, tasks) == learner.augmentation_of(w, tasks[:2]) == "shifted"
    assert learner.augmentation_of(w + 1, tasks) is None
    assert learner.augmentation_of(w, random_tasks(6, seed=9)) is None
    assert learner.augmentation_of(train(learner, tasks, batches=1).w, tasks) is None


@pytest.mark.parametrize("option", ["batches", "batch_size", "lr", "weight_decay"])
def test_retraining_refuses_the_options_that_training_refuses(option):
    value = {"lr": 0.0, "weight_decay": -1.0}.get(option, 0)
    with pytest.raises(ValueError, match=option):
        leave_tasks_out(tanh_maml(), random_tasks(4), [[0]], **{"batches": 1, option: value})
    with pytest.raises(ValueError, match=option):
        train(tanh_maml(), random_tasks(4), **{"batches": 1, option: value})
    with pytest.raises(ValueError, match="seed"):
        train(tanh_maml(), random_tasks(4), batches=1, seed=-1)


def test_newton_tells_the_loss_before_each_step_and_at_the_end():
    learner, tasks = tanh_maml(), random_tasks(2)
    found = minimise(learner, tasks, l2=0.5, tolerance=1e-8)
    assert found.history[0] == pytest.approx(float(learner.losses(learner.w0, tasks).mean()))
    assert found.history[-1] == pytest.approx(float(learner.losses(found.w, tasks).mean()))
    there = minimise(learner, tasks, l2=0.5, tolerance=1e-8, start=found.w)
    assert torch.equal(there.w, found.w) and len(there.history) == 1 and there.status == "converged"
    with pytest.warns(UserWarning, match="status max_steps, .* tolerance 1.0e-12; allow more max_steps, or pass a lar"):
        cut = minimise(learner, tasks, l2=0.5, max_steps=2)
    assert len(cut.history) == 2 and cut.status == "max_steps"
    single = Maml(logistic(3, 3), inner_lr=0.1)
    with pytest.warns(UserWarning, match="use float64"):
        minimise(single, tasks.to(torch.float32), l2=0.1, max_steps=1)


class Bowl:
    """sum c x^2 / 2, without a number beyond a wall."""

    def __init__(self, x, wall):
        self.x, self.gradient = x, normal(len(x)).abs() * x
        self.value = float("inf") if x.abs().max() > wall else float(normal(len(x)).abs() @ x.square()) / 2


@pytest.mark.parametrize("wall", [1e9, 1.5])
def test_lbfgs_goes_to_the_lowest_point_it_can_see(wall):
    start, seen = torch.full((5,), 1.4, dtype=DOUBLE), []

    def evaluate(x):
        seen.append(Bowl(x, wall))
        return seen[-1]

    end, exhausted = lbfgs(evaluate, start, Bowl(start, wall), max_steps=100, least=1e-9)
    assert not exhausted and end.gradient.norm() <= 1e-9
    assert end.value == min(point.value for point in seen)
    few, seen[:] = len(seen), []
    assert lbfgs(evaluate, start, Bowl(start, wall), max_steps=100, least=1e-3)[0].gradient.norm() <= 1e-3
    assert len(seen) < few
    rough, _ = lbfgs(evaluate, start, Bowl(start, wall), max_steps=100, least=0.0, gradient_tolerance=1e-2)
    assert 1e-9 < rough.gradient.abs().max() <= 1e-2
    seen.clear()
    cut, exhausted = lbfgs(evaluate, start, Bowl(start, wall), max_steps=2, least=0.0)
    assert exhausted and cut.value < Bowl(start, wall).value and len(seen) <= 2 * 2 + 1


def test_accuracy_is_the_share_that_is_right():
    tasks = random_tasks(2)
    outputs = torch.nn.functional.one_hot(tasks.query_y, 3).double()
    outputs[1, :3] = -outputs[1, :3]
    assert query_accuracy(outputs, tasks).tolist() == [1.0, 0.75]


def test_what_is_not_finite_is_counted_and_the_first_task_named():
    learner, values = tanh_maml(), torch.zeros(5, 2, dtype=DOUBLE)
    assert require_learned(learner, "losses", values) is values
    values[3, 1], values[4, 0], values[4, 1] = torch.nan, torch.inf, torch.nan
    for given in (values, values.sum(1)):
        with pytest.raises(
            ValueError, match=r"losses hold NaN or infinity for 2 of 5 tasks, first for task 3: the inn"
        ):
            require_learned(learner, "losses", given)


class Foreign:
    """A learner of learn2learn, as far as its name goes."""

    __module__ = "learn2learn.algorithms"


def test_other_learners_are_told_what_to_pass():
    assert require_learner(smooth_protonet())
    rated, other = Foreign(), Foreign()
    rated.lr, other.lr = 0.4, "0.4"
    bilevel = Bilevel(logistic(3, 3, dtype=DOUBLE), strength=1.0, l2=1.0)
    for thing, said in (
        (rated, r"learn2learn Foreign, which adapts in place.*Maml\(learner.module, inner_lr=learner.lr\)"),
        (other, r"Maml\(learner.module, inner_lr=...\)"),
        (bilevel, "a Bilevel, .*bilevel learners have xl.meta.solve"),
        (nn.Linear(2, 2), r"a Linear, .*pass xl.meta.Maml\(model, inner_lr=...\) or xl.meta.ProtoNet"),
    ):
        with pytest.raises(TypeError, match=said):
            inspect.unwrap(require_learner)(thing)  # without the type checks of these tests


def test_learners_tell_their_options():
    maml = Maml(logistic(3, 3), inner_lr=0.25, steps=2, first_order=True)
    assert maml.options() == {"kind": "maml", "inner_lr": 0.25, "steps": 2, "first_order": True}
    assert repr(maml) == "Maml(q=12, inner_lr=0.25, steps=2, first order)" and maml.q == 12
    assert repr(Maml(logistic(3, 3), inner_lr=0.25)) == "Maml(q=12, inner_lr=0.25, steps=1)"
    assert ProtoNet(logistic(3, 3)).options() == {"kind": "protonet"}
    assert repr(ProtoNet(logistic(3, 3))) == "ProtoNet(q=12)"


def test_tasks_in_a_batch_keep_to_their_numbers(monkeypatch):
    """Parameters, and what is kept for each number of support and query; a task too large for it is taken alone."""
    learner, tasks = tanh_maml(), random_tasks(4)
    numbers = tasks.support_x[0].numel() + tasks.query_x[0].numel()
    one = 8 * learner.q + 256 * numbers
    for given, chunk in ((5 * one, 5), (5 * one - 1, 4), (1, 1)):
        monkeypatch.setattr(learner_room, "NUMBERS", given)
        assert learner.chunk(tasks) == chunk
    for chunk, alone in ((16, True), (17, False)):
        monkeypatch.setattr(learner_room, "NUMBERS", chunk * one)
        assert learner.one_by_one(tasks) == alone


def test_blocks_are_mapped_in_order():
    assert list(map_blocks(abs, [-2, 3, -1])) == [2, 3, 1] and list(map_blocks(abs, [], 2)) == []
    assert (width_of(3), width_of("tcp://host:8786")) == (3, 1)
    with pytest.raises(ValueError, match="processes"):
        list(map_blocks(abs, [1], 0))


@pytest.mark.parametrize(
    ("make", "needed"),
    [
        (lambda l, t: meta_hessian(l, l.w0, t), lambda q, rows: 4 * q**2),
        (lambda l, t: gauss_newton_rows(l, l.w0, t), lambda q, rows: 2 * rows * q),
        (lambda l, t: gauss_newton_buffer(l, l.w0, t, size=5, block=1), lambda q, rows: 3 * (5 + rows // 3) * q),
    ],
    ids=["Hessian", "rows", "buffer"],
)  # fmt: skip
def test_what_is_held_whole_has_to_fit(make, needed, monkeypatch):
    learner, tasks = tanh_maml(), random_tasks(3)
    size = 8 * needed(learner.q, 3 * 12 * 2)
    make(learner, tasks)  # what the checks of a first call need is not asked here
    fits_to_the_byte(lambda: make(learner, tasks), size, monkeypatch, f"q = {learner.q}")


def test_a_buffer_may_have_all_rows_and_not_one_more():
    tasks = random_tasks(3)  # 12 queries of three classes: 24 rows each
    require_buffer(72, None, tasks), require_buffer(6, 2, tasks), require_buffer(72, 99, tasks)
    for size, compress, said in ((73, None, "72 or fewer"), (7, 2, "6 or fewer"), (73, 99, "72 or fewer")):
        with pytest.raises(ValueError, match=said):
            require_buffer(size, compress, tasks)
    sizes = [buffer_size(tasks, q, compress) for q, compress in ((1000, None), (50, None), (1000, 5), (1000, 99))]
    assert sizes == [72, 50, 15, 72]


def test_a_buffer_tells_what_it_has_captured():
    rows = torch.diag(torch.tensor([1.0, 2.0], dtype=DOUBLE))
    assert Buffer(rows, trace=6.0, lost=4.0).captured == pytest.approx(0.5)
    assert Buffer(rows[:0]).captured == 1.0
    kept = Buffer.of(Buffer(rows, 7, 3, 6.0, 4.0).tensors())
    assert (kept.added, kept.done, kept.trace, kept.lost) == (7, 3, 6.0, 4.0) and torch.equal(kept.rows, rows)
    learner, tasks = tanh_maml(), random_tasks(3)
    made = filled_buffer(learner, learner.w0, tasks, size=4, block=2, compress=3)
    assert (made.added, made.done) == (9, 3) and made.lost > 0
