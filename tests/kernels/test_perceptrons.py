"""Small perceptrons trained in one launch: the plain route against torch's own modules, the kernel against both."""

import inspect
import sys
import warnings

import pytest
import torch
from torch import nn

from explainlib.datasets import Examples
from explainlib.kernels import agreement, trained_perceptrons
from explainlib.kernels.perceptrons import fits_kernel, fused, obstacle, plain, training
from explainlib.kernels.perceptrons.options import Options
from explainlib.models import mlp
from explainlib.training import Plateau, fit_ensemble
from explainlib.training import fused as handed
from tests.kernels.test_triton import fresh, needs_triton

CASES = """
import torch
def problem(widths, n, m, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    p = sum((a + 1) * b for a, b in zip(widths[:-1], widths[1:]))
    x = torch.randn(n, widths[0], generator=generator, dtype=dtype)
    weights = (torch.rand(m, n, generator=generator) < 0.8).to(dtype) * 1.5
    starts = torch.randn(m, p, generator=generator, dtype=dtype) / 2
    return x, torch.randint(widths[-1], (n,), generator=generator), weights, starts
"""
problem = {}
exec(CASES, problem)  # the same in this process and in the interpreter's  # noqa: S102
problem = problem["problem"]


@pytest.mark.parametrize("activation", plain.ACTIVATIONS)
@pytest.mark.parametrize(("optimizer", "schedule"), [("adam", None), ("adam", Plateau(0.5, 2, 0.05)), ("sgd", None)])
def test_plain_route_is_the_batched_training(activation, optimizer, schedule):
    """Both loops, written apart, in float64; a falling rate is each network's own."""
    widths = (4, 5, 3)
    x, y, weights, starts = problem(widths, 11, 3, torch.float64)
    options = {"epochs": 40, "lr": 0.1, "optimizer": optimizer, "l2": 0.01}
    train, model = Examples(x, y, classes=("a", "b", "c")), mlp(widths, activation, dtype=torch.float64)
    want = fit_ensemble(model, train, starts=starts, weights=weights, schedule=schedule, **options).theta
    rates = None if schedule is None else (0.5, 2, 0.05, 0.0)
    got = trained_perceptrons(x, y, weights, starts, widths=widths, activation=activation, plateau=rates, **options)
    assert (want - starts).abs().max() > 0.1 and torch.allclose(got, want, rtol=0, atol=1e-10)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_given_batches_are_those_of_a_loop_over_networks(optimizer):
    """Modules, autograd and optimisers of torch, one network after the other."""
    widths, batches = (3, 6, 4, 2), torch.tensor([[0, 3, 5], [7, 1, 2]])
    x, y, weights, starts = problem(widths, 8, 2, torch.float64)
    got = trained_perceptrons(
        x, y, weights, starts, widths=widths, activation="tanh", epochs=5, lr=0.1, l2=0.02, optimizer=optimizer,
        batches=batches,
    )  # fmt: skip
    for j, start in enumerate(starts):
        model = mlp(widths, "tanh", dtype=torch.float64)
        nn.utils.vector_to_parameters(start.clone(), model.parameters())
        kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer]
        step = kind(model.parameters(), lr=0.1, weight_decay=0.02)
        for row in batches.repeat(5, 1):
            step.zero_grad()
            losses = nn.functional.cross_entropy(model(x[row]), y[row], reduction="none")
            ((weights[j, row] * losses).sum() / len(row)).backward()
            step.step()
        want = nn.utils.parameters_to_vector(model.parameters()).detach()
        assert torch.allclose(got[j], want, rtol=0, atol=1e-12)


