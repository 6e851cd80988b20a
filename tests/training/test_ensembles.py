"""Ensembles against the loop of ``torch.optim`` that they replace, route against route, and against a smaller problem."""

import pytest
import torch
from torch import nn

import explainlib as xl
from explainlib.training import Plateau, ensembles, fit_ensemble, fit_risks, fresh_starts
from explainlib.training.stacked import ACTIVATIONS, StackedPerceptrons, layers_of, stack_networks
from tests.interrupted import Interrupted
from tests.problems import Renamed, classes, convolution, images, normal, relative_error, targets

OPTIMISERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
TRAIN = classes(24)


def weights(m, n=24, *, seed=5):
    rows = torch.rand(m, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5
    rows[torch.arange(m), torch.arange(m)] = 0
    return rows


def perceptron(activation="tanh", widths=(3, 4, 3), **options):
    return xl.models.mlp(list(widths), activation, dtype=torch.float64, **options)


def loop(risk, starts, rows, *, epochs, lr, optimizer="adam", plateau=None):
    """Return theta and objectives, one network, one optimiser, one backward pass at a time."""
    ended, values = [], []
    for start, row in zip(starts, rows, strict=True):
        model = risk.at(start).model
        chosen = [model.get_parameter(name) for name in risk.parameters.names]
        step = OPTIMISERS[optimizer](chosen, lr=lr, weight_decay=risk.l2)
        lower = None
        if plateau is not None:
            lower = torch.optim.lr_scheduler.ReduceLROnPlateau(
                step,
                factor=plateau.factor,
                patience=plateau.patience,
                threshold=plateau.threshold,
                min_lr=plateau.least,
            )

        def objective(model=model, row=row, chosen=chosen):
            data = (row * risk.loss.function(model(risk.train.x), risk.train.y)).sum() / risk.n
            return data, data + risk.l2 / 2 * sum(p.square().sum() for p in chosen)

        for _ in range(epochs):
            step.zero_grad()
            objective()[0].backward()
            step.step()
            if lower is not None:
                lower.step(objective()[1].detach())
        ended.append(torch.cat([p.detach().flatten() for p in chosen]))
        values.append(objective()[1].detach())
    return torch.stack(ended), torch.stack(values)


@pytest.mark.parametrize("optimizer", OPTIMISERS)
@pytest.mark.parametrize("widths", [(3, 4, 3), (3, 5, 4, 3)])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu", "selu", "gelu"])
def test_a_loop_of_single_trainings(activation, widths, optimizer):
    model = perceptron(activation, widths)
    risk = xl.Risk(model, TRAIN, l2=1e-2)
    assert isinstance(stack_networks(risk, weights(3)), StackedPerceptrons)
    starts = fresh_starts(risk, [0, 1, 2])
    got = fit_ensemble(
        model, TRAIN, starts=starts, weights=weights(3), epochs=200, lr=0.02, optimizer=optimizer, l2=1e-2
    )
    theta, values = loop(risk, starts, weights(3), epochs=200, lr=0.02, optimizer=optimizer)
    assert (got.theta - theta).abs().max() < 1e-10 and (got.losses - values).abs().max() < 1e-10
    assert relative_error(got.theta, starts) > 0.05  # it went somewhere


def test_five_thousand_epochs_end_with_the_same_losses_and_ranks():
    risk = xl.Risk(perceptron(), TRAIN, l2=1e-3)
    starts = fresh_starts(risk, [3]).repeat(3, 1)
    got = fit_risks(risk, starts=starts, weights=weights(3), epochs=5000, lr=1e-2)
    _, values = loop(risk, starts, weights(3), epochs=5000, lr=1e-2)
    assert relative_error(got.losses[:2], values[:2]) < 1e-9  # near their minima
    assert relative_error(got.losses[2:], values[2:]) < 1e-7  # not at rest: each epoch's rounding is magnified after it
    assert torch.equal(got.losses.argsort(), values.argsort())


MODELS = {
    "convolution": (convolution, images(6), "all"),
    "no bias": (lambda: nn.Sequential(nn.Linear(3, 4, bias=False), nn.Tanh(), nn.Linear(4, 3)).double(), TRAIN, "all"),
    "bias below only": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3, bias=False)).double(), TRAIN, "all"),
    "head": (lambda: xl.models.logistic(3, 3, dtype=torch.float64), TRAIN, "all"),
    "last": (perceptron, TRAIN, "last"),
    "first layer": (perceptron, TRAIN, ["linear1.weight", "linear1.bias"]),
    "tanh of gelu": (lambda: nn.Sequential(nn.Linear(3, 4), nn.GELU("tanh"), nn.Linear(4, 3)).double(), TRAIN, "all"),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_route_is_the_loop(name):
    make, train, chosen = MODELS[name]
    model = make()
    risk = xl.Risk(model, train, l2=1e-2, parameters=chosen)
    starts = risk.theta + 0.1 * normal(2, risk.p)
    got = fit_risks(risk, starts=starts, weights=weights(2, len(train)), epochs=30, lr=0.02)
    theta, values = loop(risk, starts, weights(2, len(train)), epochs=30, lr=0.02)
    assert (got.theta - theta).abs().max() < 1e-10 and (got.losses - values).abs().max() < 1e-10


