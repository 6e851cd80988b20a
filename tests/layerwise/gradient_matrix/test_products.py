"""Everything made of per-example gradients, against the gradients themselves; float64, to 1e-10."""

import warnings

import pytest
import torch
from torch import nn

from explainlib.layerwise import (
    FallbackWarning,
    GradientSource,
    capture,
    combination,
    gradients,
    gram,
    norms,
    per_example,
    product,
)
from explainlib.params import Parameters
from tests.layerwise.nets import FALLBACK, READ, Hidden, jacobian, picture_net, seeded
from tests.problems import normal

TOLERANCE = 1e-10


def problem(make, x, choice="all"):
    parameters = Parameters(seeded(make), choice)
    C = parameters.outputs(parameters.theta, x[:1]).shape[1]
    cotangents = normal(len(x), C, seed=3)
    return parameters, cotangents, jacobian(parameters, x, cotangents)


def close(got, want):
    assert got.shape == want.shape
    assert (got - want).abs().max() <= TOLERANCE * (1 + want.abs().max())


def assert_all_match(a, b, J, J_, **memory):
    """The six results for a and for the pair a, b against the materialised gradients."""
    p = J.shape[1]
    close(gram(a, a, **memory), J @ J.T)
    close(gram(a, b, **memory), J @ J_.T)
    close(norms(a, **memory), J.square().sum(1))
    for k in (1, 4):
        vectors, weights = normal(k, p, seed=5), normal(k, len(J), seed=6)
        close(product(a, vectors, **memory), J @ vectors.T)
        close(combination(a, weights, **memory), weights @ J)
    close(per_example(a), J)
    close(per_example(a, [4, 0, 5]), J[[4, 0, 5]])


@pytest.mark.parametrize("kept", [True, False], ids=["capture", "source"])
@pytest.mark.parametrize("name", READ)
def test_layers_that_are_read(name, kept):
    parameters, cotangents, J = problem(*READ[name])
    x = READ[name][1]
    make = capture if kept else gradients
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        a = make(parameters, parameters.theta, x, cotangents)
        b = make(parameters, parameters.theta, x[:3], cotangents[:3])
    assert J.abs().max() > 1e-3
    assert_all_match(a, b, J, J[:3])


@pytest.mark.parametrize("name", ["text", "tied", "attention, causal", "attention, masks of numbers", "places"])
def test_in_float32(name):
    parameters, cotangents, J = problem(*READ[name])
    single, x = Parameters(parameters.module.requires_grad_().float()), READ[name][1]
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        a = gradients(single, single.theta, x, cotangents.float())
    vectors, weights = normal(3, J.shape[1], seed=5), normal(3, len(J), seed=6)
    results = {
        gram(a, a): J @ J.T, norms(a): J.square().sum(1), product(a, vectors.float()): J @ vectors.T,
        combination(a, weights.float()): weights @ J,
    }  # fmt: skip
    for got, want in results.items():
        assert got.dtype == torch.float32 and (got - want).norm() < 2e-6 * want.norm()


@pytest.mark.parametrize("name", FALLBACK)
def test_layers_that_are_not_read_fall_back_and_say_so_once(name):
    make, x, names = FALLBACK[name]
    parameters, cotangents, J = problem(make, x)
    with pytest.warns() as every:
        a = gradients(parameters, parameters.theta, x, cotangents)
        b = gradients(parameters, parameters.theta, x[:3], cotangents[:3])
    said = [warning for warning in every if warning.category is FallbackWarning]
    assert len(said) == 1 and all(one in str(said[0].message) for one in names)
    assert set(a.plan.fallback) == set(names)
    assert_all_match(a, b, J, J[:3])


def test_what_is_not_chosen_needs_no_reading():
    x = normal(7, 4)
    chosen = ["read.weight", "inner.bias"]
    parameters, cotangents, J = problem(Hidden, x, chosen)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        a = gradients(parameters, parameters.theta, x, cotangents)
    assert_all_match(a, a, J, J)


