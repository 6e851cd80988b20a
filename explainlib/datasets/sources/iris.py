"""Iris: four measurements of 150 flowers of three species, the smallest data set everybody knows."""

from __future__ import annotations

import torch

from explainlib.datasets.examples import Examples, Split, stratified_split

TEST_COUNT = 30


def iris(split_seed: int = 0) -> Split:
    """Return 120 training and 30 test flowers, every measurement standardised by the training part.

    Args:
        split_seed: the seed of the stratified split, 0 or more.

    Returns:
        Split with x float32 [n, 4]: on the training part each column has mean 0 and (population) standard
        deviation 1. The test part is shifted and scaled by the same numbers, for it has to stay unseen.
    """
    from sklearn.datasets import load_iris  # half of the time that importing this package would take

    bunch = load_iris()
    centimetres = Examples(
        torch.tensor(bunch.data), torch.tensor(bunch.target).long(), tuple(map(str, bunch.target_names))
    )
    split = stratified_split(centimetres, TEST_COUNT, split_seed)
    mean, deviation = split.train.x.mean(0), split.train.x.std(0, correction=0)
    return Split(*(Examples((part.x - mean) / deviation, part.y, part.classes).to(torch.float32) for part in split))
