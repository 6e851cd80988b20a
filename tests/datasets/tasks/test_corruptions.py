"""Corruptions: what they change, what they leave, that stronger ones contain weaker ones, and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from explainlib.datasets import ClassPool, Examples, Tasks, fresh_queries, sample_tasks, task_features
from explainlib.datasets.features import spectrum, standardiser
from explainlib.datasets.tasks.corruptions import darken, flip_labels, flip_task_labels, noise_tasks, with_images
from explainlib.datasets.tasks.rotations import rotate, rotation_augmentation

PARTS = st.sampled_from(["both", "support", "query"])
FRACTIONS = st.floats(0, 1)


def drawings(n, seed=0, h=8, w=8):
    """Return n pictures [n, 1, h, w] with no pixel at 0, so that a darkened one shows everywhere."""
    return 0.25 + 0.75 * torch.rand(n, 1, h, w, generator=torch.Generator().manual_seed(seed))


def make_pool(classes=8, each=12, h=8, w=8):
    names = [f"Script{c % 2}/letter{c}" for c in range(classes)]
    return ClassPool(
        drawings(classes * each, 1, h, w), torch.arange(classes).repeat(each), names, [n.split("/")[0] for n in names]
    )


POOL = make_pool()
TASKS = sample_tasks(POOL, 6, ways=3, shots=3, queries=2, seed=2)


def joined(tasks):
    """Return all pictures of each task, support first."""
    return torch.cat([tasks.support_x, tasks.query_x], 1)


def dark(tasks, origin=TASKS):
    """Return which pictures differ from the origin's, [M, s + r]."""
    return (joined(tasks) != joined(origin)).flatten(2).any(2)


# ---------------------------------------------------------------------------------------------------------- darkened


def test_alpha_zero_or_ratio_zero_changes_nothing():
    for same in (darken(TASKS, alpha=0.0), darken(TASKS, alpha=1.0, ratio=0.0)):
        assert all(torch.equal(a, b) for a, b in zip(same.arrays(), TASKS.arrays(), strict=True))
        assert same.classes == TASKS.classes


def test_alpha_one_is_black_and_between_is_linear():
    assert not joined(darken(TASKS, alpha=1.0)).any()
    assert torch.allclose(joined(darken(TASKS, alpha=0.3)), 0.7 * joined(TASKS))


@given(FRACTIONS, FRACTIONS, PARTS, st.integers(0, 5))
def test_a_larger_ratio_darkens_the_same_pictures_and_more(one, other, part, seed):
    few, many = (dark(darken(TASKS, alpha=0.5, ratio=r, part=part, seed=seed)) for r in sorted((one, other)))
    assert not (few & ~many).any()


@given(st.floats(0, 0.99), st.floats(0.01, 1), FRACTIONS, st.integers(0, 5))
def test_a_larger_alpha_darkens_the_same_pictures_and_none_less(one, other, ratio, seed):
    less, more = (joined(darken(TASKS, alpha=a, ratio=ratio, seed=seed)) for a in sorted((one, other)))
    assert (more <= less).all()


def test_the_ratio_counts_pictures_of_each_task_and_part():
    for part, columns, total in (("both", slice(0, 15), 15), ("support", slice(0, 9), 9), ("query", slice(9, 15), 6)):
        which = dark(darken(TASKS, alpha=0.5, ratio=0.5, part=part))
        assert which[:, columns].sum(1).tolist() == [int(total / 2 + 0.5)] * len(TASKS)
        which[:, columns] = False
        assert not which.any()


def test_the_seed_chooses_the_pictures_and_tasks_differ():
    first = dark(darken(TASKS, alpha=1.0, ratio=0.4, seed=0))
    assert torch.equal(first, dark(darken(TASKS, alpha=1.0, ratio=0.4, seed=0)))
    assert not torch.equal(first, dark(darken(TASKS, alpha=1.0, ratio=0.4, seed=1)))
    assert len(first.unique(dim=0)) > 1


def test_darkening_leaves_its_argument_and_the_dtype():
    before = joined(TASKS).clone()
    tasks = darken(TASKS.double(), alpha=0.1)
    assert tasks.support_x.dtype == torch.float64
    assert torch.allclose(joined(tasks), 0.9 * before.double(), rtol=1e-15)
    assert torch.equal(joined(TASKS), before)


def test_darkened_pictures_forget_the_pool():
    tasks = darken(TASKS, alpha=0.5)
    assert tasks.support_index is None and torch.equal(tasks.group, TASKS.group)
    with pytest.raises(ValueError, match="do not know their drawings"):
        fresh_queries(POOL, tasks)


