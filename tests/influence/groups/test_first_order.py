"""First-order changes of groups: without their parameters, by other curvatures, for other measures, from members alone."""

import warnings

import pytest
import torch
from torch.utils.data import Dataset

import explainlib as xl
from tests.problems import (
    classes,
    convolution,
    general,
    images,
    logistic_risk,
    loop_gradients,
    network_risk,
    relative_error,
)

GROUPS = [[0, 3, 4], [5], [1, 2, 6, 7, 8, 9]]
CURVATURES = ("hessian", "gauss_newton", "empirical_fisher", "identity", "ekfac")
MAKE = {
    "head": logistic_risk,
    "head as a network": lambda: general(logistic_risk()),
    "network": lambda: network_risk("tanh", n=30, l2=0.05),
    "weighted": lambda: network_risk("tanh", n=30, l2=0.05).reweighted(
        torch.linspace(0.5, 2.0, 30, dtype=torch.float64)
    ),
}


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", xl.NotAtMinimumWarning)
        yield


@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("name", MAKE)
def test_both_routes_agree_with_the_formula(name, curvature):
    risk = MAKE[name]()
    test = classes(5, d=risk.train.x.shape[1], seed=9)
    n, l2, weights = risk.n, risk.l2, risk.weights_or_ones()
    train, tests = loop_gradients(risk, risk.train), loop_gradients(risk, test)
    eye, damping = torch.eye(risk.p, dtype=torch.float64), 0.1
    C = {
        "hessian": lambda: xl.curvature.hessian(risk),
        "gauss_newton": lambda: xl.curvature.gauss_newton(risk),
        "empirical_fisher": lambda: xl.curvature.empirical_fisher(risk),
        "identity": lambda: eye,
        "ekfac": lambda: xl.curvature.Ekfac(risk).matrix(),
    }[curvature]() + damping * eye
    for weighting in ("plain",) if risk.weights is not None else ("plain", "preserve"):
        want = []
        for group in GROUPS:
            g, f = (weights[group, None] * train[group]).sum(0) / n, len(group) / n
            g = g if weighting == "plain" else (g + f * l2 * risk.theta) / (1 - f)
            want.append(tests @ torch.linalg.solve(C, g))
        want = torch.stack(want, 1)
        how = {"weighting": weighting, "curvature": curvature, "damping": damping}
        direct = xl.influence.removal_loss_change(risk, GROUPS, test, **how)
        formed = xl.influence.removal_effect(risk, GROUPS, **how).loss_change(test, evaluate=False)
        assert relative_error(direct, want) < 1e-8 and relative_error(formed, want) < 1e-8


def test_a_network_with_convolutions_in_little_memory():
    risk, test = xl.Risk(convolution(), images(12), l2=0.1), images(3)
    how = {"curvature": "gauss_newton", "damping": 0.1, "weighting": "plain"}
    groups = [[0, 1], [4], [5, 6, 7]]
    want = xl.influence.removal_effect(risk, groups, **how).loss_change(test, evaluate=False)
    got = xl.influence.removal_loss_change(risk, groups, test, memory=2e5, **how)
    assert relative_error(got, want) < 1e-9


@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("weighting", ["plain", "preserve"])
@pytest.mark.parametrize("name", ["head", "network"])
def test_both_routes_in_single_precision(name, weighting, curvature):
    double = MAKE[name]()
    test = classes(5, d=double.train.x.shape[1], seed=9)
    in_single = [xl.datasets.Examples(part.x.float(), part.y) for part in (double.train, test)]
    single = xl.Risk(double.model.float(), in_single[0], l2=double.l2)
    how = {"weighting": weighting, "curvature": curvature, "damping": 0.5}
    want = xl.influence.removal_loss_change(double, GROUPS, test, **how)
    direct = xl.influence.removal_loss_change(single, GROUPS, in_single[1], **how)
    formed = xl.influence.removal_effect(single, GROUPS, **how).loss_change(in_single[1], evaluate=False)
    assert direct.dtype == formed.dtype == torch.float32
    assert relative_error(direct.double(), want) < 1e-4 and relative_error(formed.double(), want) < 1e-4


