"""The Gauss-Newton matrix: rows, compression, the buffer, and what the Fisher form says of them."""

import pytest
import torch
from torch.func import grad, jacrev

import explainlib as xl
from explainlib.datasets import Tasks
from explainlib.derivatives import vmap
from explainlib.meta import Maml, ProtoNet, gauss_newton_buffer, gauss_newton_rows
from explainlib.meta.gauss_newton import filled_buffer, float64_gram, leading_rows, softmax_factors
from explainlib.meta.gauss_newton.rows import task_rows
from explainlib.meta.learner import Episode
from explainlib.models import mlp
from tests.meta.few_shot import DOUBLE, bn_maml, random_tasks, smooth_protonet, tanh_maml
from tests.problems import normal


def episode(tasks, k):
    return Episode(*(part[k] for part in tasks.arrays()))


def images(m=3, size=16, dtype=DOUBLE, queries=2, seed=0):
    """Tasks of three ways whose pictures have a bright corner each."""
    g = torch.Generator().manual_seed(seed)

    def part(each):
        y = torch.arange(3).repeat_interleave(each).expand(m, -1)
        x = torch.randn(m, 3 * each, 1, size, size, generator=g, dtype=dtype)
        for c in range(3):
            x[:, c * each : (c + 1) * each, :, 4 * c : 4 * c + 6, :6] += 1.5
        return x, y

    return Tasks(*part(2), *part(queries))


def cnn_maml(steps=1, dtype=DOUBLE, filters=3):
    return Maml(xl.models.cnn4(1, 16, 3, filters=filters, dtype=dtype), inner_lr=0.2, steps=steps)


def cnn_protonet():
    return ProtoNet(xl.models.cnn4(1, 16, None, filters=3, dtype=DOUBLE))


def one_by_one(monkeypatch, chosen=True):
    monkeypatch.setattr("explainlib.meta.learner.LARGE", 2**40 if chosen else 0)


@pytest.mark.parametrize("make", [tanh_maml, smooth_protonet, bn_maml])
def test_rows_make_the_matrix(make):
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


def test_the_fisher_form():
    """Expected outer products of the gradients of -log p(y), y drawn from the model (TLXML, A.3)."""
    learner, tasks = tanh_maml(), random_tasks(2)
    rows = gauss_newton_rows(learner, learner.w0, tasks)
    fisher = torch.zeros(learner.q, learner.q, dtype=DOUBLE)
    for k in range(2):
        e = episode(tasks, k)
        shares = learner._query_outputs(learner.w0, e, 3).softmax(-1)
        for n in range(len(shares)):
            for c in range(3):
                g = grad(lambda w, e=e, n=n, c=c: -learner._query_outputs(w, e, 3).log_softmax(-1)[n, c])(learner.w0)
                fisher += shares[n, c] / len(shares) * torch.outer(g, g)
    torch.testing.assert_close(rows.T @ rows, fisher, rtol=1e-10, atol=1e-12)


def test_softmax_factors_hold_at_the_corners():
    s = torch.tensor([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.0, 1e-9, 1.0 - 1e-9]], dtype=DOUBLE)
    f = softmax_factors(s)
    torch.testing.assert_close(f.mT @ f, torch.diag_embed(s) - s[:, :, None] * s[:, None], rtol=0, atol=1e-15)
    assert f.shape == (3, 2, 3)


@pytest.mark.parametrize("make", [cnn_maml, lambda: cnn_maml(2), cnn_protonet])
@pytest.mark.parametrize("compress", [None, 5])
def test_one_task_at_a_time_gives_what_batches_give(monkeypatch, make, compress):
    learner, tasks = make(), images()
    one_by_one(monkeypatch, False)
    batched = task_rows(learner, learner.w0, tasks, compress, seed=3)
    gradients = learner.gradients(learner.w0, tasks)
    one_by_one(monkeypatch)
    single = task_rows(learner, learner.w0, tasks, compress, seed=3)
    torch.testing.assert_close(learner.gradients(learner.w0, tasks), gradients, rtol=1e-9, atol=1e-12)
    assert single.rows.shape == batched.rows.shape
    if compress is None:
        torch.testing.assert_close(single.rows, batched.rows, rtol=1e-9, atol=1e-12)
    else:  # eigenvectors have any sign
        torch.testing.assert_close(single.rows.T @ single.rows, batched.rows.T @ batched.rows, rtol=1e-8, atol=1e-11)
        assert single.lost == pytest.approx(batched.lost, rel=1e-6)


def test_compression_keeps_the_leading_directions_at_the_adapted_parameters():
    learner, tasks = tanh_maml(), random_tasks(1)
    theta = learner.adapted(learner.w0, tasks)[0]
    query = ProtoLike(learner)
    whole = gauss_newton_rows(query, theta, tasks)
    best = leading_rows(whole, 4)
    back = jacrev(lambda w: learner.adapted_one(w, episode(tasks, 0)))(learner.w0)
    kept = task_rows(learner, learner.w0, tasks, 4).rows
    torch.testing.assert_close(kept.T @ kept, back.T @ best.T @ best @ back, rtol=1e-9, atol=1e-12)
    everything = task_rows(learner, learner.w0, tasks, 24)
    rows = gauss_newton_rows(learner, learner.w0, tasks)
    assert everything.lost == 0.0
    torch.testing.assert_close(everything.rows.T @ everything.rows, rows.T @ rows, rtol=1e-10, atol=1e-13)


