r"""Shorter gradients with the same inner products: the directions that a layer's examples do not use are left out.

A layer's gradients M_i = sum_p g_ip a_ip^T [o, d] mostly lie in a few directions of the input and of the output. In
orthonormal bases Q [d, r], R [o, s] of those, N_i = R^T M_i Q is d o / (r s) times shorter, and because a projection is
orthogonal

    <M_i, M_j> - <N_i, N_j> = <M_i - R N_i Q^T, M_j - R N_j Q^T>,

the error is of second order in what is left out. It is bounded for every example, not only for the sample that the
bases come from: where it exceeds rounding, nothing is left out. Used in float32 only, whose rounding is coarse enough
for it to pay.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.layerwise.outer_products.materialised import TILE
from explainlib.layerwise.outer_products.patches import Patches
from explainlib.layerwise.outer_products.positions import materialising_is_cheaper, squared_norms
from explainlib.memory import slices

Factors = tuple[Tensor, Tensor]  # layer inputs [n, P, d] and output gradients [n, P, o]
FactoredGradients = tuple[Tensor | Patches, Tensor]  # the same, with inputs that may not be unfolded yet
SAMPLE = 512  # examples that the bases are computed from
SKETCHES = 8  # random combinations of a gradient's rows (columns) that replace it in the covariance
TRUNCATIONS = (0.25, 0.03, 0.003)  # of the rounding unit: the sample's energy outside each basis, tried in this order
TOLERANCE = 8  # rounding units: the energy of any one gradient outside the bases
CHUNK = 256  # examples checked at a time
OVERHEAD = 10**9  # multiply-adds in the time of what does not grow with the problem
MAX_RATIO = 0.9  # of the compressed size to the full one


def compressed_factors(
    left: FactoredGradients, right: FactoredGradients, *, memory: int = TILE
) -> tuple[Factors, Factors]:
    """Return factors of shorter gradients with the same inner products to float32 rounding, or the factors given.

    Args:
        left: inputs [n, P, d], or ``Patches`` of them, and output gradients [n, P, o] of one side.
        right: [m, Q, d] and [m, Q, o] of the other; the very same tensors stay the very same.
        memory: bytes of temporary numbers of a check.

    Returns:
        Both sides in those directions that hold |M_i - R N_i Q^T|^2 <= 8 eps |M_i|^2 for every i, where those save
        time, the directions of most energy last: a float32 sum that starts with its largest number rounds all others
        to that number's unit. An entry of the Gram matrix then changes by at most 8 eps |M_i| |M_j|.
        Cost: (n P + m Q)(d^2 + o^2).
    """
    if not _saves_time(left, right):
        return _uncompressed(left, right)
    sides = [left] if _same(left, right) else [left, right]
    spectra = _spectra([_normalised_sample(*side, memory) for side in sides])
    eps = torch.finfo(left[1].dtype).eps
    ranks = [[_rank(eigenvalues, share * eps) for eigenvalues, _ in spectra] for share in TRUNCATIONS]
    ranks = [(r, s) for r, s in ranks if r * s <= MAX_RATIO * len(spectra[0][0]) * len(spectra[1][0])]
    if ranks:
        rotated = [(a @ spectra[0][1], g @ spectra[1][1]) for a, g in sides]
        for r, s in ranks:
            if all(_within_tolerance(*side, r, s, memory) for side in rotated):
                truncated = [(a[:, :, -r:], g[:, :, -s:]) for a, g in rotated]
                return truncated[0], truncated[-1]
    return _uncompressed(left, right)


def _uncompressed(left: FactoredGradients, right: FactoredGradients) -> tuple[Factors, Factors]:
    """Return both sides as tensors, one of them where they are the same."""
    first = _unfolded(left)
    return first, first if _same(left, right) else _unfolded(right)


def _same(left: FactoredGradients, right: FactoredGradients) -> bool:
    return right[0] is left[0] and right[1] is left[1]


def _unfolded(side: FactoredGradients) -> Factors:
    return (side[0][:], side[1]) if isinstance(side[0], Patches) else side


def _saves_time(left: FactoredGradients, right: FactoredGradients) -> bool:
    """Return whether the products that may be saved outweigh the bases and the projections."""
    (a, g), (a_, _) = left, right
    (n, P, d), (m, Q), o = a.shape, a_.shape[:2], g.shape[2]
    if a.dtype != torch.float32 or not materialising_is_cheaper(n, m, P, Q, d, o):
        return False
    pairs, positions = (n * m / 2, n * P) if a is a_ else (n * m, n * P + m * Q)
    return pairs * d * o > 4 * positions * (d * d + o * o) + 100 * (d**3 + o**3) + OVERHEAD


def _normalised_sample(a: Tensor | Patches, g: Tensor, memory: int) -> Factors:
    """Return some examples, each scaled to a gradient of length 1; none whose gradient is zero."""
    rows = torch.linspace(0, len(a) - 1, min(SAMPLE, len(a)), device=g.device).long()
    u, v = _scaled(a[rows], g[rows])
    energy = squared_norms(u, v, memory=memory)
    return u[energy > 0] / energy[energy > 0].sqrt()[:, None, None], v[energy > 0]


def _spectra(samples: list[Factors]) -> list[tuple[Tensor, Tensor]]:
    """Return eigenvalues and eigenvectors, largest last, of sum M^T M [d, d] and of sum M M^T [o, o].

    The sums run over the gradients of the samples, and each M is replaced by random combinations of its rows.
    """
    generator = torch.Generator().manual_seed(0)
    spectra = []
    for this, other in ((0, 1), (1, 0)):
        covariance = 0.0
        for sample in samples:
            u, v = sample[this], sample[other]
            weights = torch.randn(v.shape[2], SKETCHES, generator=generator).to(v)
            sketch = ((v @ weights).mT @ u).flatten(0, 1).double()
            covariance = covariance + sketch.T @ sketch
        eigenvalues, eigenvectors = torch.linalg.eigh(covariance)
        spectra.append((eigenvalues.clamp(min=0), eigenvectors.to(samples[0][0])))
    return spectra


def _rank(eigenvalues: Float[Tensor, " d"], share: float) -> int:
    """Return how many directions hold all but a share of the energy."""
    return max(1, int((eigenvalues.cumsum(0) > share * eigenvalues.sum()).sum()))


def _within_tolerance(a: Float[Tensor, "n P d"], g: Float[Tensor, "n P o"], r: int, s: int, memory: int) -> bool:
    """Return whether the last r and s directions leave out little enough of each gradient."""
    tolerance = TOLERANCE * torch.finfo(a.dtype).eps
    for rows in slices(len(a), CHUNK):
        u, v = _scaled(a[rows], g[rows])
        outside = squared_norms(u[:, :, :-r], v, memory=memory) + squared_norms(u, v[:, :, :-s], memory=memory)
        if not (outside <= tolerance * squared_norms(u, v, memory=memory)).all():  # NaN is not within it
            return False
    return True


def _scaled(a: Float[Tensor, "n P d"], g: Float[Tensor, "n P o"]) -> Factors:
    """Return both factors of each example over their largest numbers, so that their squares stay within the dtype."""
    smallest = torch.finfo(a.dtype).tiny
    a_scale, g_scale = (x.abs().amax((1, 2), keepdim=True).clamp(min=smallest) for x in (a, g))
    return a / a_scale, g / g_scale
