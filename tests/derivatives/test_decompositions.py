"""Operations in plain ones: torch's own values, and derivatives of every order that differences confirm."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jvp, vjp, vmap
from torch.nn import functional as F

from explainlib.derivatives.decompositions import DECOMPOSITIONS, Constants, DecompositionMode, renormalise
from explainlib.derivatives.norms import BatchStatistics, with_batch_statistics

DOUBLE = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def module(make):
    torch.manual_seed(0)
    layer = make().double().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(normal(*parameter.shape))
    return layer.requires_grad_(False)


class Normed(nn.LayerNorm):
    """A subclass with a forward of its own."""

    def forward(self, x):
        return F.layer_norm(x.transpose(1, 2), self.normalized_shape, self.weight, self.bias, 1e-2).transpose(1, 2)


X, IMAGES, SEQUENCE, Q = normal(5, 4), normal(3, 4, 2, 2), normal(2, 5, 4), normal(2, 2, 5, 4)
BAGS = torch.tensor([[0, 1, 1], [3, 3, 2], [4, 0, 0]])
LAYERS = {
    "batch norm": (module(lambda: nn.BatchNorm1d(4, track_running_stats=False)), X),
    "batch norm of images": (module(lambda: nn.BatchNorm2d(4, affine=False, track_running_stats=False)), IMAGES),
    "layer norm": (module(lambda: nn.LayerNorm(4)), X), "layer norm over two": (module(lambda: nn.LayerNorm((4, 5), bias=False)), normal(3, 4, 5)),
    "a subclass of it": (module(lambda: Normed(5)), SEQUENCE), "group norm": (module(lambda: nn.GroupNorm(2, 4)), IMAGES),
    "instance norm": (module(lambda: nn.InstanceNorm2d(4, affine=True)), IMAGES), "rms norm": (module(lambda: nn.RMSNorm(4)), X),
    "weight norm": (module(lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))), X),
    "attention": (module(lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)), SEQUENCE),
    "glu": (module(lambda: nn.GLU()), X), "hardsigmoid": (module(lambda: nn.Hardsigmoid()), X),
}  # fmt: skip
FUNCTIONS = {
    "F.batch_norm": (lambda x: F.batch_norm(x, None, None, training=True), X),
    "torch.batch_norm": (lambda x: torch.batch_norm(x, None, None, None, None, True, 0.1, 1e-3, False), X),
    "torch.layer_norm": (lambda x: torch.layer_norm(x, (4,), None, None, 1e-5, False), X),
    "torch.group_norm": (lambda x: torch.group_norm(x, 2, None, None, 1e-5, False), X), "torch.rms_norm": (lambda x: torch.rms_norm(x, (4,)), X),
    "torch.instance_norm": (lambda x: torch.instance_norm(x, None, None, None, None, True, 0.1, 1e-5, False), IMAGES),
    "F.instance_norm": (lambda x: F.instance_norm(x), IMAGES), "F.normalize": (lambda x: F.normalize(x, dim=-1), X),
    "torch._weight_norm": (lambda x: torch._weight_norm(x, x.sum(1, keepdim=True), 0), X),
    "weight norm by columns": (lambda x: torch._weight_norm(x, x.sum(0, keepdim=True), 1), X),
    "cdist": (lambda x: torch.cdist(x, x.flip(0) + 0.3), X), "cdist to itself": (lambda x: torch.cdist(x[:2], X), X + 0.01),
    "cdist, p=1": (lambda x: torch.cdist(x, x.sin() + 1, p=1), X), "cdist, p=3": (lambda x: torch.cdist(x, x.sin() + 1, p=3), X),
    "cdist, p=inf": (lambda x: torch.cdist(x, x.sin() + 1, p=float("inf")), X), "pdist": (F.pdist, X), "torch.pdist": (torch.pdist, X),
    "sdpa": (lambda x: F.scaled_dot_product_attention(x, x.sin(), x.cos()), Q),
    "masked sdpa": (lambda x: F.scaled_dot_product_attention(x, x.sin(), x, is_causal=True, scale=0.7), Q),
    "embedding bag, mean": (lambda x: F.embedding_bag(BAGS, x, mode="mean"), X), "embedding bag, sum": (lambda x: F.embedding_bag(BAGS, x, mode="sum"), X),
    "embedding bag, max": (lambda x: F.embedding_bag(BAGS, x, mode="max"), X),
    "embedding bag, weighted": (lambda x: F.embedding_bag(BAGS, x, mode="sum", per_sample_weights=X[:3, :3]), X),
    "embedding bag, padded mean": (lambda x: F.embedding_bag(BAGS, x, mode="mean", padding_idx=0), X),
    "embedding bag, padded max": (lambda x: F.embedding_bag(BAGS, x, mode="max", padding_idx=0), X),
    "embedding": (lambda x: F.embedding(BAGS, x), X),
    "huber": (lambda x: F.huber_loss(x, X.flip(0), reduction="none", delta=0.7), X), "huber, mean": (lambda x: F.huber_loss(x, X.flip(0)), X),
    "soft margin": (lambda x: F.soft_margin_loss(x, X.flip(0).sign(), reduction="none"), X),
    "glu": (lambda x: F.glu(x, 1), X), "hardsigmoid": (lambda x: F.hardsigmoid(3 * x), X),
}  # fmt: skip
ALL = LAYERS | FUNCTIONS


def decomposed(f):
    def run(x):
        with DecompositionMode():
            return f(x)

    return run


@pytest.mark.parametrize("name", ALL)
def test_values_and_gradients_are_torchs_own(name):
    f, x = ALL[name]
    torch.testing.assert_close(decomposed(f)(x), f(x), rtol=1e-12, atol=1e-12)
    c = torch.randn_like(f(x))
    g = grad(lambda z: (decomposed(f)(z) * c).sum())(x)
    leaf = x.clone().requires_grad_()
    torch.testing.assert_close(g, torch.autograd.grad((f(leaf) * c).sum(), leaf)[0], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_second_and_third_derivatives_by_every_route(name):
    f, x = ALL[name]
    c, u, v = torch.randn_like(f(x)), normal(*x.shape, seed=1), normal(*x.shape, seed=2)
    slope = grad(lambda z: (decomposed(f)(z) * c).sum())
    product = lambda z: vjp(slope, z)[1](u)[0]  # noqa: E731
    across = lambda h, at: (at(x + h * v) - at(x - h * v)) / (2 * h)  # noqa: E731

    def near(got, at):
        want = across(1e-5, at)
        assert (got - want).abs().max() <= 1e-5 * want.abs().max() + 1e-8

    near(vjp(slope, x)[1](v)[0], slope)
    near(jvp(slope, (x,), (v,))[1], slope)
    near(jvp(product, (x,), (v,))[1], product)
    near(vjp(product, x)[1](v)[0], product)
    near(jvp(lambda z: jvp(slope, (z,), (u,))[1], (x,), (v,))[1], product)
    both = torch.stack([x, x + 0.01])
    if "F.batch_norm" not in name:
        torch.testing.assert_close(vmap(slope)(both), torch.stack([slope(one) for one in both]))


@pytest.mark.parametrize("name", ["layer norm", "batch norm", "instance norm"])
def test_why_they_are_written_out(name):
    """torch's fused layers are wrong at the third derivative; when this fails, torch has mended them or refuses."""
    f, x = LAYERS[name]
    c, u, v = torch.randn_like(f(x)), normal(*x.shape, seed=1), normal(*x.shape, seed=2)
    product = lambda z: vjp(grad(lambda w: (f(w) * c).sum()), z)[1](u)[0]  # noqa: E731
    want = (product(x + 1e-5 * v) - product(x - 1e-5 * v)) / 2e-5
    assert (jvp(product, (x,), (v,))[1] - want).abs().max() > 0.05 * want.abs().max()


