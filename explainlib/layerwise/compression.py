r"""Shorter gradients with the same inner products: the directions that a layer's examples do not use are left out.

A layer's gradients M_i = sum_p g_ip a_ip^T [o, d] mostly lie in a few directions of the input and of the output. In
orthonormal bases Q [d, r], R [o, s] of those, N_i = R^T M_i Q is d o / (r s) times shorter, and because a projection is
orthogonal

    <M_i, M_j> - <N_i, N_j> = <M_i - R N_i Q^T, M_j - R N_j Q^T>,

the error is of second order in what is left out. That is measured for every example, not assumed: where it exceeds
rounding, nothing is left out. Used in float32 only, whose rounding is coarse enough for it to pay.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.layerwise.patches import Patches
from explainlib.layerwise.positions import forming_is_cheaper, slices

Factors = tuple[Tensor, Tensor]
Side = tuple[Tensor | Patches, Tensor]
SAMPLE = 512  # examples that the bases are found from
SKETCHES = 8  # random combinations of a gradient's rows (columns) that stand for it there
SHARES = (0.25, 0.03, 0.003)  # of the rounding unit: the energy left out of the sample by each basis, in turn
ALLOWED = 8  # rounding units: the energy left out of any one gradient
PART = 256  # examples judged at a time
FIXED = 10**9  # multiply-adds in the time of what does not grow with the problem
WORTH = 0.9  # how short the gradients have to become


def compressed(left: Side, right: Side) -> tuple[Factors, Factors]:
    """Return factors of shorter gradients with the same inner products to float32 rounding, or the factors given.

    Args:
        left: inputs [n, P, d], or ``Patches`` of them, and output gradients [n, P, o] of one side.
        right: [m, Q, d] and [m, Q, o] of the other; the very same tensors stay the very same.

    Returns:
        Both sides in those directions that hold |M_i - R N_i Q^T|^2 <= 8 eps |M_i|^2 for every i, where those save
        time, the directions of most energy last: a float32 sum that starts with its largest number rounds all others
        to that number's unit. An entry of the Gram matrix then changes by at most 8 eps |M_i| |M_j|.
        Cost: (n P + m Q)(d^2 + o^2).
    """
    if not _pays(left, right):
        return _as_they_are(left, right)
    sides = [left] if _same(left, right) else [left, right]
    spectra = _spectra([_sample(*side) for side in sides])
    eps = torch.finfo(left[1].dtype).eps
    choices = [[_kept(values, share * eps) for values, _ in spectra] for share in SHARES]
    choices = [(r, s) for r, s in choices if r * s <= WORTH * len(spectra[0][0]) * len(spectra[1][0])]
    if choices:
        turned = _turned(sides, spectra)
        for r, s in choices:
            if all(_holds(*side, r, s) for side in turned):
                made = [(a[:, :, -r:], g[:, :, -s:]) for a, g in turned]
                return made[0], made[-1]
    return _as_they_are(left, right)


def _as_they_are(left: Side, right: Side) -> tuple[Factors, Factors]:
    """Return both sides as tensors, one of them where they are the same."""
    first = _unfolded(left)
    return first, first if _same(left, right) else _unfolded(right)


def _same(left: Side, right: Side) -> bool:
    return right[0] is left[0] and right[1] is left[1]


def _unfolded(side: Side) -> Factors:
    return (side[0][:], side[1]) if isinstance(side[0], Patches) else side


def _turned(sides: list[Side], spectra: list[tuple[Tensor, Tensor]]) -> list[Factors]:
    """Return the sides in the bases."""
    return [(a @ spectra[0][1], g @ spectra[1][1]) for a, g in sides]


def _pays(left: Side, right: Side) -> bool:
    """Whether the products that may be saved outweigh finding the bases and projecting."""
    (a, g), (a_, _) = left, right
    (n, P, d), (m, Q), o = a.shape, a_.shape[:2], g.shape[2]
    if a.dtype != torch.float32 or not forming_is_cheaper(n, m, P, Q, d, o):
        return False
    pairs, positions = (n * m / 2, n * P) if a is a_ else (n * m, n * P + m * Q)
    return pairs * d * o > 4 * positions * (d * d + o * o) + 100 * (d**3 + o**3) + FIXED


def energy(a: Float[Tensor, "n P d"], g: Float[Tensor, "n P o"]) -> Float[Tensor, " n"]:
    """Return |M_i|^2 through products of positions."""
    return torch.cat(
        [(a[rows] @ a[rows].mT * (g[rows] @ g[rows].mT)).sum((1, 2)).clamp(min=0) for rows in slices(len(a), PART)]
    )


def _sample(a: Tensor | Patches, g: Tensor) -> Factors:
    """Return some examples, each scaled to a gradient of length 1; none whose gradient is zero."""
    rows = torch.linspace(0, len(a) - 1, min(SAMPLE, len(a)), device=g.device).long()
    u, v = _scaled(a[rows], g[rows])
    size = energy(u, v)
    return u[size > 0] / size[size > 0].sqrt()[:, None, None], v[size > 0]


def _spectra(sample: list[Factors]) -> list[tuple[Tensor, Tensor]]:
    """Return eigenvalues and eigenvectors, largest last, of sum M^T M [d, d] and of sum M M^T [o, o].

    The sums run over the gradients of a sample, and each M is seen through random combinations of its rows.
    """
    numbers = torch.Generator().manual_seed(0)
    found = []
    for mine, other in ((0, 1), (1, 0)):
        total = 0.0
        for side in sample:
            u, v = side[mine], side[other]
            weights = torch.randn(v.shape[2], SKETCHES, generator=numbers).to(v)
            seen = ((v @ weights).mT @ u).flatten(0, 1).double()
            total = total + seen.T @ seen
        values, vectors = torch.linalg.eigh(total)
        found.append((values.clamp(min=0), vectors.to(sample[0][0])))
    return found


def _kept(values: Float[Tensor, " d"], share: float) -> int:
    """Return how many directions hold all but a share of the energy."""
    return max(1, int((values.cumsum(0) > share * values.sum()).sum()))


def _holds(a: Float[Tensor, "n P d"], g: Float[Tensor, "n P o"], r: int, s: int) -> bool:
    """Return whether the last r and s directions leave out little enough of each gradient."""
    allowed = ALLOWED * torch.finfo(a.dtype).eps
    for rows in slices(len(a), PART):
        u, v = _scaled(a[rows], g[rows])
        left_out = energy(u[:, :, :-r], v) + energy(u, v[:, :, :-s])
        if not (left_out <= allowed * energy(u, v)).all():  # NaN does not hold
            return False
    return True


def _scaled(a: Float[Tensor, "n P d"], g: Float[Tensor, "n P o"]) -> Factors:
    """Return both factors of each example over their largest numbers, so that their squares stay within the dtype."""
    least = torch.finfo(a.dtype).tiny
    return a / a.abs().amax((1, 2), keepdim=True).clamp(min=least), g / g.abs().amax((1, 2), keepdim=True).clamp(min=least)
