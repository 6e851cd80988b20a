"""Verdicts: a claim and its evidence in, a verdict with effect, interval, clusters, controls and reason out.

A claim with several comparisons asks for all of them. "Held" needs every 95% interval inside its rule's bounds: each
test is passed at its full level, and no correction is due (an intersection-union test, Berger 1982). "Not held" needs
one of them outside, and one of many is outside by chance: there Holm's step-down correction applies. What is in
between, wide, undefined, or of one cluster, is undecided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite

import numpy as np
import pandas

from explainlib.studies.claims.claim import HELD, LEVEL, NOT_HELD, UNDECIDED, Claim, Rule
from explainlib.studies.claims.comparison import Comparison, Evidence
from explainlib.studies.claims.intervals import Numbers

COLUMNS = (
    "id",
    "place",
    "printed",
    "quantity",
    "ours",
    "effect",
    "low",
    "high",
    "clusters",
    "interval",
    "controls",
    "rule",
    "verdict",
    "reason",
)


@dataclass(frozen=True)
class Judgement:
    """A verdict with all that it rests on.

    Attributes:
        claim: that was judged.
        evidence: by which.
        verdict: one of ``VERDICTS``.
        reason: in a sentence.
        decisive: the comparison that the verdict rests on most, None without any.
    """

    claim: Claim
    evidence: Evidence
    verdict: str
    reason: str
    decisive: Comparison | None

    def row(self) -> dict[str, object]:
        """Return the row of a table, by the names in ``COLUMNS``."""
        claim, one = self.claim, self.decisive
        effect, low, high = (np.nan,) * 3 if one is None else one.interval(claim.rules[one.rule])
        if one is not None and np.isinf(one.interval(Rule())[1:]).all():
            low = high = np.nan  # no interval
        seen = "; ".join(_said(claim, each) for each in self.evidence.comparisons) or "nothing to look at"
        if self.evidence.notes:
            seen = f"{seen}. {self.evidence.notes}"
        row = {"id": claim.id, "place": claim.place, "printed": claim.printed, "quantity": claim.quantity, "ours": seen}
        row |= {"effect": effect, "low": low, "high": high, "clusters": 0 if one is None else one.clusters}
        row |= {"interval": "none" if one is None else one.method, "controls": self.evidence.controls}
        return row | {"rule": claim.rule_text, "verdict": self.verdict, "reason": self.reason}


def satisfied(rule: Rule, low: Numbers, high: Numbers) -> np.ndarray | np.bool_ | bool:
    """Return whether the interval lies inside the rule's bounds.

    Args:
        rule: of the quantity.
        low: lower ends.
        high: upper ends.
    """
    least, most = rule.bounds
    return (low > least) & ((high < most) | (most == np.inf))


def contradicted(rule: Rule, low: Numbers, high: Numbers) -> np.ndarray | np.bool_ | bool:
    """Return whether the interval lies outside the rule's bounds.

    Args:
        rule: of the quantity.
        low: lower ends.
        high: upper ends.
    """
    least, most = rule.bounds
    return (high < least) | (low > most)


def holm(count: int, rejected_at: Callable[[int, float], bool], level: float = LEVEL) -> list[int]:
    """Return which of several hypotheses Holm's step-down procedure rejects.

    Args:
        count: of hypotheses.
        rejected_at: whether hypothesis i is rejected at a level of its own.
        level: of all together.
    """
    found: list[int] = []
    while len(found) < count:
        left = [i for i in range(count) if i not in found]
        new = [i for i in left if rejected_at(i, level / len(left))]
        if not new:
            break
        found += new
    return sorted(found)


def judge(claim: Claim, evidence: Evidence) -> Judgement:
    """Return the judgement on a claim.

    Args:
        claim: with its rules.
        evidence: from the tables.
    """
    found = _judged(claim, evidence)
    if not evidence.caveat or evidence.withheld is not None:
        return found
    return replace(found, reason=f"{found.reason}; {evidence.caveat}")


def _judged(claim: Claim, evidence: Evidence) -> Judgement:
    comparisons = evidence.comparisons
    decisive = _least_favourable(claim, comparisons)
    if evidence.withheld is not None:
        return Judgement(claim, evidence, *evidence.withheld, decisive)
    if not comparisons:
        return Judgement(claim, evidence, UNDECIDED, "no number in the tables", None)

    def outside(i: int, level: float) -> bool:
        rule = claim.rules[comparisons[i].rule]
        effect, low, high = comparisons[i].interval(rule, 1 - level)
        return isfinite(effect) and bool(contradicted(rule, low, high))

    against = holm(len(comparisons), outside)
    if against:
        first = _least_favourable(claim, [comparisons[i] for i in against])
        return Judgement(claim, evidence, NOT_HELD, _names("contradicted", comparisons, against), first)
    open_ = [i for i, one in enumerate(comparisons) if not _supports(claim, one)]
    if open_:
        first = _least_favourable(claim, [comparisons[i] for i in open_])
        return Judgement(claim, evidence, UNDECIDED, _why_open(claim, comparisons, open_), first)
    reason = "the whole interval is inside the rule" if len(comparisons) == 1 else "every interval is inside its rule"
    return Judgement(claim, evidence, HELD, reason, decisive)


def claims_table(judgements: Sequence[Judgement]) -> pandas.DataFrame:
    """Return the rows of several judgements as one table."""
    return pandas.DataFrame([each.row() for each in judgements], columns=list(COLUMNS))


def judged(claims: Sequence[Claim], evidence: Mapping[str, Evidence]) -> pandas.DataFrame:
    """Return the table of the claims in their order.

    Args:
        claims: of one paper.
        evidence: by the claim's id, one for each.
    """
    return claims_table([judge(claim, evidence[claim.id]) for claim in claims])


def _supports(claim: Claim, one: Comparison) -> bool:
    rule = claim.rules[one.rule]
    effect, low, high = one.interval(rule)
    return isfinite(effect) and bool(satisfied(rule, low, high))


def _least_favourable(claim: Claim, comparisons: Sequence[Comparison]) -> Comparison | None:
    """Return the comparison whose effect is nearest to, or farthest beyond, a bound, in half widths of its interval."""
    if not comparisons:
        return None

    def slack(one: Comparison) -> float:
        rule = claim.rules[one.rule]
        effect, low, high = one.interval(rule)
        if not isfinite(effect) or not isfinite(high - low):
            return -np.inf if not isfinite(effect) else 0.0
        least, most = rule.bounds
        return min(effect - least, most - effect) / max((high - low) / 2, 1e-12)

    return min(comparisons, key=slack)


def _said(claim: Claim, one: Comparison) -> str:
    """Return a comparison with its interval in words."""
    rule = claim.rules[one.rule]
    if not one.clusters:
        return f"{one.name} (no number)"
    effect, low, high = one.interval(rule)
    if one.undefined:
        return f"{one.name}: {one.undefined} of {max(one.clusters, one.undefined)} undefined"
    if one.clusters < 2:
        return f"{one.name}: {effect:.3g} (one cluster)"
    return f"{one.name}: {effect:.3g} [{low:.3g}, {high:.3g}] (n {one.clusters})"


def _names(word: str, comparisons: Sequence[Comparison], chosen: Sequence[int]) -> str:
    if len(comparisons) == 1:
        return f"{word}: the whole interval is outside the rule"
    names = _listed([comparisons[i].name for i in chosen])
    return f"{word} by {len(chosen)} of {len(comparisons)}, corrected after Holm: {names}"


def _listed(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    return "; ".join(names) if len(names) <= 3 else f"{'; '.join(names[:2])}; and {len(names) - 2} more"


def _why_open(claim: Claim, comparisons: Sequence[Comparison], chosen: Sequence[int]) -> str:
    """Return why some comparisons decide nothing."""
    causes: dict[str, list[str]] = {}
    for i in chosen:
        one = comparisons[i]
        if one.undefined:
            cause = "undefined values"
        elif one.clusters < 2:
            cause = "one cluster and no interval" if one.clusters else "no number"
        elif np.isinf(one.interval(Rule())[1:]).all():
            cause = "no spread between the clusters and no interval"
        else:
            cause = "the interval reaches over a bound"
        causes.setdefault(cause, []).append(one.name)
    if len(comparisons) == 1:
        return next(iter(causes))
    many = len(comparisons)
    return ", and ".join(f"in {len(n)} of {many} comparisons {cause}: {_listed(n)}" for cause, n in causes.items())
