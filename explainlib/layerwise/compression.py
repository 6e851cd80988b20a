r"""Shorter gradients with the same inner products: the directions that a layer's examples do not use are left out.

A layer's gradients M_i = sum_p g_ip a_ip^T [o, d] mostly lie in a few directions of the input and of the output. In
orthonormal bases Q [d, r], R [o, s] of those, N_i = R^T M_i Q is d o / (r s) times shorter, and because a projection is
orthogonal

    <M_i, M_j> - <N_i, N_j> = <M_i - R N_i Q^T, M_j - R N_j Q^T>,

the error is of second order in what is left out. That is measured for every example, not assumed: where it exceeds
rounding, nothing is left out. Used in float32 only, whose rounding is coarse enough for it to pay.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.layerwise.positions import forming_is_cheaper, slices

Factors = tuple[Tensor, Tensor]
SAMPLE = 512  # examples that the bases are found from
SKETCHES = 8  # random combinations of a gradient's rows (columns) that stand for it there
SHARES = (0.25, 0.03, 0.003)  # of the rounding unit: the energy left out of the sample by each basis, in turn
OUTSIDE = 0.003  # energy of the sample outside the core, in the input's directions and in the output's
FAR = 5e-5  # energy of the sample that is far outside it, likewise
SMALL = 0.25  # of the numbers of a gradient, in a core that is worth having
ALLOWED = 8  # rounding units: the energy left out of any one gradient
PART = 256  # examples judged at a time
FIXED = 10**9  # multiply-adds in the time of what does not grow with the problem
WORTH = 0.9  # how short the gradients have to become


class Short(NamedTuple):
    """Both sides in shorter bases, whose last directions hold the most energy.

    A float32 sum that starts with its largest number rounds all others to that number's unit; so the largest are last.

    Args:
        left: inputs [n, P, r] and output gradients [n, P, s].
        right: likewise; the very same tensors where the sides are the same.
        core: how many last directions of the input and of the output hold nearly all of the energy, or None.
        near: how many hold all but still less.
        sizes: |M_i|^2 of both sides; empty without a core.
    """

    left: Factors
    right: Factors
    core: tuple[int, int] | None = None
    near: tuple[int, int] | None = None
    sizes: tuple[Tensor, ...] = ()


def compressed(left: Factors, right: Factors, *, core: bool = False) -> Short:
    """Return factors of shorter gradients with the same inner products to float32 rounding, or the factors given.

    Args:
        left: inputs [n, P, d] and output gradients [n, P, o] of one side.
        right: [m, Q, d] and [m, Q, o] of the other; the very same tensors stay the very same.
        core: whether a core is of use; then the bases are, even where the gradients do not become shorter.

    Returns:
        Both sides in the bases, where that saves time and |M_i - R N_i Q^T|^2 <= 8 eps |M_i|^2 for every i. An entry of
        the Gram matrix then changes by at most 8 eps |M_i| |M_j|. Cost: (n P + m Q)(d^2 + o^2).
    """
    if not _pays(left, right):
        return Short(left, right)
    sides = [left] if right[0] is left[0] and right[1] is left[1] else [left, right]
    sizes = [_energy(*side) for side in sides]
    spectra = _spectra(sides, sizes)
    whole, eps = [len(values) for values, _ in spectra], torch.finfo(left[0].dtype).eps
    inner, near = (tuple(_kept(values, share) for values, _ in spectra) for share in (OUTSIDE, FAR))
    found = (inner, near, (sizes[0], sizes[-1])) if core and inner[0] * inner[1] < SMALL * whole[0] * whole[1] else ()
    choices = [[_kept(values, share * eps) for values, _ in spectra] for share in SHARES]
    choices = [kept for kept in choices if kept[0] * kept[1] <= WORTH * whole[0] * whole[1]]
    if not (choices or found):
        return Short(left, right)
    turned = [(a @ spectra[0][1], g @ spectra[1][1]) for a, g in sides]
    for r, s in choices:
        if all(_holds(*side, size, r, s) for side, size in zip(turned, sizes, strict=True)):
            made = [(a[:, :, -r:], g[:, :, -s:]) for a, g in turned]
            return Short(made[0], made[-1], *found)
    return Short(turned[0], turned[-1], *found) if found else Short(left, right)


def _pays(left: Factors, right: Factors) -> bool:
    """Whether the products that may be saved outweigh finding the bases and projecting."""
    (a, g), (a_, _) = left, right
    (n, P, d), (m, Q), o = a.shape, a_.shape[:2], g.shape[2]
    if a.dtype != torch.float32 or not forming_is_cheaper(n, m, P, Q, d, o):
        return False
    pairs, positions = (n * m / 2, n * P) if a is a_ else (n * m, n * P + m * Q)
    return pairs * d * o > 4 * positions * (d * d + o * o) + 100 * (d**3 + o**3) + FIXED


def _energy(a: Float[Tensor, "n P d"], g: Float[Tensor, "n P o"]) -> Float[Tensor, " n"]:
    """Return |M_i|^2 through products of positions."""
    return torch.cat(
        [(a[rows] @ a[rows].mT * (g[rows] @ g[rows].mT)).sum((1, 2)).clamp(min=0) for rows in slices(len(a), PART)]
    )


def _spectra(sides: list[Factors], sizes: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return eigenvalues and eigenvectors, largest last, of sum M^T M [d, d] and of sum M M^T [o, o].

    The sums run over a sample of gradients of length 1, and each M is seen through random combinations of its rows.
    """
    numbers = torch.Generator().manual_seed(0)
    found = []
    for mine, other in ((0, 1), (1, 0)):
        total = 0.0
        for side, size in zip(sides, sizes, strict=True):
            rows = torch.linspace(0, len(size) - 1, min(SAMPLE, len(size)), device=size.device).long()
            rows = rows[size[rows] > 0]
            u, v = side[mine][rows], side[other][rows]
            weights = torch.randn(v.shape[2], SKETCHES, generator=numbers).to(v)
            seen = ((v @ weights).mT @ u / size[rows].sqrt()[:, None, None]).flatten(0, 1).double()
            total = total + seen.T @ seen
        values, vectors = torch.linalg.eigh(total)
        found.append((values.clamp(min=0), vectors.to(sides[0][0])))
    return found


def _kept(values: Float[Tensor, " d"], share: float) -> int:
    """Return how many directions hold all but a share of the energy."""
    return max(1, int((values.cumsum(0) > share * values.sum()).sum()))


def _holds(a: Float[Tensor, "n P d"], g: Float[Tensor, "n P o"], size: Float[Tensor, " n"], r: int, s: int) -> bool:
    """Return whether the last r and s directions leave out little enough of each gradient."""
    allowed = ALLOWED * torch.finfo(a.dtype).eps
    for rows in slices(len(a), PART):
        left_out = _energy(a[rows, :, :-r], g[rows]) + _energy(a[rows], g[rows, :, :-s])
        if (left_out > allowed * size[rows]).any():
            return False
    return True