@pytest.mark.parametrize("choice", ["last", ["0.bias"], ["0.weight", "4.bias"]], ids=str)
def test_subsets(choice):
    x = normal(7, 2, 7, 6)
    parameters, cotangents, J = problem(picture_net(padding=1), x, choice)
    a = gradients(parameters, parameters.theta, x, cotangents)
    assert_all_match(a, a, J, J)


def test_at_another_theta():
    make, x = READ["conv"]
    parameters, cotangents, _ = problem(make, x)
    theta = normal(parameters.theta.numel(), seed=9)
    moved = Parameters(parameters.model_at(theta))
    close(per_example(gradients(parameters, theta, x, cotangents)), jacobian(moved, x, cotangents))


def test_cotangents_from_the_outputs():
    make, x = READ["linear"]
    parameters, _, _ = problem(make, x)
    y = torch.arange(len(x)) % 3
    a = gradients(parameters, parameters.theta, x, lambda f: f.softmax(1) - nn.functional.one_hot(y, 3))
    f = parameters.outputs(parameters.theta, x)
    J = jacobian(parameters, x, f.softmax(1) - nn.functional.one_hot(y, 3))
    close(gram(a, a), J @ J.T)


@pytest.mark.parametrize("name", ["linear", "conv groups", "text", "batch norm", "used twice"])
def test_several_cotangents(name):
    make, x = READ[name]
    parameters, cotangents, _ = problem(make, x)
    several = normal(len(x), 3, cotangents.shape[1], seed=8)
    each = [jacobian(parameters, x, several[:, at]) for at in range(3)]
    J = torch.stack(each, dim=1).flatten(0, 1)
    for make_one in (capture, gradients):
        a = make_one(parameters, parameters.theta, x, several)
        b = make_one(parameters, parameters.theta, x[:2], several[:2])
        assert_all_match(a, b, J, J[:6])
    close(per_example(gradients(parameters, parameters.theta, x, several).cotangent(1)), each[1])


@pytest.mark.parametrize("name", ["linear", "conv groups", "text", "positions", "tied"])
@pytest.mark.parametrize("several", [1, 2])
@pytest.mark.filterwarnings("ignore::explainlib.layerwise.FallbackWarning")
def test_tiles_that_do_not_divide_n(name, several, monkeypatch):
    """With hardly more than the least memory there are many tiles; nothing changes."""
    make, x = {**READ, **FALLBACK}[name][:2]
    parameters, _, _ = problem(make, x)
    C = parameters.outputs(parameters.theta, x[:1]).shape[1]
    cotangents = normal(len(x), several, C, seed=3)
    J = torch.stack([jacobian(parameters, x, cotangents[:, at]) for at in range(several)], dim=1).flatten(0, 1)
    a = gradients(parameters, parameters.theta, x, cotangents)
    b = gradients(parameters, parameters.theta, x[:3], cotangents[:3])
    seen = []
    tile = type(a).tile
    monkeypatch.setattr(type(a), "tile", lambda self, i, j: seen.append(j - i) or tile(self, i, j))
    memory = 3 * several * (a.working_bytes + 2 * a.row_bytes) + 200 * several**2
    assert_all_match(a, b, J, J[: 3 * several], memory=memory)
    assert len(set(seen)) > 1 and max(seen[:-2]) < a.n


def test_memory_too_small_says_how_much_is_needed():
    make, x = READ["conv"]
    parameters, cotangents, _ = problem(make, x)
    a = gradients(parameters, parameters.theta, x, cotangents)
    for work in (
        lambda memory: gram(a, a, memory=memory),
        lambda memory: norms(a, memory=memory),
        lambda memory: product(a, normal(1, a.theta.numel()), memory=memory),
        lambda memory: combination(a, normal(1, 7), memory=memory),
    ):
        with pytest.raises(ValueError, match=r"smallest tile .* takes [\d.]+ kB; raise memory") as refused:
            work(1000)
        needed = float(str(refused.value).split("takes ")[1].split(" kB")[0]) * 1e3
        work(int(1.02 * needed))  # three digits were printed
    with pytest.raises(ValueError, match="above zero"):
        gram(a, a, memory=0)
    with pytest.raises(ValueError, match="use gradients"):
        capture(parameters, parameters.theta, x, cotangents, memory=2000)


