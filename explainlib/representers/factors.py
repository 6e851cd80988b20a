"""The factors of a score table that satisfies the axioms: global importances and kernel, as the proof of Theorem 7.

    phi(x_i -> x_j) = alpha_i K_ij,  K symmetric:     alpha_i / alpha_j = phi(x_i -> x_j) / phi(x_j -> x_i)

The ratios along any path of nonzero scores give all importances, up to one scale for each set of examples that such
paths connect; by the symmetric cycle axiom all paths agree. K = phi / alpha is then symmetric, and positive
semi-definite by irreducibility.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from explainlib.checks import require_positive, require_shape, require_table

SHOWN = 6  # examples of a cycle in a message


class AxiomError(ValueError):
    """A score table that is no product of importance and kernel.

    Attributes:
        axiom: the violated one: "self-explanation", "symmetric zero", "symmetric cycle", "irreducibility", or
            "positive own similarity", which Theorem 7 needs and Definitions 1 to 6 do not demand.
    """

    def __init__(self, axiom: str, found: str) -> None:
        self.axiom = axiom
        super().__init__(
            f"no importances and kernel have this table: {axiom} is violated, because {found}. "
            "representers.axioms.table measures the violations; scores with rounding errors need a larger tolerance."
        )


@dataclass(frozen=True)
class RepresenterFactors:
    """Importances and kernel whose product is a score table.

    Attributes:
        importance: alpha [n], in the unit of the scores.
        kernel: K [n, n], symmetric positive semi-definite, without a unit.
        kernel_test: K(x, x_i) [t, n], or None.
        component: [n]; examples of different components have kernel 0. Each component's importances are known up to a
            positive factor, by which its kernel is divided: here its mean K_ii is 1. -1: without any effect.
    """

    importance: Float[Tensor, " n"]
    kernel: Float[Tensor, "n n"]
    kernel_test: Float[Tensor, "t n"] | None
    component: Int[Tensor, " n"]


def representer_factors(
    scores_train: Float[Tensor, "n n"],
    scores_test: Float[Tensor, "t n"] | None = None,
    *,
    tolerance: float | None = None,
) -> RepresenterFactors:
    """Return alpha and K with phi(x_i -> x) = alpha_i K(x_i, x), if the scores satisfy the axioms.

    An example without any effect has alpha_i = 0. Its kernel with others is what they do to it, and with tests and
    other such examples, which no score determines, that of least norm: K_ij = K_i,a (K_a,a)^+ K_a,j over the others.

    Args:
        scores_train: phi among the training examples, row: explained, column: explaining.
        scores_test: phi for t tests.
        tolerance: relative error of a score; None is the root of the rounding unit.

    Returns:
        The factors. Only the importance has a sign: positive raises the output of what is similar.

    Raises:
        AxiomError: no such factors; it names the axiom, the examples and the size.
        ValueError: tables that do not belong together.

    Source: Tsai et al. 2023, Theorem 7. Two deviations. Theorem 7 has any real alpha, but alpha_i < 0 violates
    Definition 6 with k = 1: here the signs of the own scores are divided out before. And scores of two examples on each
    other with opposite signs, those on themselves with equal ones, as in [[1, 3], [-2, 1]], satisfy every definition
    (all minors are >= 0) and have no kernel: that is an error too.

    Example: the kernel [[1, .5], [.5, 1]] and importances 2 and -4.

        >>> scores = torch.tensor([[2.0, -2.0], [1.0, -4.0]], dtype=torch.float64)
        >>> representer_factors(scores).importance.tolist()
        [2.0, -4.0]
    """
    require_table("scores_train", scores_train)
    n = len(scores_train)
    require_shape("scores_train", scores_train, [n, n], meaning="(training against training)")
    if scores_test is not None:
        require_shape("scores_test", require_table("scores_test", scores_test), [None, n], meaning="(test, training)")
    eps = torch.finfo(scores_train.dtype).eps
    small = eps**0.5 if tolerance is None else require_positive("tolerance", float(tolerance))
    rows = scores_train if scores_test is None else torch.cat([scores_train, scores_test])
    largest = rows.abs().amax(0)  # of each column, so that alpha_i cancels
    alive = largest > eps * largest.max()
    _require_self_explanation(scores_train, alive, largest, small)
    linked = _linked_pairs(scores_train, alive, largest, small)
    importance, component, parents = _importances(scores_train, alive, linked)
    divisor = torch.where(alive, importance, 1.0)
    kernel = torch.where(component[:, None] == component, scores_train / divisor, 0.0)
    _require_one_way_round(kernel, alive, parents, small)
    importance, kernel = _positive_and_scaled(importance, kernel, alive, component)
    explained = torch.where(alive, rows / torch.where(alive, importance, 1.0), 0.0)
    explained[:n] = torch.where(alive[:, None], kernel, explained[:n])
    _require_positive_semidefinite(explained, alive, small)
    completed = _completed(explained, alive)
    return RepresenterFactors(importance, completed[:n], None if scores_test is None else completed[n:], component)


def _require_self_explanation(phi: Tensor, alive: Tensor, largest: Tensor, small: float) -> None:
    """Raise where an example without effect on itself has one elsewhere (Definition 2)."""
    silent = alive & (phi.diagonal().abs() <= small * largest)
    if bool(silent.any()):
        i = int(silent.nonzero()[0])
        raise AxiomError(
            "self-explanation",
            f"example {i} scores {float(phi[i, i]):.1e} on itself and up to {float(largest[i]):.1e} elsewhere",
        )


def _linked_pairs(phi: Tensor, alive: Tensor, largest: Tensor, small: float) -> Bool[Tensor, "n n"]:
    """Return the pairs with scores on each other; raise where only one of the two is zero (Definition 3)."""
    size = phi.abs() / torch.where(alive, largest, 1.0)
    both = alive[:, None] & alive
    one_way = both & (size <= small) & (size.T > 10 * small)
    if bool(one_way.any()):
        j, i = one_way.nonzero()[0].tolist()
        raise AxiomError(
            "symmetric zero", f"example {i} has no effect on {j}, and {j} scores {float(phi[i, j]):.1e} on {i}"
        )
    return both & (size > small) & (size.T > small)


def _importances(
    phi: Tensor, alive: Tensor, linked: Tensor
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"], list[int]]:
    """Return importances along a tree of the strongest links (Prim), each example's component, and its parent."""
    n, own = len(phi), torch.where(alive, phi.diagonal(), 1.0)
    strength = torch.where(linked, (phi * phi.T / (own[:, None] * own)).abs(), 0.0).fill_diagonal_(0.0)
    importance, component = torch.zeros_like(own), torch.full((n,), -1, device=phi.device)
    parents, best, via = [-1] * n, torch.zeros_like(own), torch.full((n,), -1, device=phi.device)
    waiting, count = alive.clone(), -1
    for _ in range(int(alive.sum())):
        reached = torch.where(waiting, best, -1.0)
        i = int(reached.argmax())
        waiting[i] = False
        if float(reached[i]) == 0:  # a new component; its scale is chosen later
            count += 1
            importance[i] = 1.0
        else:
            parents[i] = j = int(via[i])
            importance[i] = importance[j] * phi[j, i] / phi[i, j]
        component[i] = count
        stronger = waiting & (strength[i] > best)
        best, via = torch.where(stronger, strength[i], best), torch.where(stronger, i, via)
    return importance, component, parents


