"""Pairwise swaps: exchange one member of a group for one outsider as long as the second-order influence rises.

    q(w + e_j - e_i) - q(w) = (g_j + c2 B_jj) - (g_i - c2 B_ii) - c2 (B_ij + B_ji),     g = dq/dw

The first bracket belongs to the one that enters, the second to the one that leaves, and only the last term to the pair.
So sorting both brackets gives many swaps to try at once; a full table is needed only to prove that none is left.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from explainlib.influence.groups.quadratic import GroupQuadratic

TABLE = 2**23  # pairs looked at in one batch
Pairs = tuple[Tensor, Tensor, Tensor]  # leaving [r], entering [r], what each swap alone would gain [r]


class Swaps:
    """Ascent of q over groups of k by swaps; holds the factors B = A S^T, 2 n p numbers.

    Args:
        quadratic: of the risk and test.
        k: 0 < k < n.
    """

    def __init__(self, quadratic: GroupQuadratic, k: int) -> None:
        self.k, self.n = k, quadratic.risk.n
        self.c1, self.c2 = quadratic.coefficients(k)
        self.a = quadratic.a
        self.curved, self.solved = quadratic.factors()  # A, S
        self.own = self.c2 * (self.curved * self.solved).sum(1)  # c2 B_ii
        self.norms = self.curved.norm(dim=1), self.solved.norm(dim=1)

    def gradient(self, w: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Return dq/dw."""
        both = self.curved @ (self.solved.T @ w) + self.solved @ (self.curved.T @ w)
        return self.c1 * self.a + self.c2 * both

    def value(self, w: Float[Tensor, " n"]) -> float:
        """Return q(w)."""
        return float(self.c1 * (w @ self.a) + self.c2 * (self.curved.T @ w) @ (self.solved.T @ w))

    def improve(self, group: Int[Tensor, " k"]) -> Int[Tensor, " k"]:
        """Return a group that no single swap improves by more than rounding, reached by swaps that each raise q."""
        w = self.a.new_zeros(self.n)
        w[group] = 1
        value = self.value(w)
        slack = 1e3 * torch.finfo(w.dtype).eps * float((self.c1 * self.a[group]).abs().sum() + abs(value))
        while True:
            for pairs in (self._sorted_pairs, self._best_pairs):
                better = self._apply_pairs(w, value, pairs(w, slack), slack)
                if better is not None:
                    break
            if better is None:
                return w.nonzero()[:, 0]
            w, value = better

    def _apply_pairs(
        self, w: Float[Tensor, " n"], value: float, pairs: Pairs, slack: float
    ) -> tuple[Float[Tensor, " n"], float] | None:
        """Return the weights after as many of the pairs as together raise q, halving their number; None if none do."""
        leaving, entering, _ = pairs
        count = len(leaving)
        while count:
            trial = w.clone()
            trial[leaving[:count]], trial[entering[:count]] = 0, 1
            reached = self.value(trial)
            if reached > value + slack:
                return trial, reached
            count //= 2
        return None

    def _brackets(self, w: Float[Tensor, " n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Bool[Tensor, " n"]]:
        """Return what entering adds, what leaving costs, and who is in."""
        g = self.gradient(w)
        return g + self.own, g - self.own, w > 0.5

    def _pair_terms(self, i: Int[Tensor, " r"], j: Int[Tensor, " r"]) -> Float[Tensor, " r"]:
        a, s = self.curved, self.solved
        return self.c2 * ((a[i] * s[j]).sum(1) + (a[j] * s[i]).sum(1))

    def _sorted_pairs(self, w: Float[Tensor, " n"], slack: float) -> Pairs:
        """Return the cheapest to leave with the best to enter, the second with the second, while the swap gains."""
        enter, leave, member = self._brackets(w)
        most = min(self.k, self.n - self.k)
        i = leave.masked_fill(~member, torch.inf).topk(most, largest=False).indices
        j = enter.masked_fill(member, -torch.inf).topk(most).indices
        gain = enter[j] - leave[i] - self._pair_terms(i, j)
        keep = gain > slack
        return i[keep], j[keep], gain[keep]

    def _best_pairs(self, w: Float[Tensor, " n"], slack: float) -> Pairs:
        """Return disjoint gaining swaps, the best of all pairs first; empty only if no pair gains.

        The pair term of i and j is at most |A_i||S_j| + |A_j||S_i|, so whoever could not gain against the largest
        norms on the other side is left out of the table; nobody who could is.
        """
        enter, leave, member = self._brackets(w)
        inside, outside = member.nonzero()[:, 0], (~member).nonzero()[:, 0]
        outside = outside[enter[outside] + self._bound(outside, inside) > leave[inside].min()]
        if len(outside):
            inside = inside[leave[inside] - self._bound(inside, outside) < enter[outside].max()]
        if not len(outside) or not len(inside):
            return inside[:0], outside[:0], enter[:0]
        best = []
        for i in inside.split(max(1, TABLE // len(outside))):
            terms = self.curved[i] @ self.solved[outside].T + self.solved[i] @ self.curved[outside].T
            best.append((enter[outside] - leave[i][:, None] - self.c2 * terms).max(1))
        gain, j = torch.cat([b.values for b in best]), outside[torch.cat([b.indices for b in best])]
        return _disjoint(inside, j, gain, slack)

    def _bound(self, own: Int[Tensor, " r"], other: Int[Tensor, " m"]) -> Float[Tensor, " r"]:
        """Return what each one's pair term cannot exceed, whichever of the others it is paired with."""
        a, s = self.norms
        return self.c2 * (s[own] * a[other].max() + a[own] * s[other].max())


def _disjoint(i: Int[Tensor, " r"], j: Int[Tensor, " r"], gain: Float[Tensor, " r"], slack: float) -> Pairs:
    """Return the gaining pairs, best first, each j with its best i only."""
    order = gain.argsort(descending=True, stable=True)
    order = order[gain[order] > slack]
    i, j, gain = i[order], j[order], gain[order]
    name, place = j.unique(return_inverse=True)
    first = torch.full((len(name),), len(j), device=j.device).scatter_reduce(
        0, place, torch.arange(len(j), device=j.device), "amin"
    )
    keep = first.sort().values
    return i[keep], j[keep], gain[keep]
