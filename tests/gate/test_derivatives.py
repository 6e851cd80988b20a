"""Derivatives against differences: a wrong one is found and named, a sound one never refused."""

import copy
import re
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import explainlib as xl
from explainlib.datasets import Examples
from explainlib.gate import entry, forward, routes
from explainlib.gate.entry import ConstantWarning
from tests.gate.nets import OffByOnePercent, broken, sound

DOUBLE = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def classes(n=12, d=3):
    return Examples(normal(n, d), torch.arange(n) % 3)


def net(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), *layers, nn.Linear(5, 3)).double().eval()


class Layer(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


# --- the audit


@pytest.mark.parametrize("part", range(4))
def test_a_sound_network_is_never_refused(part):
    refused = {}
    for seed in range(part * 25, part * 25 + 25):
        model, x = sound(seed)
        report = xl.check_model(model, x, order=3)
        if report.findings or len(report.routes) != 5:
            refused[seed] = str(report)
    assert not refused


def test_a_backward_that_is_one_percent_off_is_named():
    missed = {}
    for seed in range(20):
        model, x, name = broken(seed)
        report = xl.check_model(model, x, order=1)
        errors = [finding for finding in report.findings if finding.error]
        if [finding.layer or finding.text for finding in errors] and repr(name) in errors[0].text:
            continue
        missed[seed] = name, str(report)
    assert not missed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_single_precision_models_are_compared_in_double(dtype):
    model = net(nn.Tanh()).to(dtype)
    report = xl.check_model(model, normal(5, 3).to(dtype), order=3)
    assert report.ok and max(report.routes.values()) < 1e-6


def test_a_forward_that_insists_on_single_precision_is_compared_in_it():
    model = net(Layer(lambda h: torch.tanh(h.float()) @ torch.eye(5))).float()
    assert xl.check_model(model, normal(5, 3).float(), order=2).ok
    model = net(Layer(lambda h: OffByOnePercent.apply(OffByOnePercent.apply(
        OffByOnePercent.apply(OffByOnePercent.apply(torch.tanh(h.float()) @ torch.eye(5))))))).float()  # fmt: skip
    assert not xl.check_model(model, normal(5, 3).float(), order=1).ok


class WrongTwice(torch.autograd.Function):
    """sin, whose gradient is right and whose second derivative is that of a constant slope."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.slope = inputs[0].cos().detach()

    @staticmethod
    def backward(ctx, g):
        return g * ctx.slope


class WrongForward(torch.autograd.Function):
    """sin, right backwards and wrong forwards."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * x.cos()

    @staticmethod
    def jvp(ctx, t):
        (x,) = ctx.saved_tensors
        return 1.01 * t * x.cos()


class OldStyle(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (1 - x.tanh() ** 2)


def test_each_route_is_judged_by_itself():
    x = normal(5, 3)
    wrong_twice, wrong_forward = net(Layer(WrongTwice.apply)), net(Layer(WrongForward.apply))
    assert xl.check_model(wrong_twice, x, order=0).ok
    found = xl.check_model(wrong_twice, x, order=2)
    assert not found.ok and "second derivative" in str(found) and "'1' (Layer)" in str(found)
    found = xl.check_model(wrong_forward, x, order=1)
    assert not found.ok and "forward-mode" in str(found) and "'1' (Layer)" in str(found)


def test_a_function_takes_the_routes_it_needs_and_no_others():
    e = classes()
    risk = xl.Risk(net(Layer(WrongTwice.apply)), e, l2=0.1)
    assert risk.loss_gradients().shape == (12, risk.p)  # first derivatives are right
    xl.influence.tracin(xl.training.Trajectory(risk.model, risk.theta[None], torch.ones(1).double()), e, e)
    for user in (xl.curvature.hessian, lambda r: xl.influence.loss_influence(r, e), xl.training.minimise,
                 lambda r: xl.influence.removal_effect(r, [[0]], order=2, damping=1.0),
                 lambda r: xl.curvature.top_eigenvalues(r, 2)):  # fmt: skip
        with pytest.raises(ValueError, match=r"second derivative.*'1' \(Layer\) is wrong"):
            user(risk)
    risk = xl.Risk(net(Layer(WrongForward.apply)), e, l2=0.1)
    xl.curvature.hessian(risk), xl.curvature.gauss_newton(risk)
    with pytest.raises(ValueError, match="forward-mode"):
        xl.curvature.gauss_newton_product(risk, risk.theta)


def test_learners_need_third_derivatives():
    tasks = xl.datasets.Tasks(*(t for _ in "sq" for t in (normal(4, 6, 3), (torch.arange(6) % 3).expand(4, -1))))
    learner = xl.meta.Maml(net(Layer(WrongTwice.apply)), inner_lr=0.1)
    assert learner.losses(learner.w0, tasks).shape == (4,)
    for user in (lambda: learner.gradients(learner.w0, tasks), lambda: xl.meta.train(learner, tasks, batches=1),
                 lambda: xl.influence.TaskInfluence(learner, learner.w0, tasks, l2=0.1)):  # fmt: skip
        with pytest.raises(ValueError, match="second derivative"):
            user()
    bilevel = xl.meta.Bilevel(net(Layer(WrongTwice.apply)), strength=1.0, l2=0.1)
    with pytest.raises(ValueError, match="second derivative"):
        bilevel.total_hessian(bilevel.lam0, tasks)


@pytest.mark.parametrize(
    "layer, words",
    [
        (Layer(OldStyle.apply), "setup_context"),
        (Layer(lambda h: checkpoint(torch.tanh, h, use_reentrant=False)), "checkpointing"),
        (Layer(lambda h: checkpoint(torch.tanh, h, use_reentrant=True)), "checkpointing"),
        (Layer(lambda h: torch.as_tensor(h.detach().numpy().copy()) + h), "no gradient of layer .1."),
    ],
    ids=["old-style function", "checkpoint", "reentrant checkpoint", "numpy"],
)
def test_what_torch_func_cannot_go_through_is_said_so(layer, words):
    risk = xl.Risk(net(layer), classes(), l2=0.1)
    for user in (risk.loss_gradients, risk.gradient, lambda: xl.curvature.hessian(risk),
                 lambda: xl.representers.kernel(risk.model, risk.train.x, risk.train.x)):  # fmt: skip
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", ConstantWarning)
                user()
        except (ValueError, ConstantWarning) as error:
            assert re.search(words, str(error)), error
        else:
            raise AssertionError("neither refused nor told")


def test_frequency_scaled_gradients_are_refused():
    class Words(nn.Module):
        def __init__(self, **kw):
            super().__init__()
            self.e, self.o = nn.Embedding(6, 4, **kw), nn.Linear(4, 3)

        def forward(self, x):
            return self.o(torch.tanh(self.e(x)).mean(1))

    e = Examples(torch.tensor([[0, 1, 1, 2], [3, 3, 3, 0], [5, 4, 4, 1]]), torch.arange(3))
    with pytest.raises(ValueError, match=r"'e' \(Embedding\).*is wrong"):
        xl.Risk(Words(scale_grad_by_freq=True).double(), e).loss_gradients()
    assert xl.check_model(Words(sparse=True, padding_idx=1).double(), e.x, order=3).ok


# --- constants


def dense(model, e, loss=lambda o, y: F.cross_entropy(o, y, reduction="none")):
    """The Hessian of the mean loss by double backward of plain autograd."""
    model = copy.deepcopy(model)
    ps = list(model.parameters())
    gradient = torch.autograd.grad(loss(model(e.x), e.y).mean(), ps, create_graph=True)
    flat = torch.cat([g.flatten() for g in gradient])
    rows = [torch.autograd.grad(g, ps, retain_graph=True, allow_unused=True) for g in flat]
    return torch.stack(
        [
            torch.cat([(torch.zeros_like(p) if r is None else r).flatten() for r, p in zip(row, ps, strict=True)])
            for row in rows
        ]
    )


def without(x):
    with torch.no_grad():
        return x.sin()


SPELLINGS = {
    "no_grad": lambda h: h * without(h), "detach": lambda h: h * h.detach().sin(), "data": lambda h: h * h.data.sin(),
    "set_grad_enabled": lambda h: h * gated(h), "straight through": lambda h: h + (h.round() - h).detach(),
}  # fmt: skip


def gated(h):
    with torch.set_grad_enabled(False):
        return h.sin()


@pytest.mark.parametrize("name", SPELLINGS)
def test_constants_are_constants_at_every_order_and_said_once(name):
    model, e = net(Layer(SPELLINGS[name])), classes()
    risk = xl.Risk(model, e)
    with pytest.warns(ConstantWarning, match="counts as a constant") as said:
        H = xl.curvature.hessian(risk)
        xl.curvature.hessian(xl.Risk(model, e))
    assert len(said) == 1
    torch.testing.assert_close(H, dense(model, e))
    v = normal(3, risk.p)
    torch.testing.assert_close(xl.curvature.gauss_newton_product(risk, v), v @ xl.curvature.gauss_newton(risk))


@pytest.mark.parametrize("name", ["no_grad", "detach"])
def test_constants_in_a_loss(name):
    def focal(o, y):
        doubt = lambda: (1 - o.softmax(-1).gather(1, y[:, None])[:, 0]) ** 2  # noqa: E731
        if name == "detach":
            return doubt().detach() * F.cross_entropy(o, y, reduction="none")
        with torch.no_grad():
            weight = doubt()
        return weight * F.cross_entropy(o, y, reduction="none")

    model, e = net(nn.Tanh()), classes()
    with pytest.warns(ConstantWarning, match="the loss 'focal'"):
        H = xl.curvature.hessian(xl.Risk(model, e, loss=focal))
    torch.testing.assert_close(H, dense(model, e, focal))


# --- losses


def batch_mean(o, y):
    losses = F.cross_entropy(o, y, reduction="none")
    return losses - losses.mean()


def random_weights(o, y):
    return F.cross_entropy(o, y, reduction="none") * torch.rand(len(o), dtype=o.dtype)


def off_by_one_percent(o, y):
    return OffByOnePercent.apply(F.cross_entropy(o, y, reduction="none"))


@pytest.mark.parametrize(
    "loss, words",
    [
        (batch_mean, "depends on the other examples"),
        (random_weights, "two values"),
        (off_by_one_percent, "gradient of the loss.*is wrong"),
    ],
)
def test_a_loss_passes_the_gate_too(loss, words):
    risk = xl.Risk(net(nn.Tanh()), classes(), loss=loss, l2=0.1)
    with pytest.raises(ValueError, match=words):
        risk.gradient()
    head = xl.Risk(net(nn.Tanh()), classes(), loss=loss, l2=0.1, parameters="last")
    with pytest.raises(ValueError, match=words):
        xl.influence.loss_influence(head, classes())


def test_an_asymmetric_hessian_is_never_averaged_away():
    from explainlib.checks import symmetrised

    H = normal(4, 4)
    torch.testing.assert_close(symmetrised("H", H + H.T), H + H.T)
    with pytest.raises(ValueError, match="not symmetric"):
        symmetrised("H", H + H.T + 1e-5 * torch.eye(4, dtype=DOUBLE).roll(1, 0))


def test_a_gradient_that_is_none_has_an_asymmetric_hessian():
    """One percent too long in one factor: differences of that gradient agree with its Jacobian, which has no symmetry."""
    a, b = normal(3), normal(3, seed=1)

    def function(factor):
        def run(v, constants):
            x, y = v.split(3)
            return ((OffByOnePercent.apply(x) if factor else x).sin() * a * (y * b).exp()).sum()

        return run

    sound_one, wrong_one = (routes.Derivatives(function(on), normal(6, seed=2), (3, 3)) for on in (False, True))
    assert sound_one.compare(routes.HESSIAN).error < 1e-7
    seen = wrong_one.compare(routes.HESSIAN)
    assert not seen.agrees and 1e-4 < seen.error < 0.1


# --- the gate's own comparisons: each of these, turned off, lets something through


MUTANTS = {
    "any difference is allowed": (routes, "TOLERANCE", {torch.float64: 1e9, torch.float32: 1e9}),
    "one direction is zero": (routes, "DIRECTIONS", 0),
    "nothing is blamed": (entry, "failing_layer", lambda *a: ""),
    "no random operation is seen": (forward, "_draws", lambda *a: False),
    "nothing was written": (forward, "_restore_tensors", lambda *a: []),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_comparisons_are_what_decides(name, monkeypatch):
    """Planting each mutant changes an answer that the tests above ask for."""

    def answers():
        model, x, layer = broken(3)
        found = xl.check_model(model, x, order=1)
        wrong = [repr(layer) in f.text for f in found.findings if f.error]
        noisy = Layer(lambda h: h + 1e-14 * torch.randn_like(h))
        spectral = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))).double()
        return (
            wrong,
            [f.text for f in xl.check_model(net(noisy), normal(4, 3), order=0).findings],
            [f.text for f in xl.check_model(spectral, normal(4, 3), order=0).findings],
        )

    sound_answers = answers()
    assert sound_answers[0] == [True] and sound_answers[1] and sound_answers[2]
    owner, attribute, mutant = MUTANTS[name]
    monkeypatch.setattr(owner, attribute, mutant)
    try:
        changed = answers()
    except (ValueError, IndexError):
        return
    assert changed != sound_answers
