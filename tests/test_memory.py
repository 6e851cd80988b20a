"""What has to be held whole is estimated before it is allocated, and refused with what exists instead."""

import re

import pytest
import torch
from torch import nn

import explainlib as xl
from explainlib import memory
from explainlib.datasets import Examples
from explainlib.memory import TooLargeError, alternatives, format_bytes, memory_limit, require_memory

DOUBLE = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


@pytest.fixture
def little(monkeypatch):
    """A machine of a few kilobytes, on which nothing counts as small."""
    monkeypatch.setattr(memory, "SMALL", 0)
    monkeypatch.setattr(memory, "free_memory", lambda device: 4000)


def test_what_fits_is_not_refused_and_what_does_not_is_named(monkeypatch):
    device = torch.device("cpu")
    require_memory("a lot", 2**40 * 0, device)
    monkeypatch.setattr(memory, "free_memory", lambda device: 10**9)
    require_memory("as much as there is", 10**9, device)
    with pytest.raises(TooLargeError, match=r"^the matrix needs 2 TB, and 1 GB are free; take less\.$"):
        require_memory("the matrix", 2e12, device, otherwise="take less")
    assert format_bytes(3.2e12) == "3.2 TB" and memory_limit(5, device) == 5


def test_the_outermost_function_says_what_it_offers(little):
    @alternatives("outer offers this")
    def outer():
        inner()

    @alternatives("inner offers that")
    def inner():
        require_memory("it", 1e9, torch.device("cpu"))

    for function, words in ((outer, "outer offers this"), (inner, "inner offers that"), (outer, "outer offers this")):
        with pytest.raises(TooLargeError, match=words):
            function()


def risk():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    return xl.Risk(model, Examples(normal(12, 3), torch.arange(12) % 3), l2=0.1)


def tasks(m=4):
    return xl.datasets.Tasks(*(t for _ in "sq" for t in (normal(m, 6, 3), (torch.arange(6) % 3).expand(m, -1))))


R, T = risk(), tasks()
HEAD = xl.Risk(R.model, R.train, l2=0.1, parameters="last")
MAML = xl.meta.Maml(R.model, inner_lr=0.1)
BILEVEL = xl.meta.Bilevel(R.model, strength=1.0, l2=0.1)
CALLS = {
    "loss_influence": lambda: xl.influence.loss_influence(R, R.train),
    "parameter_influence": lambda: xl.influence.parameter_influence(R),
    "explain": lambda: xl.explain(R, R.train),
    "removal_effect": lambda: xl.influence.removal_effect(R, [[0]]),
    "influential_group": lambda: xl.influence.influential_group(R, R.train, 3),
    "hessian": lambda: xl.curvature.hessian(R),
    "gauss_newton": lambda: xl.curvature.gauss_newton(R),
    "empirical_fisher": lambda: xl.curvature.empirical_fisher(R),
    "Ekfac.matrix": lambda: xl.curvature.Ekfac(R, memory=10**6).matrix(),
    "low rank": lambda: xl.influence.loss_influence(R, R.train, curvature="gauss_newton", solver="low_rank"),
    "loss_gradients": lambda: R.loss_gradients(),
    "kernel": lambda: xl.representers.kernel(R.model, R.train.x, R.train.x, kind="influence", risk=R),
    "trak": lambda: xl.influence.trak(R, R.train, features=None, damping=1.0),
    "leave_out": lambda: xl.retraining.leave_out(R, [[0]]),
    "meta_hessian": lambda: xl.meta.meta_hessian(MAML, MAML.w0, T),
    "gauss_newton_rows": lambda: xl.meta.gauss_newton_rows(MAML, MAML.w0, T),
    "TaskInfluence": lambda: xl.influence.TaskInfluence(MAML, MAML.w0, T, l2=0.1),
    "Bilevel": lambda: BILEVEL.inner_solution(BILEVEL.lam0, T),
    "BilevelInfluence": lambda: xl.influence.BilevelInfluence(BILEVEL, BILEVEL.lam0, T),
}


@pytest.mark.parametrize("name", [name for name in CALLS if name != "leave_out"])
def test_every_dense_computation_is_refused_before_it_starts(name, little):
    with pytest.raises(TooLargeError, match=r"needs .* and 4 kB are free; ") as refused:
        CALLS[name]()
    assert re.search(r"\d", str(refused.value))


@pytest.mark.parametrize("name", CALLS)
def test_and_goes_through_where_there_is_room(name):
    CALLS[name]()


def test_the_alternatives_work_where_the_default_does_not(monkeypatch):
    """p = 20,003: the Hessian and its factor would take 19 GB."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(100, 150), nn.Tanh(), nn.Linear(150, 32), nn.Tanh(), nn.Linear(32, 3))
    e = Examples(torch.randn(20, 100), torch.arange(20) % 3)
    wide = xl.Risk(model, e, l2=0.1)
    monkeypatch.setattr(memory, "free_memory", lambda device: 4 * 10**9)
    with pytest.raises(TooLargeError, match="solver='cg'.*curvature='ekfac'.*parameters='last'"):
        xl.explain(wide, e[:2], method="influence")
    assert "EK-FAC" in xl.explain(wide, e[:2]).status
    assert xl.influence.loss_influence(wide, e[:2], curvature="gauss_newton", solver="cg").shape == (2, 20)
    assert xl.influence.loss_influence(wide, e[:2], curvature="ekfac").shape == (2, 20)
    assert xl.explain(xl.Risk(model, e, l2=0.1, parameters="last"), e[:2]).values.shape == (2, 20)
