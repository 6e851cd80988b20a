"""The structured meta-Hessian against automatic differentiation of the plain loss, and against finite differences."""

from __future__ import annotations

import copy

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn
from torch.func import functional_call, grad, jacrev
from torch.nn.functional import cross_entropy

from explainlib.derivatives.norms import with_batch_statistics
from explainlib.meta.two_layer import hessian as room
from explainlib.meta.two_layer.hessian import TwoLayer, as_two_layer, two_layer_hessians
from explainlib.meta.two_layer.terms import terms

STEP = 1e-5


def network(d=4, h=6, c=3, *, norm=True, activation=None):
    """Return a flattened two-layer network in float64."""
    middle = [nn.BatchNorm1d(h)] if norm else []
    layers = nn.Flatten(), nn.Linear(d, h), *middle, activation or nn.Tanh(), nn.Linear(h, c)
    return nn.Sequential(*layers).double()


def problem(module, *, s=7, r=5, tasks=3, seed=0):
    """Return the description, a random w (scales of either sign) and random tasks."""
    torch.manual_seed(seed)
    net = as_two_layer(module)
    data = []
    for n in (s, r):
        data += [torch.randn(tasks, n, net.features).double(), torch.randint(net.classes, (tasks, n))]
    return net, torch.randn(net.q).double(), data


def maml_loss(module, w, support_x, support_y, query_x, query_y, a):
    """Return the query loss after one step on the support, by calling the module."""
    sizes = {name: p.shape for name, p in module.named_parameters()}

    def loss(v, x, y):
        parts = v.split([shape.numel() for shape in sizes.values()])
        named = {name: part.view(sizes[name]) for name, part in zip(sizes, parts, strict=True)}
        return cross_entropy(functional_call(module, named, (x,)), y)

    return loss(w - a * grad(loss)(w, support_x, support_y), query_x, query_y)


def oracle(module, w, data, a):
    """Return grad^2 L_i for each task [M, q, q]."""
    module = with_batch_statistics(copy.deepcopy(module))

    def hessian(*task):
        return jacrev(grad(lambda v: maml_loss(module, v, *task, a)))(w)

    return torch.stack([hessian(*task) for task in zip(*data, strict=True)])


