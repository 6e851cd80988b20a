"""Spectrum features: what a small network can read of a drawing, the strengths of its slowest waves.

    F[v, u] = sum_{r, c} image[r, c] exp(-2 pi i (v r / h + u c / w)),   the feature is |F[v, u]|

A shift of the drawing changes only the phase of F, so the features do not see it (but for what leaves the edge). A real
image has |F[-v, -u]| = |F[v, u]|: the centred 6 x 6 block holds 36 numbers of which 24 are distinct.

Ink has to be 1 and paper 0. With white paper F[0, 0], the sum of all pixels, swamps every other wave.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from explainlib.checks import require_count, require_finite, require_same_kind, require_tensor


def spectrum(
    images: Shaped[Tensor, "N ..."],
    *,
    size: int = 6,
    half: bool = False,
    standardise: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "N d"]:
    """Return the magnitudes |F| of size x size slow waves of each image.

    Args:
        images: [N, h, w], or [N, c, h, w] whose channels are averaged first.
        size: the side of the block of frequencies, at most the image's shorter side.
        half: False takes the centred block: after the shift that brings (0, 0) to the middle, frequencies -size//2
            to (size - 1)//2 both ways, row by row. True takes as many distinct ones: of each pair (v, u), (-v, -u)
            the lexicographically larger, ordered by v^2 + u^2, then v, then u; the slowest size * size of them.
        standardise: applied to the features, as ``standardiser`` makes it; None leaves the magnitudes.

    Returns:
        [N, size * size] in the images' dtype.

    Raises:
        ValueError: images without height and width, a size below 1 or beyond the image, or too few distinct
            frequencies for ``half``.

    Source: TLXML, appendix (Omniglot): "2-dimensional FFT and dropping the edges to get the 6x6 images at the center".
    Deviation: the paper says neither magnitude nor ink; both are our reading, as is ``half``, which has no duplicates.

    Example: a single dot holds all waves alike.

        >>> dot = torch.zeros(1, 8, 8)
        >>> dot[0, 2, 5] = 1
        >>> spectrum(dot, size=2)
        tensor([[1., 1., 1., 1.]])
    """
    grey = grey_pictures(images)
    require_count("size", size)
    h, w = grey.shape[1:]
    if size > min(h, w):
        raise ValueError(f"size={size} is larger than the images, {h} x {w}; take a size of at most {min(h, w)}.")
    rows, columns = _half_plane(h, w, size * size) if half else _centred_block(size)
    magnitudes = torch.fft.fft2(grey)[:, rows, columns].abs()
    return magnitudes if standardise is None else standardise(magnitudes)


@dataclass(frozen=True, eq=False)
class Standardiser:
    """What subtracts a training pool's mean and divides by its standard deviation.

    Args:
        mean: [d] of the features it was fitted on.
        spread: [d] their standard deviation; infinite for a constant feature, which therefore becomes 0.
    """

    mean: Float[Tensor, " d"]
    spread: Float[Tensor, " d"]

    def __call__(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return x in standard deviations from the mean, both those of the pool it was fitted on.

        Raises:
            ValueError: another number of features or another device.
            TypeError: another dtype.
        """
        if x.shape[1] != len(self.mean):
            raise ValueError(f"x has {x.shape[1]} features, the pool had {len(self.mean)}; fit and apply the same.")
        require_same_kind("x", x, "the pool", self.mean)
        return (x - self.mean) / self.spread


def standardiser(x: Float[Tensor, "n d"]) -> Standardiser:
    """Return the standardiser fitted on the features of a training pool, to be applied to it and to all others.

    Args:
        x: [n, d] finite, at least two rows.

    Returns:
        A callable [m, d] -> [m, d]. A feature that is constant in the pool (its standard deviation is below the
        rounding of its values) is 0 wherever it is applied.

    Raises:
        ValueError: fewer than two rows, or NaN.
    """
    require_finite("x", x)
    if len(x) < 2:
        raise ValueError(f"x has {len(x)} row, which does not vary; fit on the features of a whole pool.")
    spread = x.std(0, correction=0)
    rounding = 10 * torch.finfo(x.dtype).eps * x.abs().amax(0)
    return Standardiser(x.mean(0), torch.where(spread > rounding, spread, torch.inf))


def grey_pictures(images: Shaped[Tensor, "N ..."]) -> Float[Tensor, "N h w"]:
    """Return the images with their channels averaged.

    Args:
        images: floating point [N, h, w] or [N, c, h, w], finite.

    Raises:
        TypeError: not a tensor, or not floating point.
        ValueError: another shape, or NaN.
    """
    require_tensor("images", images)
    if not images.is_floating_point():
        raise TypeError(f"images has dtype {images.dtype}, expected floating point; pass images.float() / 255.")
    if images.ndim not in (3, 4):
        raise ValueError(
            f"images has shape {list(images.shape)}, expected [N, h, w] or [N, c, h, w]; "
            "flat pixels need their height and width back: images.unflatten(1, (h, w))."
        )
    require_finite("images", images)
    return images if images.ndim == 3 else images.mean(1)


def _centred_block(size: int) -> tuple[list[int], list[int]]:
    """Return the row and column frequencies of the centred block, row by row; negative ones index from the end."""
    span = range(-(size // 2), (size + 1) // 2)
    return [v for v in span for _ in span], [u for _ in span for u in span]


def _half_plane(h: int, w: int, count: int) -> tuple[list[int], list[int]]:
    """Return the ``count`` slowest frequencies, one of each conjugate pair."""

    def opposite(k: int, n: int) -> int:
        return k if 2 * k == -n else -k  # at even n, -n/2 and n/2 are one frequency

    spans = [range(-(n // 2), (n + 1) // 2) for n in (h, w)]
    distinct = {max((v, u), (opposite(v, h), opposite(u, w))) for v in spans[0] for u in spans[1]}
    if count > len(distinct):
        raise ValueError(
            f"half=True asks for {count} distinct frequencies, images of {h} x {w} have {len(distinct)}; "
            "take a smaller size."
        )
    slowest = sorted(distinct, key=lambda f: (f[0] ** 2 + f[1] ** 2, *f))[:count]
    return [v for v, _ in slowest], [u for _, u in slowest]
