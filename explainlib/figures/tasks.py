"""What a few-shot task looks like: its drawings by class, and the training tasks that help and harm it most."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from explainlib.checks import require_count, require_finite, require_shape, require_tensor
from explainlib.datasets import ClassPool, Tasks, with_images
from explainlib.figures.examples import as_image
from explainlib.figures.palette import HARMFUL, HELPFUL, style
from explainlib.figures.picture import Picture, literal, set_alt


def task_images(tasks: Tasks, index: int, pool: ClassPool | None = None) -> tuple[list[Tensor], list[Tensor]] | None:
    """Return one task's support and query drawings as pictures [h, w] or [h, w, 3], or None if it has none to show.

    Args:
        tasks: what to draw from.
        index: position in ``tasks``, checked by the caller.
        pool: where the drawings are, for tasks whose x are features of them.

    Raises:
        ValueError: tasks that do not come from the pool.
    """
    one = tasks[index] if pool is None else with_images(pool, tasks[index])
    support, query = ([as_image(x) for x in part[0]] for part in (one.support_x, one.query_x))
    return None if support[0] is None else (support, query)


def class_names(tasks: Tasks, index: int) -> tuple[str, ...]:
    """Return the names of one task's classes, "class 0" and so on where they have none."""
    return tuple(f"class {c}" for c in range(tasks.ways)) if tasks.classes is None else tasks.classes[index]


def task_grid(tasks: Tasks, index: int, *, pool: ClassPool | None = None, title: str | None = None) -> Picture:
    """Return a picture of one task: a row for each class, the support on the left, the query on the right.

    Args:
        tasks: what to draw from.
        index: position in ``tasks``.
        pool: where the drawings are, for tasks whose x are features of them.
        title: above the picture; None leaves it out.

    Returns:
        The picture; ``alt_text`` lists the classes.

    Raises:
        ValueError: a position outside the tasks, or tasks without drawings to show.
    """
    index = _checked(tasks, index)
    images, names = _images(tasks, index, pool), class_names(tasks, index)
    labels = tasks.support_y[index].tolist(), tasks.query_y[index].tolist()
    rows = [[[x for x, y in zip(*part, strict=True) if y == c] for part in zip(images, labels, strict=True)]
            for c in range(len(names))]  # fmt: skip
    shots, queries = (max(len(row[part]) for row in rows) for part in (0, 1))
    side, left, gap = 0.46, 2.5, 0.25
    head = 0.62 if title else 0.34
    with style():
        width, height = left + side * (shots + queries) + gap + 0.1, head + side * len(names) + 0.08
        picture = Picture(width, height)
        for c, (row, name) in enumerate(zip(rows, names, strict=True)):
            y = height - head - side * (c + 1)
            picture.text(
                (left - 0.1) / width, (y + side / 2) / height, literal(name), ha="right", va="center", fontsize=9
            )
            for part, start in enumerate((left, left + side * shots + gap)):
                for i, image in enumerate(row[part]):
                    _draw(picture, image, start + side * i, y, side)
        for word, start in (("support", left), ("query", left + side * shots + gap)):
            picture.text(start / width, 1 - (head - 0.1) / height, word, va="bottom", fontsize=10, color="0.35")
        if title:
            picture.text(0.08 / width, 1 - 0.06 / height, literal(title), va="top", fontsize=11)
    set_alt(picture, f"One task: {shots} support and {queries} query drawings of each of {', '.join(names)}.")
    return picture


