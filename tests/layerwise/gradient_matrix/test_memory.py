"""Memory of the gradient matrix: what a row takes, what fits exactly, and that tiles and passes keep to it."""

import pytest
import torch
from torch import nn

from explainlib import memory as memory_room
from explainlib.layerwise import capture, combination, gradients, gram, norms, per_example, product
from explainlib.layerwise.gradient_matrix.capture import Capture, GradientSource
from explainlib.layerwise.outer_products.materialised import column_and_row_slices, materialised_columns
from explainlib.memory import TooLargeError
from explainlib.params import Parameters
from tests.layerwise.nets import READ, jacobian, seeded
from tests.problems import normal

NAMES = ["linear", "conv", "text", "batch norm", "tied", "attention", "places"]


def source(name, k=1, times=1, examples=7):
    """Gradients for k cotangents an example, of some of a net's examples, repeated."""
    make, x = READ[name]
    parameters, x = Parameters(seeded(make)), x[:examples].repeat(times, *[1] * (x.ndim - 1))
    C = parameters.outputs(parameters.theta, x[:1]).shape[1]
    return gradients(parameters, parameters.theta, x, normal(len(x), k, C, seed=3))


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_row_takes_what_a_capture_holds_of_it(name, k):
    made = source(name, k)
    whole = made.tile(0, made.n)
    held = sum(block.nbytes for block in whole.blocks)
    assert whole.row_bytes == made.row_bytes == -(-held // made.n) > 0
    assert made.working_bytes == whole.working_bytes == max(block.working_bytes for block in whole.blocks)
    assert whole.first_example().n == made.first_example().n == k
    assert whole.tile(0, whole.n) is whole and whole.cached(1) is whole


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_cached_where_they_just_fit(name):
    made = source(name)
    needed = made.n * made.row_bytes
    assert isinstance(made.cached(needed), Capture) and made.cached(needed - 1) is made


@pytest.mark.parametrize("name", NAMES)
def test_a_capture_may_take_all_of_its_memory(name):
    made = source(name)
    given, needed = (made.parameters, made.theta, made.x, made.cotangents[:, 0]), made.n * made.row_bytes
    assert capture(*given, memory=needed).n == made.n
    with pytest.raises(ValueError, match=f"the layers of {made.n} rows take"):
        capture(*given, memory=needed - 1)


def least(needed):
    """The smallest memory of which three quarters are enough."""
    return next(free for free in range(needed, 2 * needed + 2) if free - free // 4 >= needed)


@pytest.mark.parametrize(("name", "k"), [("linear", 3), ("text", 1), ("tied", 2), ("attention", 1)])
def test_the_least_memory_is_enough_and_a_byte_less_is_not(name, k):
    """One example with one: their captures, temporary numbers, and two copies of the products."""
    a, b = source(name, k, examples=2), source(name, examples=1)
    cost, cost_ = (one.working_bytes + 2 * one.row_bytes for one in (a, b))
    p = a.theta.numel()
    for work, needed in (
        (lambda memory: gram(a, b, memory=memory), k * cost + cost_ + 16 * k),
        (lambda memory: norms(a, memory=memory), k * cost),
        (lambda memory: product(a, normal(1, p), memory=memory), k * cost),
        (lambda memory: combination(a, normal(1, a.n), memory=memory), k * cost),
    ):
        work(least(needed))
        with pytest.raises(ValueError, match="raise memory to at least that"):
            work(least(needed) - 1)


@pytest.mark.parametrize("name", ["linear", "conv"])
def test_tiles_and_what_is_cached_together_keep_to_the_memory(name, monkeypatch):
    a, b = source(name, times=9), source(name, times=12)
    J, J_ = per_example(a), per_example(b)
    tiles, kept, tile, cached = [], [], Capture.tile, GradientSource.cached
    monkeypatch.setattr(Capture, "tile", lambda self, i, j: tiles.append((self.n, j - i)) or tile(self, i, j))

    def caching(self, memory):
        found = cached(self, memory)
        kept.append(found.n * found.row_bytes if found is not self else None)
        return found

    monkeypatch.setattr(GradientSource, "cached", caching)
    both = a.n * a.row_bytes + b.n * b.row_bytes
    for share in (3, 4, 8):
        tiles.clear(), kept.clear()
        given = share * both
        assert torch.allclose(gram(a, b, memory=given), J @ J_.T, rtol=1e-10, atol=1e-10)
        assert None not in kept, "both are in memory"
        r, s = (max(size for n, size in tiles if n == one.n) for one in (a, b))
        assert sum(kept) + (r + s) * a.working_bytes + 16 * r * s <= given


@pytest.mark.parametrize(("name", "k"), [("linear", 1), ("conv", 2)])
def test_passes_take_a_quarter_of_the_memory(name, k, monkeypatch):
    """Four times what they record; as many examples as that allows, and one at least."""
    made, sizes = source(name, k), []
    one = k * made.row_bytes
    monkeypatch.setattr(GradientSource, "_capture_of", counted(sizes, GradientSource._capture_of))
    for given, size in ((16 * one * 3, 3), (16 * one * 4 - 1, 3), (one, 1)):
        sizes.clear()
        made.memory = given
        made.tile(0, made.n)
        assert max(sizes) == size and sum(sizes) == 7


def counted(sizes, function):
    def run(self, examples):
        sizes.append(examples.stop - examples.start)
        return function(self, examples)

    return run


def test_more_examples_than_one_pass_takes(monkeypatch):
    sizes = []
    parameters = Parameters(nn.Linear(2, 2).double())
    made = gradients(parameters, parameters.theta, normal(1100, 2), normal(1100, 2, seed=1))
    made.first_example()
    monkeypatch.setattr(GradientSource, "_capture_of", counted(sizes, GradientSource._capture_of))
    made.tile(0, 1100)
    assert max(sizes) == 512 and sum(sizes) == 1100


def test_outputs_are_kept_for_their_gradients_where_a_quarter_of_the_memory_holds_them():
    """Four times what a pass records, of all passes together."""
    parameters, x = Parameters(nn.Linear(4, 200).double()), normal(5, 4)
    needed = 4 * 4 * 5 * (4 + 200) * 8
    for given, passes in ((needed, 1), (needed - 1, 0)):
        made = GradientSource(parameters, parameters.theta, x, lambda f: f.exp(), memory=given)
        assert len(made._forward_passes) == passes


@pytest.mark.parametrize("rows", [[64, 63, 0], [130, 5], [70], None])
def test_rows_of_several_tiles_are_put_where_they_belong(rows):
    net, x, c = nn.Linear(2, 2).double(), normal(140, 2), normal(140, 2, seed=1)
    parameters = Parameters(net)
    J = jacobian(parameters, x, c)
    got = per_example(gradients(parameters, parameters.theta, x, c), rows)
    torch.testing.assert_close(got, J if rows is None else J[rows])


def test_materialised_rows_have_to_fit(monkeypatch):
    made = source("linear")
    monkeypatch.setattr(memory_room, "SMALL", 0)
    monkeypatch.setattr(memory_room, "free_memory", lambda device: 2 * 8 * made.theta.numel())
    assert len(per_example(made, [3, 1])) == 2
    with pytest.raises(TooLargeError, match="3 gradients of p = .* name fewer rows"):
        per_example(made, [3, 1, 0])


@pytest.mark.parametrize("memory", [1, 90, 700, 2**20])
@pytest.mark.parametrize("symmetric", [True, False])
def test_materialised_columns_keep_to_their_memory(memory, symmetric):
    """Input columns of all examples, one at least; they add up to the Gram matrix."""
    left = normal(3, 4, 10), normal(3, 4, 2, seed=1)
    right = left if symmetric else (normal(5, 4, 10, seed=2), normal(5, 4, 2, seed=3))
    column, total, columns = 8 * 2 * (3 if symmetric else 3 + 5), 0, 0
    for mine, theirs in materialised_columns(left, right, memory=memory):
        assert (theirs is mine) == symmetric
        assert mine.nbytes + (0 if symmetric else theirs.nbytes) <= max(memory, column)
        total, columns = total + mine @ theirs.T, columns + mine.shape[1] // 2
    M, M_ = (torch.einsum("npd,npo->nod", *side).flatten(1) for side in (left, right))
    assert columns == 10 and torch.allclose(total, M @ M_.T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("memory", [1, 16, 100, 160, 161, 320, 10**6])
def test_slices_of_columns_and_rows_keep_to_their_memory(memory):
    """All columns of some rows where one row fits, else some columns of one row."""
    a, g = normal(7, 3, 10), normal(7, 3, 2)
    seen = torch.zeros(10, 7)
    for columns, rows in column_and_row_slices(a, g, memory):
        wide, high = columns.stop - columns.start, rows.stop - rows.start
        assert 8 * 2 * wide * high <= max(memory, 16) and (wide == 10 or high == 1)
        seen[columns, rows] += 1
    assert (seen == 1).all()
