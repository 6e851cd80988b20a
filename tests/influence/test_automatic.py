"""What ``explain`` chooses by itself, that it is right, and what it says."""

import pytest
import torch

import explainlib as xl
from explainlib.datasets import Examples
from explainlib.influence import choose_method, loss_influence
from explainlib.memory import TooLargeError
from tests.problems import relative_error


def examples(n, features, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, features, generator=generator, dtype=torch.float64)
    return Examples(x, torch.randint(classes, (n,), generator=generator))


def solved(model, n, features, **options):
    return xl.training.minimise(xl.Risk(model, examples(n, features), l2=0.1, **options))


def test_few_parameters_are_exact():
    risk, test = solved(xl.models.logistic(5, 3, dtype=torch.float64), 30, 5), examples(4, 5, seed=1)
    found = xl.explain(risk, test)
    assert torch.equal(found.values, loss_influence(risk, test))
    assert "exact Hessian, factored, because 18 parameters are few" in found.status


def test_linear_outputs_stay_exact_by_conjugate_gradients():
    risk, test = solved(xl.models.logistic(700, 3, dtype=torch.float64), 40, 700), examples(3, 700, seed=1)
    found = xl.explain(risk, test)
    assert relative_error(found.values, loss_influence(risk, test)) < 1e-5
    assert "conjugate gradients, because the outputs are linear in 2,103 parameters" in found.status


def test_networks_take_ekfac():
    model = xl.models.mlp([30, 70, 3], "tanh", dtype=torch.float64)
    risk, test = xl.Risk(model, examples(20, 30), l2=0.1), examples(3, 30, seed=1)
    found = xl.explain(risk, test)
    assert relative_error(found.values, loss_influence(risk, test, curvature="ekfac")) < 1e-9
    assert "EK-FAC, an approximation, because 2,383 parameters" in found.status and "rough ranking" in found.status


def test_layers_that_ekfac_does_not_cover_take_gauss_newton():
    model = torch.nn.Sequential(torch.nn.Linear(30, 70), torch.nn.PReLU(70), torch.nn.Linear(70, 3)).double()
    risk, test = xl.Risk(model, examples(20, 30), l2=0.1), examples(3, 30, seed=1)
    found = xl.explain(risk, test)
    want = loss_influence(risk, test, curvature="gauss_newton", solver="cg")
    assert relative_error(found.values, want) < 1e-9
    assert "Gauss-Newton by conjugate gradients, because EK-FAC does not cover 1.weight" in found.status


def test_what_is_chosen_is_taken():
    risk, test = solved(xl.models.logistic(5, 3, dtype=torch.float64), 30, 5), examples(4, 5, seed=1)
    damped = xl.explain(risk, test, curvature="gauss_newton", damping=0.5)
    assert torch.equal(damped.values, loss_influence(risk, test, curvature="gauss_newton", damping=0.5))
    assert "because" not in damped.status and "because" not in xl.explain(risk, test, method="influence").status
    kept = xl.explain(risk, test, keep=5)
    assert torch.equal(kept.values, loss_influence(risk, test, keep=5))


def test_no_room_for_the_gradients_is_no_reason_to_begin(monkeypatch):
    """Where the n gradients do not fit, a linear model takes EK-FAC as well; the exact method says what it needs."""
    risk, test = solved(xl.models.logistic(700, 3, dtype=torch.float64), 40, 700), examples(3, 700, seed=1)
    monkeypatch.setattr("explainlib.influence.automatic.memory_limit", lambda memory, device: 1000)
    assert "gradients of 40 examples in 2,103 parameters do not fit" in choose_method(risk).why
    few = solved(xl.models.logistic(5, 3, dtype=torch.float64), 30, 5)
    assert "EK-FAC" in choose_method(few).why, "few parameters, and too many examples"
    monkeypatch.setattr("explainlib.memory.free_memory", lambda device: 1000)
    with pytest.raises(TooLargeError, match="solver='cg'"):
        xl.explain(risk, test, method="influence")


@pytest.mark.parametrize(("inputs", "solver"), [(1999, "dense"), (2000, "cg")])
def test_few_are_two_thousand(inputs, solver):
    generator = torch.Generator().manual_seed(0)
    train = Examples(torch.randn(3, inputs, generator=generator), torch.randn(3, 1, generator=generator))
    risk = xl.Risk(torch.nn.Linear(inputs, 1), train, loss="squared_error", l2=0.1)
    assert choose_method(risk)[:2] == ("hessian", solver) and f"{inputs + 1:,} parameters" in choose_method(risk).why


def test_four_copies_of_the_gradients_have_to_fit(monkeypatch):
    risk = xl.Risk(xl.models.logistic(5, 3, dtype=torch.float64), examples(30, 5), l2=0.1)
    for missing, curvature in ((0, "hessian"), (1, "EK-FAC")):
        room = 4 * 30 * risk.p * 8 - missing
        monkeypatch.setattr("explainlib.influence.automatic.memory_limit", lambda memory, device, room=room: room)
        assert curvature in (choose_method(risk).curvature if not missing else choose_method(risk).why)


def test_up_to_three_layers_without_ekfac_are_named(monkeypatch):
    layers = [layer for k in range(4) for layer in (torch.nn.Linear(30, 30), torch.nn.PReLU(30))]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(30, 3)).double()
    risk = xl.Risk(model, examples(20, 30), l2=0.1)
    found = choose_method(risk)
    assert found[:2] == ("gauss_newton", "cg") and found.why.endswith("does not cover 1.weight, 3.weight, 5.weight")
    monkeypatch.setattr("explainlib.influence.automatic.memory_limit", lambda memory, device: 1000)
    with pytest.warns(UserWarning, match="1.weight"):
        partial = choose_method(risk)
    assert isinstance(partial.curvature, xl.curvature.Ekfac) and "do not fit into memory" in partial.why
