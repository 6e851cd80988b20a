"""Outlines: letters as filled shapes, read from the fonts that matplotlib brings along.

The outline's own whole numbers are used (no hinting, no font size), so that every machine sees the same shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from fontTools.pens.basePen import BasePen
from fontTools.ttLib import TTFont
from jaxtyping import Bool, Float
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.path import Path as Outline
from matplotlib.transforms import Affine2D
from torch import Tensor

FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono", "STIXGeneral")


def has_letter(font: str, code: int) -> bool:
    """Return whether the font, one of ``FONTS``, can draw the code point."""
    return code in _font(font)[0]


def code_points(font: str) -> list[int]:
    """Return all code points that the font, one of ``FONTS``, can draw, in order."""
    return sorted(_font(font)[0])


def shapes(
    letters: Sequence[tuple[str, int]], side: int, *, fill: float
) -> tuple[Float[Tensor, "k side side"], Float[Tensor, "k 2"]]:
    """Return each letter filled and centred in a square, its longer side ``fill`` of the square's.

    Args:
        letters: k pairs of a font, one of ``FONTS``, and a code point that it has.
        side: of the square, in pixels.
        fill: above 0 and at most 1; the shape of the letter is kept.

    Returns:
        (how much of each pixel is ink, 0 to 1; width and height of the letters, 1 is the longer of the two).

    Raises:
        KeyError: a font lacks a letter.
    """
    columns = 32
    rows = -(-len(letters) // columns)
    sheet = RendererAgg(columns * side, rows * side, 72)
    ink = sheet.new_gc()
    ink.set_linewidth(0)
    sizes = np.empty((len(letters), 2))
    for k, (font, code) in enumerate(letters):
        path, low, high = _outline(font, code)
        sizes[k] = (high - low) / (high - low).max()
        row, column = divmod(k, columns)
        place = Affine2D().translate(*-(low + high) / 2).scale(fill * side / (high - low).max())
        place.translate((column + 0.5) * side, (rows - row - 0.5) * side)
        sheet.draw_path(ink, path, place, (0.0, 0.0, 0.0, 1.0))
    alpha = np.asarray(sheet.buffer_rgba())[..., 3].reshape(rows, side, columns, side)
    cells = alpha.transpose(0, 2, 1, 3).reshape(-1, side, side)[: len(letters)]
    return torch.from_numpy(cells / 255.0), torch.from_numpy(sizes)


def signed_distance(inside: Bool[Tensor, "k h w"], reach: int) -> Float[Tensor, "k h w"]:
    """Return how deep each pixel lies in the ink, in pixels: positive inside, negative outside, at most ``reach``.

    Args:
        inside: which pixels are ink.
        reach: distances beyond it are cut off, from 1 to 11 (their squares are kept in bytes).
    """
    return _distance_to(~inside, reach) - _distance_to(inside, reach)


def _distance_to(target: Bool[Tensor, "k h w"], reach: int) -> Float[Tensor, "k h w"]:
    """Return the Euclidean distance to the nearest target pixel: columns first, then rows, in squares."""
    squares = torch.where(target, 0, reach**2).to(torch.uint8)
    for axis in (1, 2):
        source, squares, size = squares, squares.clone(), squares.shape[axis]
        for step in range(1, reach):
            for here, there in ((0, step), (step, 0)):
                slot = squares.narrow(axis, here, size - step)
                torch.minimum(slot, source.narrow(axis, there, size - step) + step**2, out=slot)
    return squares.float().sqrt()


def _outline(font: str, code: int) -> tuple:
    """Return a letter's matplotlib path with the lower left and the upper right corner of its box."""
    names, glyphs = _font(font)
    pen = _PathPen(glyphs)
    glyphs[names[code]].draw(pen)
    path = Outline(np.array(pen.points, float), pen.codes)
    return path, path.vertices.min(0), path.vertices.max(0)


class _PathPen(BasePen):
    """Writes an outline down as matplotlib's points and codes; BasePen takes composites and chained curves apart."""

    def __init__(self, glyphs: object) -> None:
        super().__init__(glyphs)
        self.points: list[tuple] = []
        self.codes: list[np.integer] = []

    def _record(self, code: np.integer, *points: tuple) -> None:
        self.points.extend(points)
        self.codes.extend([code] * len(points))

    def _moveTo(self, point: tuple) -> None:
        self._record(Outline.MOVETO, point)

    def _lineTo(self, point: tuple) -> None:
        self._record(Outline.LINETO, point)

    def _qCurveToOne(self, control: tuple, end: tuple) -> None:
        self._record(Outline.CURVE3, control, end)

    def _closePath(self) -> None:
        self._record(Outline.CLOSEPOLY, self.points[-1])  # matplotlib closes to the start, whatever stands here


@lru_cache(maxsize=len(FONTS))  # opening a font takes longer than drawing a hundred letters
def _font(font: str) -> tuple:
    """Return (glyph name of each code point, glyphs) of one font."""
    opened = TTFont(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{font}.ttf"), lazy=True)
    return opened.getBestCmap(), opened.getGlyphSet()
