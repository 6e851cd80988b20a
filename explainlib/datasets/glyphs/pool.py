"""Glyphs: an Omniglot that needs no download, the letters of fifteen scripts as twenty writers draw them.

The letters come from the fonts that ship with matplotlib. They are drawn, not written: people's hands differ in more
ways than these writers do, so scores here are higher than on Omniglot.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from explainlib.checks import require_choice
from explainlib.datasets.glyphs.letters import chosen_letters, script_and_name
from explainlib.datasets.glyphs.writers import WRITERS, drawings
from explainlib.datasets.pools import ClassPool

TEST_EVERY = 5  # one letter in five of every script


def glyphs(split: str | None = None) -> ClassPool:
    """Return the letters of fifteen scripts, each drawn once by each of twenty writers.

    The same pool is returned every time, so its tensors must not be changed in place; the first call draws.

    Args:
        split: None is every letter. "test" is every fifth letter of each script by code point (the third, the
            eighth, ...), "train" is all others: a test letter is new, its script is not.

    Returns:
        ClassPool with x float32 [letters*20, 1, 28, 28], ink 1 on background 0. Drawing ``20 c + w`` is letter c by
        writer w. Names are a script with the rest of the Unicode name ("Greek/small letter omega"), parents scripts.

    Raises:
        ValueError: another split.
    """
    require_choice("split", split, (None, "train", "test"))
    return _pool(split)


@lru_cache(maxsize=3)  # one for each split
def _pool(split: str | None) -> ClassPool:
    """Return the pool of one split; the whole is drawn once."""
    if split is None:
        return _draw_all()
    whole, place, test = _pool(None), {}, set()
    for name, script in zip(whole.names, whole.parents, strict=True):
        place[script] = place.get(script, -1) + 1
        if place[script] % TEST_EVERY == TEST_EVERY // 2:
            test.add(name)
    return whole.where(lambda name, script: (name in test) == (split == "test"))


def _draw_all() -> ClassPool:
    """Return all letters by all writers."""
    codes = chosen_letters()
    scripts, names = zip(*[script_and_name(code) for code in codes], strict=True)
    return ClassPool(
        drawings(codes).flatten(0, 1)[:, None].float(),
        torch.arange(len(codes)).repeat_interleave(WRITERS),
        [f"{script}/{name}" for script, name in zip(scripts, names, strict=True)],
        scripts,
    )
