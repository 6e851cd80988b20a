"""The text network: its formula by hand, padding that counts for nothing both ways, and Risk on tokens."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.func import functional_call, grad, hessian, jvp, vmap
from torch.nn.functional import cross_entropy

from explainlib import Risk
from explainlib.datasets import Examples
from explainlib.layerwise import gradients, gram
from explainlib.models import text_cnn
from explainlib.params import Parameters

TOKENS = torch.tensor([[2, 3, 4, 5, 0, 0], [6, 2, 2, 0, 0, 0], [5, 4, 3, 2, 6, 1], [1, 0, 0, 0, 0, 0]])
Y = torch.tensor([0, 1, 2, 1])


def small(**options):
    return text_cnn(7, 3, **{"dim": 4, "filters": 5, "widths": (2, 3), "dtype": torch.float64, **options})


def loss(model, x=TOKENS, y=Y):
    return lambda weights: cross_entropy(functional_call(model, weights, (x,)), y)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((30_522, 2), 30_522 * 48 + 235 * ((3 + 4 + 5) * 48 + 3) + 3 * 235 * 2 + 2),
        ((100, 4), 100 * 48 + 235 * ((3 + 4 + 5) * 48 + 3) + 3 * 235 * 4 + 4),
    ],
)
def test_parameter_counts(arguments, expected):
    assert sum(p.numel() for p in text_cnn(*arguments).parameters()) == expected


def test_the_papers_size_with_nine_tenths_in_the_word_vectors():
    model = text_cnn(30_522, 2)
    count = sum(p.numel() for p in model.parameters())
    assert abs(count - 1_602_257) <= 276 and model.words.embedding.weight.numel() > 0.9 * count


def test_it_is_its_formula():
    """Word by word and filter by filter: what lies beyond either end of a text is zero, like padding."""
    model = small()
    weights = dict(model.named_parameters())
    for tokens, output in zip(TOKENS, model(TOKENS), strict=True):
        rows = [weights["words.embedding.weight"][t] if t else torch.zeros(4, dtype=torch.float64) for t in tokens]
        features = []
        for width in (2, 3):
            w, b = weights[f"matches.conv{width}.weight"], weights[f"matches.conv{width}.bias"]
            outside = [torch.zeros(4, dtype=torch.float64)] * (width // 2)
            padded = torch.stack([*outside, *rows, *outside])
            windows = [padded[i : i + width] for i in range(len(padded) - width + 1)]
            features += [
                max(max((f.T * window).sum() + c, 0.0 * c) for window in windows) for f, c in zip(w, b, strict=True)
            ]
        by_hand = weights["output.weight"] @ torch.stack(features) + weights["output.bias"]
        assert torch.allclose(output, by_hand, atol=1e-12)


def test_padding_counts_for_nothing_in_values_and_in_both_directions_of_derivatives():
    """Its vector is set to something, as a solver's probe would; padding_idx alone would let the forward one through."""
    model = small()
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert (weights["words.embedding.weight"][0] == 0).all()
    moved = {name: p.clone() for name, p in weights.items()}
    moved["words.embedding.weight"][0] = 1.0
    direction = {name: torch.zeros_like(p) for name, p in weights.items()}
    direction["words.embedding.weight"][0] = 1.0
    assert loss(model)(moved) == loss(model)(weights)
    assert (grad(loss(model))(moved)["words.embedding.weight"][0] == 0).all()
    assert jvp(loss(model), (moved,), (direction,))[1] == 0
    assert all((part == 0).all() for part in jvp(grad(loss(model)), (moved,), (direction,))[1].values())