INTERPRETED = (
    CASES
    + """
import json
from explainlib.kernels import use, trained_perceptrons
from explainlib.kernels.perceptrons import fused
launched, launch = [], fused.launch
fused.launch = lambda *given, **more: launched.append(len(given[3])) or launch(*given, **more)
def error(widths, n, m, dtype, **options):
    given = problem(widths, n, m, dtype)
    wide = [x.double() if x.is_floating_point() else x for x in given]
    want = trained_perceptrons(*wide, widths=widths, **options)
    with use("triton"):
        got = trained_perceptrons(*given, widths=widths, **options)
        alone = trained_perceptrons(given[0], given[1], *(x[-1:] for x in given[2:]), widths=widths, **options)
    moved = float((want - wide[3]).abs().max())
    return [float((got.double() - want).abs().max()), moved, bool(torch.equal(got[-1:], alone))]
"""
)
ERRORS = (
    INTERPRETED
    + """
f, d = torch.float32, torch.float64
batches = torch.tensor([[0, 3, 5, 6, 1, 2, 4, 7, 8], [18, 7, 2, 9, 10, 11, 12, 13, 14]])
print(json.dumps({
    "every chunk, block and class": error((36, 32, 5), 19, 2, f, epochs=3, lr=0.01, l2=0.01, activation="tanh"),
    "one input, padded to two": error((1, 3, 2), 17, 2, f, epochs=3, lr=0.01, l2=0.01, activation="selu"),
    "chunks not filled, float64": error((5, 7, 3), 9, 2, d, epochs=5, lr=0.1, l2=0.01, activation="selu"),
    "sigmoid, 0 is not 0": error((3, 6, 3), 9, 2, d, epochs=5, lr=0.1, activation="sigmoid"),
    "a falling rate": error((4, 5, 3), 9, 2, d, epochs=25, lr=0.3, l2=0.01, plateau=(0.5, 1, 0.05, 0.01)),
    "two hidden layers, sgd, batches": error((3, 6, 4, 2), 19, 2, d, epochs=3, lr=0.3, l2=0.01, optimizer="sgd",
                                             activation="tanh", batches=batches),
    "wide": error((40, 20, 9), 3, 2, f, epochs=2, lr=0.01),
}))
"""
)


@needs_triton(interpreted=True)
def test_interpreted_kernel_on_ragged_shapes(tmp_path):
    """Against the plain route in float64; a network's numbers are the same bits when it is trained alone."""
    found = fresh(ERRORS, tmp_path, TRITON_INTERPRET="1")
    assert len(found) == 7
    for name, (error, moved, alone) in found.items():
        assert error < (1e-12 if name in FLOAT64 else 2e-6) and moved > 0.01 and alone, (name, error, moved, alone)


FLOAT64 = (
    "chunks not filled, float64", "sigmoid, 0 is not 0", "a falling rate", "two hidden layers, sgd, batches",
)  # fmt: skip
ENSEMBLE = (
    INTERPRETED
    + """
from explainlib.datasets import Examples
from explainlib.models import mlp
from explainlib.training import Plateau, fit_ensemble
x, y, weights, starts = problem((4, 5, 3), 14, 2, torch.float32)
def theta(choice):
    with use(choice):
        ensemble = fit_ensemble(mlp([4, 5, 3], "relu", dtype=torch.float32), Examples(x, y, classes=("a", "b", "c")),
            starts=starts, weights=weights, epochs=200, lr=0.01, l2=0.005, schedule=Plateau(0.1, 100))
    return ensemble.theta
got, want = theta("triton"), theta("torch")
print(json.dumps([launched, float((got - want).abs().max()), float((want - starts).abs().max())]))
"""
)


@needs_triton(interpreted=True)
def test_an_ensemble_of_200_epochs_is_the_batched_one(tmp_path):
    launched, error, moved = fresh(ENSEMBLE, tmp_path, TRITON_INTERPRET="1")
    assert launched == [2, 2], "a try of two networks, all of one call in one launch, only where Triton was chosen"
    assert error < 1e-5 and moved > 0.5


SPILLS = """
import json, torch
from explainlib.kernels.perceptrons import build_perceptrons
from explainlib.kernels.report.resources import resources
found = []
for sm in (80, 90, 100):
    for name, widths, activation, given in {cases}:
        code = build_perceptrons(sm, tuple(widths), getattr(torch, name), activation=activation, given=given)
        found.append([sm, name, widths, *resources(code), code["ptx"].count("atom.")])
print(json.dumps(found))
"""
CORNERS = [
    (str(dtype).removeprefix("torch."), [inputs, *[hidden] * depth, classes], activation, given)
    for ((dtype, depth), limits), given in zip(fused.LIMITS.items(), (True, False, True, False), strict=True)
    for (inputs, hidden, classes), activation in zip(limits, ("tanh", "selu"), strict=False)
] + [("float32", [36, 32, 5], "relu", False), ("float32", [4, 5, 3], "tanh", False), ("float64", [4, 5, 3], "relu", False)]  # fmt: skip


@needs_triton(interpreted=False)
def test_no_build_up_to_the_limits_spills(tmp_path):
    found = fresh(SPILLS.format(cases=CORNERS), tmp_path)
    assert len(found) == 3 * len(CORNERS) and [row for row in found if row[4] != 0] == []
    assert all(0 < row[3] <= 255 and row[-1] == 0 for row in found)  # no atomics: sums in a fixed order


class OnGpu:
    """As much of a tensor as the question looks at."""

    is_cuda, device, dtype = True, torch.device("cuda"), torch.float32


