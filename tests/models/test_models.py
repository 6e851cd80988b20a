"""Networks: parameter counts, one seed one network, and a caller's generator that nobody touched."""

import pytest
import torch
from torch import nn

from explainlib.models import cnn2, cnn3, logistic, mlp

BUILDERS = [
    lambda **options: logistic(64, 10, **options),
    lambda **options: mlp([64, 32, 10], **options),
    lambda **options: cnn2(1, 10, **options),
    lambda **options: cnn3(1, 10, **options),
]


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (logistic(64, 10), 650),
        (logistic(784, 2), 1570),
        (mlp([4, 5, 3], "tanh"), 4 * 5 + 5 + 5 * 3 + 3),
        (mlp([64, 32, 16, 10]), 64 * 32 + 32 + 32 * 16 + 16 + 16 * 10 + 10),
        (cnn2(1, 2), 1378),
        (cnn3(1, 10), 93_962),
        (cnn3(3, 2), 93_506),
        (cnn3(3, 10), 94_538),
    ],
)
def test_parameter_counts(model, expected):
    assert count(model) == expected


def test_cnn3_has_the_papers_size_on_both_data_sets():
    assert all(92_500 <= count(cnn3(channels, classes)) <= 95_500 for channels in (1, 3) for classes in (2, 10))


@pytest.mark.parametrize("build", BUILDERS)
def test_seed_decides_the_weights(build):
    same, other = build(seed=3).state_dict(), build(seed=4).state_dict()
    again = build(seed=3).state_dict()
    assert all(torch.equal(same[name], again[name]) for name in same)
    assert any(not torch.equal(same[name], other[name]) for name in same)


@pytest.mark.parametrize("build", BUILDERS)
def test_callers_generator_and_defaults_are_left_alone(build):
    before, dtype = torch.get_rng_state(), torch.get_default_dtype()
    build(seed=11)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_default_dtype() == dtype


@pytest.mark.parametrize("build", BUILDERS)
def test_one_seed_is_one_network_at_every_precision(build):
    single, double = build(), build(dtype=torch.float64)
    for a, b in zip(single.parameters(), double.parameters(), strict=True):
        assert b.dtype == torch.float64
        assert torch.equal(a.double(), b)


def test_default_dtype_is_followed():
    torch.set_default_dtype(torch.float64)
    try:
        model = logistic(4, 3)
    finally:
        torch.set_default_dtype(torch.float32)
    assert model.linear.weight.dtype == torch.float64
    assert torch.equal(model.linear.weight, logistic(4, 3).linear.weight.double())


def test_logistic_flattens_images_and_holds_one_linear():
    model = logistic(784, 10)
    x = torch.rand(5, 1, 28, 28)
    assert torch.equal(model(x), model(x.reshape(5, 784)))
    assert torch.allclose(model(x), x.reshape(5, 784) @ model.linear.weight.T + model.linear.bias, atol=1e-6)
    assert [name for name, _ in model.named_parameters()] == ["linear.weight", "linear.bias"]


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("relu", torch.relu),
        ("tanh", torch.tanh),
        ("sigmoid", torch.sigmoid),
        ("selu", nn.functional.selu),
        ("gelu", nn.functional.gelu),
    ],
)
def test_mlp_is_its_formula(activation, function):
    model = mlp([4, 5, 3], activation, dtype=torch.float64)
    x = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(3, 4)
    by_hand = function(x @ model.linear1.weight.T + model.linear1.bias) @ model.linear2.weight.T + model.linear2.bias
    assert torch.allclose(model(x), by_hand)


def two_convolutions() -> list[nn.Module]:
    first, second = (nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in ((3, 8), (8, 16)))
    return [first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 7)]


def three_convolutions() -> list[nn.Module]:
    a, b, c = (nn.Conv2d(i, o, 3, stride=2, padding=1) for i, o in ((3, 32), (32, 64), (64, 128)))
    return [a, nn.ReLU(), b, nn.ReLU(), c, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 7)]


@pytest.mark.parametrize(
    ("build", "by_hand", "names"),
    [
        (cnn2, two_convolutions, ["conv1", "relu1", "conv2", "relu2", "quarters", "flatten", "output"]),
        (
            cnn3,
            three_convolutions,
            ["conv1", "relu1", "conv2", "relu2", "conv3", "relu3", "mean", "flatten", "output"],
        ),
    ],
)
def test_a_cnn_has_these_layers_and_draws_them_in_this_order(build, by_hand, names):
    """A seed names the same network in every version: the same layers, drawn one after the other."""
    model = build(3, 7, seed=5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        expected = nn.Sequential(*by_hand())
    assert [name for name, _ in model.named_children()] == names
    assert [repr(layer) for layer in model] == [repr(layer) for layer in expected]
    pairs = list(zip(model.parameters(), expected.parameters(), strict=True))
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    x = torch.rand(2, 3, 9, 12)
    assert torch.equal(model(x), expected(x))


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32), (1, 8)])
def test_cnn3_takes_any_image_size(channels, side):
    assert cnn3(channels, 7)(torch.rand(2, channels, side, side)).shape == (2, 7)


@pytest.mark.parametrize("build", BUILDERS)
def test_train_and_eval_mode_agree(build):
    model = build()
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(model.train()(x), model.eval()(x))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: logistic(0, 10), "d=0"),
        (lambda: logistic(4, 1), "C=1"),
        (lambda: logistic(4, 3, seed=-1), "seed=-1"),
        (lambda: mlp([4, 3]), "logistic"),
        (lambda: mlp([4, 0, 3]), r"widths\[1\]=0"),
        (lambda: mlp([4, 5, 3], "swish"), "'relu'"),
        (lambda: cnn3(0, 10), "channels_in=0"),
        (lambda: cnn3(1, 1), "C=1"),
    ],
)
def test_bad_input(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_integer_dtype_is_refused():
    with pytest.raises(TypeError, match="float64"):
        logistic(4, 3, dtype=torch.int64)
