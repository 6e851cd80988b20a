"""Pairwise swaps: exchange a member of a group and a non-member as long as the second-order influence rises.

    q(w + e_j - e_i) - q(w) = (g_j + c2 B_jj) - (g_i - c2 B_ii) - c2 (B_ij + B_ji),     g = dq/dw

The first bracket depends on the example that enters, the second on the one that leaves, only the last term on the pair.
So sorting both brackets gives many candidate swaps at once; the full table is needed only to prove optimality.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from explainlib.influence.groups.quadratic import GroupQuadratic

TABLE = 2**23  # pairs of one batch
Pairs = tuple[Tensor, Tensor, Tensor]  # leaving [r], entering [r], gain of each swap alone [r]


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
        self.curvature_rows, self.solved_rows = quadratic.factors()  # A, S
        self.own = self.c2 * (self.curvature_rows * self.solved_rows).sum(1)  # c2 B_ii
        self.norms = self.curvature_rows.norm(dim=1), self.solved_rows.norm(dim=1)

    def gradient(self, w: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Return dq/dw."""
        both = self.curvature_rows @ (self.solved_rows.T @ w) + self.solved_rows @ (self.curvature_rows.T @ w)
        return self.c1 * self.a + self.c2 * both

    def value(self, w: Float[Tensor, " n"]) -> float:
        """Return q(w)."""
        return float(self.c1 * (w @ self.a) + self.c2 * (self.curvature_rows.T @ w) @ (self.solved_rows.T @ w))

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
        """Return the weights after as many pairs as together raise q, halving their number; None if none do."""
        leaving, entering, _ = pairs
        count = len(leaving)
        while count:
            candidate = w.clone()
            candidate[leaving[:count]], candidate[entering[:count]] = 0, 1
            candidate_value = self.value(candidate)
            if candidate_value > value + slack:
                return candidate, candidate_value
            count //= 2
        return None

    def _brackets(self, w: Float[Tensor, " n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Bool[Tensor, " n"]]:
        """Return the gain of entering, the cost of leaving, and the membership, each [n]."""
        g = self.gradient(w)
        return g + self.own, g - self.own, w > 0.5

    def _pair_terms(self, i: Int[Tensor, " r"], j: Int[Tensor, " r"]) -> Float[Tensor, " r"]:
        a, s = self.curvature_rows, self.solved_rows
        return self.c2 * ((a[i] * s[j]).sum(1) + (a[j] * s[i]).sum(1))

    def _sorted_pairs(self, w: Float[Tensor, " n"], slack: float) -> Pairs:
        """Return pairs by rank: the cheapest to leave with the best to enter, and so on, where the swap gains."""
        enter, leave, member = self._brackets(w)
        most = min(self.k, self.n - self.k)
        i = leave.masked_fill(~member, torch.inf).topk(most, largest=False).indices
        j = enter.masked_fill(member, -torch.inf).topk(most).indices
        gain = enter[j] - leave[i] - self._pair_terms(i, j)
        keep = gain > slack
        return i[keep], j[keep], gain[keep]

    def _best_pairs(self, w: Float[Tensor, " n"], slack: float) -> Pairs:
        """Return disjoint gaining swaps, the best of all pairs first; empty only if no pair gains.

        The pair term of i and j is at most |A_i||S_j| + |A_j||S_i|, so an example that cannot gain against the largest
        norms on the other side is left out of the table; no gaining pair is lost.
        """
        enter, leave, member = self._brackets(w)
        members, others = member.nonzero()[:, 0], (~member).nonzero()[:, 0]
        others = others[enter[others] + self._bound(others, members) > leave[members].min()]
        if len(others):
            members = members[leave[members] - self._bound(members, others) < enter[others].max()]
        if not len(others) or not len(members):
            return members[:0], others[:0], enter[:0]
        found = []
        for i in members.split(max(1, TABLE // len(others))):
            terms = (
                self.curvature_rows[i] @ self.solved_rows[others].T
                + self.solved_rows[i] @ self.curvature_rows[others].T
            )
            found.append((enter[others] - leave[i][:, None] - self.c2 * terms).max(1))
        gain, j = torch.cat([b.values for b in found]), others[torch.cat([b.indices for b in found])]
        return _disjoint(members, j, gain, slack)

    def _bound(self, own: Int[Tensor, " r"], other: Int[Tensor, " m"]) -> Float[Tensor, " r"]:
        """Return an upper bound of each example's pair term with any of the others."""
        a, s = self.norms
        return self.c2 * (s[own] * a[other].max() + a[own] * s[other].max())


def _disjoint(i: Int[Tensor, " r"], j: Int[Tensor, " r"], gain: Float[Tensor, " r"], slack: float) -> Pairs:
    """Return the gaining pairs, best first, each j with its best i only."""
    order = gain.argsort(descending=True, stable=True)
    order = order[gain[order] > slack]
    i, j, gain = i[order], j[order], gain[order]
    entering, position = j.unique(return_inverse=True)
    first = torch.full((len(entering),), len(j), device=j.device).scatter_reduce(
        0, position, torch.arange(len(j), device=j.device), "amin"
    )
    keep = first.sort().values
    return i[keep], j[keep], gain[keep]