def ranked_tasks(
    scores: Float[Tensor, " M"],
    tasks: Tasks,
    *,
    pool: ClassPool | None = None,
    k: int = 3,
    marked: Sequence[str] = (),
    title: str | None = None,
) -> Picture:
    """Return a picture of the k most helpful training tasks and, below them, the k most harmful.

    A task is shown by one support drawing of each class, with the script below it.

    Args:
        scores: one test task's row of ``TaskInfluence.performance``; negative is helpful.
        tasks: the M training tasks.
        pool: where the drawings are, for tasks whose x are features of them.
        k: tasks on either side; both shrink to M // 2 if they would overlap.
        marked: names of classes to frame and underline, such as those of the test task.
        title: above the picture; None leaves it out.

    Returns:
        The picture; ``alt_text`` lists ranks, scores and scripts.

    Raises:
        ValueError: not one finite score a task, k below 1, or tasks without drawings to show.
    """
    require_shape("scores", require_finite("scores", require_tensor("scores", scores)), [len(tasks)])
    k = max(1, min(require_count("k", k), len(tasks) // 2))
    order = scores.argsort(stable=True).tolist()
    sides = (("most helpful", HELPFUL, order[:k]), ("most harmful", HARMFUL, order[::-1][:k]))
    side, left, line = 0.62, 1.75, 0.98
    head = 0.4 if title else 0.05
    with style():
        width, height = left + 1.28 * side * tasks.ways + 0.1, head + 2 * (0.32 + k * line) + 0.05
        picture, said, top = Picture(width, height), [], height - head
        for word, look, chosen in sides:
            picture.text(0.08 / width, (top - 0.06) / height, word, va="top", fontsize=11, color=look.colour)
            top -= 0.32
            for i in chosen:
                names, sign = class_names(tasks, i), "helps" if scores[i] < 0 else "harms"
                at = dict(va="center", fontsize=10, linespacing=1.5)
                said.append(f"{word} task {i} ({float(scores[i]):+.3f}): {', '.join(names)}")
                words = f"task {i}\n{float(scores[i]):+.3f} ({sign})"
                picture.text(0.16 / width, (top - side / 2) / height, words, **at)
                _row(picture, tasks, i, pool, (left, top - side), side, marked)
                top -= line
        if title:
            picture.text(0.08 / width, 1 - 0.06 / height, literal(title), va="top", fontsize=11)
    set_alt(picture, "Training tasks, " + "; ".join(said) + ".")
    return picture


def _row(
    picture: Picture,
    tasks: Tasks,
    index: int,
    pool: ClassPool | None,
    place: tuple[float, float],
    side: float,
    marked: Sequence[str],
) -> None:
    """Draw one support drawing of each class of a task, with its script below."""
    support, (x, y) = _images(tasks, index, pool)[0], place
    labels = tasks.support_y[index].tolist()
    width, height = picture.get_size_inches()
    for c, name in enumerate(class_names(tasks, index)):
        start, own = x + 1.28 * side * c, name in marked
        _draw(picture, support[labels.index(c)], start, y, side, heavy=own)
        script = name.split("/")[0]
        weight = "bold" if own else "normal"
        below = dict(ha="center", va="top", fontsize=8, weight=weight)
        picture.text((start + side / 2) / width, (y - 0.04) / height, literal(script.replace(" ", "\n", 1)), **below)


def _draw(picture: Picture, image: Tensor, x: float, y: float, side: float, *, heavy: bool = False) -> Axes:
    """Return axes with one drawing, ink on white, its lower left corner at x, y inches."""
    width, height = picture.get_size_inches()
    inner = 0.94 * side
    ax = picture.add_axes((x / width, y / height, inner / width, inner / height))
    limits = dict(vmin=min(0.0, float(image.min())), vmax=max(1.0, float(image.max())))
    ax.imshow(image.numpy(), cmap="gray_r", interpolation="nearest", **limits)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set(visible=True, color="black" if heavy else "0.75", linewidth=2.2 if heavy else 0.8)
    return ax


def _images(tasks: Tasks, index: int, pool: ClassPool | None) -> tuple[list[Tensor], list[Tensor]]:
    images = task_images(tasks, index, pool)
    if images is None:
        raise ValueError(
            f"the tasks hold x of shape {list(tasks.support_x.shape[2:])}, which is no picture; "
            "pass pool=, where their drawings are."
        )
    return images


def _checked(tasks: Tasks, index: int) -> int:
    require_count("index", index, least=0)
    if index >= len(tasks):
        raise ValueError(f"index {index} is outside the {len(tasks)} tasks (0 to {len(tasks) - 1}).")
    return index


def strip(images: Sequence[Tensor]) -> Float[Tensor, "h w *colour"]:
    """Return pictures side by side as one, a thin line of background between them."""
    line = images[0].new_zeros(images[0].shape[0], 2, *images[0].shape[2:])
    parts = [part for image in images for part in (image, line)]
    return torch.cat(parts[:-1], dim=1)
