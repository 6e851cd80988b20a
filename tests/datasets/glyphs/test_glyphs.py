"""Glyphs: distinct letters, recognisable hands, the same on every machine."""

from __future__ import annotations

import hashlib
import time
from collections import Counter

import numpy as np
import pytest
import torch

from explainlib.datasets import sample_tasks
from explainlib.datasets.glyphs import letters, outlines, writers
from explainlib.datasets.glyphs import pool as module
from explainlib.datasets.glyphs.pool import glyphs

CLASSES, WRITERS = 497, 20
A_BY_WRITER = [114.804, 170.408, 92.569, 104.647, 98.106]  # ink of the first letter by the first writers, in pixels
ALL_INK = 1_113_973.558


@pytest.fixture(scope="module")
def pool():
    return glyphs()


@pytest.fixture(scope="module")
def drawn(pool):
    """[classes, writers, pixels] in float64."""
    return pool.x.double().reshape(CLASSES, WRITERS, -1)


def test_counts_names_and_parents(pool):
    assert pool.x.shape == (CLASSES * WRITERS, 1, 28, 28) and pool.x.dtype == torch.float32
    assert torch.equal(pool.y, torch.arange(CLASSES).repeat_interleave(WRITERS))
    assert len(set(pool.names)) == CLASSES
    assert all(name.startswith(f"{parent}/") for name, parent in zip(pool.names, pool.parents, strict=True))
    counts = Counter(pool.parents)
    assert set(counts) == set(letters.SCRIPTS.values())
    assert min(counts.values()) >= 8 and max(counts.values()) <= letters.MOST
    assert {"Latin/capital letter a", "Greek/small letter omega", "Hebrew/letter alef"} <= set(pool.names)


def test_nothing_has_changed(pool, drawn):
    """Names exactly; ink to a tolerance far above rounding and far below any change of a hand."""
    assert hashlib.sha256("\n".join(pool.names).encode()).hexdigest() == (
        "3376713d88d17791c82989a0695effa01f25e2a6da2e5f0af2230b287e502c0f"
    )
    first = drawn[0].sum(-1)
    assert pool.names[0] == "Latin/capital letter a"
    assert first[:5].tolist() == pytest.approx(A_BY_WRITER, abs=0.5)
    assert float(drawn.sum()) == pytest.approx(ALL_INK, rel=1e-4)


def test_pixels_are_ink_on_an_empty_border(pool, drawn):
    assert pool.x.min() == 0 and pool.x.max() == 1
    assert torch.equal((pool.x * 255).round() / 255, pool.x)
    assert (drawn.amax(-1) > 0.7).all()
    assert 0.01 < drawn.mean(-1).min() and drawn.mean(-1).max() < 0.5
    edge = torch.cat([pool.x[..., 0, :], pool.x[..., -1, :], pool.x[..., :, 0], pool.x[..., :, -1]], -1)
    assert edge.max() == 0  # a clipped letter would leave ink here


def test_every_drawing_is_another(pool):
    assert len({bytes(row) for row in (pool.x * 255).byte().flatten(1).numpy()}) == CLASSES * WRITERS


def test_letters_lie_nearest_their_own_mean(drawn):
    """Leave-one-out among all classes at once; five random classes are far easier."""
    means, every = drawn.mean(1), torch.arange(CLASSES)
    distance = (drawn**2).sum(-1, keepdim=True) - 2 * drawn @ means.T + (means**2).sum(-1)
    others = (WRITERS * means[:, None] - drawn) / (WRITERS - 1)
    distance[every, :, every] = ((drawn - others) ** 2).sum(-1)
    right = (distance.argmin(-1) == every[:, None]).double().mean()
    print(f"nearest mean among {CLASSES}: {right:.3f}")
    assert right > 0.8


def test_no_two_classes_look_alike_on_average(pool, drawn):
    """An independent measure: the correlation of the writers' average pictures."""
    means = drawn.mean(1) - drawn.mean((0, 1))
    alike = torch.from_numpy(np.corrcoef(means.numpy())).fill_diagonal_(0)
    worst = divmod(int(alike.argmax()), CLASSES)
    assert alike.max() < 0.97, [pool.names[k] for k in worst]


