"""Digits: 1,797 real handwritten digits of 8 by 8 pixels, small enough to retrain while a slider moves."""

from __future__ import annotations

from functools import lru_cache

import torch

from explainlib.datasets.examples import Examples, Split, stratified_split

TEST_COUNT = 297


def digits(split_seed: int = 0) -> Split:
    """Return 1,500 training and 297 test digits.

    Args:
        split_seed: the seed of the stratified split, 0 or more.

    Returns:
        Split with x float32 [n, 64], row by row, ink from 0 (none) to 1 (full): the sixteen grey levels over 16.
    """
    return stratified_split(all_digits(), TEST_COUNT, split_seed)


def all_digits() -> Examples:
    """Return all 1,797 digits in their published order."""
    pixels, labels = _published()
    return Examples(torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels), tuple(map(str, range(10))))


@lru_cache(maxsize=1)  # parsing the text file takes longer than everything else a panel does when it opens
def _published() -> tuple:
    """Return pixels [1797, 64] from 0 to 16, and labels [1797], as numpy arrays that nobody may change."""
    from sklearn.datasets import load_digits  # half of the time that importing this package would take

    bunch = load_digits()
    return bunch.data, bunch.target.astype("int64")
