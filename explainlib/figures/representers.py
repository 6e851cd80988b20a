"""Figures of representers: what deleting by a score does to an output, and a score as its two factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from torch import Tensor

from explainlib.checks import require_finite, require_indices, require_tensor
from explainlib.figures.palette import HARMFUL, HELPFUL, PALETTE, SERIES, style
from explainlib.figures.picture import Picture, axes_for, literal, set_alt


def deletion_curves(
    curves: Mapping[str, Tensor],
    counts: Sequence[int],
    *,
    unit: str = "change of the explained output",
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return axes with each method's mean deletion curve, with bars of one standard error over the tests.

    Args:
        curves: by name, the changes of t >= 2 tests at k numbers deleted, from ``metrics.deletion_curve``; at most six.
        counts: the k numbers, from ``metrics.deletion_counts``.
        unit: of the changes, for the vertical axis.
        title: above the axes.
        ax: where to draw; None makes a new picture, reached as ``.figure``.

    Returns:
        The axes; ``alt_text(axes.figure)`` says the same in words.

    Raises:
        ValueError: no curve, more than six, or one that is not [t >= 2, k] or not finite.
    """
    if not 1 <= len(curves) <= len(SERIES):
        raise ValueError(f"curves has {len(curves)} entries, expected 1 to {len(SERIES)}; draw two figures.")
    for name, changes in curves.items():
        require_finite(name, require_tensor(name, changes))
        if changes.ndim != 2 or len(changes) < 2 or changes.shape[1] != len(counts):
            raise ValueError(f"{name} has shape {list(changes.shape)}, expected [t, {len(counts)}] with t >= 2.")
    lines, said = -(-len(curves) // 3), []
    reach = max(counts) or 1
    with style():
        ax = axes_for(ax, 6.4, 3.4 + 0.24 * lines + (0.3 if title else 0), top=0.24 * lines + (0.45 if title else 0.2))
        for place, (look, (name, changes)) in enumerate(zip(SERIES, curves.items(), strict=False)):
            mean, error = changes.mean(0), changes.std(0) / len(changes) ** 0.5
            moved = [count + (place - (len(curves) - 1) / 2) * reach / 150 for count in counts]  # bars side by side
            line = dict(color=look.colour, marker=look.marker, linewidth=1.6, capsize=2.5, elinewidth=1.0)
            ax.errorbar(moved, mean.tolist(), yerr=error.tolist(), label=literal(name), **line)
            said.append(f"{name} {float(mean[-1]):+.2f}")
        ax.axhline(0, color=PALETTE["black"], linewidth=0.8)
        ax.set_xticks(list(counts))
        ax.set(xlabel="training examples deleted", ylabel=literal(unit))
        ax.set_title(literal(title or ""), loc="left", pad=8 + 17 * lines)
        ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, borderaxespad=0.1)
    tests = len(next(iter(curves.values())))
    set_alt(ax, f"Mean {unit} of {tests} tests against the number deleted; after {counts[-1]}: {', '.join(said)}.")
    return ax


def product_bars(
    importance: Tensor,
    kernel: Tensor,
    indices: Sequence[int] | Tensor,
    *,
    labels: Sequence[str] | None = None,
    title: str | None = None,
) -> Picture:
    """Return three columns of bars for the chosen training examples: global importance, kernel, and their product.

    Args:
        importance: alpha of every training example, for the explained output.
        kernel: K between one test and every training example.
        indices: distinct training examples, drawn from top to bottom.
        labels: one for each index; None is its position.
        title: above the columns.

    Returns:
        The picture; bars to the left are negative and hatched. ``alt_text`` gives the products.

    Raises:
        TypeError: not tensors.
        ValueError: rows that are not [n] of one length, an index outside them, or another number of labels.
    """
    require_finite("importance", require_tensor("importance", importance))
    require_finite("kernel", require_tensor("kernel", kernel))
    if importance.ndim != 1 or importance.shape != kernel.shape:
        raise ValueError(
            f"importance has shape {list(importance.shape)}, kernel {list(kernel.shape)}; pass one row [n] each, of "
            "one test and one output."
        )
    chosen = require_indices(indices, len(importance), of="training examples").tolist()
    names = [str(i) for i in chosen] if labels is None else list(labels)
    if len(names) != len(chosen):
        raise ValueError(f"labels has {len(names)} entries for {len(chosen)} indices; give one for each.")
    columns = {
        "global: \u03b1": importance[chosen],
        "\u00d7 local: K": kernel[chosen],
        "= score \u03c6": (importance * kernel)[chosen],
    }
    with style():
        picture = Picture(7.2, 1.0 + 0.3 * len(chosen))
        height = picture.get_figheight()
        left = (0.3 + 0.085 * max(map(len, names))) / 7.2
        grid = picture.subplots(1, 3, sharey=True)
        picture.subplots_adjust(left=left, right=0.98, bottom=0.35 / height, top=1 - 0.62 / height, wspace=0.12)
        for ax, (name, values) in zip(grid, columns.items(), strict=True):
            for helps, look in ((True, HELPFUL), (False, HARMFUL)):
                rows = [row for row, value in enumerate(values.tolist()) if (value > 0) == helps]
                bars = dict(color=look.colour, hatch=look.hatch, edgecolor="white", height=0.75)
                ax.barh(rows, values[rows].tolist(), **bars)
            ax.axvline(0, color=PALETTE["black"], linewidth=0.8)
            ax.set_title(name, fontsize=10)
            ax.grid(False, axis="y")
        grid[0].set_yticks(range(len(chosen)), list(map(literal, names)))
        grid[0].invert_yaxis()
        picture.suptitle(literal(title or ""), x=0.02, y=1 - 0.05 / height, ha="left", va="top", fontsize=11)
    products = "; ".join(
        f"{name}: {float(importance[i]):+.3g} x {float(kernel[i]):.3g} = {float(importance[i] * kernel[i]):+.3g}"
        for name, i in zip(names, chosen, strict=True)
    )
    set_alt(picture, f"Global importance times kernel. {products}.")
    return picture