def relative(got, wanted):
    return float((got - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("a", [0.0, 0.3, 5.0])
@pytest.mark.parametrize(
    "sizes",
    [
        {"activation": nn.ReLU()},
        {"activation": nn.Tanh()},
        {"activation": nn.Tanh(), "norm": False},
        {"activation": nn.ReLU(), "norm": False, "d": 1, "h": 3, "c": 5},
        {"activation": nn.Sigmoid(), "d": 9, "h": 2, "c": 2},
        {"activation": nn.GELU(), "h": 1, "c": 4},
    ],
    ids=str,
)
def test_matches_automatic_differentiation(sizes, a):
    module = network(**sizes)
    for s, r in ((7, 5), (3, 8)):
        net, w, data = problem(module, s=s, r=r)
        assert relative(two_layer_hessians(net, w, *data, inner_lr=a), oracle(module, w, data, a).mean(0)) < 1e-12


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize(
    "activation",
    [
        nn.Identity(), nn.LeakyReLU(0.3), nn.SiLU(), nn.GELU("tanh"), nn.SELU(), nn.ELU(0.7), nn.Softplus(2.0, 1.0),
        nn.ReLU(inplace=True),
    ],
    ids=str,
)  # fmt: skip
def test_every_activation_with_its_settings(activation, norm):
    module = network(activation=activation, norm=norm)
    net, w, data = problem(module, tasks=1)
    assert relative(two_layer_hessians(net, w, *data, inner_lr=0.4), oracle(module, w, data, 0.4)[0]) < 1e-12


def test_matches_finite_differences_of_the_gradient():
    """torch's own BatchNorm is right up to the second derivative, which is all a MAML gradient needs."""
    module = network()
    net, w, data = problem(module, tasks=1)
    module[2].track_running_stats, module[2].running_mean, module[2].running_var = False, None, None
    slope = grad(lambda v: maml_loss(module, v, *(part[0] for part in data), 0.3))
    rows = [(slope(w + STEP * e) - slope(w - STEP * e)) / (2 * STEP) for e in torch.eye(net.q).double()]
    assert relative(two_layer_hessians(net, w, *data, inner_lr=0.3), torch.stack(rows)) < 1e-7


@pytest.mark.parametrize("memory", [1, 2 * (7 + 5 + 2) * 6 * 50 * 8, 2**27])
def test_any_number_of_tasks_at_a_time(memory):
    """Five tasks one by one, two at a time and all together; w is not changed and H is symmetric to the last bit."""
    module = network()
    net, w, data = problem(module, tasks=5)
    kept = w.clone()
    h = two_layer_hessians(net, w, *data, inner_lr=0.3, memory=memory)
    assert relative(h, oracle(module, w, data, 0.3).mean(0)) < 1e-12
    assert torch.equal(h, h.T) and torch.equal(w, kept)


@pytest.mark.parametrize(("less", "sizes"), [(0, [2, 2, 1]), (1, [1] * 5)])
def test_as_many_tasks_are_taken_as_the_memory_holds(less, sizes, monkeypatch):
    seen = []
    monkeypatch.setattr(room, "terms", lambda *given: seen.append(len(given[4])) or terms(*given))
    net, w, data = problem(network(), tasks=5)
    two_layer_hessians(net, w, *data, inner_lr=0.3, memory=2 * (7 + 5 + 2) * 6 * 50 * 8 - less)
    assert seen == sizes


@pytest.mark.parametrize(
    ("support", "query"),
    [((0, 7), (0, 5)), ((3, 0), (3, 5)), ((3, 7), (3, 0)), ((3, 7), (2, 5))],
    ids=["no tasks", "no support", "no query", "another number of tasks"],
)
def test_tasks_without_examples_are_refused(support, query):
    net, w, _ = problem(network(norm=False))
    data = [part for n in (support, query) for part in (torch.zeros(*n, 4).double(), torch.zeros(*n).long())]
    with pytest.raises((ValueError, TypeCheckError), match=r"pass \[M, n, ...\] and \[M, n\]|Type-check"):
        two_layer_hessians(net, w, *data, inner_lr=0.1)


def test_weights_are_factors_of_the_tasks():
    net, w, data = problem(network(), tasks=3)
    weights = torch.tensor([2.0, -0.5, 0.0]).double()
    each = [two_layer_hessians(net, w, *(part[i : i + 1] for part in data), inner_lr=0.3) for i in range(3)]
    weighted = two_layer_hessians(net, w, *data, inner_lr=0.3, weights=weights)
    assert relative(weighted, 2 * each[0] - 0.5 * each[1]) < 1e-12
    summed = two_layer_hessians(net, w, *data, inner_lr=0.3, weights=torch.ones(3).double())
    assert relative(summed, sum(each)) < 1e-12


def test_directions_the_loss_cannot_see():
    """The bias before BatchNorm, and the same number added to all rows of the second layer."""
    net, w, data = problem(network())
    h = two_layer_hessians(net, w, *data, inner_lr=0.3)
    first, vectors, second, _ = net.sizes
    assert not h[first : first + net.hidden].any()
    shift = h[:, first + vectors :]
    scale = h.abs().max()
    assert shift[:, second:].sum(1).abs().max() < 1e-14 * scale
    assert shift[:, :second].unflatten(1, (net.classes, net.hidden)).sum(1).abs().max() < 1e-14 * scale


def test_inputs_of_any_shape_and_float32():
    module = network(d=12)
    net, w, data = problem(module)
    flat = two_layer_hessians(net, w, *data, inner_lr=0.3)
    pictures = [part.unflatten(2, (3, 4)) if part.is_floating_point() else part for part in data]
    assert torch.equal(two_layer_hessians(net, w, *pictures, inner_lr=0.3), flat)
    single = [part.float() if part.is_floating_point() else part for part in data]
    h = two_layer_hessians(net, w.float(), *single, inner_lr=0.3)
    assert h.dtype == torch.float32 and relative(h.double(), flat) < 1e-4


def test_describes_a_network():
    net = as_two_layer(
        nn.Sequential(nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32, eps=0.1)), nn.ReLU(), nn.Linear(32, 5))
    )
    assert (net.features, net.hidden, net.classes, net.eps, net.q) == (32, 32, 5, 0.1, 1285)
    assert as_two_layer(network(norm=False)).eps is None
    assert as_two_layer(network().eval()) is not None