def test_batch_statistics_cancel_a_uniform_darkening_but_not_half_a_one():
    """Features, their standardisation and a linear layer are affine in the brightness; BatchNorm takes that out."""
    fitted = standardiser(spectrum(POOL.x.double()))
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(36, 7), torch.nn.BatchNorm1d(7, eps=1e-12)).double().train()

    def hidden(tasks):
        return layer(task_features(tasks.double(), lambda x: spectrum(x, standardise=fitted)).support_x[0])

    seen = hidden(TASKS)
    assert (hidden(darken(TASKS, alpha=0.6)) - seen).abs().max() < 1e-6
    assert (hidden(darken(TASKS, alpha=0.6, ratio=0.5)) - seen).abs().max() > 0.1


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_outside_is_refused(alpha):
    with pytest.raises(ValueError, match=r"alpha=.* has to lie in 0 to 1"):
        darken(TASKS, alpha=alpha)


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_ratio_outside_is_refused(ratio):
    with pytest.raises(ValueError, match=r"ratio=.* has to lie in 0 to 1"):
        darken(TASKS, alpha=0.5, ratio=ratio)


def test_darkening_wants_pictures():
    features = task_features(TASKS, spectrum)
    with pytest.raises(ValueError, match="before taking features"):
        darken(features, alpha=0.5)
    with pytest.raises(ValueError, match="but black is 0"):
        darken(task_features(TASKS, lambda x: x - 0.5), alpha=0.5)
    with pytest.raises(ValueError, match="part='all' is unknown"):
        darken(TASKS, alpha=0.5, part="all")


# ---------------------------------------------------------------------------------------------------------- pictured


def test_pictured_gives_the_pictures_back():
    features = sample_tasks(POOL.map(spectrum), 6, ways=3, shots=3, queries=2, seed=2)
    assert features.support_x.shape[2:] == (36,)
    for pool in (POOL, POOL.map(spectrum)):
        tasks = with_images(pool, features)
        assert torch.equal(joined(tasks), joined(TASKS))
        assert tasks.classes == features.classes and torch.equal(tasks.support_index, features.support_index)
    assert with_images(POOL.map(spectrum).double(), features.double()).support_x.dtype == torch.float64
    assert torch.equal(task_features(with_images(POOL, features), spectrum).support_x, features.support_x)


def test_pictured_refuses_the_wrong_pool():
    part = POOL.where(lambda name, parent: parent == "Script1")
    with pytest.raises(ValueError, match="pass the pool they come from"):
        with_images(part, TASKS)
    other = ClassPool(POOL.x, POOL.y.flip(0), POOL.names, POOL.parents)
    with pytest.raises(ValueError, match="the pool holds 'Script"):
        with_images(other, TASKS)
    with pytest.raises(ValueError, match="no places in a pool"):
        with_images(POOL, darken(TASKS, alpha=0.5))


# ------------------------------------------------------------------------------------------------------- noise tasks


def test_noise_tasks_have_the_sizes_and_no_pattern():
    noise = noise_tasks(TASKS.double(), 40, seed=0)
    assert len(noise) == 40 and noise.support_x.dtype == torch.float64
    assert noise.support_x.shape[1:] == TASKS.support_x.shape[1:]
    assert noise.query_x.shape[1:] == TASKS.query_x.shape[1:]
    assert torch.equal(noise.query_y[17], TASKS.query_y[0])
    x = joined(noise)
    assert x.min() >= 0 and x.max() <= 1
    assert abs(x.mean() - 1 / 2) < 0.01 and abs(x.var() - 1 / 12) < 0.003  # 38,400 pixels: errors .0015 and .0004
    flat = x.flatten(0, 1).flatten(1)
    assert len(flat.unique(dim=0)) == len(flat)


def test_noise_tasks_are_seeded_and_stay_apart():
    assert torch.equal(joined(noise_tasks(TASKS, 3, seed=5)), joined(noise_tasks(TASKS, 3, seed=5)))
    assert not torch.equal(joined(noise_tasks(TASKS, 3, seed=5)), joined(noise_tasks(TASKS, 3, seed=6)))
    mixed = Tasks.concat([TASKS, noise_tasks(TASKS, 3, seed=5)])
    assert mixed.group.tolist() == list(range(9))
    assert len({name for names in mixed.classes[6:] for name in names}) == 9
    assert all(name.startswith("noise/") for names in mixed.classes[6:] for name in names)


def test_noise_tasks_refuse_features_and_none():
    with pytest.raises(ValueError, match="expected pictures"):
        noise_tasks(task_features(TASKS, spectrum), 3, seed=0)
    with pytest.raises(ValueError, match="n_tasks=0"):
        noise_tasks(TASKS, 0, seed=0)


