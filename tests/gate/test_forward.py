"""What a forward does: nothing of the caller's moves, chance is found by its cause, examples stand for themselves."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import explainlib as xl
from explainlib.datasets import Examples
from explainlib.gate import entry

DOUBLE = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def classes(n=12, d=3):
    return Examples(normal(n, d), torch.arange(n) % 3)


def linear(*before):
    torch.manual_seed(0)
    return nn.Sequential(*before, nn.Linear(3, 3)).double()


class Forward(nn.Module):
    """A linear layer around some function of a batch."""

    def __init__(self, function, **attributes):
        super().__init__()
        torch.manual_seed(0)
        self.l, self.function = nn.Linear(3, 3).double(), function
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.l(self.function(self, x))


USERS = {
    "Risk": lambda m, e: xl.Risk(m, e, l2=0.1).value(),
    "kernel": lambda m, e: xl.representers.kernel(m, e.x, e.x[:2]),
    "last-layer kernel": lambda m, e: xl.representers.kernel(m, e.x, e.x, kind="last_layer"),
    "fit": lambda m, e: xl.training.fit(m, e, epochs=1),
    "check_model": lambda m, e: xl.check_model(m, e.x, e.y),
    "tracin": lambda m, e: xl.influence.tracin(
        xl.training.Trajectory(
            m, torch.cat([p.detach().flatten() for p in m.parameters()])[None], torch.ones(1).double()
        ),
        e,
        e,
    ),
}


# --- nothing of the caller's moves


def scale_in_place(m, x):
    x /= 255
    return x


def fails(m, x):
    x.mul_(3)
    m.l.weight.data.mul_(2)
    raise KeyError("nothing")


def interrupted(m, x):
    x.mul_(3)
    m.seen.add_(1)
    raise KeyboardInterrupt


IN_PLACE = {
    "ReLU": lambda: linear(nn.ReLU(inplace=True)), "Hardtanh": lambda: linear(nn.Hardtanh(-0.5, 0.5, inplace=True)),
    "/= 255": lambda: Forward(scale_in_place), "a view": lambda: Forward(lambda m, x: x[:, :1].add_(1) * x),
    "BatchNorm in training mode": lambda: linear(nn.BatchNorm1d(3)), "an error": lambda: Forward(fails),
    "an interrupt": lambda: Forward(interrupted, seen=torch.zeros(1)),
    "spectral norm in training mode": lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))).double(),
}  # fmt: skip


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("name", IN_PLACE)
def test_neither_the_model_nor_the_data_change(name, user):
    model, e = IN_PLACE[name](), classes()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    attributes = {k: v.clone() for k, v in vars(model).items() if isinstance(v, torch.Tensor)}
    modes, x, y = [m.training for m in model.modules()], e.x.clone(), e.y.clone()
    try:
        USERS[user](model, e)
    except (ValueError, TypeError, KeyboardInterrupt):
        pass
    assert torch.equal(e.x, x) and torch.equal(e.y, y)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(torch.equal(getattr(model, k), v) for k, v in attributes.items())
    assert [m.training for m in model.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("name", ["ReLU", "Hardtanh", "/= 255", "a view"])
def test_what_writes_into_its_input_gets_the_same_numbers(name):
    model, e = IN_PLACE[name](), classes()
    risk = xl.Risk(model, e, l2=0.1)
    want = torch.stack([
        torch.autograd.grad(F.cross_entropy(q(x[None].clone()), y[None]), list(q.parameters()))[0].flatten()
        for q in [copy.deepcopy(model)] for x, y in zip(e.x, e.y, strict=True)
    ])  # fmt: skip
    torch.testing.assert_close(risk.outputs(), model(e.x.clone()).detach())
    torch.testing.assert_close(risk.loss_gradients()[:, :9], want)


def test_generators_are_put_back():
    model = Forward(lambda m, x: x + torch.rand(1) + np.random.rand() + random.random())
    torch.manual_seed(3), np.random.seed(3)
    want = torch.rand(2), np.random.rand(2)
    torch.manual_seed(3), np.random.seed(3)
    xl.check_model(model, normal(5, 3))
    assert torch.equal(torch.rand(2), want[0]) and (np.random.rand(2) == want[1]).all()


def test_a_table_with_max_norm_is_a_function_of_its_rows():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.e, self.o = nn.Embedding(6, 4, max_norm=0.5), nn.Linear(4, 3)

        def forward(self, x):
            return self.o(torch.tanh(self.e(x)).mean(1))

    model, e = Words().double(), Examples(torch.randint(0, 6, (8, 5)), torch.arange(8) % 3)
    before, risk = model.e.weight.detach().clone(), xl.Risk(model, e, l2=0.1)
    theta = risk.theta.clone()
    G = risk.loss_gradients()
    assert torch.equal(model.e.weight, before) and torch.equal(risk.theta, theta)
    other = copy.deepcopy(model)
    other(e.x)  # torch shortens the rows it reads, in place
    rows = [
        torch.autograd.grad(F.cross_entropy(other(x[None]), y[None]), list(other.parameters()))
        for x, y in zip(e.x, e.y, strict=True)
    ]
    torch.testing.assert_close(G, torch.stack([torch.cat([g.flatten() for g in row]) for row in rows]))


# --- chance, by its cause


class DropPath(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        return x * (torch.rand(len(x), 1) >= self.p) / (1 - self.p) if self.training else x


@pytest.mark.parametrize("seed", range(40))
def test_rare_chance_is_refused_every_time(seed):
    model = linear(nn.Linear(3, 3), DropPath(0.02))
    torch.manual_seed(seed)
    with pytest.raises(ValueError, match=r"layer '1' \(DropPath\).*draws random numbers.*model\.eval\(\)"):
        xl.Risk(model, classes())
    with pytest.raises(ValueError, match="DropPath"):
        xl.representers.kernel(model, normal(4, 3), normal(5, 3))


def test_in_evaluation_mode_it_is_welcome():
    assert xl.Risk(linear(nn.Linear(3, 3), DropPath(0.02), nn.Dropout(0.5)).eval(), classes()).n_outputs == 3
    assert xl.Risk(linear(nn.Dropout(0.0)), classes()).n_outputs == 3  # in training mode, but nothing is drawn


class Generators:
    own = torch.Generator().manual_seed(0)
    numpy = np.random.default_rng(0)
    python = random.Random(0)


CHANCE = {
    "dropout": (lambda m, x: F.dropout(x, 0.5, training=m.training), "train", "eval"),
    "functional dropout, training by default": (lambda m, x: F.dropout(x, 1e-9), "eval", "training=self.training"),
    "in place": (lambda m, x: x + torch.empty_like(x).normal_(std=1e-12), "eval", "draws random"),
    "bernoulli": (lambda m, x: x * torch.bernoulli(torch.full_like(x, 1 - 1e-12)), "eval", "draws random"),
    "a generator of its own": (lambda m, x: x + 1e-12 * torch.randn(3, generator=Generators.own), "eval", "draws random"),
    "rrelu in training": (lambda m, x: F.rrelu(x, training=True), "train", "draws random"),
    "attention's dropout": (
        lambda m, x: F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None], dropout_p=1e-9)[:, 0], "eval", "draws",
    ),
    "multinomial": (lambda m, x: x + 0 * torch.multinomial(x.softmax(1), 1), "eval", "draws random"),
    "numpy": (lambda m, x: x + 1e-12 * float(np.random.rand()), "eval", "numpy.random"),
    "python": (lambda m, x: x + 1e-12 * random.random(), "eval", "generator of random"),
    "python's choice": (lambda m, x: x + 0 * random.choice([1, 1, 1]), "eval", "generator of random"),
    "python, a generator of its own": (lambda m, x: x + 1e-12 * Generators.python.uniform(0, 1), "eval", "generator of random"),
    "numpy, a generator of its own": (lambda m, x: x + float(Generators.numpy.normal()), "eval", "two outputs"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANCE)
def test_chance_is_found_by_its_cause(name):
    function, mode, words = CHANCE[name]
    model = getattr(Forward(function), mode)()
    with pytest.raises(ValueError, match=words):
        xl.Risk(model, classes())


def test_what_only_looks_like_chance_is_welcome():
    x = normal(6, 4)
    for layer in (nn.RReLU(), nn.Dropout(0.3), nn.AlphaDropout(0.3)):
        assert xl.check_model(nn.Sequential(nn.Linear(4, 3), layer).double().eval(), x).ok
    lstm = nn.LSTM(3, 4, num_layers=2, dropout=0.5, batch_first=True)

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.r, self.o = lstm, nn.Linear(4, 3)

        def forward(self, x):
            return self.o(self.r(x)[0][:, -1])

    assert xl.check_model(Last().double().eval(), normal(4, 5, 3), order=0).ok
    assert not xl.check_model(Last().double().train(), normal(4, 5, 3), order=0).ok


# --- modes, examples, state


def test_a_mode_that_changes_outputs_asks_for_the_other():
    for layer in (nn.BatchNorm1d(3), Forward(lambda m, x: x if m.training else 2 * x)):
        with pytest.raises(ValueError, match=r"model\.eval\(\)"):
            xl.Risk(nn.Sequential(nn.Linear(3, 3), layer).double(), classes())
        xl.Risk(nn.Sequential(nn.Linear(3, 3), layer).double().eval(), classes())


MIXED = {
    "the mean of the batch": lambda m, x: x - x.mean(0), "the largest of the batch": lambda m, x: x / x.abs().max(),
    "the last one": lambda m, x: x + x[-1:], "the number of them": lambda m, x: x / len(x),
    "the order": lambda m, x: x * torch.arange(1, len(x) + 1, dtype=x.dtype)[:, None], "functional batch norm": lambda m, x: F.batch_norm(x, None, None, training=True),
    "more than six": lambda m, x: x * (1 + 0.1 * (len(x) > 6)),
    "the third alone": lambda m, x: torch.cat([x[:2], x[2:3] + x[:1], x[3:]]) if len(x) > 2 else x,
}  # fmt: skip


@pytest.mark.parametrize("name", MIXED)
def test_examples_stand_for_themselves(name):
    with pytest.raises(ValueError, match="depends on the others"):
        xl.Risk(Forward(MIXED[name]).eval(), classes())


def keeps(m, x):
    m.last, m.calls = x * 2, m.calls + 1
    m.log.append(m.last)
    return m.last


def test_what_a_forward_keeps_is_put_back():
    model = Forward(keeps, calls=0, log=[])
    model.last = model.l(normal(2, 3))  # an activation with its graph: deepcopy refuses it
    risk, e = xl.Risk(model, classes(), l2=0.1), classes()
    for _ in range(3):
        torch.testing.assert_close(risk.outputs(), model.l(2 * e.x).detach())
    risk.loss_gradients(), xl.curvature.hessian(risk)
    inside = risk.parameters.module
    assert inside.calls == 0 and inside.log == [] and model.calls == 0
    assert risk.model.calls == 0
    assert any("put back" in f.text for f in xl.check_model(model, e.x).findings)


def test_a_forward_without_memory_of_its_last_call():
    """A module that answers with what it saw before: every call here starts where the model came from."""

    def remembers(m, x):
        m.before, now = x.mean(), m.before
        return x + now

    risk = xl.Risk(Forward(remembers, before=torch.zeros((), dtype=DOUBLE)).eval(), classes())
    assert torch.equal(risk.outputs(), risk.outputs())


def test_a_buffer_that_a_forward_writes_is_named():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.l = nn.Linear(3, 3)
            self.register_buffer("seen", torch.zeros(3))

        def forward(self, x):
            self.seen.add_(x.detach().mean(0))
            return self.l(x) + self.seen

    with pytest.raises(ValueError, match="writes into 'seen'"):
        xl.Risk(Counting().double().eval(), classes())


def test_a_model_is_asked_once(monkeypatch):
    asked, watched = [], entry.monitored_forward
    monkeypatch.setattr(entry, "monitored_forward", lambda *args, **kw: (asked.append(1), watched(*args, **kw))[1])
    model = linear(nn.Linear(3, 3)).eval()
    for _ in range(3):
        xl.representers.kernel(model, normal(4, 3), normal(5, 3))
        xl.Risk(model, classes())
    assert len(asked) == 1
    model[0] = nn.Linear(3, 3).double()  # another layer: asked again
    xl.representers.kernel(model, normal(4, 3), normal(5, 3))
    model.train()  # another mode
    xl.representers.kernel(model, normal(4, 3), normal(5, 3))
    assert len(asked) == 3


def test_half_precision_inside_is_named():
    def cast(m, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return m.l(x).float()

    single = Examples(classes().x.float(), classes().y)
    for function in (cast, lambda m, x: x.half().float()):
        with pytest.raises(ValueError, match="computes in torch.b?float16.*autocast"):
            xl.Risk(Forward(function).float().eval(), single)


def test_a_hook_on_a_gradient_is_refused():
    model = linear().eval()
    handle = model[0].weight.register_hook(lambda g: g * 0)
    for user in (lambda: xl.Risk(model, classes()), lambda: xl.training.fit(model, classes(), epochs=1)):
        with pytest.raises(ValueError, match="'0.weight' has a hook on its gradient.*remove it"):
            user()
    handle.remove()
    assert xl.Risk(model, classes()).p == 12