def test_every_decomposition_is_reached():
    reached = set()
    for f, x in ALL.values():
        with Seeing(reached):
            f(x)
    missing = {f.__name__ for f in DECOMPOSITIONS if f not in reached}
    assert missing <= {
        "embedding",
        "batch_norm",
        "layer_norm",
        "group_norm",
        "rms_norm",
        "instance_norm",
        "multi_head_attention_forward",
        "pdist",
    }


class Seeing(torch.overrides.TorchFunctionMode):
    def __init__(self, reached):
        super().__init__()
        self.reached = reached

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.reached.add(func)
        return func(*args, **(kwargs or {}))


def test_batch_norm_in_evaluation_mode_is_torchs_own():
    layer = nn.BatchNorm1d(4).double().eval()
    layer.running_mean.copy_(normal(4)), layer.running_var.copy_(normal(4).square() + 0.1)
    assert torch.equal(decomposed(layer)(X), layer(X))


def test_batch_statistics():
    layer = with_batch_statistics(nn.BatchNorm1d(4).double())
    assert type(layer) is BatchStatistics and layer.running_mean is None
    torch.testing.assert_close(layer(X), F.batch_norm(X, None, None, training=True))
    with pytest.raises(ValueError, match="3 features"):
        with_batch_statistics(nn.BatchNorm1d(3))(torch.ones(2, 4))

    class Own(nn.BatchNorm1d):
        def forward(self, x):
            return 2 * super().forward(x)

    own = with_batch_statistics(Own(4).double().eval())
    torch.testing.assert_close(own(X), 2 * F.batch_norm(X, None, None, training=True))


def test_padding_is_a_constant_and_long_rows_are_shortened():
    table, tokens, c = normal(6, 4), torch.tensor([[0, 1, 5]]), normal(1, 3, 4)
    g = grad(lambda t: (decomposed(lambda z: F.embedding(tokens, z, padding_idx=5))(t) * c).sum())(table)
    assert (g[5] == 0).all() and torch.equal(g[0], c[0, 0])
    g = grad(lambda t: (decomposed(lambda z: F.embedding(tokens, z, padding_idx=-6))(t) * c).sum())(table)
    assert (g[0] == 0).all()
    short = renormalise(table, 0.5)
    assert (short.norm(dim=1) <= 0.5).all()
    torch.testing.assert_close(renormalise(short, 0.5), short, rtol=0, atol=0)
    other = nn.Embedding(6, 4, max_norm=0.5, dtype=DOUBLE)
    other.weight.data.copy_(table)
    torch.testing.assert_close(decomposed(lambda w: F.embedding(tokens, w, max_norm=0.5))(table), other(tokens))


def test_constants_are_recorded_and_replayed():
    tape, f = Constants(), lambda x: x * x.detach()
    with DecompositionMode(tape):
        f(X)
    with DecompositionMode(tape.rewind()):
        assert torch.equal(f(2 * X), 2 * X * X)
    with DecompositionMode():
        assert torch.equal(f(2 * X), 4 * X * X)


def test_a_callers_no_grad_is_no_constant():
    layer = module(lambda: nn.Linear(4, 3))
    named = dict(layer.named_parameters())
    with torch.no_grad():
        g = grad(lambda w: decomposed(lambda x: functional_call(layer, named | {"weight": w}, (x,)))(X).sum())(
            layer.weight
        )
    assert g.abs().sum() > 0
