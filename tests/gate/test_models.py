"""Models as people have them: wrapped, scripted, lazy, frozen, half precision; and where they are called."""

import copy
import importlib.util
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import explainlib as xl
from explainlib.datasets import Examples

DOUBLE = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def classes(n=12, d=3):
    return Examples(normal(n, d), torch.arange(n) % 3)


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def meta_tasks(m=4):
    return xl.datasets.Tasks(*(t for _ in "sq" for t in (normal(m, 6, 3), (torch.arange(6) % 3).expand(m, -1))))


def compiled():
    return torch.compile(plain(), backend="eager")


def lazy():
    return nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(3))


def with_scripted_layer():
    model = plain()
    model[0] = torch.jit.script(model[0])
    return model


class Uncopyable(nn.Linear):
    def __deepcopy__(self, memo):
        raise RuntimeError("no copies")


def learn2learn_maml():
    if importlib.util.find_spec("learn2learn") is None:
        pytest.skip("learn2learn is not installed")
    from explainlib.datasets.tasks.learn2learn import import_learn2learn

    return import_learn2learn().algorithms.MAML(plain(), lr=0.1)


REFUSED = {
    "DataParallel": (lambda: nn.DataParallel(plain()), TypeError, r"model\.module"),
    "scripted": (lambda: torch.jit.script(plain()), TypeError, "scripted.*module it was made of"),
    "a scripted layer": (with_scripted_layer, TypeError, "layer '0' is scripted"),
    "compiled": (compiled, TypeError, "_orig_mod"),
    "lazy": (lazy, ValueError, r"lazy; run model\(x\[:1\]\) once"),
    "float16": (lambda: plain().half(), TypeError, r"float16.*model\.float\(\)"),
    "bfloat16": (lambda: plain().bfloat16(), TypeError, r"bfloat16.*model\.float\(\)"),
    "no copies": (lambda: nn.Sequential(Uncopyable(3, 3)).double(), TypeError, "cannot be copied.*no copies"),
    "nothing to learn": (lambda: plain().requires_grad_(False), ValueError, r"requires_grad_\(\)"),
}
ENTRIES = {
    "Risk": lambda m, x: xl.Risk(m, Examples(x, torch.arange(len(x)) % 3)),
    "kernel": lambda m, x: xl.representers.kernel(m, x, x),
    "Maml": lambda m, x: xl.meta.Maml(m, inner_lr=0.1),
    "ProtoNet": lambda m, x: xl.meta.ProtoNet(m),
    "Bilevel": lambda m, x: xl.meta.Bilevel(m, strength=1.0, l2=0.1),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("name", REFUSED)
def test_one_error_with_a_remedy(name, entry):
    make, kind, words = REFUSED[name]
    model, x = make(), normal(6, 3)
    dtype = next(iter(model.parameters())).dtype if isinstance(model, nn.Module) and name != "lazy" else DOUBLE
    with pytest.raises(kind, match=words):
        ENTRIES[entry](model, x.to(dtype))


def test_a_learn2learn_learner_is_told_its_network():
    with pytest.raises(TypeError, match=r"learn2learn MAML.*model\.module"):
        xl.meta.Maml(learn2learn_maml(), inner_lr=0.1)


def test_reports_are_sentences():
    for name, (make, _, words) in REFUSED.items():
        report = xl.check_model(make(), normal(5, 3))
        assert not report.ok and re.search(words, str(report)), name
        assert "<li>" in report._repr_html_()
        with pytest.raises((TypeError, ValueError)):
            report.require()
    assert xl.check_model(plain(), normal(5, 3), torch.arange(5) % 3).require().ok


# --- frozen layers


def test_frozen_layers_work_everywhere():
    model, e = plain(), classes()
    model[0].requires_grad_(False)
    head = copy.deepcopy(model[2])
    features = torch.tanh(model[0](e.x)).detach()
    other = Examples(features, e.y)
    names = ["2.weight", "2.bias"]
    assert xl.Risk(model, e).parameters.names == tuple(names)
    torch.testing.assert_close(xl.Risk(model, e).loss_gradients(), xl.Risk(head, other).loss_gradients())
    for options in ({}, {"parameters": names}, {"parameters": "last"}):
        torch.testing.assert_close(
            xl.representers.kernel(model, e.x, e.x, **options), xl.representers.kernel(head, features, features)
        )
    trajectory = xl.training.fit(model, e, epochs=3, checkpoints=2)
    by_head = xl.training.fit(head, other, epochs=3, checkpoints=2)
    for options in ({}, {"parameters": names}, {"parameters": "last"}):
        torch.testing.assert_close(
            xl.influence.tracin(trajectory, e, e, **options), xl.influence.tracin(by_head, other, other)
        )
    tasks = meta_tasks()
    embedded = xl.datasets.Tasks(
        torch.tanh(model[0](tasks.support_x)).detach(),
        tasks.support_y,
        torch.tanh(model[0](tasks.query_x)).detach(),
        tasks.query_y,
    )
    for make in (
        lambda m, **kw: xl.meta.Maml(m, inner_lr=0.3, **kw), xl.meta.ProtoNet, lambda m, **kw: xl.meta.Bilevel(m, strength=1.0, l2=0.1, **kw),
    ):  # fmt: skip
        want = make(head)
        for options in ({}, {"parameters": names}):
            learner = make(model, **options)
            assert learner.q == 15
            torch.testing.assert_close(learner.losses(learner.w0, tasks), want.losses(want.w0, embedded))


def test_a_frozen_name_is_refused_and_named():
    model = plain()
    model[0].requires_grad_(False)
    with pytest.raises(ValueError, match="'0.weight' does not require a gradient"):
        xl.Risk(model, classes(), parameters=["0.weight"])


def test_the_body_of_a_head_can_be_frozen_in_part():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    model[0].requires_grad_(False)
    bilevel = xl.meta.Bilevel(model, inner="head", strength=1.0, l2=0.1)
    assert bilevel.q == 20 and bilevel.p == 15
    assert xl.meta.Bilevel(model, inner="head", strength=1.0, l2=0.1, parameters=["2.weight", "4.weight"]).q == 16


# --- the read-out is found by running


class BackToFront(nn.Module):
    """The read-out is defined first, an unused layer last."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.answer, self.body, self.unused = nn.Linear(4, 3), nn.Linear(3, 4), nn.Linear(7, 7)

    def forward(self, x):
        return self.answer(torch.tanh(self.body(x)))


def test_the_read_out_is_what_runs_last():
    model, e = BackToFront().double(), classes()
    names = ["answer.weight", "answer.bias"]
    assert list(xl.Risk(model, e, parameters="last").parameters.names) == names
    features = torch.cat([torch.tanh(model.body(e.x)), torch.ones(12, 1, dtype=DOUBLE)], 1).detach()
    torch.testing.assert_close(xl.representers.kernel(model, e.x, e.x, kind="last_layer"), features @ features.T)
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    trajectory = xl.training.Trajectory(model, flat[None], torch.ones(1, dtype=DOUBLE))
    torch.testing.assert_close(
        xl.influence.tracin(trajectory, e, e, parameters="last"),
        xl.influence.tracin(trajectory, e, e, parameters=names),
    )


# --- where somebody else turned gradients off


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_calls_under_no_grad(context):
    e, model = classes(), plain()
    risk = xl.training.minimise(xl.Risk(model, e, l2=0.1))
    users = {
        "influence": lambda r: xl.influence.loss_influence(r, e), "ekfac": lambda r: xl.influence.loss_influence(r, e, curvature="ekfac", damping=0.1),
        "removal": lambda r: xl.influence.removal_effect(r, [[0, 1]], order=2, weighting="plain").change,
        "kernel": lambda r: xl.representers.kernel(r.model, e.x, e.x), "minimise": lambda r: xl.training.minimise(xl.Risk(model, e, l2=0.1)).theta,
        "fit": lambda r: xl.training.fit(model, e, epochs=2).model[0].weight.detach(), "trak": lambda r: xl.influence.trak(r, e, features=5),
        "top_eigenvalues": lambda r: xl.curvature.top_eigenvalues(r, 2), "leave_out": lambda r: xl.retraining.leave_out(r, [[0]]).change,
    }  # fmt: skip
    want = {name: user(risk) for name, user in users.items()}
    with context():
        got = {name: user(risk) for name, user in users.items()}
        inside = xl.Risk(copy.deepcopy(model), Examples(e.x.clone(), e.y.clone()), l2=0.1)
    for name in users:
        torch.testing.assert_close(got[name].clone(), want[name])
    assert xl.training.minimise(inside).p == risk.p
    tasks, learner = meta_tasks(), xl.meta.Maml(model, inner_lr=0.1)
    want = learner.gradients(learner.w0, tasks)
    with context():
        torch.testing.assert_close(learner.gradients(learner.w0, tasks).clone(), want)


# --- checkpoints keep their buffers


def batch_normed():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double()


def test_a_checkpoint_is_its_parameters_and_its_statistics():
    e = Examples(classes(16).x * 3 + 2, torch.arange(16) % 3)
    trajectory = xl.training.fit(batch_normed(), e, epochs=5, batch_size=4, lr=0.1, optimizer="sgd", checkpoints=3)
    want, risk = torch.zeros(16, 16, dtype=DOUBLE), xl.Risk(trajectory.model, e, l2=0.1)
    for c in range(3):
        model = copy.deepcopy(trajectory.model)
        model.load_state_dict(trajectory.state(c))
        rows = []
        for x, y in zip(e.x, e.y, strict=True):
            g = torch.autograd.grad(F.cross_entropy(model(x[None]), y[None]), list(model.parameters()))
            rows.append(torch.cat([part.flatten() for part in g]))
        rows = torch.stack(rows)
        want -= 0.1 * rows @ rows.T
        there = risk.at(trajectory.checkpoints[c], buffers=trajectory.buffers[c])
        torch.testing.assert_close(there.loss_gradients(), rows)
    torch.testing.assert_close(xl.influence.tracin(trajectory, e, e), want)


def test_somebody_elses_checkpoints_say_what_is_missing():
    e = classes(16)
    ours = xl.training.fit(batch_normed(), e, epochs=5, batch_size=4, lr=0.1, optimizer="sgd", checkpoints=3)
    theirs = xl.training.Trajectory(ours.model, ours.checkpoints, ours.learning_rates)
    with pytest.raises(ValueError, match="running statistics.*buffers="):
        xl.influence.tracin(theirs, e, e)
    with pytest.raises(ValueError, match="one dict per checkpoint"):
        xl.training.Trajectory(ours.model, ours.checkpoints, ours.learning_rates, buffers=ours.buffers[:1])
    whole = xl.training.Trajectory(ours.model, ours.checkpoints, ours.learning_rates, buffers=ours.buffers)
    torch.testing.assert_close(xl.influence.tracin(whole, e, e), xl.influence.tracin(ours, e, e))
    last = xl.training.Trajectory(ours.model, ours.checkpoints[-1:], ours.learning_rates[-1:])
    assert xl.influence.tracin(last, e, e).shape == (16, 16)  # the model's own parameters go with its own statistics


def test_fit_refuses_a_last_batch_of_one_before_it_starts():
    model, e = batch_normed(), classes(13)
    with pytest.raises(ValueError, match="BatchNorm layer '1'.*batch_size"):
        xl.training.fit(model, e, epochs=1, batch_size=4)
    with pytest.raises(ValueError, match="batch_size"):
        xl.training.fit(model, e, epochs=1, batch_size=1)
    assert len(xl.training.fit(model, e, epochs=1, batch_size=5).batches) == 3
    assert len(xl.training.fit(plain(), e, epochs=1, batch_size=4).batches) == 4
    with pytest.raises(ValueError, match="batch_size"):  # the one left out leaves a batch of one behind
        for seed in range(20):
            xl.training.fit(model, e[:12], epochs=3, batch_size=2, without=[3], seed=seed)


def test_representer_points_need_a_read_out_that_is_the_output():
    from explainlib.representers import representer_points

    e, model = classes(), BackToFront().double()
    assert representer_points(xl.Risk(model, e, l2=0.1), e, output=0).shape == (12, 12)
    for after in (nn.LogSoftmax(-1), nn.ReLU(inplace=True)):
        with pytest.raises(ValueError, match="something follows the last"):
            representer_points(xl.Risk(nn.Sequential(model, after), e, l2=0.1), e, output=0)