def frozen():
    module = network()
    module[2].weight.requires_grad_(False)
    return module


def hooked():
    module = network()
    module[3].register_forward_hook(lambda layer, inputs, output: 2 * output)
    return module


def tied():
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.Tanh(), layer)


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(3, 2),
        nn.Sequential(),
        nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.ReLU(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False), nn.ReLU(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(3, 4), nn.Softmax(1), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(3, 4), nn.PReLU(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU()),
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)),
        nn.Sequential(nn.Flatten(2), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)),
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 2)),
        Residual(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3)),
        frozen(), hooked(), tied(),
    ],
    ids=repr,
)  # fmt: skip
def test_is_no_two_layer_network(module):
    assert as_two_layer(module) is None


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"w": torch.zeros(5).double()}, ValueError, r"w has shape \[5\], expected \[63\]"),
        ({"support_x": torch.zeros(3, 7, 5).double()}, ValueError, r"support_x .* expected \[any, any, 4\]"),
        ({"support_x": torch.zeros(3, 7, 4)}, TypeError, "float32"),
        ({"support_x": torch.full((3, 7, 4), torch.nan).double()}, ValueError, "84 NaN"),
        ({"support_y": torch.full((3, 7), 3)}, ValueError, "labels from 3 to 3"),
        (
            {"query_x": torch.zeros(2, 5, 4).double(), "query_y": torch.zeros(2, 5).long()},
            (ValueError, TypeCheckError),
            "query",
        ),
        ({"query_x": torch.zeros(3, 1, 4).double(), "query_y": torch.zeros(3, 1).long()}, ValueError, "at least two"),
        ({"inner_lr": -0.1}, ValueError, "zero or more"),
        ({"inner_lr": float("inf")}, ValueError, "finite"),
        ({"weights": torch.ones(2).double()}, (ValueError, TypeCheckError), "weights"),
        ({"memory": 0}, ValueError, "at least 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuses(change, error, message):
    net, w, (support_x, support_y, query_x, query_y) = problem(network())
    given = dict(w=w, support_x=support_x, support_y=support_y, query_x=query_x, query_y=query_y, inner_lr=0.1)
    with pytest.raises(error, match=message):
        two_layer_hessians(net, **(given | change))


def test_describes_what_it_counts():
    assert sum(TwoLayer(36, 32, 5, torch.relu, eps=1e-5).sizes) == TwoLayer(36, 32, 5, torch.relu, eps=1e-5).q == 1413


@pytest.mark.parametrize("norm", [False, True])
def test_parameters_ordered_by_unit_are_so_row_by_row_and_come_back_in_the_order_of_w(norm):
    net, _, _ = problem(network(norm=norm))
    rows = torch.randn(4, net.q).double()
    u = torch.linalg.qr(torch.randn(net.classes, net.classes - 1).double())[0]
    units, one_by_one = net.units(rows, u), [net.units(row, u) for row in rows]
    for k, part in enumerate(units):
        torch.testing.assert_close(part, torch.stack([each[k] for each in one_by_one]))
    by_unit = torch.cat([torch.cat([units.x, units.v.mT], dim=-1).flatten(1), units.c], dim=1)
    back = net.units(net.flat(by_unit, u), u)
    for part, again in zip(units, back, strict=True):
        torch.testing.assert_close(part, again)
