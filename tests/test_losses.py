"""Every closed form of a loss against autograd, on [n, C] and on [g, n, C]."""

import pytest
import torch
from torch.func import grad, hessian, jacfwd, vmap
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from explainlib.losses import (
    BINARY_CROSS_ENTROPY,
    CROSS_ENTROPY,
    SQUARED_ERROR,
    TOKEN_CROSS_ENTROPY,
    Loss,
    require_loss,
    require_targets,
)
from tests.problems import normal


def quartic(outputs, y):
    return ((outputs - y) ** 4).sum(-1) + outputs.prod(-1)


LABELS = torch.tensor([0, 2, 1, 2, 0])
CASES = {
    "cross_entropy": (CROSS_ENTROPY, LABELS), "squared_error": (SQUARED_ERROR, normal(5, 3, seed=1)),
    "callable": (require_loss(quartic), normal(5, 3, seed=1)),
    "torch's own": (require_loss(lambda f, y: cross_entropy(f, y, reduction="none", label_smoothing=0.1)), LABELS),
}  # fmt: skip


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def of_one(loss, y):
    return lambda f: loss.function(f[None], y[None])[0]


@pytest.mark.parametrize("g", [None, 1, 4])
def test_all_derivatives(case, g):
    loss, y = case
    f = normal(5, 3) if g is None else normal(g, 5, 3)
    u = normal(*f.shape, seed=2)
    value, slope = loss.value(f, y), loss.gradient(f, y)
    curved, third = loss.hessian_product(f, y, u), loss.third_product(f, y, u)
    assert value.shape == f.shape[:-1] and slope.shape == curved.shape == third.shape == f.shape
    for index in [(i,) for i in range(5)] if g is None else [(k, i) for k in range(g) for i in range(5)]:
        one, at, along = of_one(loss, y[index[-1]]), f[index], u[index]
        assert torch.allclose(value[index], one(at))
        assert torch.allclose(slope[index], grad(one)(at))
        assert torch.allclose(curved[index], hessian(one)(at) @ along)
        assert torch.allclose(third[index], torch.einsum("abc,b,c->a", jacfwd(hessian(one))(at), along, along))


def test_hessian(case):
    loss, y = case
    f = normal(5, 3)
    got = loss.hessian(f, y)
    assert torch.allclose(got, got.mT)
    for i in range(5):
        assert torch.allclose(got[i], hessian(of_one(loss, y[i]))(f[i]))


def test_one_set_of_outputs_meets_many_directions(case):
    loss, y = case
    f, u = normal(5, 3), normal(4, 5, 3, seed=2)
    for product in (loss.hessian_product, loss.third_product):
        together = product(f, y, u)
        assert torch.allclose(together, torch.stack([product(f, y, row) for row in u]))


def test_under_vmap(case):
    loss, y = case
    f = normal(4, 5, 3)
    assert torch.allclose(vmap(loss.value, in_dims=(0, None))(f, y), loss.value(f, y))


def test_cross_entropy_does_not_see_the_shift_and_survives_large_logits():
    f = normal(5, 3) * 1e3
    for method in (CROSS_ENTROPY.value, CROSS_ENTROPY.gradient):
        assert torch.isfinite(method(f, LABELS)).all()
        assert torch.allclose(method(f, LABELS), method(f + 7.0, LABELS))
    assert CROSS_ENTROPY.hessian(f, LABELS).sum(-1).abs().max() < 1e-12


def test_squared_error_has_no_half():
    assert SQUARED_ERROR.value(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0]])).item() == 4.0


def test_names_and_objects():
    assert require_loss("cross_entropy") is CROSS_ENTROPY and require_loss("squared_error") is SQUARED_ERROR
    assert require_loss(CROSS_ENTROPY) is CROSS_ENTROPY and isinstance(require_loss(quartic), Loss)
    with pytest.raises(
        ValueError, match="unknown.*'cross_entropy', 'token_cross_entropy', 'binary_cross_entropy', 'squared_error'"
    ):
        require_loss("hinge")


