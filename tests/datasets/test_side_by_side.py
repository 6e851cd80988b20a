"""Tasks made of the classes of several parts: what each example is called, and where it stands."""

import pytest
import torch

from explainlib.datasets import Tasks


def part(m, ways, shots, seed, names=None):
    y = torch.arange(ways).repeat_interleave(shots).repeat(m, 1)
    x = torch.rand(2, m, ways * shots, 3, generator=torch.Generator().manual_seed(seed))
    classes = None if names is None else [tuple(f"{n}{k}" for n in names) for k in range(m)]
    return Tasks(x[0], y, x[1], y, classes=classes, support_index=y, query_index=y)


def test_classes_follow_each_other_and_examples_keep_their_names():
    a, b = part(4, 2, 3, 0, "ab"), part(4, 1, 2, 1, "c")
    both = Tasks.side_by_side([a, b])
    assert both.ways == 3 and both.support_y[0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert both.classes[2] == ("a2", "b2", "c2")
    for c, source, label in ((0, a, 0), (1, a, 1), (2, b, 0)):
        for side in ("support", "query"):
            x, y = (getattr(both, f"{side}_{axis}") for axis in "xy")
            own = getattr(source, f"{side}_x")[getattr(source, f"{side}_y") == label]
            assert torch.equal(x[y == c], own)
    assert both.support_index is None and both.query_index is None  # the pools may differ


def test_one_part_stays_and_names_may_be_missing():
    a = part(3, 2, 1, 0)
    alone = Tasks.side_by_side([a])
    assert torch.equal(alone.support_x, a.support_x) and alone.classes is None


@pytest.mark.parametrize("parts", [[], [part(3, 1, 1, 0), part(4, 1, 1, 1)]])
def test_parts_that_do_not_belong_together(parts):
    with pytest.raises(ValueError, match="of one number of tasks"):
        Tasks.side_by_side(parts)