class ProtoLike(ProtoNet):
    """The logits of a MAML learner, with nothing to adapt: its rows are those at theta."""

    def __init__(self, learner):
        super().__init__(learner.model_at(learner.w0))
        self.outputs_one = learner.outputs_one


def test_the_lost_trace_is_estimated_without_bias():
    learner, tasks = tanh_maml(), random_tasks(2)
    rows = gauss_newton_rows(learner, learner.w0, tasks)
    kept = task_rows(learner, learner.w0, tasks, 3).rows
    lost = float(rows.square().sum() - kept.square().sum())  # parts at theta are orthogonal, but not after dA/dw
    back = [jacrev(lambda w, k=k: learner.adapted_one(w, episode(tasks, k)))(learner.w0) for k in range(2)]
    exact = 0.0
    for k in range(2):
        theta = learner.adapted(learner.w0, tasks[k : k + 1])[0]
        whole = gauss_newton_rows(ProtoLike(learner), theta, tasks[k : k + 1])
        best = leading_rows(whole, 3)
        exact += float(torch.trace(back[k].T @ (whole.T @ whole - best.T @ best) @ back[k]))
    assert exact == pytest.approx(lost, rel=1e-8)
    guesses = torch.tensor([task_rows(learner, learner.w0, tasks, 3, seed=s).lost for s in range(400)])
    assert abs(float(guesses.mean()) - exact) < 4 * float(guesses.std()) / 20
    assert float(guesses.std()) > 0


def test_a_buffer_keeps_the_leading_directions():
    learner, tasks = tanh_maml(), random_tasks(12)
    rows = gauss_newton_rows(learner, learner.w0, tasks)
    everything = gauss_newton_buffer(learner, learner.w0, tasks, size=learner.q, block=5)
    torch.testing.assert_close(everything.T @ everything, rows.T @ rows, rtol=1e-9, atol=1e-11)
    small = gauss_newton_buffer(learner, learner.w0, tasks, size=6, block=5)
    values = torch.linalg.eigvalsh(rows.T @ rows)[-6:]
    assert len(small) == 6
    torch.testing.assert_close(small.square().sum(1)[-2:], values[-2:], rtol=0.05, atol=0.0)
    gram = float64_gram(small)
    torch.testing.assert_close(gram, torch.diag(gram.diagonal()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [2, 6, 15])
@pytest.mark.parametrize("block", [1, 5, 12])
def test_a_buffer_errs_by_what_it_says_it_left_out(size, block):
    """B^T B never exceeds M G, so no eigenvalue errs by more than the lost trace (Weyl)."""
    learner, tasks = tanh_maml(), random_tasks(12)
    rows = gauss_newton_rows(learner, learner.w0, tasks)
    buffer = filled_buffer(learner, learner.w0, tasks, size=size, block=block)
    missing = rows.T @ rows - buffer.rows.T @ buffer.rows
    trace = float(rows.square().sum())
    lost = (1 - buffer.captured) * trace
    values = torch.linalg.eigvalsh(missing)
    assert values[0] > -1e-12 * trace and values[-1] <= lost * (1 + 1e-9)
    assert float(values.sum()) == pytest.approx(lost, rel=1e-8)
    assert buffer.trace == pytest.approx(trace) and buffer.lost == 0.0 and buffer.done == 12
    assert 0.3 < buffer.captured < 1


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


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": 0}, "size"),
        ({"size": 73}, r"73 rows is larger than the 72 rows that 3 tasks give \(24 each\); pass 72"),
        ({"size": 16, "compress": 5}, r"larger than the 15 rows .*5 each"),
        ({"size": 3, "compress": 1}, "fewer than one query example has, C - 1 = 2"),
        ({"size": 3, "block": 0}, "block"),
        ({"size": 3, "processes": 0}, "processes"),
        ({"size": 3, "processes": 2.5}, "pass a number, the address of a dask scheduler|needs dask.distributed"),
    ],
)
def test_bad_sizes_are_refused(options, says):
    learner = tanh_maml()
    with pytest.raises((ValueError, TypeError, ImportError), match=says):
        gauss_newton_buffer(learner, learner.w0, random_tasks(3), **options)


@pytest.mark.parametrize(("tasks_in_memory", "size"), [(96, 2), (95, 1), (47, 1)])
def test_a_batch_of_rows_takes_a_share_of_the_memory(tasks_in_memory, size, monkeypatch):
    """A task has 12 queries, whose rows are taken together: 4 x 12 times the memory of its loss."""
    learner, tasks, seen = tanh_maml(), random_tasks(3), []
    want = gauss_newton_rows(learner, learner.w0, tasks)

    def recorded(function, in_dims=0, **options):
        seen.append(options.get("chunk_size"))
        return vmap(function, in_dims, **options)

    monkeypatch.setattr("explainlib.meta.gauss_newton.rows.vmap", recorded)
    monkeypatch.setattr(Maml, "chunk", lambda self, tasks: tasks_in_memory)
    torch.testing.assert_close(gauss_newton_rows(learner, learner.w0, tasks), want)
    assert set(seen) - {None} == {size}