def huber(outputs, y):
    return nn.functional.huber_loss(outputs, y, reduction="none").sum(-1)


@pytest.mark.parametrize("loss", ["squared_error", huber])
def test_other_losses(loss):
    train = targets(20, o=2)
    risk = xl.Risk(perceptron(widths=(4, 3, 2)), train, loss=loss, l2=1e-2)
    assert layers_of(risk) is not None
    starts = fresh_starts(risk, [0, 1])
    got = fit_risks(risk, starts=starts, weights=weights(2, 20), epochs=50, lr=0.01)
    theta, _ = loop(risk, starts, weights(2, 20), epochs=50, lr=0.01)
    assert (got.theta - theta).abs().max() < 1e-10


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_by_hand_and_through_vmap(activation):
    model = perceptron(activation, (3, 4, 4, 3))
    by_hand = xl.Risk(model, TRAIN, l2=1e-2)
    general = xl.Risk(Renamed(model), TRAIN, l2=1e-2)
    assert layers_of(by_hand) is not None and layers_of(general) is None
    starts = fresh_starts(by_hand, range(3))
    one, other = (fit_risks(r, starts=starts, weights=weights(3), epochs=60, lr=0.05) for r in (by_hand, general))
    assert (one.theta - other.theta).abs().max() < 1e-12
    assert torch.allclose(one.gradient_norm, other.gradient_norm, atol=1e-12)
    assert torch.allclose(one.losses, torch.stack([one[j].value() for j in range(3)]))
    assert torch.allclose(one.gradient_norm, torch.stack([one[j].gradient().norm() for j in range(3)]))


def hooked():
    model = perceptron()
    model.linear1.register_forward_hook(lambda module, inputs, output: output * 2)
    return model


def shared():
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.Tanh(), layer).double()


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


STRANGE = {
    "hook": hooked,
    "shared layer": shared,
    "subclass": lambda: nn.Sequential(Doubled(3, 4), nn.Tanh(), nn.Linear(4, 3)).double(),
    "two activations": lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.ReLU(), nn.Linear(4, 3)).double(),
    "last activation": lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3), nn.Tanh()).double(),
    "layer norm": lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 3)).double(),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_no_plain_perceptron_is_not_taken_for_one(name):
    risk = xl.Risk(STRANGE[name](), TRAIN, l2=1e-2)
    assert layers_of(risk) is None
    if name == "shared layer":  # torch's functional_call leaves the last parameters in a layer that stands twice
        return
    got = fit_risks(risk, starts=risk.theta[None], epochs=5, lr=0.02)
    theta, _ = loop(risk, risk.theta[None], torch.ones(1, 24).double(), epochs=5, lr=0.02)
    assert (got.theta - theta).abs().max() < 1e-10


@pytest.mark.parametrize("widths", [(3, 4, 3), (3, 5, 4, 3)])
def test_the_numbers_of_a_network_are_those_it_keeps(widths):
    """The values after each activation with a row of ones, and as much for the outputs."""
    risk = xl.Risk(perceptron(widths=widths), classes())
    networks = stack_networks(risk, weights(3))
    kept = sum(values.numel() for values in networks.activations) // 3 + risk.n * (risk.n_outputs + 1)
    assert networks.numbers(risk) == kept


def test_weight_zero_is_the_example_gone_with_1_over_n_kept():
    risk = xl.Risk(perceptron(), TRAIN, l2=1e-2)
    starts = fresh_starts(risk, [0])
    rows = torch.ones(1, 24).double()
    rows[0, [2, 7]] = 0
    rest = [i for i in range(24) if i not in (2, 7)]
    got = fit_risks(risk, starts=starts, weights=rows, epochs=100, lr=0.05, optimizer="sgd")
    # 22 examples at 1/22 and rate r are 22 at 1/24 and rate r 24/22, the ridge scaled along
    alone = xl.Risk(risk.model, TRAIN[rest], l2=1e-2 * 24 / 22)
    want = fit_risks(alone, starts=starts, epochs=100, lr=0.05 * 22 / 24, optimizer="sgd")
    assert (got.theta - want.theta).abs().max() < 1e-12


