"""Bars: which examples help and harm one prediction, and what a removal does to the class probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from torch import Tensor

from explainlib.checks import require_choice, require_count, require_finite, require_tensor
from explainlib.figures.palette import HARMFUL, HELPFUL, PALETTE, SERIES, style
from explainlib.figures.picture import axes_for, literal, set_alt


def influence_bars(
    values: Tensor,
    *,
    k: int = 5,
    labels: Sequence[str] | None = None,
    unit: str = "influence on the test loss, per unit of weight",
    helpful: str = "negative",
    ax: Axes | None = None,
) -> Axes:
    """Return axes with the k most helpful examples on top and the k most harmful below, as horizontal bars.

    Args:
        values: one test example's scores of all training examples [n].
        k: bars on either side; both sides shrink to n // 2 if they would overlap.
        labels: what to call each of the n examples; None is its position.
        unit: of the values, for the axis.
        helpful: the sign that helps, "negative" or "positive".
        ax: where to draw; None makes a new picture, reached as ``.figure``.

    Returns:
        The axes; helpful and harmful bars differ in colour and hatch.

    Raises:
        TypeError: not a tensor.
        ValueError: not one row of at least two finite values, k below 1, an unknown sign, or another number of labels.
    """
    require_finite("values", require_tensor("values", values))
    if values.ndim != 1 or values.numel() < 2:
        raise ValueError(f"values has shape {list(values.shape)}, expected one row [n] with n >= 2; pass values[test].")
    sign = -1.0 if require_choice("helpful", helpful, ("negative", "positive")) == "negative" else 1.0
    if labels is not None and len(labels) != values.numel():
        raise ValueError(f"labels has {len(labels)} entries for {values.numel()} values; give one for each.")
    k = min(require_count("k", k), values.numel() // 2)
    order = (-sign * values).argsort(stable=True).tolist()
    chosen = order[:k] + order[-k:]
    shown = [float(values[i]) for i in chosen]
    names = [str(i) if labels is None else labels[i] for i in chosen]
    with style():
        left = 0.35 + 0.085 * max(map(len, names))
        ax = axes_for(ax, 4.4 + left, 1.1 + 0.3 * len(chosen), left=left)
        for helps, name in ((True, "helpful"), (False, "harmful")):
            rows = [row for row, value in enumerate(shown) if (sign * value > 0) == helps]
            look = HELPFUL if helps else HARMFUL
            bars = dict(color=look.colour, hatch=look.hatch, edgecolor="white", label=name, height=0.75)
            ax.barh(rows, [shown[row] for row in rows], **bars)
        ax.axvline(0, color=PALETTE["black"], linewidth=0.8)
        ax.axhline(k - 0.5, color="0.6", linewidth=0.8, linestyle=":")
        ax.set(xlabel=literal(unit), yticks=range(len(chosen)), yticklabels=list(map(literal, names)))
        ax.invert_yaxis()
        ax.grid(False, axis="y")
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    first, last = f"{names[0]} ({shown[0]:+.3g})", f"{names[-1]} ({shown[-1]:+.3g})"
    extent = f"the {k} most helpful and {k} most harmful of {values.numel()} examples"
    set_alt(ax, f"Bars of {unit}: {extent}, from {first} to {last}.")
    return ax


def probabilities(
    series: Mapping[str, Tensor],
    *,
    classes: Sequence[str] | None = None,
    true_class: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return axes with the class probabilities of one test example, one group of bars per class.

    Args:
        series: probabilities [C] by name, such as before, predicted, retrained; one to six of equal length.
        classes: the C names; None is their numbers.
        true_class: marked in the axis labels; None marks nothing.
        ax: where to draw; None makes a new picture, reached as ``.figure``.

    Returns:
        The axes; the series differ in colour and hatch, in the order given.

    Raises:
        TypeError: not tensors.
        ValueError: no series or more than six, unequal lengths, values outside [0, 1] (logits need a softmax), another
            number of class names, or a true class outside them.
    """
    if not 1 <= len(series) <= len(SERIES):
        raise ValueError(f"series has {len(series)} entries, expected 1 to {len(SERIES)}.")
    count = next(iter(series.values())).numel()
    for name, values in series.items():
        require_finite(name, require_tensor(name, values))
        if values.shape != (count,):
            raise ValueError(f"{name} has shape {list(values.shape)}, expected [{count}] like the first series.")
        if values.min() < -1e-6 or values.max() > 1 + 1e-6:
            got = f"{float(values.min()):.3g} to {float(values.max()):.3g}"
            raise ValueError(f"{name} reaches from {got}, expected probabilities; pass {name}.softmax(-1).")
    if classes is not None and len(classes) != count:
        raise ValueError(f"classes has {len(classes)} names for {count} probabilities; give one for each.")
    if true_class is not None and not 0 <= true_class < count:
        raise ValueError(f"true_class={true_class} is outside the {count} classes (0 to {count - 1}).")
    names = [str(c) if classes is None else str(classes[c]) for c in range(count)]
    _draw_groups(ax := _probability_axes(ax, names, true_class), series)
    set_alt(ax, _describe(series, names, true_class))
    return ax


def _probability_axes(ax: Axes | None, names: Sequence[str], true_class: int | None) -> Axes:
    with style():
        long = max(map(len, names)) > 9
        bottom = 0.5 + (0.05 * max(map(len, names)) if long else 0.0)
        ax = axes_for(ax, max(4.0, 0.6 * len(names) + 1.0), 2.4 + bottom, left=0.75, bottom=bottom)
        marked = [literal(f"{name}\n(true)" if c == true_class else name) for c, name in enumerate(names)]
        ax.set_xticks(range(len(names)), marked, rotation=30 if long else 0, ha="right" if long else "center")
        if true_class is not None:
            ax.get_xticklabels()[true_class].set_fontweight("bold")
        ax.set(ylim=(0, 1), ylabel="probability")
        ax.grid(False, axis="x")
    return ax


def _draw_groups(ax: Axes, series: Mapping[str, Tensor]) -> None:
    width = 0.84 / len(series)
    for place, (look, (name, values)) in enumerate(zip(SERIES, series.items(), strict=False)):
        at = [c + (place - (len(series) - 1) / 2) * width for c in range(values.numel())]
        bars = dict(color=look.colour, hatch=look.hatch, edgecolor="white", linewidth=0.5, label=literal(name))
        ax.bar(at, values.tolist(), width, **bars)
    with style():
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)


def _describe(series: Mapping[str, Tensor], names: Sequence[str], true_class: int | None) -> str:
    parts = []
    for name, values in series.items():
        best = int(values.argmax())
        told = [best] if true_class in (None, best) else [best, true_class]
        parts.append(f"{name}: " + ", ".join(f"{names[c]} {float(values[c]):.2f}" for c in told))
    truth = "" if true_class is None else f" The true class is {names[true_class]}."
    return f"Class probabilities. {'; '.join(parts)}.{truth}"
