"""Corruptions: tasks and labels made worse on purpose, to see whether an explanation notices.

Every function returns new data and leaves its argument as it was. The same seed gives the same corruption on every
machine, and a stronger corruption with the same seed contains the weaker one. Pictures have to be changed before
features are taken from them: ``task_features(darken(with_images(pool, tasks), alpha=1.0, ratio=0.3), spectrum)``.
A changed picture is no drawing of the pool any more, so tasks with changed pictures have no places in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from explainlib.checks import require_choice, require_count
from explainlib.datasets.examples import Examples
from explainlib.datasets.pools import ClassPool
from explainlib.datasets.tasks.tasks import Tasks


def with_images(pool: ClassPool, tasks: Tasks) -> Tasks:
    """Return the same tasks with the pool's pictures as x, for tasks whose x are features of them.

    Args:
        pool: the tasks were drawn from it, or from ``pool.map(...)``; its pictures are in [0, 1].
        tasks: with their places in the pool, as ``sample_tasks`` makes them.

    Returns:
        Tasks with x [M, n, c, h, w] in the tasks' dtype; labels, names, groups and places stay.

    Raises:
        ValueError: tasks without places, or a pool that holds other classes at those places.
    """
    if tasks.support_index is None or tasks.query_index is None:
        raise ValueError(
            "these tasks have no places in a pool, so their pictures are unknown; take tasks made by sample_tasks, "
            "before any corruption."
        )
    index = torch.cat([tasks.support_index, tasks.query_index], 1).to(pool.y.device)
    outside = index[(index < 0) | (index >= len(pool.y))]
    if len(outside):
        raise ValueError(
            f"the tasks point to drawing {int(outside[0])}, the pool has {len(pool.y)}; pass the pool they come from."
        )
    if tasks.classes is not None:
        _require_same_classes(pool, index, tasks.classes)
    x = pool.pictures[index].to(tasks.support_x.dtype)
    shots = tasks.support_y.shape[1]
    return replace(tasks, support_x=x[:, :shots], query_x=x[:, shots:])


def noise_tasks(tasks_like: Tasks, n_tasks: int, *, seed: int) -> Tasks:
    """Return tasks of pure noise: every pixel is uniform in [0, 1], independent of the label.

    Args:
        tasks_like: image tasks whose sizes, dtype and device the new ones share; the labels are those of the first.
        n_tasks: how many, at least 1.
        seed: 0 or more.

    Returns:
        Tasks with classes named "noise/task0 class0" and so on, and groups of their own beyond those of
        ``tasks_like``, so that ``Tasks.concat([tasks_like, noise])`` keeps them apart.

    Raises:
        ValueError: x without height and width, or fewer than one task.
    """
    _require_pictures(tasks_like)
    ways = tasks_like.ways
    require_count("n_tasks", n_tasks)
    generator = np.random.default_rng(require_count("seed", seed, least=0))

    def noise(x: Tensor) -> Tensor:
        return torch.from_numpy(generator.random((n_tasks, *x.shape[1:]), dtype=np.float32)).to(x)

    return Tasks(
        noise(tasks_like.support_x),
        tasks_like.support_y[:1].expand(n_tasks, -1),
        noise(tasks_like.query_x),
        tasks_like.query_y[:1].expand(n_tasks, -1),
        classes=[tuple(f"noise/task{k} class{c}" for c in range(ways)) for k in range(n_tasks)],
        group=tasks_like.group.max() + 1 + torch.arange(n_tasks, device=tasks_like.group.device),
    )


def darken(tasks: Tasks, *, alpha: float, ratio: float = 1.0, part: str = "both", seed: int = 0) -> Tasks:
    """Return the tasks with some pictures of each darkened to (1 - alpha) times their brightness.

    Darkening every picture alike (ratio 1, alpha below 1) is invisible to a learner that normalises by the statistics
    of its batch, because those shrink with the pictures: sweep ratio below 1, or take alpha 1.

    Args:
        tasks: image tasks, brightness 0 or more. Where ink is 1 and paper 0, it is the ink that fades.
        alpha: darkness of a dark picture, 0 (as it was) to 1 (black).
        ratio: the share of each task's pictures that are dark, 0 to 1, rounded to whole pictures.
        part: "both" takes the share of support and query together, "support" and "query" of that one alone.
        seed: of which pictures; with the same seed (and part) the dark pictures of a smaller ratio are among those of
            a larger one.

    Returns:
        Tasks without places in the pool.

    Raises:
        ValueError: alpha or ratio outside 0 to 1, another part, x without height and width, or negative brightness.

    Source: TLXML, section 5.1 and Figure 4, names alpha ("the darkness of images", 1 is completely black) and the
    ratio of dark images. Deviation: the paper prints no formula between 0 and 1; linear fading is our choice. On
    drawings it darkens the original page, here ink is 1, so the page is black already.
    """
    _require_fraction("alpha", alpha)
    _require_fraction("ratio", ratio)
    require_choice("part", part, ("both", "support", "query"))
    _require_pictures(tasks)
    least = min(float(tasks.support_x.min()), float(tasks.query_x.min()))
    if least < 0:
        raise ValueError(f"x goes down to {least:g}, but black is 0; darken pictures before they are standardised.")
    shots, both = tasks.support_y.shape[1], tasks.support_y.shape[1] + tasks.query_y.shape[1]
    columns = {"both": slice(0, both), "support": slice(0, shots), "query": slice(shots, both)}[part]
    draw = np.random.default_rng(require_count("seed", seed, least=0)).random((len(tasks), both))
    brightness = torch.ones(len(tasks), both, dtype=tasks.support_x.dtype)
    brightness[:, columns][_smallest(torch.from_numpy(draw)[:, columns], ratio)] = 1 - alpha
    brightness = brightness.to(tasks.support_x.device)[(...,) + (None,) * (tasks.support_x.ndim - 2)]
    return replace(
        tasks,
        support_x=tasks.support_x * brightness[:, :shots],
        query_x=tasks.query_x * brightness[:, shots:],
        support_index=None,
        query_index=None,
    )


def flip_labels(examples: Examples, fraction: float, *, seed: int) -> tuple[Examples, Bool[Tensor, " n"]]:
    """Return the examples with some labels changed to another class, and which ones.

    Args:
        examples: with class labels of at least two classes.
        fraction: the share of labels that change, 0 to 1, rounded to whole examples; each becomes one of the other
            classes with equal chance.
        seed: with the same seed the flips of a smaller fraction are among those of a larger one.

    Returns:
        The examples, and a mask [n] that is true where the label was changed.

    Raises:
        TypeError: regression targets.
        ValueError: a fraction outside 0 to 1, or a single class.
    """
    _require_fraction("fraction", fraction)
    if examples.y.is_floating_point():
        raise TypeError(f"y is {examples.y.dtype}, which has no classes to flip; pass examples with class labels.")
    classes = len(examples.classes) if examples.classes is not None else int(examples.y.max()) + 1
    _require_two(classes)
    generator = np.random.default_rng(require_count("seed", seed, least=0))
    flipped = _smallest(torch.from_numpy(generator.random(len(examples))), fraction).to(examples.y.device)
    y = torch.where(flipped, _other_labels(examples.y, classes, generator), examples.y)
    return replace(examples, y=y), flipped


def flip_task_labels(
    tasks: Tasks, *, tasks_fraction: float, labels_fraction: float, seed: int, part: str = "both"
) -> tuple[Tasks, Bool[Tensor, " M"]]:
    """Return the tasks, some of them with changed labels, and which ones.

    One random support drawing of each class always keeps its label, so that every class a task asks about is shown.

    Args:
        tasks: of at least two ways.
        tasks_fraction: the share of tasks that are hit, 0 to 1, rounded to whole tasks.
        labels_fraction: the share of labels that change in a task that is hit, 0 to 1, rounded to whole drawings, in
            the support and in the query each. In the support at most all but one of each class can.
        seed: with the same seed the flips of smaller fractions are among those of larger ones.
        part: "both", "support" or "query", where labels change.

    Returns:
        The tasks (their pictures keep their places in the pool; ``fresh_queries`` would label them correctly again),
        and a mask [M] that is true where a task has a changed label.

    Raises:
        ValueError: a fraction outside 0 to 1, another part, one way only, or more support flips than are possible.
    """
    _require_fraction("tasks_fraction", tasks_fraction)
    _require_fraction("labels_fraction", labels_fraction)
    require_choice("part", part, ("both", "support", "query"))
    _require_two(tasks.ways)
    shots = tasks.support_y.shape[1]
    wanted, possible = _share(labels_fraction, shots), shots - tasks.ways
    if part != "query" and wanted > possible:
        raise ValueError(
            f"labels_fraction={labels_fraction} asks for {wanted} of {shots} support labels, but one of each of the "
            f"{tasks.ways} classes has to stay: at most {possible} can change; lower it, or pass part='query'."
        )
    generator = np.random.default_rng(require_count("seed", seed, least=0))
    hit = _smallest(torch.from_numpy(generator.random(len(tasks))), tasks_fraction)
    support = torch.from_numpy(generator.random((len(tasks), shots)))
    support.scatter_(1, _one_of_each(support, tasks.support_y.cpu(), tasks.ways), 2.0)  # drawn last, never reached
    query = torch.from_numpy(generator.random(tuple(tasks.query_y.shape)))
    labels = {}
    for name, keys in (("support", support), ("query", query)):
        y = getattr(tasks, f"{name}_y")
        chosen = _smallest(keys, labels_fraction) & hit[:, None] & (part in ("both", name))
        labels[f"{name}_y"] = torch.where(chosen.to(y.device), _other_labels(y, tasks.ways, generator), y)
    changed = [(labels[f"{name}_y"] != getattr(tasks, f"{name}_y")).any(1) for name in ("support", "query")]
    return replace(tasks, **labels), changed[0] | changed[1]


def _require_same_classes(pool: ClassPool, index: Int[Tensor, "M n"], classes: Sequence[tuple[str, ...]]) -> None:
    """Raise unless the drawings at these places of the pool are of the classes the tasks name."""
    for names, labels in zip(classes, pool.y[index].tolist(), strict=True):
        strange = {pool.names[c] for c in labels} - set(names)
        if strange:
            raise ValueError(
                f"the pool holds {min(strange)!r} where the tasks have {', '.join(map(repr, names))}; "
                "pass the pool they come from."
            )


def _smallest(keys: Float[Tensor, "*m n"], share: float) -> Bool[Tensor, "*m n"]:
    """Return where the smallest ``share`` of each row's random keys stand."""
    return keys.argsort(-1).argsort(-1) < _share(share, keys.shape[-1])


