"""Tasks that share their labels: ten digits as different hands write them, so that a common start is worth having.

Random classes in random order (as in few-shot benchmarks) give the start of a softmax regression nothing to learn: it
is as good at zero. Here label c means digit c in every task, and a task's own is the slant of its hand.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from explainlib.datasets import ClassPool, Tasks, class_pool, load, sample_tasks
from explainlib.datasets.tasks import rotate_by_angles
from explainlib.studies.place import placed

SLANT = 25.0  # degrees, the most to either side
SHOTS, QUERIES = 2, 3


def digit_pool(data: str) -> ClassPool:
    """Return ten classes of written digits, averaged to 4 x 4 pixels: at 8 x 8 a seed of the study takes twice as long.

    Args:
        data: "digits" (embedded, 8 x 8) or "mnist" (28 x 28).
    """
    if data == "digits":
        pool = placed(class_pool("digits"))
        return ClassPool(avg_pool2d(pool.x, 2).double(), pool.y, pool.names, pool.parents)
    train = placed(load("mnist")).train
    names = tuple(str(digit) for digit in range(10))
    return ClassPool(avg_pool2d(train.x, 7).double(), train.y, names, ("",) * len(names))


def writers(count: int, seed: int, data: str = "digits") -> tuple[Tasks, Tasks]:
    """Return (training tasks, as many new ones), of different pictures; x is flat, around zero, of length about one.

    Args:
        count: of writers, each a task.
        seed: of their digits and slants.
        data: "digits" or "mnist".
    """
    pool = digit_pool(data)
    centred = (pool.x - pool.x.mean(0)) / pool.x.std() / pool.x[0].numel() ** 0.5
    even = torch.arange(len(pool.y), device=pool.y.device) % 2 == 0
    return tuple(
        _written(ClassPool(centred[part], pool.y[part], pool.names, pool.parents), count, 2 * seed + k)
        for k, part in enumerate((even, ~even))
    )


def _written(pool: ClassPool, count: int, seed: int) -> Tasks:
    tasks = sample_tasks(pool, count, ways=len(pool.names), shots=SHOTS, queries=QUERIES, seed=seed)
    digits = torch.tensor([[pool.names.index(name) for name in names] for names in tasks.classes])
    digits = digits.to(tasks.query_y)
    tasks = replace(
        tasks,
        support_y=digits.gather(1, tasks.support_y),
        query_y=digits.gather(1, tasks.query_y),
        classes=[tuple(pool.names)] * count,
    )
    generator = torch.Generator().manual_seed(seed)
    angles: Float[Tensor, " M"] = torch.deg2rad((2 * torch.rand(count, generator=generator) - 1) * SLANT)
    tasks = rotate_by_angles(tasks, angles.to(pool.x))
    return replace(tasks, support_x=tasks.support_x.flatten(2), query_x=tasks.query_x.flatten(2))
