"""Verdicts on a paper's claims: a claim is data, its rule belongs to its kind, the interval is over networks.

    larger-than   an effect is above a margin                      held where the whole interval is above it
    count         a count reaches a number in every network        held where it does, not held where it never does
    absent        there is nothing to see here                     premise absent

A claim's values are one number a network (a seed); their interval is Student's t over the networks. An interval that
contains the margin decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.stats import t as student

HELD, NOT_HELD, UNDECIDED = "held", "not held", "undecided"
ABSENT = "premise absent"
KINDS = ("larger-than", "count")


@dataclass(frozen=True)
class Claim:
    """A claim of a paper, fixed before a run.

    Attributes:
        id: such as "T9".
        place: in the paper.
        printed: what the paper says, in our words.
        quantity: what is measured, one number a network.
        kind: "larger-than" or "count".
        margin: that the effect has to be above, or that the count has to reach.
    """

    id: str
    place: str
    printed: str
    quantity: str
    kind: str = "larger-than"
    margin: float = 0.0

    def __post_init__(self) -> None:
        """Check the kind."""
        if self.kind not in KINDS:
            raise ValueError(f"claim {self.id} is of kind {self.kind!r}; choose one of {', '.join(KINDS)}.")


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return (mean, low, high): Student's 95% interval; without a second value it is unbounded.

    Args:
        values: one a network, at least one.
    """
    values = np.asarray(values, dtype=float)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, -np.inf, np.inf
    half = float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / sqrt(len(values)))
    return mean, mean - half, mean + half


def judge(claim: Claim, values: Sequence[float]) -> str:
    """Return the verdict on a claim.

    Args:
        claim: its kind decides the rule.
        values: one a network; none is a premise that is absent.
    """
    if not len(values):
        return ABSENT
    if claim.kind == "count":
        reached = [value >= claim.margin for value in values]
        return HELD if all(reached) else NOT_HELD if not any(reached) else UNDECIDED
    _, low, high = t_interval(values)
    return HELD if low > claim.margin else NOT_HELD if high < claim.margin else UNDECIDED


def claim_row(claim: Claim, values: Sequence[float], context: str) -> dict[str, str]:
    """Return the row of a claim in a table: what was seen, its interval, the controls, and the verdict.

    Args:
        claim: fixed before the run.
        values: one a network.
        context: what stands beside it, controls first.
    """
    if len(values):
        mean, low, high = t_interval(values)
        interval = f"[{low:.2f}, {high:.2f}]" if len(values) > 1 else "one network, no interval"
        seen = f"{claim.quantity}: {mean:.2f} {interval} over {len(values)}, to be above {claim.margin:g}"
        if claim.kind == "count":
            seen = f"{claim.quantity}: {', '.join(f'{v:g}' for v in values)}, to reach {claim.margin:g}"
    else:
        seen = f"{claim.quantity}: nothing to look at"
    row = {"id": claim.id, "place": claim.place, "printed": claim.printed, "ours": f"{seen}. {context}"}
    return row | {"verdict": judge(claim, values)}
