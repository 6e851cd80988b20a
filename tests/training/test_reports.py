"""What training tells beside its parameters: losses, steps, statuses, importances, remedies; and its limits."""

import sys

import pytest
import torch
from torch import nn

import explainlib as xl
from explainlib.risk import risk_fingerprint
from explainlib.training import fit, minima, minimise
from explainlib.training.ensembles import statuses
from explainlib.training.stacked import layers_of
from explainlib.training.steps import Plateau, adam_state, stepper
from tests.interrupted import Interrupted
from tests.problems import classes, images, normal, ridge_risk

D = torch.float64
NAN, INF = float("nan"), float("inf")


def small():
    return xl.models.mlp([3, 4, 3], "tanh", dtype=D)


@pytest.mark.parametrize("batch_size", [None, 5])
def test_losses_are_means_over_an_epoch_before_each_step(batch_size):
    train, gone = classes(12), [0, 7]
    options = {"epochs": 1, "lr": 0.05, "optimizer": "sgd", "batch_size": batch_size, "without": gone}
    steps = -(-12 // (batch_size or 12))
    got = fit(small(), train, checkpoints=steps + 1, **options)
    model, total = small(), 0.0
    for theta, batch in zip(got.checkpoints, got.batches, strict=False):
        nn.utils.vector_to_parameters(theta, model.parameters())
        total += float(nn.functional.cross_entropy(model(train.x[batch]), train.y[batch], reduction="sum").detach())
    assert got.losses == pytest.approx((total / 10,), rel=1e-12)


def test_the_importance_of_a_step_is_minus_its_rate_times_the_mean_s_slope():
    train, model = classes(12), small()
    got = fit(model, train, epochs=1, lr=0.05, optimizer="sgd", record=True)
    slope = model(train.x).softmax(1) - nn.functional.one_hot(train.y, 3)
    assert torch.allclose(got.importance, -0.05 / 12 * slope.detach(), rtol=1e-12)
    assert fit(model, train, epochs=1, optimizer="sgd").importance is None


@pytest.mark.parametrize("optimizer, swa", [("adam", None), ("sgd", 1)])
def test_importances_are_of_plain_descent(optimizer, swa):
    with pytest.raises(ValueError, match="plain gradient descent"):
        fit(small(), classes(12), epochs=2, optimizer=optimizer, swa=swa, record=True)


@pytest.mark.parametrize(
    "options", [{"batch_size": 12}, {"swa": 0}, {"swa": 1}, {"checkpoints": 3}, {"checkpoints": 2}]
)
def test_options_at_their_limits(options):
    got = fit(small(), classes(12), epochs=2, **options)
    assert len(got.losses) == 2 and len(got.checkpoints) == options.get("checkpoints", 0)


@pytest.mark.parametrize(
    ("batch_size", "without", "single"),
    [(11, (), True), (5, (), False), (1, (), True), (None, (), False), (4, (0, 1, 2), None), (None, range(11), True)],
)
def test_a_batch_of_one_has_no_statistics(batch_size, without, single):
    """With examples left out it depends on the batches of the seed."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    options = {"epochs": 1, "batch_size": batch_size, "without": list(without)}
    if single is None:
        lengths = [len(batch) for batch in fit(small(), classes(12), **options).batches]
        single = 1 in lengths
    if single:
        with pytest.raises(ValueError, match="a batch of one example has no statistics for BatchNorm layer '1'"):
            fit(model, classes(12), **options)
    else:
        fit(model, classes(12), **options)


def test_one_image_has_statistics():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)).double()
    assert len(fit(model, images(3), epochs=1, batch_size=2).batches) == 2


def test_a_trajectory_belongs_to_its_model():
    model, rates = small(), torch.ones(2)
    with pytest.raises(ValueError, match="2 checkpoints but buffers of 1"):
        xl.training.Trajectory(model, torch.zeros(2, 31), rates, buffers=({},))


def test_running_statistics_of_a_checkpoint_are_those_that_were_saved():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    got = fit(model, classes(12), epochs=2, lr=0.1, checkpoints=3)
    assert torch.equal(got.state(0)["1.running_mean"], torch.zeros(4, dtype=D))
    assert torch.equal(got.state(2)["1.running_mean"], got.model[1].running_mean)
    assert torch.equal(got.state(2)["2.bias"], got.model[2].bias)
    without = xl.training.Trajectory(got.model, got.checkpoints, got.learning_rates)
    with pytest.raises(ValueError, match="layer '1' keeps running statistics"):
        without.state(0)
    assert torch.equal(without.state(2)["0.weight"], got.model[0].weight), "the last is the model itself"
    assert fit(small(), classes(12), epochs=1, checkpoints=2).buffers == ()


@pytest.mark.parametrize(
    ("theta", "norm", "said"),
    [
        (1.0, 1e-6, "converged"),
        (1.0, 1.1e-6, "7 epochs done, |gradient| 1.1e-06"),
        (NAN, 1e-9, "nonfinite"),
        (INF, 1e-9, "nonfinite"),
        (1.0, NAN, "nonfinite"),
        (1.0, INF, "nonfinite"),
    ],
)
def test_a_network_has_converged_at_the_tolerance_and_only_with_finite_numbers(theta, norm, said):
    found = statuses(torch.tensor([[0.0, theta], [0.0, 1.0]]).double(), torch.tensor([norm, 0.0]).double(), 7, 1e-6)
    assert found == (said, "converged")


def test_newton_counts_its_steps():
    risk = ridge_risk()
    weights = torch.ones(2, risk.n, dtype=D)
    weights[1, :10] = 0
    found = minimise(risk, weights=weights, tolerance=1e-9)
    assert found.steps.tolist()[0] == 0 and 1 <= found.steps[1] <= 4, "the first is at its minimum"


def test_too_few_newton_steps_are_told():
    risk = xl.Risk(xl.models.logistic(3, 3, dtype=D), classes(), l2=0.05)
    with pytest.warns(xl.training.MinimiseWarning, match="2 of 2 .* number 0, max_steps") as said:
        found = minimise(risk, weights=torch.ones(2, risk.n, dtype=D), max_steps=1, on_failure="warn")
    assert found.steps.tolist() == [1, 1] and found.status == ("max_steps",) * 2 and len(said) == 1
    assert f"(|gradient| = {float(found.gradient_norm[0]):.1e})." in str(said[0].message)


@pytest.mark.parametrize("together", [1, 2, 3])
def test_problems_are_solved_in_batches_of_bounded_size(together, monkeypatch):
    risk, sizes = ridge_risk(), []
    room = sys.modules["explainlib.training.minimise"]
    solve = room.newton_batch
    monkeypatch.setattr(room, "newton_batch", lambda r, p, *rest: sizes.append(len(p.weights)) or solve(r, p, *rest))
    monkeypatch.setattr(room, "ENTRIES", together * risk.n * risk.n_outputs)
    minimise(risk, weights=torch.ones(5, risk.n, dtype=D))
    assert sizes == {1: [1] * 5, 2: [2, 2, 1], 3: [3, 2]}[together]


def test_an_interrupted_search_for_minima_goes_on(tmp_path, monkeypatch):
    risk, room = ridge_risk(), sys.modules["explainlib.training.minimise"]
    solve = Interrupted(room.newton_batch, 2)
    monkeypatch.setattr(room, "PROBLEMS_PER_FILE", 2)
    monkeypatch.setattr(room, "newton_batch", solve)
    weights = 1 + torch.rand(5, risk.n, generator=torch.Generator().manual_seed(0), dtype=D)
    with pytest.raises(KeyboardInterrupt):
        minimise(risk, weights=weights, store=tmp_path)
    found = minimise(risk, weights=weights, store=tmp_path)
    assert solve.calls == 2 + 2, "one of three files was there"
    again = minimise(risk, weights=weights, store=tmp_path)
    assert solve.calls == 4 and torch.equal(again.theta, found.theta) and again.status == found.status
    assert torch.equal(again.steps, found.steps) and torch.equal(again.gradient_norm, found.gradient_norm)
    for changed in ({"tolerance": 1e-9}, {"max_steps": 99}, {"weights": 2 * weights}):
        with pytest.raises(ValueError, match="another computation"):
            minimise(risk, **{"weights": weights, "store": tmp_path, **changed})


@pytest.mark.parametrize(
    ("status", "l2", "offers", "said"),
    [
        ("max_steps", 0.0, ("max_steps", "tolerance"), "allow more max_steps, or add l2 to the Risk, or pass a larger"),
        ("max_steps", 0.1, ("max_steps", "tolerance"), "allow more max_steps, or pass a larger tolerance"),
        ("max_steps", 0.1, (), ""),
        ("unbounded", 0.0, (), "add l2 to the Risk"),
        ("stalled", 0.0, ("tolerance",), "pass a larger tolerance"),
        ("nonfinite", 0.0, ("max_steps", "tolerance"), ""),
    ],
)
def test_remedies_of_a_search_are_those_of_its_status_and_its_caller(status, l2, offers, said):
    risk = xl.Risk(xl.models.logistic(3, 3, dtype=D), classes(12), l2=l2)
    found = minima._remedy(risk, status, offers)
    assert found.startswith(f"; {said}") if said else found == ""
    single = xl.Risk(xl.models.logistic(3, 3), classes(12).to(torch.float32), l2=l2)
    assert ("use float64" in minima._remedy(single, status, offers)) == (status != "unbounded")


class Tempered(xl.Risk):
    """A risk of somebody's own, with a number that its results depend on."""

    temperature = 1.0


def test_a_fingerprint_knows_what_a_risk_of_one_s_own_holds():
    def entries(temperature=1.0):
        risk = Tempered(small(), classes(12), l2=0.1)
        risk.temperature = temperature
        return risk, risk_fingerprint(risk, risk.theta, {}, {"epochs": 3})

    risk, first = entries()
    xl.curvature.hessian(risk), risk.outputs()
    assert risk_fingerprint(risk, risk.theta, {}, {"epochs": 3}) == first, "what is cached does not enter"
    assert entries(2.0)[1] != first
    assert risk_fingerprint(risk, risk.theta, {}, {"epochs": 4}) != first


def test_only_adam_remembers_and_it_goes_on_where_it_was():
    with pytest.raises(TypeError, match="only Adam's step remembers"):
        adam_state(stepper("sgd", normal(3)))
    whole, part = normal(4), normal(4)
    first, second = stepper("adam", whole), stepper("adam", part)
    gradients = [normal(4, seed=k) for k in range(5)]
    for gradient in gradients[:3]:
        first(gradient, 0.1), second(gradient, 0.1)
    saved = {name: value.clone() for name, value in adam_state(second).items()}
    assert int(saved["epoch"]) == 3
    resumed = stepper("adam", part)
    assert int(adam_state(resumed, saved)["epoch"]) == 3
    for gradient in gradients[3:]:
        first(gradient, 0.1), resumed(gradient, 0.1)
    assert torch.equal(whole, part)


@pytest.mark.parametrize("options", [{"patience": 0}, {"threshold": 0.0}, {"least": 0.0}, {"factor": 0.999}])
def test_plateaus_at_their_limits(options):
    assert Plateau(**options).watch(torch.ones(2)).rates.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("options", [{"factor": 0.0}, {"factor": 1.0}, {"threshold": -1e-9}, {"patience": 0.5}])
def test_plateaus_beyond_them(options):
    with pytest.raises((ValueError, TypeError), match=next(iter(options))):
        Plateau(**options)


@pytest.mark.parametrize(("start", "end", "plain"), [(1, -1, True), (-1, -1, False), (1, 1, False)])
def test_a_perceptron_flattens_all_but_the_examples(start, end, plain):
    model = nn.Sequential(nn.Flatten(start, end), nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    assert (layers_of(xl.Risk(model, classes(12))) is not None) == plain