def _share(share: float, n: int) -> int:
    """Return ``share`` of n, rounded half up (Python rounds halves to even, which gives uneven steps)."""
    return int(share * n + 0.5)


def _one_of_each(keys: Float[Tensor, "M s"], y: Int[Tensor, "M s"], ways: int) -> Int[Tensor, "M w"]:
    """Return for each task and class the place of the drawing with the largest random key."""
    of_class = y[:, :, None] == torch.arange(ways)
    return torch.where(of_class, keys[:, :, None], -1.0).argmax(1)


def _other_labels(y: Int[Tensor, "*m n"], classes: int, generator: np.random.Generator) -> Int[Tensor, "*m n"]:
    """Return for each label one of the other classes, each with equal chance."""
    step = torch.from_numpy(generator.integers(1, classes, tuple(y.shape))).to(y)
    return (y + step) % classes


def _require_fraction(name: str, value: float) -> float:
    """Return ``value`` if it lies in 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value} has to lie in 0 to 1.")
    return value


def _require_two(classes: int) -> None:
    """Raise unless a label can become another."""
    if classes < 2:
        raise ValueError(f"there is {classes} class, so no label can become another; pass at least two classes.")


def _require_pictures(tasks: Tasks) -> None:
    """Raise unless x has a height and a width."""
    if tasks.support_x.ndim not in (4, 5):
        raise ValueError(
            f"x has shape {list(tasks.support_x.shape)}, expected pictures [M, n, c, h, w] or [M, n, h, w]; "
            "change pictures before taking features: pictured(pool, tasks) gives them."
        )
