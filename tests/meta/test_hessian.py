"""The meta-Hessian and its Gauss-Newton part, against torch.func.hessian task by task."""

import sys

import pytest
import torch
from torch.func import hessian, jacrev
from torch.nn.functional import cross_entropy

from explainlib.meta import Maml, gauss_newton_buffer, gauss_newton_rows, meta_hessian
from explainlib.meta.gauss_newton import float64_gram, leading_rows, softmax_factors
from explainlib.meta.learner import Episode
from explainlib.models import fc_bn, mlp
from tests.meta.few_shot import DOUBLE, bn_maml, random_tasks, smooth_protonet, tanh_maml
from tests.problems import normal


def episode(tasks, k):
    return Episode(*(part[k] for part in tasks.arrays()))


def dense(learner, tasks):
    """The definition, one task at a time."""
    found = 0
    for k in range(len(tasks)):
        found = found + hessian(lambda w, k=k: learner.loss_one(w, episode(tasks, k), tasks.ways))(learner.w0)
    return found / len(tasks)


def relu_maml():
    return Maml(fc_bn(3, 3, hidden=4, dtype=DOUBLE), inner_lr=0.3)


@pytest.mark.parametrize("make", [tanh_maml, lambda: tanh_maml(3), smooth_protonet, bn_maml, relu_maml])
def test_every_learner_and_the_ridge(make):
    learner, tasks = make(), random_tasks(5)
    expected = dense(learner, tasks) + 0.1 * torch.eye(learner.q, dtype=DOUBLE)
    for route in ("general", "auto"):
        found = meta_hessian(learner, learner.w0, tasks, l2=0.1, route=route)
        assert (found - expected).abs().max() < 1e-12 * expected.abs().max(), route
        assert torch.equal(found, found.T)


def test_the_third_derivative_is_in_it():
    """Freezing the inner curvature gives another matrix: what makes the Hessian exact is not rounding."""
    learner, tasks = tanh_maml(inner_lr=1.0), random_tasks(4)

    def frozen(w, k):
        e = episode(tasks, k)
        at = learner.w0
        step = torch.func.grad(learner.support_loss)(at, e)
        curve = hessian(learner.support_loss)(at, e)
        return cross_entropy(learner.outputs_one(w - learner.inner_lr * (step + curve @ (w - at)), e, 3), e.query_y)

    without = torch.stack([hessian(lambda w, k=k: frozen(w, k))(learner.w0) for k in range(4)]).mean(0)
    exact = meta_hessian(learner, learner.w0, tasks)
    assert (without - exact).norm() > 0.02 * exact.norm()


def test_processes_change_nothing():
    learner, tasks = bn_maml(), random_tasks(5)
    once = meta_hessian(learner, learner.w0, tasks)
    torch.testing.assert_close(meta_hessian(learner, learner.w0, tasks, processes=2), once, rtol=1e-13, atol=1e-15)


def test_an_interrupted_hessian_goes_on(tmp_path, monkeypatch):
    learner, tasks = tanh_maml(), random_tasks(5)
    whole = meta_hessian(learner, learner.w0, tasks)
    monkeypatch.setattr("explainlib.meta.hessian.TASKS_PER_WRITE", 2)
    calls, room = [], sys.modules["explainlib.meta.hessian"]
    real = room._distribute

    def counted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(room, "_distribute", counted)
    with pytest.raises(KeyboardInterrupt):
        meta_hessian(learner, learner.w0, tasks, store=tmp_path / "h", route="general")
    before = len(calls)
    resumed = meta_hessian(learner, learner.w0, tasks, store=tmp_path / "h", route="general")
    torch.testing.assert_close(resumed, whole, rtol=1e-13, atol=1e-15)
    assert len(calls) - before == 2, "of three pieces one was there"
    with pytest.raises(ValueError, match="another computation"):
        meta_hessian(learner, learner.w0 + 1, tasks, store=tmp_path / "h")


def test_flat_directions_are_there_and_no_others():
    """What a proof says is flat is flat: the softmax shift, and biases in front of BatchNorm."""
    learner, tasks = bn_maml(hidden=4), random_tasks(8, spread=2.0)
    values = torch.linalg.eigvalsh(meta_hessian(learner, learner.w0, tasks))
    flat = (values.abs() < 1e-10 * values.abs().max()).sum()
    assert flat == 4 + 4 + 1  # biases before BatchNorm; the same shift of every class's weights, and of their biases