# --------------------------------------------------------------------------------------------------------- rotations


def test_rotated_is_four_turned_copies_in_one_group():
    four = rotate(TASKS[[4, 2]])
    assert len(four) == 8 and four.group.tolist() == [4, 2] * 4
    origin = joined(TASKS)[[4, 2]]
    for k in range(4):
        assert torch.equal(joined(four)[2 * k : 2 * k + 2], torch.rot90(origin, k, (-2, -1)))
        assert torch.equal(four.support_y[2 * k : 2 * k + 2], TASKS.support_y[[4, 2]])
    name = TASKS.classes[2][1]
    assert [four.classes[row][1] for row in (1, 3, 5, 7)] == [
        name, f"{name} (rotated 90)", f"{name} (rotated 180)", f"{name} (rotated 270)",
    ]  # fmt: skip
    assert four.support_index is None


def test_rotation_is_counter_clockwise():
    bar = torch.zeros(1, 1, 3, 3)
    bar[0, 0, 0, 2] = 1  # upper right goes to upper left
    tasks = Tasks(bar[None], torch.zeros(1, 1, dtype=torch.int64), bar[None], torch.zeros(1, 1, dtype=torch.int64))
    assert rotate(tasks)[1].support_x[0, 0, 0].tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_rotating_what_is_rotated_adds_the_angles():
    twice = rotate(rotate(TASKS[0]))
    assert twice.group.tolist() == [0] * 16
    turns = [(first + second) % 4 for second in range(4) for first in range(4)]
    name = TASKS.classes[0][0]
    for row, k in enumerate(turns):
        assert torch.equal(joined(twice)[row], torch.rot90(joined(TASKS)[0], k, (-2, -1)))
        assert twice.classes[row][0] == (f"{name} (rotated {90 * k})" if k else name)


@given(st.integers(0, 1000))
def test_augmentation_turns_a_class_alike_in_support_and_query(seed):
    new = rotation_augmentation(TASKS, seed)
    assert torch.equal(new.group, TASKS.group)
    for m in range(len(TASKS)):
        for c in range(3):
            before, after = TASKS.classes[m][c], new.classes[m][c]
            k = int(after.removeprefix(before).removeprefix(" (rotated ").rstrip(")") or 0) // 90
            for part in ("support", "query"):
                rows = getattr(TASKS, f"{part}_y")[m] == c
                old, turned = (getattr(tasks, f"{part}_x")[m, rows] for tasks in (TASKS, new))
                assert torch.equal(turned, torch.rot90(old, k, (-2, -1)))


def test_augmentation_uses_every_angle_for_classes_of_one_task():
    assert torch.equal(joined(rotation_augmentation(TASKS, 3)), joined(rotation_augmentation(TASKS, 3)))
    new = [rotation_augmentation(TASKS, seed) for seed in range(30)]
    names = [name for tasks in new for row in tasks.classes for name in row]  # 540 turns, 135 expected of each
    for degrees in (90, 180, 270):
        assert 95 < sum(f"(rotated {degrees})" in name for name in names) < 175
    turns = {tuple(name.partition(" (")[2] for name in row) for tasks in new for row in tasks.classes}
    assert any(len(set(row)) == 3 for row in turns)


def test_rotation_wants_square_pictures():
    wide = sample_tasks(make_pool(h=8, w=6), 2, ways=3, shots=3, queries=2)
    for tasks in (wide, task_features(TASKS, spectrum)):
        with pytest.raises(ValueError, match="expected square pictures"):
            rotate(tasks)
        with pytest.raises(ValueError, match="expected square pictures"):
            rotation_augmentation(tasks, 0)


# ------------------------------------------------------------------------------------------------------- label flips

EXAMPLES = Examples(torch.arange(400.0)[:, None], torch.arange(400) % 4, ["a", "b", "c", "d"])


@given(FRACTIONS, st.integers(0, 100))
def test_flips_are_as_many_as_asked_and_reported(fraction, seed):
    noisy, flipped = flip_labels(EXAMPLES, fraction, seed=seed)
    assert torch.equal(flipped, noisy.y != EXAMPLES.y)
    assert int(flipped.sum()) == int(fraction * 400 + 0.5)
    assert torch.equal(noisy.x, EXAMPLES.x) and noisy.classes == EXAMPLES.classes
    assert int(noisy.y.min()) >= 0 and int(noisy.y.max()) < 4


