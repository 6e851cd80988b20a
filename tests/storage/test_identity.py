"""What a callable computes, told apart from what it is called: pairs that differ, pairs that do not."""

import functools
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from explainlib.losses import CROSS_ENTROPY, SQUARED_ERROR
from explainlib.storage import UnidentifiedError, fingerprint, probe_entry
from explainlib.storage.identity import Identity


def told(value):
    return Identity().of("value", value)


def written(text, **names):
    """The function f of a piece of source, as a notebook cell would define it."""
    space = {"__name__": "__main__", "torch": torch, "F": nn.functional, "nn": nn, "functools": functools, **names}
    exec(textwrap.dedent(text), space)
    return space["f"]


HELPER = types.ModuleType("helper_of_a_user")
HELPER.scale = 2.0
OTHER = types.ModuleType("helper_of_a_user")
OTHER.scale = 3.0

DIFFERENT = {
    "a constant": ("f = lambda x: 2 * x", "f = lambda x: 3 * x"),
    "an operation": ("f = lambda x: x + x", "f = lambda x: x * x"),
    "a method's name": ("f = lambda x: x.sin()", "f = lambda x: x.cos()"),
    "a default": ("def f(x, k=1): return k * x", "def f(x, k=2): return k * x"),
    "a keyword's default": ("def f(x, *, k=1): return k * x", "def f(x, *, k=2): return k * x"),
    "a closure": ("def g(k):\n return lambda x: k * x\nf = g(1)", "def g(k):\n return lambda x: k * x\nf = g(2)"),
    "a global number": ("K = 1\ndef f(x): return K * x", "K = 2\ndef f(x): return K * x"),
    "a global tensor": ("K = torch.ones(1)\ndef f(x): return K * x", "K = torch.zeros(1)\ndef f(x): return K * x"),
    "a global function": ("g = lambda x: x\ndef f(x): return g(x)", "g = lambda x: -x\ndef f(x): return g(x)"),
    "a function's function": (
        "h = lambda x: x\ndef g(x): return h(x)\ndef f(x): return g(x)",
        "h = lambda x: -x\ndef g(x): return h(x)\ndef f(x): return g(x)",
    ),
    "a partial's argument": (
        "def g(x, k): return k * x\nf = functools.partial(g, k=1)",
        "def g(x, k): return k * x\nf = functools.partial(g, k=2)",
    ),
    "a partial's function": ("f = functools.partial(lambda x: x)", "f = functools.partial(lambda x: -x)"),
    "a bound method's object": (
        "class A:\n def __init__(s, k): s.k = k\n def m(s, x): return s.k * x\nf = A(1).m",
        "class A:\n def __init__(s, k): s.k = k\n def m(s, x): return s.k * x\nf = A(2).m",
    ),
    "slots": (
        "class A:\n __slots__ = 'k'\n def __init__(s, k): s.k = k\n def __call__(s, x): return s.k * x\nf = A(1)",
        "class A:\n __slots__ = 'k'\n def __init__(s, k): s.k = k\n def __call__(s, x): return s.k * x\nf = A(2)",
    ),
    "a class attribute": (
        "class A:\n k = 1\n def __call__(s, x): return s.k * x\nf = A()",
        "class A:\n k = 2\n def __call__(s, x): return s.k * x\nf = A()",
    ),
    "a base class": (
        "class B:\n def k(s): return 1\nclass A(B):\n def __call__(s, x): return s.k() * x\nf = A()",
        "class B:\n def k(s): return 2\nclass A(B):\n def __call__(s, x): return s.k() * x\nf = A()",
    ),
    "a property": (
        "class A:\n @property\n def k(s): return 1\n def __call__(s, x): return s.k * x\nf = A()",
        "class A:\n @property\n def k(s): return 2\n def __call__(s, x): return s.k * x\nf = A()",
    ),
    "an inner function": (
        "def f(x):\n def g(y): return y + 1\n return g(x)",
        "def f(x):\n def g(y): return y + 2\n return g(x)",
    ),
    "a library's function": ("def f(x): return F.relu(x)", "def f(x): return F.gelu(x)"),
    "a torch function as it is": ("f = torch.exp", "f = torch.sin"),
    "a custom gradient": (
        "class G(torch.autograd.Function):\n forward = staticmethod(lambda c, x: x)\n"
        " backward = staticmethod(lambda c, g: g)\nf = G.apply",
        "class G(torch.autograd.Function):\n forward = staticmethod(lambda c, x: x)\n"
        " backward = staticmethod(lambda c, g: 2 * g)\nf = G.apply",
    ),
    "a wrapper": ("f = torch.no_grad()(lambda x: x)", "f = torch.enable_grad()(lambda x: x)"),
    "a cached function": ("f = functools.lru_cache(lambda x: x)", "f = functools.lru_cache(lambda x: -x)"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_functions_of_one_name_are_told_apart(name):
    one, other = DIFFERENT[name]
    assert told(written(one)) == told(written(one)), "written again it is the same"
    assert told(written(one)) != told(written(other))
    assert told(functools.partial(written(one))) != told(functools.partial(written(other)))


def test_a_helper_module_is_looked_into_where_it_is_used():
    text = "def f(x): return helper.scale * x"
    assert told(written(text, helper=HELPER)) != told(written(text, helper=OTHER))
    nothing = "def f(x): return helper.other * x"
    assert told(written(nothing, helper=HELPER)) == told(written(nothing, helper=OTHER))


def test_names_places_and_unused_globals_do_not_count():
    one = written("def f(x): return 2 * x")
    assert told(one) == told(written("\n\n\nZ = 5\ndef g(x): return 2 * x\nf = g"))


def test_a_replaced_library_function_counts(monkeypatch):
    text = "def f(x): return F.gelu(x)"
    before = told(written(text))
    monkeypatch.setattr(nn.functional, "gelu", lambda x: x)
    assert told(written(text)) != before


def test_recursion_and_cycles_end():
    one = written("def f(x): return g(x)\ndef g(x): return f(x) if x else 1")
    other = written("def f(x): return g(x)\ndef g(x): return f(x) if x else 2")
    assert told(one) != told(other) and told(one) == told(
        written("def f(x): return g(x)\ndef g(x): return f(x) if x else 1")
    )
    loop = [1]
    loop.append(loop)
    assert told(loop) == told(loop)
    deep = []
    for _ in range(3000):
        deep = [deep]
    with pytest.raises(UnidentifiedError, match="nested too deeply.*leave store out"):
        told(deep)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (threading.Lock, "lock"),
        (lambda: torch.Generator(), "Generator"),
        (lambda: np.random.default_rng(0), "Generator"),
        (lambda: (x for x in ()), "generator"),
        (lambda: sys.__stdout__, "TextIOWrapper"),
        (lambda: torch.empty(2, device="meta"), "Tensor"),
        (lambda: torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), "Module"),
    ],
)
def test_what_has_no_contents_is_refused_with_its_place(make, kind):
    held = make()
    with pytest.raises(UnidentifiedError, match=rf"loss > closure > held is a \w*{kind}, .*leave store out"):
        Identity().of("loss", lambda x: (x, held))