@pytest.mark.parametrize("make", [perceptron, lambda: Renamed(perceptron())], ids=["by hand", "vmap"])
def test_batches_do_not_change_the_networks(make, monkeypatch):
    risk = xl.Risk(make(), TRAIN, l2=1e-2)
    starts = fresh_starts(risk, range(5))
    whole = fit_risks(risk, starts=starts, weights=weights(5), epochs=20, lr=0.05)
    monkeypatch.setattr(ensembles, "CACHED", 1)
    single = fit_risks(risk, starts=starts, weights=weights(5), epochs=20, lr=0.05)
    assert torch.allclose(whole.theta, single.theta, atol=1e-13) and len(whole) == len(single) == 5


@pytest.mark.parametrize("optimizer", OPTIMISERS)
@pytest.mark.parametrize("make", [perceptron, lambda: Renamed(perceptron())], ids=["by hand", "vmap"])
def test_a_plateau_lowers_each_rate_like_torch(make, optimizer):
    """A large rate and no patience: rates fall often, at other epochs in each network, and stop at the least."""
    risk = xl.Risk(make(), TRAIN, l2=1e-2)
    plateau = Plateau(factor=0.5, patience=1, threshold=1e-2, least=0.02)
    starts = fresh_starts(risk, range(3))
    got = fit_risks(risk, starts=starts, weights=weights(3), epochs=60, lr=0.3, optimizer=optimizer, schedule=plateau)
    theta, _ = loop(risk, starts, weights(3), epochs=60, lr=0.3, optimizer=optimizer, plateau=plateau)
    assert (got.theta - theta).abs().max() < 1e-10
    steady = fit_risks(risk, starts=starts, weights=weights(3), epochs=60, lr=0.3, optimizer=optimizer)
    assert ((got.theta - steady.theta).norm(dim=1) > 1e-3).all()


def test_a_seed_names_the_network_of_models():
    risk = xl.Risk(perceptron(), TRAIN)
    state = torch.get_rng_state()
    starts = fresh_starts(risk, [4, 0])
    assert torch.equal(torch.get_rng_state(), state)
    for start, seed in zip(starts, (4, 0), strict=True):
        want = torch.cat([p.detach().flatten() for p in perceptron(seed=seed).parameters()])
        assert torch.equal(start, want)
    single = fresh_starts(xl.Risk(perceptron().float(), TRAIN.to(torch.float32)), [4])
    assert single.dtype == torch.float32 and torch.equal(single.double(), starts[:1])
    last = fresh_starts(xl.Risk(perceptron(), TRAIN, parameters="last"), [4])
    assert torch.equal(last[0], starts[0, -last.shape[1] :])


def test_seeds_are_starts_and_nothing_of_the_caller_moves():
    model = perceptron()
    before, state = [p.clone() for p in model.parameters()], torch.get_rng_state()
    one = fit_ensemble(model, TRAIN, seeds=[2, 5], epochs=10, lr=0.05)
    torch.manual_seed(11)
    two = fit_ensemble(model, TRAIN, starts=fresh_starts(xl.Risk(model, TRAIN), [2, 5]), epochs=10, lr=0.05)
    torch.set_rng_state(state)
    assert torch.equal(one.theta, two.theta) and not torch.equal(one.theta[0], one.theta[1])
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    given = fresh_starts(xl.Risk(model, TRAIN), [2])
    copy = given.clone()
    fit_ensemble(model, TRAIN, starts=given, epochs=3, lr=0.1)
    assert torch.equal(given, copy)


def test_statuses():
    risk = xl.Risk(perceptron(), TRAIN, l2=0.1)
    there = xl.training.minimise(risk, tolerance=1e-12).theta
    starts = torch.stack([there, risk.theta])
    got = fit_risks(risk, starts=starts, epochs=3, lr=1e-3, optimizer="sgd")
    assert got.status[0] == "converged" and got.status[1].startswith("3 epochs done, |gradient| ")
    assert float(got.status[1].split()[-1]) == pytest.approx(float(got.gradient_norm[1]), rel=0.05)


@pytest.mark.parametrize("make", [perceptron, lambda: Renamed(perceptron())], ids=["by hand", "vmap"])
def test_one_network_that_overflows_leaves_the_others_alone(make):
    risk = xl.Risk(make(), TRAIN, loss=lambda f, y: f.pow(4).exp().sum(-1))
    starts = risk.theta * torch.tensor([[0.1], [1e3]]).double()
    both = fit_risks(risk, starts=starts, epochs=5, lr=1e-3)
    alone = fit_risks(risk, starts=starts[:1], epochs=5, lr=1e-3)
    assert both.status[1] == "nonfinite" and both.status[0] != "nonfinite"
    assert torch.allclose(both.theta[0], alone.theta[0], atol=1e-14)


