"""Rotated tasks: a turned drawing is another character, so a task can be turned into new ones.

Angles are quarter turns, counter-clockwise as the picture is seen; they move pixels and lose none. A turned picture is
no drawing of the pool any more, so the tasks returned here have no places in it.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from explainlib.checks import require_count
from explainlib.datasets.tasks.tasks import Tasks


def rotate(tasks: Tasks) -> Tasks:
    """Return each task four times: as it is, and with all its pictures turned by 90, 180 and 270 degrees.

    Args:
        tasks: M image tasks with square pictures.

    Returns:
        4 M tasks, first all as they are, then all turned by 90 degrees, and so on. Copies keep the group of their
        origin, so that a group's influence is that of a task with all its copies; the classes of a copy are called
        "name (rotated 90)".

    Raises:
        ValueError: x without height and width, or pictures that are not square.

    Source: TLXML, sections 4.1 (task grouping) and 5.2. Deviation: the paper turns whole tasks by 2 to 16 random
    angles between -90 and 90 degrees; quarter turns need no interpolation and no invented corners.
    """
    every = torch.zeros(len(tasks), tasks.ways, dtype=torch.int64)
    return Tasks.concat([_rotate_classes(tasks, every + k) for k in range(4)])


def rotation_augmentation(tasks: Tasks, seed: int) -> Tasks:
    """Return the tasks with each class of each task turned by 0, 90, 180 or 270 degrees at random.

    Args:
        tasks: image tasks with square pictures.
        seed: 0 or more. Support and query of a class are turned alike; its name says by how much.

    Returns:
        As many tasks, in the groups they had.

    Raises:
        ValueError: x without height and width, or pictures that are not square.
    """
    generator = np.random.default_rng(require_count("seed", seed, least=0))
    return _rotate_classes(tasks, torch.from_numpy(generator.integers(0, 4, (len(tasks), tasks.ways))))


def _rotate_classes(tasks: Tasks, turns: Int[Tensor, "M w"]) -> Tasks:
    """Return the tasks with class c of task m turned by ``turns[m, c]`` quarters."""
    shape = tasks.support_x.shape
    if len(shape) not in (4, 5) or shape[-1] != shape[-2]:
        raise ValueError(
            f"x has shape {list(shape)}, expected square pictures [M, n, c, h, h] or [M, n, h, h]; "
            "rotate pictures before taking features, and crop them to squares."
        )
    classes = tasks.classes
    if classes is not None:
        classes = [
            tuple(_rotated_name(name, k) for name, k in zip(names, row, strict=False))
            for names, row in zip(classes, turns.tolist(), strict=True)
        ]
    turns = turns.to(tasks.support_y.device)
    support_x = _rotate_images(tasks.support_x, turns.gather(1, tasks.support_y))
    query_x = _rotate_images(tasks.query_x, turns.gather(1, tasks.query_y))
    return replace(tasks, support_x=support_x, query_x=query_x, classes=classes, support_index=None, query_index=None)


def _rotate_images(x: Tensor, turns: Int[Tensor, "M n"]) -> Tensor:
    """Return x [M, n, ..., h, h] with picture n of task m turned by ``turns[m, n]`` quarters."""
    result = x.clone()
    for k in range(1, 4):
        chosen = turns == k
        result[chosen] = torch.rot90(x[chosen], k, (-2, -1))
    return result


def _rotated_name(name: str, turns: int) -> str:
    """Return the name of a class after ``turns`` more quarters; a full turn gives the bare name back."""
    before = re.fullmatch(r"(.*) \(rotated (90|180|270)\)", name, flags=re.DOTALL)
    bare, degrees = (before[1], int(before[2])) if before else (name, 0)
    degrees = (degrees + 90 * turns) % 360
    return f"{bare} (rotated {degrees})" if degrees else bare