class Net(nn.Module):
    def __init__(self, slope=1.0):
        super().__init__()
        self.slope, self.layer = slope, nn.Linear(2, 2)

    def forward(self, x):
        return self.slope * self.layer(x)


def same_weights(*args):
    torch.manual_seed(0)
    return Net(*args)


def replaced_on_the_object(model):
    model.forward = types.MethodType(lambda self, x: -self.layer(x), model)


def replaced_in_a_part(model):
    model.layer.forward = lambda x: x


CHANGES = {
    "an attribute": (lambda m: setattr(m, "slope", 2.0), "model (code)"),
    "forward of the object": (replaced_on_the_object, "model (code)"),
    "forward of a part": (replaced_in_a_part, "model (code)"),
    "a hook": (lambda m: m.layer.register_forward_hook(lambda *_: None), "model (code)"),
    "the mode": (lambda m: m.eval(), "model (code)"),
    "a layer outside the tree": (lambda m: m.__dict__.update(more=[nn.Linear(2, 2)]), "model (code)"),
    "a weight": (lambda m: m.layer.weight.data.add_(1), "model"),
    "a buffer": (lambda m: m.register_buffer("b", torch.ones(1)), "model (buffers)"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_model_is_its_tree(name):
    change, key = CHANGES[name]
    before, model = fingerprint({"model": same_weights()}, {}), same_weights()
    assert fingerprint({"model": model}, {}) == before
    change(model)
    after = fingerprint({"model": model}, {})
    assert after[key] != before[key]


def test_a_forward_replaced_in_the_class(monkeypatch):
    before = fingerprint({"model": same_weights(), "layer": nn.Linear(1, 1)}, {})
    monkeypatch.setattr(Net, "forward", lambda self, x: self.layer(x))
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: x)
    after = fingerprint({"model": same_weights(), "layer": nn.Linear(1, 1)}, {})
    assert before["model (code)"] != after["model (code)"] and before["layer (code)"] != after["layer (code)"]
    assert before["model"] == after["model"] and before["model (layers)"] == after["model (layers)"]


def test_shared_parameters_count():
    def pair(shared):
        torch.manual_seed(0)
        model = nn.ModuleList([nn.Linear(2, 2, bias=False) for _ in range(3)])
        for layer in model:
            layer.weight.data.fill_(1)
        model[shared].weight = model[0].weight
        return fingerprint({"model": model}, {})["model (code)"]

    assert pair(1) == pair(1) != pair(2)


def test_addresses_do_not_count():
    class Shown(nn.Module):
        def extra_repr(self):
            return repr(functools.partial(lambda x: x))

    assert fingerprint({"m": Shown()}, {}) == fingerprint({"m": Shown()}, {})


def test_the_losses_of_the_house_differ():
    assert told(CROSS_ENTROPY) != told(SQUARED_ERROR) and told(CROSS_ENTROPY) == told(CROSS_ENTROPY)


def test_another_process_tells_the_same(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import torch\nfrom torch import nn\nfrom explainlib.storage import fingerprint\nNAMES = {'a', 'b', 'c', 'd'}\n"
        "K = torch.arange(3.0)\ndef loss(f, y):\n    return nn.functional.relu(f @ K) * ('a' in NAMES)\n"
        "model = nn.Sequential(nn.LSTM(2, 3), nn.TransformerEncoderLayer(4, 2))\n"
        "for p in model.parameters(): p.data.zero_()\nprint(fingerprint({'loss': loss, 'model': model}, {}))\n"
    )
    place = Path(__file__).parents[2]
    runs = [
        subprocess.run(
            [sys.executable, script],
            env={"PYTHONPATH": str(place), "PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        for seed in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout and "loss (code)" in runs[0].stdout, runs[0].stderr


def test_probes_see_what_code_does_not_show(monkeypatch):
    """A value under a computed name: the code is the same, the numbers are not."""
    loss = written("def f(x): return x * globals()['K' + 'L']", KL=2.0)
    x = torch.arange(3.0)
    before, code = probe_entry("loss", lambda: loss(x)), told(loss)
    loss.__globals__["KL"] = 3.0
    assert told(loss) == code and probe_entry("loss", lambda: loss(x)) != before
    state = torch.get_rng_state()
    with pytest.raises(UnidentifiedError, match="other values when it is called again"):
        probe_entry("loss", lambda: torch.rand(3))
    assert torch.equal(torch.get_rng_state(), state)
    assert probe_entry("loss", lambda: torch.tensor([1.0, float("nan"), float("inf")])) == {
        "loss (probe)": [1.0, "nan", "inf"]
    }
    many = torch.zeros(100)
    many[57] = 1
    assert probe_entry("loss", lambda: many) != probe_entry("loss", lambda: torch.zeros(100))