def test_laws():
    make, x = READ["conv stride and padding"]
    parameters, cotangents, _ = problem(make, x)
    a = gradients(parameters, parameters.theta, x, cotangents)
    vectors, weights = normal(3, a.theta.numel()), normal(3, a.n, seed=1)
    close(gram(a, a).diagonal(), norms(a))
    assert torch.equal(gram(a, a), gram(a, a).T)
    left, right = (weights.T * product(a, vectors)).sum(0), (combination(a, weights) * vectors).sum(1)
    close(left, right)
    close(gram(a, a), torch.stack([product(a, row[None])[:, 0] for row in per_example(a)]))


def test_the_callers_model_and_the_private_copy_stay_as_they_were():
    make, x = READ["batch norm"]
    parameters, cotangents, _ = problem(make, x)
    before = {name: value.clone() for name, value in parameters.module.state_dict().items()}
    a = gradients(parameters, parameters.theta, x, cotangents)
    gram(a, a)
    assert all(torch.equal(before[name], value) for name, value in parameters.module.state_dict().items())
    assert not any(layer._forward_hooks for layer in parameters.module.modules())
    assert not any(p.requires_grad for p in parameters.module.parameters())


class Noisy(nn.Linear):
    def forward(self, x):
        return super().forward(x) + 0.1 * torch.randn(len(x), 3, dtype=x.dtype)


class Centred(nn.Linear):
    def forward(self, x):
        return super().forward(x) - super().forward(x).mean(0)


@pytest.mark.parametrize(
    "layer, words",
    [(Noisy, "draws random numbers .aten.randn.*model.eval"), (Centred, "depends on the other examples")],
)
def test_a_forward_that_does_not_repeat_itself_is_refused(layer, words):
    parameters = Parameters(layer(4, 3).double())
    with pytest.raises(ValueError, match=words):
        gradients(parameters, parameters.theta, normal(5, 4), normal(5, 3))


def test_bad_arguments():
    make, x = READ["linear"]
    parameters, c, _ = problem(make, x)
    theta = parameters.theta
    a = gradients(parameters, theta, x, c)
    other = gradients(Parameters(seeded(make), "last"), theta[-15:], x, c)
    for work, words in [
        (lambda: gradients(parameters, theta, x, c[:, :2]), r"cotangents has shape \[7, 2\], expected \[7, 3\]"),
        (lambda: gradients(parameters, theta, x, c[:5]), "cotangents has shape"),
        (lambda: gradients(parameters, theta, x, c * float("nan")), "NaN"),
        (lambda: gradients(parameters, theta[:-1], x, c), "theta has shape"),
        (lambda: gradients(parameters, theta, x[:0], c[:0]), "no examples"),
        (lambda: gradients(parameters, theta, x[:, :2], c), "cannot read x"),
        (lambda: product(a, theta[None, :-1]), "vectors has shape"),
        (lambda: combination(a, c.T[:, :4]), "weights has shape"),
        (lambda: gram(a, other), "take both from one Parameters"),
        (lambda: per_example(a, [7]), "outside the 7 gradients"),
    ]:
        with pytest.raises(ValueError, match=words):
            work()


@pytest.mark.parametrize("name", ["linear", "conv", "text", "batch norm"])
@pytest.mark.parametrize("several", [False, True])
def test_outputs_that_are_run_again_give_the_same_gradients(name, several, monkeypatch):
    """Too little memory to keep the passes: outputs are computed once for the cotangents and once for the gradients.

    The cotangents are no odd function of the outputs, so neither their sign nor their order can go astray unseen.
    """
    make, x = READ[name]
    parameters, _, _ = problem(make, x)
    C = parameters.outputs(parameters.theta, x[:1]).shape[1]
    own = nn.functional.one_hot(torch.arange(len(x)) % C, C).double()
    shift = normal(len(x), C, seed=7)

    def slope(f):
        assert f.shape == (len(x), C)
        first = f.softmax(1) - own
        return torch.stack([first, f.exp() * shift], 1) if several else first

    seen, run_again = [], GradientSource._outputs
    monkeypatch.setattr(GradientSource, "_outputs", lambda self, part: seen.append(len(part)) or run_again(self, part))
    with_room = gradients(parameters, parameters.theta, x, slope)
    assert not seen
    memory = 100 * x[0].nbytes
    again = gradients(parameters, parameters.theta, x, slope, memory=memory)
    assert sum(seen) == len(x) and len(seen) > 1  # in parts that the memory holds
    f = parameters.outputs(parameters.theta, x).detach()
    cotangents = slope(f) if several else slope(f)[:, None]
    assert torch.allclose(again.cotangents, cotangents, rtol=1e-12, atol=1e-14)
    J = torch.stack([jacobian(parameters, x, cotangents[:, at]) for at in range(cotangents.shape[1])], 1).flatten(0, 1)
    close(per_example(again), J)
    close(per_example(with_room), J)


