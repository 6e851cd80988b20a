"""The figure of every paper on influence: what was predicted against what retraining showed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from explainlib.checks import require_tensor
from explainlib.figures.palette import PALETTE, SERIES, style
from explainlib.figures.picture import axes_for, literal, set_alt
from explainlib.metrics import fidelity


def predicted_versus_true(
    predicted: Tensor | Mapping[str, Tensor],
    true: Tensor,
    *,
    ax: Axes | None = None,
    labels: tuple[str, str] = ("predicted", "retrained"),
    unit: str = "change of test loss",
    title: str | None = None,
) -> Axes:
    """Return axes with one mark per removal, the line of perfect prediction, and each method's least squares line.

    The legend gives Pearson's correlation and the slope of truth on prediction. Several methods differ in marker as
    well as in colour. Where both ranges are alike the two axes have one scale, so that the identity lies at 45 degrees.

    Args:
        predicted: table [t, n] or vector [n]; or several, by method name (at most six).
        true: of the same shape.
        ax: where to draw; None makes a new picture, reached as ``.figure``.
        labels: what the two axes show.
        unit: of both axes.
        title: above the axes; None leaves it out.

    Returns:
        The axes; ``alt_text(axes.figure)`` says the same in words.

    Raises:
        TypeError: not tensors.
        ValueError: no method or more than six, unequal shapes, fewer than three entries, NaN or infinite entries.
    """
    methods = dict(predicted) if isinstance(predicted, Mapping) else {labels[0]: predicted}
    if not 1 <= len(methods) <= len(SERIES):
        raise ValueError(f"predicted has {len(methods)} methods, expected 1 to {len(SERIES)}; draw two figures.")
    require_tensor("true", true)
    numbers = {name: fidelity(values, true, resamples=1) for name, values in methods.items()}
    y = _flat(true)
    with style():
        head = 0.22 * (len(methods) + 1) + (0.35 if title else 0.1)
        ax = axes_for(ax, 5.3, 4.8 + head, left=1.0, top=head)
        for series, (name, values) in zip(SERIES, methods.items(), strict=False):
            x, agreement = _flat(values), numbers[name]
            caption = f"{name}: Pearson {float(agreement.pearson):.3f}, slope {float(agreement.slope):.2f}"
            dots = dict(s=26, marker=series.marker, alpha=0.65, edgecolors="white", linewidths=0.4)
            ax.scatter(x.numpy(), y.numpy(), color=series.colour, label=literal(caption), zorder=3, **dots)
            _least_squares_line(ax, x, y, float(agreement.slope), series.colour)
        _identity(ax, torch.cat([_flat(values) for values in methods.values()]), y)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(5))
        ax.set(xlabel=literal(f"{labels[0]} {unit}"), ylabel=literal(f"{labels[1]} {unit}"))
        ax.set_title(literal(title or ""), loc="left")
        above = (-0.02, 1.05 if title else 1.0)
        ax.legend(loc="lower left", bbox_to_anchor=above, borderaxespad=0.1, labelspacing=0.3)
    set_alt(ax, _describe(numbers, labels, unit))
    return ax


def _flat(values: Tensor) -> Float[Tensor, " m"]:
    return values.detach().double().flatten().cpu()


def _least_squares_line(ax: Axes, x: Float[Tensor, " m"], y: Float[Tensor, " m"], slope: float, colour: str) -> None:
    if slope == slope:
        ends = torch.stack([x.min(), x.max()])
        ax.plot(ends.numpy(), (y.mean() + slope * (ends - x.mean())).numpy(), color=colour, linewidth=1.6, zorder=2)


def _identity(ax: Axes, x: Float[Tensor, " m"], y: Float[Tensor, " k"]) -> None:
    """Draw y = x across the data; one scale on both axes unless one range would be squeezed to a third."""
    low, high = float(torch.cat([x, y]).min()), float(torch.cat([x, y]).max())
    ax.plot([low, high], [low, high], "--", color=PALETTE["black"], linewidth=1, label="perfect prediction", zorder=1)
    spans = [float(side.max() - side.min()) for side in (x, y)]
    if min(spans) > max(spans) / 3:
        ax.set_aspect("equal", adjustable="box")
    else:
        margins = [0.06 * span or 1.0 for span in spans]
        ax.set_xlim(float(x.min()) - margins[0], float(x.max()) + margins[0])
        ax.set_ylim(float(y.min()) - margins[1], float(y.max()) + margins[1])


def _describe(numbers: Mapping[str, object], labels: tuple[str, str], unit: str) -> str:
    parts = "; ".join(
        f"{name}: Pearson {float(f.pearson):.3f}, Spearman {float(f.spearman):.3f}, slope {float(f.slope):.2f}"
        for name, f in numbers.items()
    )
    first = next(iter(numbers.values()))
    count = first.tests * first.removed
    return f"Scatter plot of {count} points, {labels[1]} against {labels[0]} {unit}, with the identity line. {parts}."