def test_float32_stays_float32():
    got = fit_ensemble(perceptron().float(), TRAIN.to(torch.float32), seeds=[0], epochs=3, schedule=Plateau())
    assert got.theta.dtype == got.losses.dtype == torch.float32


def test_an_interrupted_ensemble_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    risk = xl.Risk(perceptron(), TRAIN, l2=1e-2)
    call = dict(starts=fresh_starts(risk, range(6)), weights=weights(6), epochs=20, lr=0.05)
    monkeypatch.setattr(ensembles, "CACHED", 2 * ensembles.values_per_network(risk))
    want = fit_risks(risk, **call)
    monkeypatch.setattr(ensembles, "train_networks", Interrupted(ensembles.train_networks, 2))
    with pytest.raises(KeyboardInterrupt):
        fit_risks(risk, **call, store=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["batch-00000.safetensors", "fingerprint.json"]
    ensembles.train_networks.calls = 10
    got = fit_risks(risk, **call, store=tmp_path)
    assert ensembles.train_networks.calls == 12, "two of three batches were left"
    again = fit_risks(risk, **call, store=tmp_path)
    assert ensembles.train_networks.calls == 12
    for one in (got, again):
        assert torch.equal(one.theta, want.theta) and torch.equal(one.losses, want.losses) and one.status == want.status
    with pytest.raises(ValueError, match="another computation: epochs: got 21, expected 20"):
        fit_risks(risk, **{**call, "epochs": 21}, store=tmp_path)
    with pytest.raises(ValueError, match="another computation: weights: got sha256"):
        fit_risks(risk, **{**call, "weights": weights(6, seed=9)}, store=tmp_path)


def test_bad_input():
    model, risk = perceptron(), xl.Risk(perceptron(), TRAIN)
    for call, message in [
        (dict(epochs=1), "neither of starts and seeds"),
        (dict(epochs=1, seeds=[0], starts=risk.theta[None]), "both of starts and seeds"),
        (dict(epochs=0, seeds=[0]), "epochs=0"),
        (dict(epochs=1, seeds=[0], lr=0.0), "lr=0.0"),
        (dict(epochs=1, seeds=[0], optimizer="lion"), "optimizer='lion'.*'adam', 'sgd'"),
        (dict(epochs=1, seeds=[]), "at least one seed"),
        (dict(epochs=1, seeds=[1, 1]), "repeats a seed"),
        (dict(epochs=1, seeds=[-1]), "seeds.0.=-1"),
        (dict(epochs=1, seeds=[0], weights=torch.ones(1, 25).double()), r"weights has shape \[1, 25\], expected \[1, 24\]"),
        (dict(epochs=1, seeds=[0], weights=torch.zeros(1, 24).double()), "row 0 is all zero"),
        (dict(epochs=1, seeds=[0], weights=torch.full((1, 24), torch.nan).double()), "NaN"),
        (dict(epochs=1, starts=torch.ones(1, 3).double()), r"starts has shape \[1, 3\], expected \[any, 31\]"),
        (dict(epochs=1, starts=torch.ones(0, 31).double()), "no rows"),
        (dict(epochs=1, starts=torch.full((1, 31), torch.inf).double()), "infinite"),
        (dict(epochs=1, seeds=[0], l2=-1.0), "l2=-1.0"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            fit_ensemble(model, TRAIN, **call)
    with pytest.raises(TypeError, match="starts has dtype torch.float32"):
        fit_ensemble(model, TRAIN, epochs=1, starts=torch.ones(1, 31))
    for bad, message in [
        (dict(factor=1.0), "factor=1.0"),
        (dict(patience=-1), "patience=-1"),
        (dict(least=-1.0), "least"),
    ]:
        with pytest.raises(ValueError, match=message):
            Plateau(**bad)


def test_a_parameter_that_cannot_be_drawn_anew():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.scale = perceptron(), nn.Parameter(torch.ones(1).double())

        def forward(self, x):
            return self.scale * self.inner(x)

    with pytest.raises(ValueError, match="'scale' belongs to a module without reset_parameters"):
        fresh_starts(xl.Risk(Scaled(), TRAIN), [0])
    kept = xl.Risk(Scaled(), TRAIN, parameters=["inner.linear1.weight"])
    assert fresh_starts(kept, [0]).shape == (1, 12)


def test_all_known_activations_are_seen_above():
    assert {kind.__name__ for kind in ACTIVATIONS} == {"Tanh", "Sigmoid", "ReLU", "Identity", "SELU", "GELU"}
