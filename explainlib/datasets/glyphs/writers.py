"""Writers: twenty hands, each with a font, a slant and a pen of its own, that draw a letter the same way every time.

A drawing is the letter's outline seen through a smooth map (the hand's proportions, a little variation for this one
drawing, an elastic wobble) and inked with the hand's pen. All that looks random is a function of the writer's number
and the letter's code point.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.datasets.glyphs.outlines import FONTS, has_letter, shapes, signed_distance

WRITERS = 20
SIDE = 28  # of a drawing; lengths below are in its pixels
LENGTH = 20  # of a letter's longer side, before the hand
EDGE = SIDE / 2 - 0.5  # from the centre, where ink ends at the latest
FINE = 2  # outlines have so many pixels for each pixel of a drawing
REACH = 3  # how far from the outline depths are known
THINNER, THICKER = 0.1, 0.6  # most that a pen moves an outline; more would break thin strokes or close small holes
CONTROL = 4  # the wobble is given at CONTROL by CONTROL points
SEED = 20
OTHER_FORMS = {  # letters that a font draws with another skeleton than the first font does
    ("DejaVuSerif", 0x10A0),  # Georgian capital an
    ("DejaVuSerif", 0x10BF),  # Georgian capital jhan
    ("DejaVuSansMono", 0x10DA),  # Georgian las
    ("STIXGeneral", 0x03DD),  # Greek small digamma, there an F
}


def drawings(codes: Sequence[int]) -> Float[Tensor, "k 20 28 28"]:
    """Return every letter drawn by every writer: ink 1 on background 0, in steps of 1/255.

    Args:
        codes: k distinct code points that the first font has. What a drawing looks like does not depend on the others.
    """
    fonts = [[_font(writer, code) for code in codes] for writer in range(WRITERS)]
    letters = sorted({(font, code) for row in fonts for font, code in zip(row, codes, strict=True)})
    ink, sizes = shapes(letters, FINE * SIDE, fill=LENGTH / SIDE)
    inside = ink >= 0.3  # hairlines cover less than half of their pixels
    depth = signed_distance(inside, FINE * REACH) / FINE
    width = 2 * depth.clamp(min=0).sum((1, 2), dtype=torch.float64) / inside.sum((1, 2))  # of half a stroke
    place = {letter: k for k, letter in enumerate(letters)}
    chance = torch.stack([_uniform(code, (WRITERS, 6 + 2 * CONTROL**2)) for code in codes])
    pages = []
    for writer in range(WRITERS):
        hand = 2 * _uniform(writer, (6,)) - 1
        rows = torch.tensor([place[font, code] for font, code in zip(fonts[writer], codes, strict=True)])
        change = 2 * chance[:, writer] - 1
        pages.append(_render(depth[rows].double(), width[rows], sizes[rows] * LENGTH / 2, hand, change))
    return torch.stack(pages, 1)


def _render(
    depth: Float[Tensor, "k fine fine"],
    width: Float[Tensor, " k"],
    half: Float[Tensor, "k 2"],
    hand: Float[Tensor, " 6"],
    change: Float[Tensor, "k c"],
) -> Float[Tensor, "k 28 28"]:
    """Return one writer's drawings.

    Args:
        depth: of each fine pixel in the ink, negative outside.
        width: half of the letters' own stroke width.
        half: half the letters' width and height.
        hand: what is the writer's own, from -1 to 1: slant, turn, proportion, size, pen, wobble.
        change: what is this one drawing's, from -1 to 1.
    """
    pen = (1.1 + 0.4 * hand[4] - width).clamp(-THINNER, THICKER)
    wobble = 1.0 + 0.4 * hand[5]
    room = EDGE - wobble - THICKER
    linear = _linear(hand[:4] + 0.4 * change[:, :4])
    extent = (linear.abs() @ half[:, :, None])[..., 0]  # half of the drawing's width and height
    shrink = (room / extent).amin(1).clamp(max=1)
    linear, extent = linear * shrink[:, None, None], extent * shrink[:, None]
    shift = change[:, 4:6] * (room - extent).clamp(0, 0.5)
    centres = torch.arange(SIDE, dtype=torch.float64) - (SIDE - 1) / 2
    paper = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1)  # x to the right, y down
    seen = paper - shift[:, None, None] - wobble * _elastic(change[:, 6:])
    seen = seen @ torch.linalg.inv(linear).mT[:, None]
    depth = torch.nn.functional.grid_sample(
        depth[:, None], seen / (SIDE / 2), mode="bilinear", padding_mode="border", align_corners=False
    )[:, 0]
    scale = torch.linalg.det(linear).sqrt()
    ink = (0.5 + depth * scale[:, None, None] + pen[:, None, None]).clamp(0, 1)
    return (ink * 255).round() / 255  # float64 up to here, so that the steps are the same on every machine


def _linear(style: Float[Tensor, "k 4"]) -> Float[Tensor, "k 2 2"]:
    """Return the map from letter to drawing, for slant, turn, proportion and size of about -1 to 1."""
    slant, turn = 0.15 * style[:, 0], 0.08 * style[:, 1]
    stretch, size = torch.exp(0.08 * style[:, 2]), 0.95 * torch.exp(0.06 * style[:, 3])
    slanted = torch.stack([size * stretch, -slant, torch.zeros_like(size), size / stretch], 1).unflatten(1, (2, 2))
    turned = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], 1).unflatten(1, (2, 2))
    return turned @ slanted


def _elastic(change: Float[Tensor, "k c"]) -> Float[Tensor, "k 28 28 2"]:
    """Return the smooth field between random displacements, from -1 to 1, of the control points."""
    apart = SIDE / CONTROL
    at = (torch.arange(CONTROL, dtype=torch.float64) + 0.5) * apart
    blend = torch.exp(-(((torch.arange(SIDE) + 0.5)[:, None] - at) ** 2) / (2 * (0.6 * apart) ** 2))
    blend = blend / blend.sum(1, keepdim=True)  # weights that sum to 1: no displacement exceeds the largest
    points = change.unflatten(1, (2, CONTROL, CONTROL))
    return (blend @ points @ blend.T).permute(0, 2, 3, 1)


def _font(writer: int, code: int) -> str:
    """Return the writer's font, or the first font where the writer's lacks this letter or this form of it."""
    own = FONTS[writer % len(FONTS)]
    return own if has_letter(own, code) and (own, code) not in OTHER_FORMS else FONTS[0]


def _uniform(number: int, shape: tuple[int, ...]) -> Float[Tensor, "..."]:
    """Return numbers from 0 to 1 that depend on ``number`` alone.

    Uniform numbers come straight from the generator's bits, by a method that numpy has never changed.
    """
    return torch.from_numpy(np.random.default_rng([SEED, number]).random(shape))
