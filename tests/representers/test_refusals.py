"""Models without a last layer to read, and tables, kernels and inputs that do not belong together."""

import inspect

import pytest
import torch
from torch import nn

from explainlib.models import mlp
from explainlib.representers import kernel, representer_scores
from explainlib.representers.kernels import NoReadoutError
from tests.problems import normal

D = torch.float64
bare_scores = inspect.unwrap(representer_scores)  # the import hook would answer before the checks
X, Z = normal(5, 4), normal(7, 4, seed=1)


class Reads(nn.Module):
    """A model whose last layer is called in a way of its own."""

    def __init__(self, call):
        super().__init__()
        self.call, self.last = call, nn.Linear(4, 3, dtype=D)

    def forward(self, x):
        return self.call(self.last, x)


@pytest.mark.parametrize(
    "call",
    [
        lambda last, x: last(x) + last(2 * x),
        lambda last, x: last(torch.stack([x, 2 * x], 1)).sum(1),
        lambda last, x: last(torch.cat([x, 2 * x], 1).view(-1, 4)).view(-1, 2, 3).sum(1),
    ],
    ids=["twice", "sequences", "two rows an example"],
)
def test_a_last_layer_reads_one_row_an_example(call):
    with pytest.raises(NoReadoutError, match="there is no last-layer kernel; use kind='ntk'"):
        kernel(Reads(call), X, Z, kind="last_layer")


def test_a_last_layer_may_read_anything_else():
    model = Reads(lambda last, x: last(x.sin()))
    read = torch.cat([X.sin(), torch.ones(5, 1, dtype=D)], 1) @ torch.cat([Z.sin(), torch.ones(7, 1, dtype=D)], 1).T
    torch.testing.assert_close(kernel(model, X, Z, kind="last_layer"), read)


@pytest.mark.parametrize("kind", ["ntk", "last_layer"])
def test_both_inputs_have_to_fit_the_model(kind):
    model = mlp([4, 6, 3], "tanh", dtype=D)
    with pytest.raises((ValueError, TypeError), match="x"):
        kernel(model, X.float(), Z, kind=kind)
    with pytest.raises((ValueError, TypeError), match="z"):
        kernel(model, X, Z.float(), kind=kind)
    with pytest.raises((ValueError, TypeError), match="x"):
        kernel(model, normal(5, 3), Z, kind=kind)


@pytest.mark.parametrize("shape", [(5, 8), (5, 8, 2), (5, 8, 2, 2), (5,), (5, 7, 2, 2, 2)])
def test_kernels_of_other_examples_are_refused(shape):
    with pytest.raises(ValueError, match="of the same n training examples"):
        bare_scores(torch.ones(7, 2), torch.ones(shape), output=0)


@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7, 3, 3), (5, 7, 2, 3), (5, 7, 3, 2)])
def test_kernels_of_other_outputs_are_refused(shape):
    with pytest.raises(ValueError, match="outputs, the importance 2; use one model for both"):
        bare_scores(torch.ones(7, 2), torch.ones(shape), output=0)


@pytest.mark.parametrize("output", [-1, 2, True])
def test_an_output_is_one_of_the_importances(output):
    with pytest.raises(ValueError, match="one of the outputs 0 to 1"):
        bare_scores(torch.ones(7, 2), torch.ones(5, 7), output=output)