def _require_one_way_round(kernel: Tensor, alive: Tensor, parents: list[int], small: float) -> None:
    """Raise where K_ij and K_ji differ: the cycle of the pair and the tree's path has two products (Definition 4)."""
    own = torch.where(alive, kernel.diagonal().abs(), 1.0).sqrt()
    apart = torch.where(alive[:, None] & alive, (kernel - kernel.T).abs() / (own[:, None] * own), 0.0)
    if not float(apart.max()) > small:
        return
    i, j = divmod(int(apart.argmax()), len(kernel))
    cycle = _tree_path(parents, i, j)
    there, back = kernel[i, j].abs(), kernel[j, i].abs()
    shown = " -> ".join(map(str, cycle[:SHOWN])) + " -> ..." * (len(cycle) > SHOWN)
    raise AxiomError(
        "symmetric cycle",
        f"the products of the two ways round the cycle {shown} -> {i} differ by "
        f"{float((kernel[i, j] - kernel[j, i]).abs() / (there + back)):.1%} of their sum",
    )


def _tree_path(parents: list[int], i: int, j: int) -> list[int]:
    """Return the examples from i to j along the tree."""
    lines = []
    for at in (i, j):
        line = [at]
        while parents[line[-1]] >= 0:
            line.append(parents[line[-1]])
        lines.append(line)
    up, down = lines
    while len(up) > 1 and len(down) > 1 and up[-2] == down[-2]:
        up, down = up[:-1], down[:-1]
    return up + down[:-1][::-1]


