"""One block at a time: its products, its parts and its tensors, against its own materialised gradients."""

import pytest
import torch

from explainlib.layerwise import capture
from explainlib.layerwise.blocks.dense import DenseBlock
from explainlib.layerwise.blocks.embedding import EmbeddingBlock
from explainlib.layerwise.blocks.outer import OuterProductBlock
from explainlib.params import Parameters
from tests.layerwise.nets import READ, jacobian, seeded
from tests.problems import normal


def captured(name, k=1):
    """A capture with k cotangents an example, and the number of its parameters."""
    make, x = READ[name]
    parameters = Parameters(seeded(make))
    C = parameters.outputs(parameters.theta, x[:1]).shape[1]
    return capture(parameters, parameters.theta, x, normal(len(x), k, C, seed=3)), parameters.theta.numel()


def materialised(block, p):
    out = torch.zeros(block.n, p, dtype=torch.float64)
    block.materialise_into(out)
    return out


def close(got, want):
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize(
    "name", ["conv", "conv groups", "positions", "used twice", "text", "layer norm", "tied", "attention"]
)
def test_products_of_a_block(name, k):
    capture_, p = captured(name, k)
    vectors, weights = normal(9, p, seed=5), normal(9, capture_.n, seed=6)
    for block in capture_.blocks:
        J = materialised(block, p)
        assert J.abs().max() > 1e-3
        for memory in (1, 500, 2**20):
            close(block.gram(block, memory=memory), J @ J.T)
            close(block.gram(block.part(slice(0, 2 * k)), memory=memory), J @ J[: 2 * k].T)
            close(block.squared_norms(memory=memory), J.square().sum(1))
            close(block.product(vectors, memory=memory), J @ vectors.T)
            sums = torch.ones_like(vectors)
            block.add_combination(sums, weights, memory=memory)
            close(sums, 1 + weights @ J)


@pytest.mark.parametrize("name", ["conv groups", "used twice", "text", "batch norm", "tied", "attention"])
def test_parts_and_tensors(name):
    capture_, p = captured(name, 2)
    for block in capture_.blocks:
        J = materialised(block, p)
        close(materialised(block.part(slice(4, 8)), p), J[4:8])
        assert block.nbytes == sum(tensor.nbytes for tensor in block.tensors())
        copy = block.with_tensors([tensor.clone() for tensor in block.tensors()])
        close(materialised(copy, p), J)
        assert block.working_bytes >= J[0].count_nonzero() or type(block) is not DenseBlock


def test_each_kind_of_layer_has_its_kind_of_block():
    kinds = [type(block) for block in captured("text")[0].blocks]
    assert kinds == [EmbeddingBlock, OuterProductBlock, OuterProductBlock, DenseBlock]


@pytest.mark.parametrize("name", ["conv", "conv groups", "positions", "used twice"])
def test_the_blocks_of_a_model_add_up(name):
    make, x = READ[name]
    parameters = Parameters(seeded(make))
    cotangents = normal(len(x), parameters.outputs(parameters.theta, x[:1]).shape[1], seed=3)
    J = jacobian(parameters, x, cotangents)
    vectors, weights = normal(20, J.shape[1], seed=5), normal(20, len(J), seed=6)
    for memory in (1, 500, 2000):  # bytes of what one weight works with
        norms_, products, sums = (
            torch.zeros(len(J)).double(),
            torch.zeros(len(J), 20).double(),
            torch.zeros_like(vectors),
        )
        for block in capture(parameters, parameters.theta, x, cotangents).blocks:
            norms_ += block.squared_norms(memory=memory)
            products += block.product(vectors, memory=memory)
            block.add_combination(sums, weights, memory=memory)
        close(norms_, J.square().sum(1))
        close(products, J @ vectors.T)
        close(sums, weights @ J)
