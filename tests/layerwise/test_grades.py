"""Grades: every number in exactly one, each grade as large as its foreseen error allows, groups of the sizes asked."""

import pytest
import torch

from explainlib.layerwise import grades
from explainlib.layerwise.grades import ONE, TWO, Grades, Tile, chunks, graded
from tests.problems import normal


def sample(k=40, o=30, d=70, *, fall=0.8):
    """Gradients of length 1 whose energy grows towards the last directions."""
    sizes = fall ** torch.arange(o).flip(0)[:, None] * fall ** torch.arange(d).flip(0)
    numbers = normal(k, o, d).float() * sizes
    return numbers / numbers.flatten(1).norm(dim=1)[:, None, None]


def covered(tiles, shape):
    """How often each number is covered."""
    found = torch.zeros(shape)
    for tile in tiles:
        found[tile.outputs, tile.inputs] += 1
    return found


def test_every_number_is_in_one_grade():
    numbers = sample()
    found = graded(numbers)
    assert all(found) and covered(sum(found, []), numbers.shape[1:]).eq(1).all()
    assert sum(tile.numbers for grade in found for tile in grade) == 30 * 70


@pytest.mark.parametrize(("grade", "top"), [("one", ONE), ("two", TWO)])
def test_the_error_of_a_grade_is_the_one_foreseen(grade, top):
    """All numbers up to a grade, rounded to its units: the error between different gradients is near NOISE, not over."""
    numbers = sample(400, fall=0.9)
    found = graded(numbers)
    upto = [found.none, found.one] + [found.two] * (grade == "two")
    part = (numbers * covered(sum(upto, []), numbers.shape[1:]).bool()).flatten(1).double()
    unit = part.abs().amax(1, keepdim=True) / top
    rounded = (part / unit).round() * unit
    error = (rounded @ rounded.T - part @ part.T)[~torch.eye(400, dtype=torch.bool)]
    assert 0.2 * grades.NOISE < error.square().mean().sqrt() < 1.3 * grades.NOISE


def test_what_is_left_out_is_small_and_nothing_is_where_all_matters():
    numbers = sample()
    none = covered(graded(numbers).none, numbers.shape[1:]).bool()
    assert 0 < numbers.square().mean(0)[none].sum() <= grades.LEFT_OUT
    even = normal(40, 6, 6)
    assert not graded(even / even.flatten(1).norm(dim=1)[:, None, None]).none


def test_no_sample_is_all_core():
    """Nothing is known of gradients that are all zero."""
    found = graded(torch.zeros(0, 4, 5))
    assert sum(tile.numbers for tile in found.core) == 20 and not (found.two or found.one or found.none)


@pytest.mark.parametrize("most", [1, 50, 333, 10**9])
def test_groups_cover_the_tiles_and_have_one_size(monkeypatch, most):
    monkeypatch.setattr(grades, "COLUMNS", 1000)
    tiles = graded(sample()).one
    groups = chunks(tiles, most)
    torch.testing.assert_close(covered(sum(groups, []), (30, 70)), covered(tiles, (30, 70)))
    sizes = [sum(tile.numbers for tile in group) for group in groups]
    highest = max(tile.outputs.stop - tile.outputs.start for tile in tiles)
    assert max(sizes) < min(most, 1000) + highest
    assert min(sizes[:-1], default=max(sizes)) >= max(sizes) - 2 * highest
    assert chunks([], most) == []


def test_cost_counts_products_and_rounding():
    tile = Tile(slice(0, 10), slice(0, 9))
    assert tile.numbers == 90
    assert Grades([tile], [], [], [tile]).cost(5, 1e9) == 90
    assert Grades([], [tile], [], []).cost(0, 1) == pytest.approx(3 * Grades([], [], [tile], []).cost(0, 1))
    assert Grades([], [], [tile], []).cost(100, 5000) == pytest.approx(90 / grades.SPEED + 90 * grades.ROUNDING / 50)
