"""Ranks that tell whether a score knows its own: self-rank, and the proper order of two kinds of training tasks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import binomtest
from torch import Tensor

from explainlib.checks import require_shape, require_table


def self_rank(scores: Float[Tensor, "t n"], own: Int[Tensor, " t"] | None = None) -> Int[Tensor, " t"]:
    """Return how many training items are more helpful to each test than its own; 0 is best.

    Args:
        scores: influence [test, training item], negative is helpful (``TaskInfluence.performance``).
        own: the training item that each test is a copy of; None takes the diagonal (test i is item i).

    Returns:
        Ranks, 0 to n - 1. Ties count for the own item.

    Raises:
        ValueError: an own item outside the table, or no diagonal to take.

    Source: TLXML, section 5.1 (Property 1).

    Example:
        >>> self_rank(torch.tensor([[-3.0, -1.0], [-3.0, -1.0]])).tolist()
        [0, 1]
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
    mine = scores.gather(1, own[:, None])
    return (scores < mine).sum(1)


@dataclass(frozen=True)
class ProperOrder:
    """In how many tests the regular training tasks are more helpful on average than the others.

    Attributes:
        count: tests in proper order.
        tests: all of them.
        p_value: two-sided binomial against one half.
        distance: (count - tests/2) in units of sqrt(tests)/2, the standard deviation under chance.
    """

    count: int
    tests: int
    p_value: float
    distance: float


def proper_order(scores: Float[Tensor, "t n"], regular: Bool[Tensor, " n"], *, by: str = "mean") -> ProperOrder:
    """Return how often regular tasks score better (lower influence) than the others, and how likely that is by chance.

    Args:
        scores: influence [test, training item], negative is helpful.
        regular: which items are regular; both kinds have to be there.
        by: "mean" or "median" over the items of a kind.

    Raises:
        ValueError: a mask of another length or of one kind only.

    Source: TLXML, section 5.2 (Tables 2, 4).

    Example:
        >>> proper_order(torch.tensor([[-1.0, 0.5], [-2.0, 1.0]]), torch.tensor([True, False])).count
        2
    """
    require_table("scores", scores)
    require_shape("regular", regular, [scores.shape[1]])
    if bool(regular.all()) or not bool(regular.any()):
        raise ValueError("regular marks items of one kind only; mark some, and not all.")
    centre = {"mean": lambda part: part.mean(1), "median": lambda part: part.median(1).values}
    if by not in centre:
        raise ValueError(f"by={by!r} is unknown; pass 'mean' or 'median'.")
    proper = centre[by](scores[:, regular]) < centre[by](scores[:, ~regular])
    count, tests = int(proper.sum()), len(scores)
    chance = binomtest(count, tests).pvalue
    return ProperOrder(count, tests, float(chance), (count - tests / 2) / (tests / 4) ** 0.5)