def test_first_derivatives_by_finite_differences():
    model, step = small(seed=2), 1e-6
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    gradient = grad(loss(model))(weights)
    generator = torch.Generator().manual_seed(0)
    direction = {n: torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in weights.items()}
    ahead, behind = ({n: p + s * direction[n] for n, p in weights.items()} for s in (step, -step))
    measured = (loss(model)(ahead) - loss(model)(behind)) / (2 * step)
    assert abs(measured - sum((gradient[n] * direction[n]).sum() for n in weights)) < 1e-7
    assert abs(measured - jvp(loss(model), (weights,), (direction,))[1]) < 1e-7


def test_vmapped_gradients_are_those_of_one_example_after_the_other():
    model = small()
    weights = {name: p.detach() for name, p in model.named_parameters()}
    together = vmap(grad(lambda w, x, y: loss(model, x[None], y[None])(w)), in_dims=(None, 0, 0))(weights, TOKENS, Y)
    for i in range(len(TOKENS)):
        model.zero_grad()
        cross_entropy(model(TOKENS[i : i + 1]), Y[i : i + 1]).backward()
        for name, parameter in model.named_parameters():
            assert torch.allclose(together[name][i], parameter.grad, atol=1e-12)


def test_risk_reads_tokens():
    model, examples = small(), Examples(TOKENS, Y, raw=["a"] * 4)
    risk = Risk(model, examples, l2=0.1)
    assert torch.allclose(risk.outputs(), model(TOKENS)) and torch.allclose(
        risk.losses().mean() + 0.05 * risk.theta.square().sum(), risk.value()
    )
    each = risk.loss_gradients()
    assert torch.allclose(each.mean(0) + 0.1 * risk.theta, risk.gradient(), atol=1e-12)
    assert torch.allclose(risk.loss_gradients(examples[2])[0], each[2], atol=1e-12)
    last = Risk(model, examples, parameters="last")
    assert last.head is not None and torch.allclose(last.loss_gradients(), each[:, -last.p :], atol=1e-12)


def test_the_hessian_is_symmetric_and_the_padding_has_no_part_in_it():
    parameters = Parameters(small())
    H = hessian(lambda theta: cross_entropy(parameters.outputs(theta, TOKENS), Y))(parameters.theta)
    assert torch.allclose(H, H.T, atol=1e-12) and (H[:4] == 0).all() and H[4:].abs().max() > 1e-3


def test_the_layerwise_engine_reads_every_layer():
    """A parameter that falls back is warned about."""
    risk = Risk(small(), Examples(TOKENS, Y))
    expected = risk.loss_gradients()
    cotangents = risk.loss.gradient(risk.outputs(), Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = gradients(risk.parameters, risk.theta, TOKENS, cotangents)
        assert torch.allclose(gram(source, source), expected @ expected.T, atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 9])
def test_any_length_will_do(length):
    assert text_cnn(5, 2, filters=3)(torch.ones(2, length, dtype=torch.int64)).shape == (2, 2)


def test_seed_precision_mode_and_the_callers_generator():
    before = torch.get_rng_state()
    model, again, other = small(), small(dtype=torch.float32), small(seed=1)
    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert b.dtype == torch.float32 and torch.equal(a, b.double())
    assert not torch.equal(model.output.weight, other.output.weight)
    assert torch.equal(model.train()(TOKENS), model.eval()(TOKENS))


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda: text_cnn(1, 2), ValueError, "vocabulary=1"),
        (lambda: text_cnn(9, 1), ValueError, "C=1"),
        (lambda: text_cnn(9, 2, dim=0), ValueError, "dim=0"),
        (lambda: text_cnn(9, 2, filters=0), ValueError, "filters=0"),
        (lambda: text_cnn(9, 2, widths=()), ValueError, "at least one width"),
        (lambda: text_cnn(9, 2, widths=(3, 3)), ValueError, "each once"),
        (lambda: text_cnn(9, 2, widths=(3, 0)), ValueError, r"widths\[1\]=0"),
        (lambda: text_cnn(9, 2, seed=-1), ValueError, "seed=-1"),
    ],
)
def test_bad_input(wrong, error, message):
    with pytest.raises(error, match=message):
        wrong()
