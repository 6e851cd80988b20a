"""A claim of a paper as data: what is said, what is measured, and the rule that decides, which belongs to its kind.

direction        an effect is positive                             its interval lies above 0
larger-than      an effect is above a margin                       its interval lies above the margin
largest-of       one is above each of the others                   each difference's interval lies above the margin
close-to         a number is within a margin of a target           its interval lies inside the margin (equivalence)
absent effect    an effect is within a margin of 0                 the same with the target 0
count            a share of all cases (with a margin of 1, all)    its exact interval lies above margin - tolerance
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

HELD, NOT_HELD, UNDECIDED = "held", "not held", "undecided"
ABSENT, NOT_APPLICABLE = "premise absent", "not applicable"
VERDICTS = (HELD, NOT_HELD, UNDECIDED, ABSENT, NOT_APPLICABLE)
KINDS = ("direction", "larger-than", "largest-of", "close-to", "absent effect", "count")
EQUIVALENCE = ("close-to", "absent effect")
LEVEL = 0.05  # of both tails together: intervals are of 95%


@dataclass(frozen=True)
class Rule:
    """How one quantity decides.

    Attributes:
        kind: one of ``KINDS``.
        margin: that the effect has to be above, or to stay within of the target; of a count the share to be reached.
        source: where the margin is from.
        target: of "close-to".
        tolerance: of "count": no sample can show a share of exactly 1, so this much below the margin is enough.
        lowest: the least value that the quantity can have; no interval goes below it.
        highest: the largest.
        printed_effect: what the paper prints, in the unit of the quantity; None where it prints nothing.
    """

    kind: str = "larger-than"
    margin: float = 0.0
    source: str = "the claim's own words"
    target: float = 0.0
    tolerance: float = 0.0
    lowest: float = -inf
    highest: float = inf
    printed_effect: float | None = None

    def __post_init__(self) -> None:
        """Check the kind and that its margin can decide something."""
        if self.kind not in KINDS:
            raise ValueError(f"a rule is of kind {self.kind!r}; choose one of {', '.join(KINDS)}.")
        if self.kind in EQUIVALENCE and not self.margin > 0:
            raise ValueError(f"the kind {self.kind!r} needs a margin above 0, got {self.margin}; pass margin=.")
        if self.kind == "direction" and self.margin:
            raise ValueError(f"a direction has no margin, got {self.margin}; choose 'larger-than'.")
        if self.kind == "count" and not 0 < self.margin - self.tolerance < 1:
            raise ValueError(
                f"a count of {self.margin:g} with a tolerance of {self.tolerance:g} cannot be decided; pass a share "
                "whose margin - tolerance is between 0 and 1."
            )
        low, high = self.bounds
        if self.lowest > low and (self.highest < high or high == inf):
            raise ValueError(
                f"a {self.kind} rule between {low:g} and {high:g} cannot fail for a measure from {self.lowest:g} to "
                f"{self.highest:g}; pass another margin."
            )

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which ends the whole interval has to lie."""
        if self.kind in EQUIVALENCE:
            return self.target - self.margin, self.target + self.margin
        return self.margin - self.tolerance, inf

    @property
    def text(self) -> str:
        """The rule in words, with where its margin is from."""
        low, high = self.bounds
        where = f"inside ({low:g}, {high:g})" if self.kind in EQUIVALENCE else f"above {low:g}"
        return f"{self.kind}: 95% interval {where}; margin from {self.source}"


@dataclass(frozen=True)
class Claim:
    """A claim of a paper, fixed before a run.

    Attributes:
        id: such as "T9".
        place: in the paper.
        printed: what the paper says, in our words.
        quantity: what is measured, one number a cluster (a network, seed or split).
        rules: of the quantities; most claims have one.
    """

    id: str
    place: str
    printed: str
    quantity: str
    rules: tuple[Rule, ...] = (Rule(),)

    def __post_init__(self) -> None:
        """Check that something decides."""
        if not self.rules:
            raise ValueError(f"claim {self.id} has no rule; pass at least one.")

    @property
    def rule_text(self) -> str:
        """All its rules in words."""
        return "; and ".join(rule.text for rule in self.rules)
