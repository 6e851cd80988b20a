"""Hessian blocks of groups: the plain route against Kronecker products written out, the kernel's rules, the kernel."""

import inspect

import pytest
import torch
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.nn.functional import cross_entropy

from explainlib.kernels import agreement, group_hessians
from explainlib.kernels.groups import hessians, plain, program
from tests.kernels.builds import builds_neither_spill_nor_add_atomically, interpreted_comparisons_hold
from tests.kernels.test_triton import needs_triton

MEMBERS, OFFSETS = torch.tensor([3, 1, 8, 0, 1, 2, 3, 4, 5, 8]), torch.tensor([0, 2, 2, 3, 10])
D = torch.float64


def operands(n=9, C=3, d=4, seed=0):
    """Return p, x and weights; rows of p need not sum to 1."""
    g = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(shape, generator=g, dtype=D)  # noqa: E731
    return normal(n, C).softmax(1), normal(n, d), normal(n).square()


def summed(p, x, weights):
    """Return the sum over members of Kronecker products."""
    blocks = []
    for start, stop in zip(OFFSETS[:-1].tolist(), OFFSETS[1:].tolist(), strict=True):
        H = p.new_zeros(p.shape[1] * x.shape[1], p.shape[1] * x.shape[1])
        for i in MEMBERS[start:stop].tolist():
            H = H + weights[i] * torch.kron(torch.diag(p[i]) - torch.outer(p[i], p[i]), torch.outer(x[i], x[i]))
        blocks.append(H)
    return torch.stack(blocks)


def grouped(p, x, weights):
    return group_hessians(p, x, weights, MEMBERS, OFFSETS)


def same(got, want, tolerance=1e-12):
    got, want = (each if isinstance(each, tuple) else (each,) for each in (got, want))
    assert all(each.abs().sum() > 0 for each in want), "a comparison with nothing"
    for g, w in zip(got, want, strict=True):
        assert g.shape == w.shape and (g - w).abs().max() <= tolerance * w.abs().max()