def test_the_written_letters_follow_the_rule():
    """With slack on either side of the thresholds, so that another renderer's rounding does not matter."""
    candidates = [code for code in outlines.code_points(outlines.FONTS[0]) if letters.script_and_name(code)]
    differences = letters.difference(candidates)
    clearly = letters.too_similar(candidates, differences + 0.01)
    barely = letters.too_similar(candidates, differences - 0.01)
    chosen = set(letters.chosen_letters())
    kept = torch.tensor([code in chosen for code in candidates])
    assert kept.sum() == CLASSES == len(chosen)
    twins = clearly[kept][:, kept].fill_diagonal_(False).nonzero()
    assert not len(twins)
    full = Counter(letters.script_and_name(code)[0] for code in chosen)
    for k, code in enumerate(candidates):
        if code not in chosen and full[letters.script_and_name(code)[0]] < letters.MOST:
            assert barely[k, :k][kept[:k]].any(), f"U+{code:04X} is like no class, yet left out"


def test_the_rule_sees_what_people_see():
    """Circles of four scripts are one shape, E and F are two, and so are the two turns of one triangle."""
    codes = [ord(c) for c in "OΟОՕEFᐊᐅ"]
    differences = letters.difference(codes)
    assert differences[:4, :4].max() < 0.01
    assert differences[4, 5] > letters.ALIKE and differences[6, 7] > letters.ALIKE
    assert torch.equal(differences, differences.T) and differences.diagonal().max() == 0


@pytest.mark.parametrize("code", [ord("é"), ord("ﬁ"), ord("ʰ"), ord("7"), ord("Ł"), 0x0301, ord("あ"), 0xFE73])
def test_what_is_no_plain_letter(code):
    assert letters.script_and_name(code) is None


def test_distances_are_euclidean():
    """Against every pair of pixels."""
    inside = torch.rand(3, 9, 11, generator=torch.Generator().manual_seed(0)) > 0.6
    spots = torch.stack(torch.meshgrid(torch.arange(9), torch.arange(11), indexing="ij"), -1).reshape(-1, 2).double()
    apart = torch.cdist(spots, spots)
    for reach in (1, 2, 6):
        got = outlines.signed_distance(inside, reach)
        for picture, row in zip(inside.flatten(1), got.flatten(1), strict=True):
            to_ink, to_paper = apart[:, picture].amin(1), apart[:, ~picture].amin(1)
            expected = torch.where(picture, to_paper, -to_ink).clamp(-reach, reach)
            assert torch.allclose(row.double(), expected, atol=1e-6)


def test_a_drawing_depends_on_its_letter_and_writer_alone(pool):
    """Drawn again in other company, the pixels are the same."""
    codes = letters.chosen_letters()
    chosen = [400, 3, 77]
    again = writers.drawings([codes[k] for k in chosen]).float()
    assert torch.equal(again, pool.x.reshape(CLASSES, WRITERS, 28, 28)[chosen])


def test_the_same_pool_again_and_how_long_it_takes(pool):
    began = time.process_time()
    again = module._draw_all()
    print(f"{time.process_time() - began:.2f} s of processor time for {again!r}")
    assert torch.equal(again.x, pool.x) and again.names == pool.names
    assert glyphs() is pool and glyphs(split=None) is pool


def test_splits_share_scripts_and_no_letter(pool):
    train, test = glyphs("train"), glyphs("test")
    assert set(train.names).isdisjoint(test.names)
    assert set(train.names) | set(test.names) == set(pool.names)
    assert set(train.parents) == set(test.parents) == set(pool.parents)
    assert 0.18 < len(test) / len(pool) < 0.22
    latin = [name for name in pool.names if name.startswith("Latin/")]
    assert [name for name in test.names if name.startswith("Latin/")] == latin[2::5]
    k = pool.names.index(test.names[7])
    assert torch.equal(test.x[7 * WRITERS : 8 * WRITERS], pool.x[k * WRITERS : (k + 1) * WRITERS])
    assert glyphs("test") is test


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split='validation' is unknown; choose one of None, 'train', 'test'"):
        glyphs("validation")


def test_tasks_can_be_drawn():
    tasks = sample_tasks(glyphs("train"), 3, ways=5, shots=5, queries=15)
    assert tasks.support_x.shape == (3, 25, 1, 28, 28) and tasks.query_x.shape == (3, 75, 1, 28, 28)
