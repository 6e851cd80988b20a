"""The plain Gram is the sum it stands for, in any tiling; its cotangent is what autograd finds."""

import subprocess
import sys
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from explainlib.kernels import layer_gram, reference
from tests.kernels.factors import SHAPES, factors, summed


@pytest.mark.parametrize("memory", [1, 900, 2**20])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_sum(shape, memory):
    given = factors(*shape)
    assert torch.allclose(reference.layer_gram(*given, memory=memory), summed(*given), rtol=0, atol=1e-12)


@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("memory", [1, 900, 5000, 2**20])
@pytest.mark.parametrize("shape", [*SHAPES, (9, 9, 2, 3, 4, 5), (9, 9, 1, 1, 4, 5)])
def test_tiles_cover_every_pair_once(shape, memory, symmetric, inplace):
    a, g, a_, g_ = factors(*shape)
    if symmetric:
        a_, g_ = a, g
    want, seen = summed(a, g, a_, g_), torch.zeros(len(a), len(a_))
    for rows, columns, tile in reference.gram_tiles(a, g, a_, g_, memory=memory, symmetric=symmetric, inplace=inplace):
        assert torch.allclose(tile, want[rows, columns], rtol=0, atol=1e-12)
        seen[rows, columns] += 1
        assert not symmetric or columns.start >= rows.start  # half the work
    assert seen.max() == 1 and seen.triu().equal(torch.ones_like(seen).triu())
    assert seen.bool().all() or symmetric


class LiveBytes(TorchDispatchMode):
    """The most bytes that the results of operations inside the block held at a time; views count as nothing."""

    def __init__(self):
        super().__init__()
        self.now, self.peak, self.seen = 0, 0, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        at = out.untyped_storage().data_ptr()
        if at not in self.seen:
            size = out.untyped_storage().nbytes()
            self.now += size
            self.seen.add(at)
            self.peak = max(self.peak, self.now)
            weakref.finalize(out, self.freed, at, size)
        return out

    def freed(self, at, size):
        self.now -= size
        self.seen.discard(at)


@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
def test_position_products_stay_within_the_memory(symmetric, inplace):
    a, g, a_, g_ = factors(40, 40, 6, 6, 3, 2)
    if symmetric:
        a_, g_ = a, g
    for memory in (20_000, 200_000, 10**6):
        with LiveBytes() as live:
            tiles = reference.gram_tiles(a, g, a_, g_, memory=memory, symmetric=symmetric, inplace=inplace)
            sums = max(7 * tile.nbytes for *_, tile in tiles)  # a tile, before it is summed over p
        products = live.peak - a.nbytes - g.nbytes
        assert 0.3 * memory < live.peak <= memory + sums, (memory, live.peak, products)


def test_plain_tiles_bring_no_triton():
    code = "import sys, explainlib.kernels.reference; print('triton' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "False", run.stdout + run.stderr


@pytest.mark.parametrize("shape", SHAPES)
def test_both_routes_of_the_cotangent(shape):
    a_i, g_i, a_j, g_j = (x.requires_grad_() for x in factors(*shape))
    v = torch.randn(shape[0], shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    want = torch.autograd.grad((v * summed(a_i, g_i, a_j, g_j)).sum(), (a_i, g_i, a_j, g_j))
    for memory in (1, 2**20):
        got = (
            reference.factor_cotangent(v, g_i, a_j, g_j, memory=memory),
            reference.factor_cotangent(v, a_i, g_j, a_j, memory=memory),
            reference.factor_cotangent(v.mT, g_j, a_i, g_i, memory=memory),
            reference.factor_cotangent(v.mT, a_j, g_i, a_i, memory=memory),
        )
        assert all(torch.allclose(x, y, rtol=0, atol=1e-12) for x, y in zip(got, want, strict=True))


def test_the_shapes_take_both_routes():
    """(n + m) o d numbers of materialised gradients against n P m Q products."""
    assert {(n + m) * o * d <= n * P * m * Q for n, m, P, Q, d, o in SHAPES} == {True, False}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    """A thousand positions of one: half precision would stop growing."""
    ones = torch.ones(1, 60, 1, dtype=dtype)
    got = layer_gram(ones, ones, ones[:, :1], ones[:, :1])
    assert got.dtype == dtype and got.item() == 60
    given = [x.to(dtype) for x in factors(3, 4, 5, 2, 6, 3)]
    want = summed(*(x.double() for x in given))
    assert torch.allclose(layer_gram(*given).double(), want, rtol=torch.finfo(dtype).eps, atol=1e-5)


def test_dispatch_on_the_cpu_is_plain_and_differentiable():
    given = [x.requires_grad_() for x in factors(3, 2, 2, 2, 3, 2)]
    assert torch.autograd.gradcheck(layer_gram, given) and torch.autograd.gradgradcheck(layer_gram, given)