def test_outputs_of_many_examples_are_run_again(monkeypatch):
    """Above 65,536 examples no pass is kept."""
    n = 2**16 + 1
    x, net = normal(n, 1), nn.Linear(1, 2).double()
    parameters = Parameters(net)
    seen, run_again = [], GradientSource._outputs
    monkeypatch.setattr(GradientSource, "_outputs", lambda self, part: seen.append(len(part)) or run_again(self, part))
    source = gradients(parameters, parameters.theta, x, lambda f: f.exp())
    assert sum(seen) == n
    rows = [0, 1, n - 1]
    close(per_example(source, rows), jacobian(parameters, x[rows], net(x[rows]).exp().detach()))


def test_cached_rows_leave_memory_for_the_tiles(monkeypatch):
    """Both sides would fit into the memory, but not beside a tile: gram caches what leaves space, and no more."""
    make, x = READ["conv"]
    parameters, cotangents, J = problem(make, x)
    make_side = lambda k: gradients(parameters, parameters.theta, x.repeat(k, 1, 1, 1), cotangents.repeat(k, 1))  # noqa: E731
    a, b = make_side(3), make_side(4)
    J_, J = J.repeat(4, 1), J.repeat(3, 1)
    cost = a.working_bytes + 2 * a.row_bytes
    least = 2 * cost + 16
    asked, newly = [], []
    cached = GradientSource.cached

    def recorded(self, memory):
        kept = cached(self, memory)
        asked.append(memory)
        newly.append(0 if kept is self else self.n * self.row_bytes)
        return kept

    monkeypatch.setattr(GradientSource, "cached", recorded)
    sides = (a.n + b.n) * a.row_bytes
    for memory in (2 * least, 4 * least, sides + least, sides + 2 * least, 2 * sides, 4 * sides, 8 * sides):
        asked.clear()
        newly.clear()
        close(gram(a, b, memory=memory), J @ J_.T)
        assert sum(newly) <= max(0, memory - 2 * least) * 2 / 3 and max(asked) <= max(0, memory - 2 * least) / 3
    assert all(newly)  # with plenty of memory both are cached


@pytest.mark.parametrize("name", ["linear", "conv"])
def test_tiles_take_what_the_memory_holds_and_not_more(name, monkeypatch):
    """r cost_a + s cost_b + 2 r s numbers, beside the share that a weight works with; half of it is not left idle."""
    make, x = READ[name]
    parameters, cotangents, J = problem(make, x)
    a, b = (
        gradients(parameters, parameters.theta, x.repeat(k, *[1] * (x.ndim - 1)), cotangents.repeat(k, 1))
        for k in (9, 12)
    )
    cost = a.working_bytes + 2 * a.row_bytes
    tiles, tile = [], GradientSource.tile
    monkeypatch.setattr(GradientSource, "cached", lambda self, memory: self)
    monkeypatch.setattr(GradientSource, "tile", lambda self, i, j: tiles.append((self, j - i)) or tile(self, i, j))
    for rows in (3, 10, 25):
        memory = rows * 2 * cost + 16 * rows**2
        tiles.clear()
        close(gram(a, b, memory=memory), J.repeat(9, 1) @ J.repeat(12, 1).T)
        r, s = (max(size for side, size in tiles if side is each) for each in (a, b))
        taken = (r + s) * cost + 16 * r * s
        assert memory / 2 < taken <= memory, (rows, r, s)