@pytest.mark.parametrize("make", [tanh_maml, smooth_protonet, bn_maml])
def test_gauss_newton_rows_make_the_matrix(make):
    learner, tasks = make(), random_tasks(3)
    rows = gauss_newton_rows(learner, learner.w0, tasks)
    assert rows.shape == (3 * 12 * 2, learner.q)
    total = torch.zeros(learner.q, learner.q, dtype=DOUBLE)
    for k in range(3):
        e = episode(tasks, k)
        jacobian = jacrev(lambda w, e=e: learner._query_outputs(w, e, 3))(learner.w0)
        s = learner._query_outputs(learner.w0, e, 3).softmax(-1)
        middle = torch.diag_embed(s) - s[:, :, None] * s[:, None]
        total += torch.einsum("ncp,ncd,ndq->pq", jacobian, middle, jacobian) / 12
    torch.testing.assert_close(rows.T @ rows, total, rtol=1e-11, atol=1e-13)


def test_softmax_factors_hold_at_the_corners():
    s = torch.tensor([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.0, 1e-9, 1.0 - 1e-9]], dtype=DOUBLE)
    f = softmax_factors(s)
    torch.testing.assert_close(f.mT @ f, torch.diag_embed(s) - s[:, :, None] * s[:, None], rtol=0, atol=1e-15)
    assert f.shape == (3, 2, 3)


def test_a_buffer_keeps_the_leading_directions():
    learner, tasks = tanh_maml(), random_tasks(12)
    rows = gauss_newton_rows(learner, learner.w0, tasks)
    everything = gauss_newton_buffer(learner, learner.w0, tasks, size=learner.q, block=5)
    torch.testing.assert_close(everything.T @ everything, rows.T @ rows, rtol=1e-9, atol=1e-11)
    small = gauss_newton_buffer(learner, learner.w0, tasks, size=6, block=5)
    values = torch.linalg.eigvalsh(rows.T @ rows)[-6:]
    assert len(small) == 6
    torch.testing.assert_close(small.square().sum(1)[-2:], values[-2:], rtol=0.05, atol=0.0)


def test_what_has_no_hessian_is_refused():
    learner = Maml(tanh_maml().model_at(tanh_maml().w0), inner_lr=0.3, first_order=True)
    with pytest.raises(ValueError, match="not the gradient of any objective"):
        meta_hessian(learner, learner.w0, random_tasks())
    with pytest.raises(ValueError, match="two_layer"):
        meta_hessian(tanh_maml(2), tanh_maml().w0, random_tasks(), route="two_layer")


def graded_rows(m=12, q=40_000):
    """Orthogonal rows whose squared lengths fall from 1 to 1e-8: far above what float32 rounds, far below q eps."""
    rows = torch.linalg.qr(normal(q, m))[0].T
    return torch.linalg.qr(normal(m, m, seed=1))[0] @ (torch.logspace(-8, 0, m, dtype=DOUBLE).sqrt()[:, None] * rows)


def test_a_gram_matrix_is_cut_by_rounding_and_not_by_q():
    """At max(m, q) eps these rows kept 6 directions of 12; in float32 a Gram matrix has a rounding of eps itself."""
    rows = graded_rows()
    want = torch.linalg.svdvals(rows).square()
    got = leading_rows(rows.float(), 12)
    assert len(got) == 12
    torch.testing.assert_close(got.double().square().sum(1).flip(0), want, rtol=1e-2, atol=0.0)
    assert (float64_gram(rows.float()) - rows @ rows.T).abs().max() < 1e-7
    dependent = torch.cat([rows, rows[:3]]).float()
    assert len(leading_rows(dependent, 15)) == 12


def test_a_buffer_says_when_the_rank_is_below_its_size():
    learner, tasks = tanh_maml(), random_tasks(3)
    twice = type(tasks).concat([tasks, tasks])
    rank = int(torch.linalg.matrix_rank(gauss_newton_rows(learner, learner.w0, tasks)))
    assert rank < learner.q
    with pytest.warns(UserWarning, match=rf"only {rank} directions .*float64: .*rank\. Pass a smaller size\.$"):
        assert len(gauss_newton_buffer(learner, learner.w0, twice, size=rank + 1)) == rank
    single = Maml(mlp([3, 4, 3], "tanh"), inner_lr=0.3)
    with pytest.warns(UserWarning, match="float32: .* Use float64, or pass a smaller size"):
        gauss_newton_buffer(single, single.w0, twice.to(torch.float32), size=learner.q)
