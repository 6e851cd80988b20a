"""Rotated tasks: a turned drawing is another character, so a task can be turned into new ones.

Angles are counter-clockwise as the picture is seen. Quarter turns move pixels and lose none; other angles interpolate.
A turned picture is no drawing of the pool any more, so the tasks returned here have no places in it.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

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


def turned_copies(tasks: Tasks, copies: int, *, seed: int) -> Tasks:
    """Return copies of each task, each with all its pictures turned by one random angle between -90 and 90 degrees.

    Args:
        tasks: M image tasks with square pictures.
        copies: of each task, at least 1; each task has angles of its own.
        seed: 0 or more.

    Returns:
        copies x M tasks, first one copy of all, then the next. Copies keep the group of their origin, so that a
        group's influence is that of a task with all its copies. Pictures are interpolated bilinearly, and what turns
        in from outside has the value of the nearest border.

    Raises:
        ValueError: x without height and width, pictures that are not square, or a count below 1.

    Source: TLXML, section 5.2 (2 to 16 angles) and eq. (9).
    """
    require_count("copies", copies)
    _require_square(tasks)
    generator = np.random.default_rng(require_count("seed", seed, least=0))
    angles = torch.from_numpy(generator.uniform(-np.pi / 2, np.pi / 2, (copies, len(tasks))))
    return Tasks.concat([rotate_by_angles(tasks, some.to(tasks.support_x)) for some in angles])


def rotate_by_angles(tasks: Tasks, angles: Float[Tensor, " M"]) -> Tasks:
    """Return the tasks, each with all its pictures turned counter-clockwise by its angle.

    Args:
        tasks: image tasks with square pictures.
        angles: in radians.
    """
    classes = tasks.classes
    if classes is not None:
        degrees = [round(angle) for angle in torch.rad2deg(angles).tolist()]
        classes = [tuple(f"{name} (turned {d})" for name in names) for names, d in zip(classes, degrees, strict=True)]
    support_x, query_x = _turn(tasks.support_x, angles), _turn(tasks.query_x, angles)
    return replace(tasks, support_x=support_x, query_x=query_x, classes=classes, support_index=None, query_index=None)


def _turn(x: Float[Tensor, "M n *c h h"], angles: Float[Tensor, " M"]) -> Tensor:
    """Return the pictures of each task turned counter-clockwise by its angle."""
    cos, sin = angles.cos(), angles.sin()
    zero = torch.zeros_like(cos)
    back = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)  # of the y downwards
    pictures = x.flatten(1, -3)  # [M, n c, h, h]: one angle for all
    grid = affine_grid(back, list(pictures.shape), align_corners=False)
    return grid_sample(pictures, grid, padding_mode="border", align_corners=False).view_as(x)


def _require_square(tasks: Tasks) -> None:
    shape = tasks.support_x.shape
    if len(shape) not in (4, 5) or shape[-1] != shape[-2]:
        raise ValueError(
            f"x has shape {list(shape)}, expected square pictures [M, n, c, h, h] or [M, n, h, h]; "
            "rotate pictures before taking features, and crop them to squares."
        )


def _rotate_classes(tasks: Tasks, turns: Int[Tensor, "M w"]) -> Tasks:
    """Return the tasks with class c of task m turned by ``turns[m, c]`` quarters."""
    _require_square(tasks)
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