@pytest.mark.parametrize("g", [None, 3])
def test_one_logit(g):
    """Every closed form of the binary loss against autograd of torch's own, and against two logits [0, f]."""
    y = torch.tensor([0, 1, 1, 0, 1])
    f = normal(5, 1) if g is None else normal(g, 5, 1)
    u = normal(*f.shape, seed=2)
    torchs = Loss("torch's own", lambda f, y: binary_cross_entropy_with_logits(f[:, 0], y.to(f), reduction="none"))
    for method, arguments in (
        ("value", ()), ("gradient", ()), ("hessian_product", (u,)), ("third_product", (u,)), ("hessian", ())
    ):  # fmt: skip
        if method == "hessian" and g:
            continue
        got, want = (getattr(loss, method)(f, y, *arguments) for loss in (BINARY_CROSS_ENTROPY, torchs))
        assert got.shape == want.shape and torch.allclose(got, want, rtol=1e-10, atol=1e-12), method
    both = CROSS_ENTROPY.value(torch.cat([0 * f, f], -1), y)
    assert torch.allclose(BINARY_CROSS_ENTROPY.value(f, y), both, rtol=1e-12)
    far = BINARY_CROSS_ENTROPY.value(torch.tensor([[-800.0], [800.0]]), torch.tensor([1, 0]))
    assert torch.equal(far, torch.tensor([800.0, 800.0]))
    assert BINARY_CROSS_ENTROPY.hessian(torch.tensor([[40.0]]), torch.tensor([0])).item() > 0


def test_labels_of_one_logit():
    assert require_loss("binary_cross_entropy") is BINARY_CROSS_ENTROPY
    y = torch.tensor([0, 1, 1])
    assert require_targets(BINARY_CROSS_ENTROPY, "train.y", y, 1) is y
    with pytest.raises(ValueError, match="the model has 2; pass loss='cross_entropy'"):
        require_targets(BINARY_CROSS_ENTROPY, "train.y", y, 2)
    with pytest.raises(ValueError, match="labels from 0 to 2"):
        require_targets(BINARY_CROSS_ENTROPY, "train.y", y + y, 1)
    with pytest.raises(TypeError, match=r"train.y.long\(\)"):
        require_targets(BINARY_CROSS_ENTROPY, "train.y", y.double(), 1)
    with pytest.raises(ValueError, match="always 0; pass loss='binary_cross_entropy'"):
        require_targets(CROSS_ENTROPY, "train.y", y, 1)


@pytest.mark.parametrize("mean", [cross_entropy, lambda f, y: cross_entropy(f, y)])
def test_a_loss_that_averages_is_told_so(mean):
    """torch's own cross_entropy bears the name of ours; it must not pass for it."""
    with pytest.raises(ValueError, match=r"shape \[\], expected \[5\].*reduction='none'"):
        require_loss(mean).value(normal(5, 3), LABELS)


TOKENS = torch.tensor([[0, -100, 2], [1, 1, -100], [-100, -100, 0], [2, 0, 1], [1, 2, 2]])


@pytest.mark.parametrize("g", [None, 4])
def test_tokens_are_cross_entropies_summed_where_there_is_a_target(g):
    f = normal(5, 9) if g is None else normal(g, 5, 9)
    loss, u = TOKEN_CROSS_ENTROPY, normal(*f.shape, seed=2)

    def plain(f):
        logits, y = f.reshape(-1, 3), TOKENS.expand(*f.shape[:-2], 5, 3).reshape(-1)
        each = cross_entropy(logits, y, reduction="none", ignore_index=-100)
        return each.view(*f.shape[:-1], 3).sum(-1)

    torch.testing.assert_close(loss.value(f, TOKENS), plain(f))
    slope = grad(lambda f: plain(f).sum())
    torch.testing.assert_close(loss.gradient(f, TOKENS), slope(f))
    product = lambda v: torch.func.jvp(slope, (f,), (v,))[1]  # noqa: E731
    torch.testing.assert_close(loss.hessian_product(f, TOKENS, u), product(u))
    third = torch.func.jvp(lambda f: torch.func.jvp(slope, (f,), (u,))[1], (f,), (u,))[1]
    torch.testing.assert_close(loss.third_product(f, TOKENS, u), third)
    assert (loss.gradient(f, TOKENS).unflatten(-1, (3, 3))[..., TOKENS == -100, :] == 0).all()


@pytest.mark.parametrize(
    ("y", "outputs", "said"),
    [
        (torch.tensor([0, 1]), 9, "expected int64 .n, tokens."),
        (TOKENS, 10, "are not 3 tokens"),
        (TOKENS, 6, "the model has 2 outputs"),
        (torch.full((2, 3), -100), 9, "no target in example 0"),
        (torch.tensor([[0, 1, 2], [-100, -100, -100]]), 9, "no target in example 1"),
    ],
)
def test_targets_of_tokens(y, outputs, said):
    with pytest.raises((TypeError, ValueError), match=said):
        require_targets(TOKEN_CROSS_ENTROPY, "y", y, outputs)


def test_labels_of_tokens_are_no_class_labels():
    with pytest.raises(TypeError, match="token_cross_entropy"):
        require_targets(CROSS_ENTROPY, "train.y", TOKENS, 9)
