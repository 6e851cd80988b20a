"""A figure that belongs to nobody's global state, shows itself in a notebook, and can say in words what it shows.

Pictures are made without pyplot, so a panel may draw thousands of them and none stays behind.
"""

from __future__ import annotations

from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from explainlib.checks import require_positive
from explainlib.figures.palette import style


class Picture(Figure):
    """A matplotlib figure with its own canvas; its repr is its text equivalent."""

    def __init__(self, width: float | int = 6.0, height: float | int = 4.0) -> None:
        """Return an empty picture, ``width`` x ``height`` inches.

        Raises:
            ValueError: a width or height that is not above zero.
        """
        with style():
            size = (require_positive("width", float(width)), require_positive("height", float(height)))
            super().__init__(figsize=size)
        FigureCanvasAgg(self)

    def __repr__(self) -> str:
        """Return what the picture shows, in words."""
        return f"Picture: {alt_text(self) or 'empty'}"

    __str__ = __repr__

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        return _rendered(self, None), {"alt": alt_text(self)}


def axes_for(
    ax: Axes | None, width: float, height: float, *, left: float = 0.85, bottom: float = 0.6, top: float = 0.35
) -> Axes:
    """Return ``ax``, or the axes of a new picture with these margins in inches. Call it inside ``style()``.

    Margins are fixed because a panel redraws the picture: axes that move with their labels make bars seem to jump,
    and a layout engine would double the time of drawing.
    """
    if ax is not None:
        return ax
    right = 0.12
    place = (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    return Picture(width, height).add_axes(place)


def literal(text: object) -> str:
    r"""Return ``text`` so that matplotlib draws it as it is: a pair of dollar signs would be read as a formula.

    For every name that comes from outside: classes, methods, labels, units, titles. Texts of our own may hold formulas.

    Example:
        >>> literal("$5 and $10")
        '\\$5 and \\$10'
    """
    return str(text).replace("$", r"\$")


def set_alt(part: Axes | Figure, text: str) -> None:
    """Attach the text equivalent of a drawing to its axes, or to the figure when it spans several."""
    part.explainlib_alt = text


def alt_text(figure: Figure) -> str:
    """Return what the figure shows as plain sentences: its own, then those of its axes; "" where none was set."""
    return " ".join(text for part in (figure, *figure.axes) if (text := getattr(part, "explainlib_alt", "")))


def png(figure: Figure, *, dpi: float | int | None = None) -> bytes:
    """Return the figure as a PNG file; a figure that pyplot manages is closed, a picture needs no closing.

    Args:
        figure: a picture, or any matplotlib figure.
        dpi: pixels an inch; None is the figure's own.

    Returns:
        The bytes of the file.

    Raises:
        ValueError: a dpi that is not above zero.
    """
    data = _rendered(figure, dpi)
    if hasattr(figure, "number"):  # only pyplot numbers its figures
        from matplotlib import pyplot

        pyplot.close(figure)
    return data


def _rendered(figure: Figure, dpi: float | int | None) -> bytes:
    file = BytesIO()
    chosen = figure.dpi if dpi is None else require_positive("dpi", float(dpi))
    with style():  # level 1: three times faster than the default and hardly larger
        figure.savefig(file, format="png", dpi=chosen, pil_kwargs={"compress_level": 1})
    return file.getvalue()