@pytest.mark.parametrize("memory", [1, 3000, 2**20])
@pytest.mark.parametrize("C", [1, 2, 5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_sum_in_any_parts(memory, C, dtype):
    p, x, weights = operands(C=C)
    p, x, weights = (2 * p.to(dtype), x.mT.contiguous().mT.to(dtype), weights.to(dtype))
    scaled = weights[:, None] * p
    got = plain.group_products(scaled, scaled, p, x, x, MEMBERS, OFFSETS, memory=memory)
    want = summed(p.double(), x.double(), weights.double())
    same(got.double(), want, 1e-13 if dtype == D else 2e-6)
    assert got.dtype == dtype and not got[1].any(), "an empty group gives zeros"


def test_it_is_the_hessian_of_the_losses():
    _, x, weights = operands()
    y, W = torch.arange(9) % 3, operands(3, 4, 4, seed=5)[1]

    def loss(W):
        losses = weights * cross_entropy(x @ W.T, y, reduction="none")
        return torch.stack(
            [losses[MEMBERS[s:e]].sum() for s, e in zip(OFFSETS.tolist(), OFFSETS[1:].tolist(), strict=False)]
        )

    want = jacfwd(jacrev(loss))(W).reshape(4, 12, 12)
    got = grouped((x @ W.T).softmax(1), x, weights)
    assert torch.allclose(got, want, rtol=0, atol=1e-13)


def test_gathered_numbers_stay_within_the_memory():
    """A thousand members of one group and a thousand groups of one: rectangles of at most so many places and groups."""
    for sizes in ([1000], [1] * 1000, [1, 500, 1, 1, 200], [0, 0, 0], []):
        members, offsets = torch.arange(sum(sizes)), torch.tensor([0, *sizes]).cumsum(0)
        seen, found = torch.zeros(len(sizes), dtype=torch.int64), []
        for groups, index, inside in plain.gathers(members, offsets, 30, 8):
            assert index.numel() <= 30 and len(index) <= 8
            seen[groups] += inside[..., 0].sum(1)
            found += index[inside[..., 0]].tolist()
        assert sorted(found) == members.tolist() and seen.tolist() == sizes


@pytest.fixture
def kernel(monkeypatch):
    """Send everything through the kernel's rules, to a kernel that autograd cannot look into."""
    calls = []

    def opaque(a, u, v, x, y, members, offsets, *, symmetric, precision):
        calls.append(len(a))
        if symmetric:
            assert x is y or torch.equal(x, y)
        factors = [torch.from_numpy(each.detach().numpy().copy()) for each in (a, u, v, x, y)]  # no dual, no mapped one
        return plain.group_products(*factors, members, offsets)

    monkeypatch.setattr(program, "launch", opaque)
    monkeypatch.setattr(hessians, "runs_on_triton", lambda x, positions: True)
    monkeypatch.setattr(agreement, "_agreed", {})
    grouped(*operands())  # the trial
    calls.clear()
    yield calls
    assert calls, "the kernel was never asked"


def scalar(function):
    """A scalar with every derivative; entries count differently, because those of a Hessian sum to zero."""

    def value(*given):
        K = function(*given)
        return (torch.sin(0.1 * K) * torch.cos(torch.arange(K.numel(), dtype=D)).view(K.shape)).sum()

    return value


ALL = (0, 1, 2)


def test_first_derivatives_of_the_kernel(kernel):
    given, tangents = operands(), operands(seed=1)
    same(grouped(*given), summed(*given))
    same(grad(scalar(grouped), ALL)(*given), grad(scalar(summed), ALL)(*given))
    same(jvp(grouped, given, tangents), jvp(summed, given, tangents))
    for k in ALL:
        only = lambda f, k=k: lambda each: f(*given[:k], each, *given[k + 1 :])  # noqa: E731
        same(jvp(only(grouped), (given[k],), (tangents[k],)), jvp(only(summed), (given[k],), (tangents[k],)))


def test_second_derivatives_of_the_kernel_in_any_order(kernel):
    given = operands(n=9, C=2, d=2)
    twice = [
        lambda f, k: hessian(f, k),
        lambda f, k: jacrev(jacrev(f, k), k),
        lambda f, k: jacfwd(jacfwd(f, k), k),
        lambda f, k: jacrev(jacfwd(f, k), (k + 1) % 3),
    ]
    for k in ALL:
        for order in twice:
            same(order(scalar(grouped), k)(*given), order(scalar(summed), k)(*given), 1e-10)


@pytest.mark.parametrize("dims", [(0, None, None), (None, 1, None), (None, None, 0), (0, 1, 0)])
def test_mapped_over(kernel, dims):
    given = operands()
    stacks = [x if k is None else torch.stack([x, -2 * x, x + 1], k) for x, k in zip(given, dims, strict=True)]
    same(vmap(grouped, dims)(*stacks), vmap(summed, dims)(*stacks))
    assert kernel == [3], "one launch for the whole map"
    same(vmap(grad(scalar(grouped), ALL), dims)(*stacks), vmap(grad(scalar(summed), ALL), dims)(*stacks), 1e-10)


def test_plain_autograd_both_ways(kernel):
    given = [each.requires_grad_() for each in operands(n=9, C=2, d=1)]
    assert torch.autograd.gradcheck(grouped, given, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(grouped, given, check_fwd_over_rev=True, fast_mode=True)


def test_the_plain_route_is_differentiable():
    given = [each.requires_grad_() for each in operands(n=9, C=2, d=1)]
    assert torch.autograd.gradcheck(grouped, given, check_forward_ad=True) and torch.autograd.gradgradcheck(
        grouped, given
    )


def test_a_kernel_that_is_wrong_is_not_used(monkeypatch):
    monkeypatch.setattr(hessians, "runs_on_triton", lambda x, positions: True)
    monkeypatch.setattr(agreement, "_agreed", {})
    monkeypatch.setattr(
        program, "launch", lambda a, u, v, x, y, m, o, **_: plain.group_products(a, u, v, x, y, m, o) * 2
    )
    with pytest.warns(UserWarning, match="sums Hessians of groups does not agree with plain PyTorch on cpu"):
        same(grouped(*operands()), summed(*operands()))


P, X, WEIGHTS = operands()
WRONG = {
    "half precision": ({"p": P.half(), "x": X.half(), "weights": WEIGHTS.half()}, TypeError, "expected float32 or"),
    "two dtypes": ({"p": P.float()}, TypeError, "p has dtype torch.float32, x torch.float64"),
    "other examples": ({"x": X[:8]}, ValueError, r"x has shape \[8, 4\], expected \[9, any\]"),
    "other weights": ({"weights": WEIGHTS[:8]}, ValueError, r"weights has shape \[8\]"),
    "no class": ({"p": P[:, :0]}, ValueError, "nothing to multiply"),
    "members of int32": ({"members": MEMBERS.int()}, TypeError, r"members has dtype torch.int32, .* members.long\(\)"),
    "no example": ({"members": MEMBERS + 1}, ValueError, "member 9 is outside the 9 examples"),
    "a negative member": ({"members": MEMBERS - 1}, ValueError, "member -1 is outside"),
    "offsets that fall": ({"offsets": torch.tensor([0, 5, 3, 10])}, ValueError, "offsets has to rise from 0 to the 10"),
    "offsets that end early": ({"offsets": torch.tensor([0, 5])}, ValueError, "offsets has to rise"),
    "no offsets": ({"offsets": torch.tensor([], dtype=torch.int64)}, ValueError, "offsets has to rise"),
    "a table of members": ({"members": MEMBERS[:, None]}, ValueError, "members has shape"),
    "another device": ({"members": MEMBERS.to("meta")}, ValueError, "members is on meta"),
    "a list": ({"x": X.tolist()}, TypeError, "x is a list, not a tensor"),
    "a precision": ({"precision": "fast"}, ValueError, "precision='fast' is unknown"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_bad_operands(name, monkeypatch):
    change, error, message = WRONG[name]
    given = {"p": P, "x": X, "weights": WEIGHTS, "members": MEMBERS, "offsets": OFFSETS} | change
    for check in ("require_factors", "require_members"):  # a person does not have the import hook
        monkeypatch.setattr(hessians, check, inspect.unwrap(getattr(hessians, check)))
    with pytest.raises(error, match=message):
        inspect.unwrap(group_hessians)(**given)


def test_no_groups_and_no_members():
    assert group_hessians(P, X, WEIGHTS, MEMBERS[:0], torch.tensor([0])).shape == (0, 12, 12)
    assert not group_hessians(P, X, WEIGHTS, MEMBERS[:0], torch.tensor([0, 0, 0])).any()


@needs_triton(interpreted=True)
def test_interpreted_kernel_on_ragged_groups(tmp_path):
    interpreted_comparisons_hold("group_comparisons", 13, tmp_path)


@needs_triton(interpreted=False)
@pytest.mark.parametrize("sm", [80, 90, 100])
def test_no_build_spills_or_adds_atomically(tmp_path, sm):
    builds_neither_spill_nor_add_atomically("groups", "build_groups", sm, tmp_path)
