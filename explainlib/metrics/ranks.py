"""Self-rank of identical tasks, and proper order of two kinds of training tasks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import binomtest
from torch import Tensor

from explainlib.checks import require_shape, require_table
from explainlib.metrics.ties import ROUNDING, average_ranks

CENTRES = {"mean": lambda part: part.mean(1), "median": lambda part: part.quantile(0.5, dim=1)}


def self_rank(scores: Float[Tensor, "t n"], own: Int[Tensor, " t"] | None = None) -> Float[Tensor, " t"]:
    """Return how many training items are more helpful to each test than its own; 0 is best.

    Args:
        scores: influence [test, training item], negative is helpful (``TaskInfluence.performance``).
        own: the training item that each test is a copy of; None takes the diagonal (test i is item i).

    Returns:
        Ranks, 0 to n - 1 (float64). Of those that score as the own item does, up to rounding, one half counts as more
        helpful, so that scores which are all equal give the middle, (n - 1)/2, and not the best.

    Raises:
        ValueError: an own item outside the table, or no diagonal to take.

    Source: TLXML, section 5.1 (Property 1), which does not mention ties.

    Example:
        >>> self_rank(torch.tensor([[-3.0, -1.0, 0.0], [2.0, 2.0, 2.0]]), torch.tensor([1, 1])).tolist()
        [1.0, 1.0]
    """
    require_table("scores", scores)
    t, n = scores.shape
    if own is None:
        if t > n:
            raise ValueError(f"scores has {t} tests and {n} items, so not every test has its own; pass own=.")
        own = torch.arange(t, device=scores.device)
    require_shape("own", own, [t])
    if own.numel() and (int(own.min()) < 0 or int(own.max()) >= n):
        raise ValueError(f"own holds {int(own.max())}, expected items 0 to {n - 1}.")
    return average_ranks(scores).gather(1, own.to(scores.device)[:, None])[:, 0] - 1


@dataclass(frozen=True)
class ProperOrder:
    """In how many tests the regular training tasks are more helpful on average than the others.

    Attributes:
        count: tests in proper order.
        tests: all of them.
        p_value: two-sided binomial of the count against one half, over the tests without a tie.
        distance: (count - u/2) in units of sqrt(u)/2, the standard deviation under chance, over the u tests without a
            tie; 0 if there is none.
        ties: tests whose two centres are equal up to rounding; they count for neither side.
    """

    count: int
    tests: int
    p_value: float
    distance: float
    ties: int = 0


def proper_order(scores: Float[Tensor, "t n"], regular: Bool[Tensor, " n"], *, by: str = "mean") -> ProperOrder:
    """Return how often regular tasks score better (lower influence) than the others, and how likely that is by chance.

    Args:
        scores: influence [test, training item], negative is helpful.
        regular: which items are regular; both kinds have to be there.
        by: "mean" or "median" over the items of a kind; of an even number, the median is the mean of the middle two.

    Raises:
        ValueError: a mask of another length or of one kind only.

    Source: TLXML, section 5.2 (Tables 2, 4), which does not mention ties.

    Example:
        >>> proper_order(torch.tensor([[-1.0, 0.5], [-2.0, 1.0]]), torch.tensor([True, False])).count
        2
    """
    require_table("scores", scores)
    require_shape("regular", regular, [scores.shape[1]])
    if bool(regular.all()) or not bool(regular.any()):
        raise ValueError("regular marks items of one kind only; mark some, and not all.")
    if by not in CENTRES:
        raise ValueError(f"by={by!r} is unknown; pass 'mean' or 'median'.")
    inner, outer = (CENTRES[by](scores[:, kind].double()) for kind in (regular, ~regular))
    slack = ROUNDING * torch.finfo(scores.dtype).eps * scores.double().abs().amax(1)
    tied = (inner - outer).abs() <= slack
    count, ties = int(((inner < outer) & ~tied).sum()), int(tied.sum())
    decided = len(scores) - ties
    if not decided:
        return ProperOrder(0, len(scores), 1.0, 0.0, ties)
    chance = float(binomtest(count, decided).pvalue)
    return ProperOrder(count, len(scores), chance, (count - decided / 2) / (decided / 4) ** 0.5, ties)