def _positive_and_scaled(
    importance: Tensor, kernel: Tensor, alive: Tensor, component: Tensor
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
    """Return the factors with K_ii > 0, its mean 1 in each component."""
    importance, kernel = importance.clone(), (kernel + kernel.T) / 2
    for c in component[alive].unique():
        members = (component == c).nonzero().flatten()
        own = kernel.diagonal()[members]
        if bool((own > 0).any()) and bool((own < 0).any()):
            i, j = int(members[own.argmax()]), int(members[own.argmin()])
            raise AxiomError(
                "positive own similarity",
                f"the signs of the scores that connect examples {i} and {j} give K({i}, {i}) and K({j}, {j}) "
                "opposite signs",
            )
        scale = own.mean()
        importance[members] *= scale
        kernel[members[:, None], members] /= scale
    return importance, kernel


def _require_positive_semidefinite(explained: Float[Tensor, "m n"], alive: Bool[Tensor, " n"], small: float) -> None:
    """Raise where K has a negative eigenvalue, with or without one of the explained inputs (Definition 6)."""
    own = explained[: len(alive)][alive][:, alive]
    if len(own) == 0:
        return
    root, eps = own.diagonal().sqrt(), torch.finfo(own.dtype).eps
    values, vectors = torch.linalg.eigh(own / (root[:, None] * root))
    if float(values[0]) < -small * float(values[-1]):
        raise AxiomError(
            "irreducibility",
            f"with the signs of the importances divided out, the lowest eigenvalue of the normalised kernel is "
            f"{float(values[0] / values[-1]):.1e} of the largest",
        )
    null = vectors[:, values < len(own) * eps * values[-1]]  # Proposition 9: these weights give the zero function
    rows = explained[:, alive] / root
    left = (rows @ null).norm(dim=1) / rows.norm(dim=1).clamp(min=1.0)
    if null.shape[1] and float(left.max()) > 10 * max(small, len(own) * eps**0.5):
        x = int(left.argmax())
        name = f"training example {x}" if x < len(alive) else f"test {x - len(alive)}"
        raise AxiomError(
            "irreducibility",
            f"weights in the null space of the kernel give {float(left[x]):.1e} at {name} instead of 0, so a minor "
            "with that input among the training examples is negative",
        )


def _completed(explained: Float[Tensor, "m n"], alive: Bool[Tensor, " n"]) -> Float[Tensor, "m n"]:
    """Return K(x, x_i) for the explained x, with the columns that no score determines by least norm."""
    if bool(alive.all()):
        return explained
    n = explained.shape[1]
    inside = explained[:n][alive][:, alive]
    between = explained[:n][~alive][:, alive]  # dead, alive
    inverse = torch.linalg.pinv(inside, hermitian=True, rtol=n * torch.finfo(inside.dtype).eps)
    completed = explained.clone()
    completed[:, ~alive] = explained[:, alive] @ inverse @ between.T
    completed[:n][alive.nonzero(), (~alive).nonzero().T] = between.T
    return completed
