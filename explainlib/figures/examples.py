"""What one training or test example looks like: an image, a text, or a short table of features."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from explainlib.checks import require_count, require_indices
from explainlib.datasets import Examples
from explainlib.figures.palette import style
from explainlib.figures.picture import Picture, literal, set_alt

SIDES = {64: 8, 784: 28}  # flat vectors that are images: digits and MNIST
SHOWN = 6  # features in a table


def as_image(x: Tensor) -> Float[Tensor, "h w *colour"] | None:
    """Return one example's input as a picture [h, w] or [h, w, 3], or None if it is not an image.

    Args:
        x: [64] and [784] are read as 8 x 8 and 28 x 28; [1, h, w] as grey and [3, h, w] as colour.
    """
    x = x.detach().cpu()
    if not x.is_floating_point():
        return None
    if x.ndim == 1 and x.numel() in SIDES:
        return x.reshape(SIDES[x.numel()], -1)
    if x.ndim == 3 and x.shape[0] == 1:
        return x[0]
    if x.ndim == 3 and x.shape[0] == 3:
        return x.permute(1, 2, 0).clamp(0, 1)
    return None


def class_name(examples: Examples, index: int) -> str:
    """Return the class of one example in words, or its target where the data have no classes."""
    target = examples.y[index]
    if target.numel() == 1 and not target.is_floating_point():
        return str(examples.classes[int(target)]) if examples.classes else f"class {int(target)}"
    return "target " + ", ".join(f"{value:.3g}" for value in target.flatten().tolist())


def draw_example(ax: Axes, examples: Examples, index: int, *, title: str | None = None) -> None:
    """Draw one example: an image in ink on white, a text wrapped, anything else as its first features.

    Args:
        ax: where to draw; its frame and ticks are taken away.
        examples: what to draw from.
        index: position in ``examples``, checked by the caller.
        title: above the example; None is its class. It is a text above the frame, and ``ax.get_title()`` stays empty.
    """
    x, image = examples.x[index], as_image(examples.x[index])
    text = _text(examples, index)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set(visible=image is not None and text is None, color="0.75")
    if text is not None:
        words = literal(textwrap.fill(textwrap.shorten(text, 140), 22))
        ax.text(0.5, 0.98, words, ha="center", va="top", fontsize=8)
    elif image is not None:
        limits = dict(vmin=min(0.0, float(image.min())), vmax=max(1.0, float(image.max())))
        ax.imshow(image.numpy(), cmap="gray_r", interpolation="nearest", **limits)
    else:
        ax.text(0.5, 0.98, _features(x), ha="center", va="top", fontsize=9, family="monospace")
    above = dict(xy=(0.5, 1), xycoords="axes fraction", xytext=(0, matplotlib.rcParams["axes.titlepad"]))
    name = literal(class_name(examples, index) if title is None else title)
    ax.annotate(name, **above, textcoords="offset points", ha="center", va="baseline", fontsize=10)


def thumbnails(
    examples: Examples,
    indices: Sequence[int] | Tensor,
    *,
    titles: Sequence[str] | None = None,
    columns: int = 6,
) -> Picture:
    """Return a picture of the chosen examples in rows, each under its title.

    Args:
        examples: what to draw from.
        indices: which, distinct, in the order of drawing.
        titles: one for each; None gives position and class.
        columns: examples in a row, at least 1.

    Returns:
        The picture; ``alt_text`` lists the titles.

    Raises:
        TypeError: indices that are not whole numbers.
        ValueError: an index outside the examples or repeated, another number of titles, or columns below 1.
    """
    chosen = require_indices(indices, len(examples), of="examples").tolist()
    require_count("columns", columns)
    if titles is None:
        titles = [f"#{i}: {class_name(examples, i)}" for i in chosen]
    if len(titles) != len(chosen):
        raise ValueError(f"titles has {len(titles)} entries for {len(chosen)} indices; give one for each.")
    columns = min(columns, len(chosen))
    rows = -(-len(chosen) // columns)
    lines = 1 + max(title.count("\n") for title in titles)
    with style():
        picture = Picture(1.25 * columns, rows * (1.15 + 0.19 * lines))
        grid = picture.subplots(rows, columns, squeeze=False).flatten()
        head = 0.19 * lines + 0.06  # inches above each row for its titles
        room = {"hspace": (0.04 + head) / (1.09 - 0.04), "wspace": 0.15, "left": 0.03, "right": 0.97}
        picture.subplots_adjust(**room, bottom=0.04 / picture.get_figheight(), top=1 - head / picture.get_figheight())
        for ax, index, title in zip(grid, chosen, titles, strict=False):
            draw_example(ax, examples, index, title=title)
        for ax in grid[len(chosen) :]:
            ax.set_axis_off()
    said = "; ".join(title.replace("\n", " ") for title in titles)
    set_alt(picture, f"{len(chosen)} example{'s' if len(chosen) > 1 else ''}: {said}.")
    return picture


def _text(examples: Examples, index: int) -> str | None:
    raw = examples.raw
    return raw[index] if raw is not None and isinstance(raw[index], str) else None


def _features(x: Tensor) -> str:
    values = x.detach().flatten().tolist()
    lines = [f"x{i} {value:7.3g}" for i, value in enumerate(values[:SHOWN])]
    return "\n".join(lines + ([f"and {len(values) - SHOWN} more"] if len(values) > SHOWN else []))