@pytest.mark.parametrize("weighting", ["plain", "preserve"])
def test_members_are_in_memory_some_groups_at_a_time(weighting, monkeypatch):
    """Overlapping groups in any order, given as lists and tensors, with members that are not consecutive."""
    risk, test = MAKE["network"](), classes(5, d=3, seed=9)
    groups = [[28, 3], torch.tensor([11, 3, 17, 0]), [29], [17, 5, 28], list(range(29))]
    how = {"curvature": "gauss_newton", "weighting": weighting}
    want = xl.influence.removal_effect(risk, groups, **how).loss_change(test, evaluate=False)
    assert relative_error(xl.influence.removal_loss_change(risk, groups, test, **how), want) < 1e-9
    heights, made = [], torch.Tensor.new_zeros
    monkeypatch.setattr("explainlib.influence.groups.first_order.BLOCK", 2 * 30 * 8)

    def counted(tensor, *shape, **options):
        heights.extend([shape[0]] if len(shape) == 2 and shape[1] == 30 else [])
        return made(tensor, *shape, **options)

    monkeypatch.setattr(torch.Tensor, "new_zeros", counted)
    assert relative_error(xl.influence.removal_loss_change(risk, groups, test, **how), want) < 1e-9
    assert heights == [2, 2, 1]


def test_other_measures():
    risk, test = network_risk("tanh", n=30, l2=0.05), classes(5, d=3, seed=9)
    how = {"curvature": "gauss_newton", "weighting": "plain"}
    effect = xl.influence.removal_effect(risk, GROUPS, **how)
    for options in (
        {"measure": "margin"},
        {"measure": "output", "output": 1},
        {"measure": lambda f, y: f[:, 0] * f[:, 2]},
    ):
        linear = effect.measure_change(test, evaluate=False, **options)
        assert relative_error(xl.influence.removal_loss_change(risk, GROUPS, test, **how, **options), linear) < 1e-9
    outputs = effect.outputs(test)[:, :, 1].T - risk.outputs(test)[:, 1, None]
    torch.testing.assert_close(effect.measure_change(test, measure="output", output=1), outputs)
    torch.testing.assert_close(effect.measure_change(test), effect.loss_change(test))
    torch.testing.assert_close(effect.measure_change(test, evaluate=False), effect.loss_change(test, evaluate=False))


def test_the_margin_after_training_again_is_a_mean_over_seeds():
    risk, test = (
        xl.Risk(xl.models.mlp([3, 4, 3], "tanh", dtype=torch.float64), classes(20, d=3)),
        classes(4, d=3, seed=3),
    )
    found = xl.retraining.leave_out(risk, [[0, 1]], method="scratch", epochs=20, lr=0.05, seeds=(0, 1))
    each = [one.measure_change(test, measure="margin") for one in found.by_seed]
    torch.testing.assert_close(found.measure_change(test, measure="margin"), torch.stack(each).mean(0))
    torch.testing.assert_close(found.measure_change(test), found.loss_change(test))


class Counted(Dataset):
    def __init__(self, examples):
        self.examples, self.seen = examples, []

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, i):
        self.seen.append(i)
        return self.examples.x[i], self.examples.y[i]


def test_only_members_are_read():
    train = classes(30, d=3)
    source = Counted(train)
    risk = xl.Risk(network_risk("tanh", n=30, l2=0.05).model, xl.datasets.streamed(source), l2=0.05)
    fitted = xl.curvature.Ekfac(risk)
    xl.influence.removal_loss_change(risk, GROUPS, train[[3]], curvature=fitted)
    source.seen.clear()
    xl.influence.removal_loss_change(risk, GROUPS, train[[3]], curvature=fitted)
    members = {i for group in GROUPS for i in group}
    assert members <= set(source.seen)
    assert len(source.seen) <= 3 * len(members)  # the gate looks at a few, and a tile at one


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"order": 2, "curvature": "ekfac"}, "order=2 is made of Hessians"),
        ({"order": "newton", "curvature": "gauss_newton"}, "made of Hessians"),
    ],
)
def test_other_orders_are_of_the_hessian(options, said):
    with pytest.raises(ValueError, match=said):
        xl.influence.removal_effect(network_risk(), GROUPS, **options)


def test_bad_groups():
    risk, test = network_risk(), classes(2, d=3)
    for groups in ([[]], [[0, 0]], [[99]], [list(range(risk.n))]):
        with pytest.raises(ValueError):
            xl.influence.removal_loss_change(risk, groups, test)
    with pytest.raises(ValueError, match="weighting"):
        xl.influence.removal_loss_change(risk, GROUPS, test, weighting="even")