def test_what_does_not_fit_is_said_once(monkeypatch):
    monkeypatch.setattr(training, "_said", set())
    monkeypatch.setattr(training, "runs_on_triton", lambda x, positions: True)
    asked = inspect.unwrap(fits_kernel)
    with pytest.warns(UserWarning, match="784-56-10 in float32 does not fit .* Plain PyTorch trains"):
        assert not asked((784, 56, 10), "relu", OnGpu())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not asked((784, 56, 10), "relu", OnGpu()) and asked((36, 32, 5), "relu", OnGpu())
    monkeypatch.setattr(training, "runs_on_triton", lambda x, positions: False)
    assert not asked((36, 32, 5), "relu", OnGpu())


@pytest.mark.parametrize(
    ("widths", "activation", "dtype", "said"),
    [
        ((36, 32, 5), "relu", torch.float64, "36-32-5 in float64 does not fit"),
        ((4, 5, 5, 5, 3), "relu", torch.float32, "4-5-5-5-3 in float32 does not fit"),
        ((4, 5, 3), "gelu", torch.float32, "knows no gelu"),
        ((4, 5, 3), "relu", torch.bfloat16, "float32 and float64, not torch.bfloat16"),
        ((4, 5, 5, 3), "relu", torch.float64, ""),
    ],
)
def test_obstacles(widths, activation, dtype, said):
    reason = obstacle(widths, activation, dtype)
    assert said in reason and bool(said) == bool(reason)


X, Y, WEIGHTS, STARTS = problem((4, 5, 3), 6, 2, torch.float64)
WRONG = {
    "no hidden layer": ({"widths": (4, 3)}, ValueError, "at least one hidden layer"),
    "another width": ({"widths": (4, 6, 3)}, ValueError, r"starts has shape \[2, 43\], expected \[any, 51\]"),
    "weights of other examples": ({"weights": WEIGHTS[:, :5]}, ValueError, r"weights has shape \[2, 5\]"),
    "an unknown class": ({"y": Y + 3}, ValueError, "y"),
    "two dtypes": ({"x": X.float()}, TypeError, "x has dtype torch.float32, starts torch.float64"),
    "no examples": ({"x": X[:0], "y": Y[:0], "weights": WEIGHTS[:, :0]}, ValueError, "nothing to train"),
    "a gradient": ({"starts": STARTS.clone().requires_grad_()}, ValueError, r"pass starts.detach\(\)"),
    "a falling rate in batches": (
        {"plateau": (0.1, 1, 0.1, 0.0), "batches": torch.tensor([[0]])}, ValueError, "batches=None, or plateau=None",
    ),
    "a batch of others": ({"batches": torch.tensor([[6]])}, ValueError, "0 to 5"),
    "an unknown activation": ({"activation": "gelu"}, ValueError, "activation='gelu'"),
    "no epochs": ({"epochs": 0}, ValueError, "epochs=0"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_bad_operands(name):
    change, error, message = WRONG[name]
    given = {"x": X, "y": Y, "weights": WEIGHTS, "starts": STARTS, "widths": (4, 5, 3), "epochs": 1} | change
    with pytest.raises(error, match=message):
        inspect.unwrap(trained_perceptrons)(**given)


def test_the_cpu_does_not_ask_for_triton(monkeypatch):
    """Without Triton in the process a CPU ensemble takes the batched route before anything is imported."""
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    given = {"epochs": 1, "lr": 0.1, "optimizer": "adam", "schedule": None}
    assert inspect.unwrap(handed.fused_training)(None, STARTS, **given) is None


@pytest.mark.parametrize("wrong", [True, False])
def test_a_kernel_that_is_wrong_on_a_device_is_not_used(monkeypatch, wrong):
    """Tried once a shape, on the first steps of two networks; the plain route trains all where they disagree."""
    calls = []

    def launch(x, y, weights, starts, options):
        calls.append((len(starts), options.epochs))
        return plain.trained(x, y, weights, starts, options) + (0.1 if wrong else 0.0)

    monkeypatch.setattr(training, "fits_kernel", lambda widths, activation, starts: True)
    monkeypatch.setattr(agreement, "_agreed", {})
    monkeypatch.setattr(training.fused, "launch", launch)
    x, y, weights, starts = problem((4, 5, 3), 12, 4, torch.float64)
    options = {"widths": (4, 5, 3), "epochs": 5, "lr": 0.01}
    others = {"activation": "relu", "optimizer": "adam", "l2": 0.0, "plateau": None, "batches": None}
    want = plain.trained(x, y, weights, starts, Options(**options, **others))
    for time in range(2):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = trained_perceptrons(x, y, weights, starts, **options)
        assert torch.equal(found, want)
        assert bool(said) == (wrong and time == 0)
    assert calls == [(2, 3)] + ([] if wrong else [(4, 5), (4, 5)])