def test_smaller_flips_are_among_larger_ones():
    few, many = (flip_labels(EXAMPLES, fraction, seed=7) for fraction in (0.2, 0.7))
    assert not (few[1] & ~many[1]).any()
    assert torch.equal(few[0].y[few[1]], many[0].y[few[1]])
    assert not torch.equal(few[1], flip_labels(EXAMPLES, 0.2, seed=8)[1])


def test_flips_reach_the_other_classes_evenly():
    noisy, _ = flip_labels(EXAMPLES, 1.0, seed=0)
    table = torch.zeros(4, 4).index_put_((EXAMPLES.y, noisy.y), torch.tensor(1.0), accumulate=True)
    assert table.diagonal().tolist() == [0] * 4
    assert (table[~torch.eye(4, dtype=torch.bool)] - 100 / 3).abs().max() < 20  # 4 standard deviations of a cell


def test_flips_refuse_what_has_no_other_class():
    with pytest.raises(ValueError, match="fraction=1.5 has to lie in 0 to 1"):
        flip_labels(EXAMPLES, 1.5, seed=0)
    with pytest.raises(ValueError, match="there is 1 class"):
        flip_labels(Examples(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64)), 0.5, seed=0)
    with pytest.raises(TypeError, match="no classes to flip"):
        flip_labels(Examples(torch.zeros(3, 1), torch.zeros(3, 1)), 0.5, seed=0)


def changes(tasks):
    """Return where labels differ, [M, s] and [M, r]."""
    return tasks.support_y != TASKS.support_y, tasks.query_y != TASKS.query_y


@given(FRACTIONS, st.floats(0, 2 / 3), PARTS, st.integers(0, 30))
def test_task_flips_hit_as_asked_and_leave_every_class_shown(tasks_fraction, labels_fraction, part, seed):
    noisy, flipped = flip_task_labels(
        TASKS, tasks_fraction=tasks_fraction, labels_fraction=labels_fraction, seed=seed, part=part
    )
    support, query = changes(noisy)
    counts = [int(labels_fraction * n + 0.5) * (part in ("both", name)) for n, name in ((9, "support"), (6, "query"))]
    assert torch.equal(flipped, support.any(1) | query.any(1))
    assert int(flipped.sum()) == (int(tasks_fraction * 6 + 0.5) if any(counts) else 0)
    assert support[flipped].sum(1).tolist() == [counts[0]] * int(flipped.sum())
    assert query[flipped].sum(1).tolist() == [counts[1]] * int(flipped.sum())
    kept = torch.where(support, -1, noisy.support_y)
    assert all((kept == c).any(1).all() for c in range(3))
    assert torch.equal(joined(noisy), joined(TASKS))


def test_task_flips_are_nested():
    weak, strong = (
        flip_task_labels(TASKS, tasks_fraction=t, labels_fraction=l, seed=3) for t, l in ((0.5, 0.3), (0.9, 0.6))
    )
    assert not (weak[1] & ~strong[1]).any() and int(strong[1].sum()) > int(weak[1].sum())
    for few, many, name in zip(changes(weak[0]), changes(strong[0]), ("support_y", "query_y"), strict=True):
        assert not (few & ~many).any()
        assert torch.equal(getattr(weak[0], name)[few], getattr(strong[0], name)[few])


def test_flipped_tasks_keep_their_pictures():
    noisy, _ = flip_task_labels(TASKS, tasks_fraction=1.0, labels_fraction=0.5, seed=0)
    again = with_images(POOL, noisy)
    assert torch.equal(joined(again), joined(TASKS)) and torch.equal(again.support_y, noisy.support_y)


def test_task_flips_refuse_the_impossible():
    with pytest.raises(ValueError, match="tasks_fraction=-0.5 has to lie"):
        flip_task_labels(TASKS, tasks_fraction=-0.5, labels_fraction=0.5, seed=0)
    with pytest.raises(ValueError, match="labels_fraction=2.0 has to lie"):
        flip_task_labels(TASKS, tasks_fraction=0.5, labels_fraction=2.0, seed=0)
    with pytest.raises(ValueError, match="9 of 9 support labels.*at most 6 can change"):
        flip_task_labels(TASKS, tasks_fraction=0.5, labels_fraction=1.0, seed=0)
    with pytest.raises(ValueError, match="part='all' is unknown"):
        flip_task_labels(TASKS, tasks_fraction=0.5, labels_fraction=0.5, seed=0, part="all")
    one_way = replace(TASKS, support_y=TASKS.support_y * 0, query_y=TASKS.query_y * 0)
    with pytest.raises(ValueError, match="there is 1 class"):
        flip_task_labels(one_way, tasks_fraction=0.5, labels_fraction=0.5, seed=0)
